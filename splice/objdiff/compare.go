// SPDX-License-Identifier: Apache-2.0

package objdiff

import (
	"cmp"
	"debug/elf"
	"fmt"
	"slices"

	"github.com/upsplice/upsplice/splice/object"
)

func compare(pre, post *object.Object, types map[string]Struct) (*Result, error) {
	if pre.Machine != post.Machine {
		return nil, fmt.Errorf("comparing objects: pre is for %v, post for %v", pre.Machine, post.Machine)
	}
	for _, o := range []*object.Object{pre, post} {
		if o.Machine != elf.EM_X86_64 {
			return nil, fmt.Errorf("comparing objects: machine %v is not supported, only x86-64 is", o.Machine)
		}
	}
	if twin := identical(pre, post); twin != nil {
		r := newResult()
		r.Twin = twin
		return r, nil
	}
	return compareParts(pre, post, types)
}

func newResult() *Result {
	return &Result{
		Outcome: Unchanged, Functions: []Change{}, Data: []Change{}, Boot: []Change{},
		Taken: []string{}, Refusals: []Refusal{}, Callbacks: []Callback{}, Ignored: []string{}, Twin: map[*object.Symbol]*object.Symbol{},
	}
}

// identical returns the twins of two objects that are the same in every detail,
// nil if they are not.
func identical(pre, post *object.Object) map[*object.Symbol]*object.Symbol {
	if len(pre.Sections) != len(post.Sections) || len(pre.Symbols) != len(post.Symbols) {
		return nil
	}
	sections := map[*object.Section]*object.Section{nil: nil}
	for i, b := range post.Sections {
		sections[b] = pre.Sections[i]
	}
	twin := map[*object.Symbol]*object.Symbol{}
	for i, b := range post.Symbols {
		a := pre.Symbols[i]
		if a.Name != b.Name || a.Bind != b.Bind || a.Type != b.Type || sections[b.Section] != a.Section ||
			a.Special != b.Special || a.Value != b.Value || a.Size != b.Size {
			return nil
		}
		twin[b] = a
	}
	for i, b := range post.Sections {
		a := pre.Sections[i]
		if a.Name != b.Name || a.Type != b.Type || a.Flags != b.Flags || a.EntSize != b.EntSize || a.Size != b.Size ||
			firstDifference(a.Data, b.Data) >= 0 {
			return nil
		}
		if !slices.EqualFunc(a.Relocs, b.Relocs, func(x, y object.Reloc) bool {
			return x.Offset == y.Offset && x.Type == y.Type && x.Addend == y.Addend && twin[y.Symbol] == x.Symbol
		}) {
			return nil
		}
	}
	return twin
}

func compareParts(pre, post *object.Object, types map[string]Struct) (*Result, error) {
	d := &differ{twin: map[*object.Symbol]*object.Symbol{}, back: map[*object.Symbol]*object.Symbol{}}
	var err error
	if d.pre, err = newSide(pre, types); err != nil {
		return nil, fmt.Errorf("pre: %w", err)
	}
	if d.post, err = newSide(post, types); err != nil {
		return nil, fmt.Errorf("post: %w", err)
	}
	d.correlate()

	r := newResult()
	r.Twin = d.twin
	d.readCustom(r)
	v := d.compareCode()
	d.ignoreCode(r, v)
	d.mergeParts(v)
	d.replaceCallers(r, v)
	d.listCode(r, v)
	d.compareData(r)
	d.compareRest(r)
	d.compareTables(r)
	d.checkBinding(r)
	d.addCallbacks(r, v)
	d.checkIgnored(r)
	d.checkRanges(r)
	r.Taken = d.taken(r)
	r.settle()
	r.fentry = map[*object.Symbol]bool{}
	for _, a := range pre.Symbols {
		if d.pre.fentry[d.pre.canonical(a)] {
			r.fentry[a] = true // of aliases too
		}
	}
	for _, b := range post.Symbols {
		if b.Section == nil && b.Special == elf.SHN_UNDEF && d.twin[b] == nil {
			r.unknown = append(r.unknown, b)
		}
	}
	for _, list := range [][]Change{r.Functions, r.Data} {
		if slices.ContainsFunc(list, func(c Change) bool { return c.Kind != KindChanged }) {
			r.pre, r.post = d.pre, d.post
		}
	}
	return r, nil
}

func byChangeName(a, b Change) int {
	return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Section, b.Section))
}

// settle sorts the lists and draws the outcome from them.
func (r *Result) settle() {
	slices.SortStableFunc(r.Functions, byChangeName)
	slices.SortStableFunc(r.Data, byChangeName)
	slices.SortStableFunc(r.Boot, byChangeName)
	slices.SortStableFunc(r.Refusals, func(a, b Refusal) int {
		return cmp.Or(cmp.Compare(a.Symbol, b.Symbol), cmp.Compare(a.Section, b.Section), cmp.Compare(a.Reason, b.Reason))
	})
	r.Refusals = slices.Compact(r.Refusals)
	slices.Sort(r.Ignored)
	r.Ignored = slices.Compact(r.Ignored)
	switch {
	case slices.ContainsFunc(r.Refusals, Refusal.Blocks):
		r.Outcome = Refused
	case len(r.Functions) > 0:
		r.Outcome = Changed
	case len(r.Refusals) > 0:
		r.Outcome = Refused
	default:
		r.Outcome = Unchanged
	}
}

// verdicts are the functions that differ, by the symbol of post (of pre for
// those that are gone), each with the first difference.
type verdicts struct {
	changed map[*object.Symbol]*Change
}

func (d *differ) compareCode() *verdicts {
	v := &verdicts{changed: map[*object.Symbol]*Change{}}
	for _, b := range d.post.code {
		a := d.codeTwin(b)
		if a == nil {
			v.changed[b] = &Change{Name: b.Name, Kind: KindNew, Post: b, Section: b.Section.Name, Fentry: d.post.fentry[b]}
			continue
		}
		if why := d.codeDifference(a, b); why != "" {
			v.changed[b] = d.change(a, b, why)
		}
	}
	for _, a := range d.pre.code {
		if b := d.back[a]; b == nil || !d.post.isCode(b) || d.codeTwin(d.post.canonical(b)) != a {
			v.changed[a] = &Change{Name: a.Name, Kind: KindRemoved, Pre: a, Section: a.Section.Name, Fentry: d.pre.fentry[a]}
		}
	}
	return v
}

func (d *differ) change(a, b *object.Symbol, why string) *Change {
	return &Change{Name: b.Name, Kind: KindChanged, Pre: a, Post: b, Why: why, Section: b.Section.Name, Fentry: d.pre.fentry[a]}
}

// codeTwin returns the twin of a function of post if it is defined in pre.
func (d *differ) codeTwin(b *object.Symbol) *object.Symbol {
	a := d.twin[b]
	if a == nil || !d.pre.isCode(a) {
		return nil
	}
	return d.pre.canonical(a)
}

func (d *differ) codeDifference(a, b *object.Symbol) string {
	if why := d.difference(d.pre.body(a), d.post.body(b), 0); why != "" {
		return why
	}
	switch x, y := d.pre.prefix[a], d.post.prefix[b]; {
	case (x == nil) != (y == nil):
		return "what stands in front of it differs"
	case x != nil:
		if why := d.difference(d.pre.body(x), d.post.body(y), 0); why != "" {
			return "in front of it: " + why
		}
	}
	if x, y := place(a), place(b); x != y {
		return fmt.Sprintf("moved from section %s to %s", x, y)
	}
	x, y := d.pre.entries[a], d.post.entries[b]
	for i := 0; i < len(x) || i < len(y); i++ {
		switch {
		case i >= len(x) || i < len(y) && before(y[i], x[i]):
			return fmt.Sprintf("new entry of %s at 0x%x", y[i].table, y[i].at)
		case i >= len(y) || before(x[i], y[i]):
			return fmt.Sprintf("no more entry of %s at 0x%x", x[i].table, x[i].at)
		}
		if why := d.entryDifference(x[i], y[i]); why != "" {
			return fmt.Sprintf("entry of %s at 0x%x: %s", y[i].table, y[i].at, why)
		}
	}
	return ""
}

func before(a, b entry) bool {
	return cmp.Or(cmp.Compare(a.table, b.table), cmp.Compare(a.at, b.at)) < 0
}

func (d *differ) entryDifference(a, b entry) string {
	if why := d.difference(a.body, b.body, 0); why != "" {
		return why
	}
	if a.types != b.types {
		return "another kind of relocation"
	}
	if a.code == nil || b.code == nil {
		return "" // both or none: the length is part of the entry
	}
	return d.difference(a.code, b.code, 0)
}

// mergeParts makes a function and what the compiler split off from it differ
// together: a jump into .text.unlikely has no place where ftrace could redirect
// it, and it jumps back into the body that it came from.
func (d *differ) mergeParts(v *verdicts) {
	parents := map[*object.Symbol]*object.Symbol{}
	for _, s := range []*side{d.pre, d.post} {
		names := map[string]*object.Symbol{}
		for _, f := range s.code {
			names[plain(f.Name)] = f
		}
		for _, f := range s.code {
			if p := names[parentName(f.Name)]; p != nil && p != f {
				parents[f] = p
			}
		}
	}
	for again := true; again; {
		again = false
		for _, list := range [][]*object.Symbol{d.post.code, d.pre.code} {
			for _, f := range list {
				p := parents[f]
				if p == nil {
					continue
				}
				if c := v.changed[f]; c != nil {
					c.Parent = p.Name
					if d.back[p] != nil {
						p = d.back[p] // verdicts go by the symbol of post
					}
					if a := d.codeTwin(p); v.changed[p] == nil && a != nil {
						v.changed[p] = d.change(a, p, "its part "+f.Name+" differs")
						again = true
					}
				} else if v.changed[p] != nil && isCold(f.Name) && d.codeTwin(f) != nil {
					v.changed[f] = d.change(d.codeTwin(f), f, "goes with "+p.Name)
					v.changed[f].Parent = p.Name
					again = true
				}
			}
		}
	}
}

// listCode sorts the verdicts into the result.
func (d *differ) listCode(r *Result, v *verdicts) {
	for _, list := range [][]*object.Symbol{d.post.code, d.pre.code} {
		for _, f := range list {
			c := v.changed[f]
			switch {
			case c == nil:
			case isBoot(c.Section):
				r.Boot = append(r.Boot, *c)
				r.Refusals = append(r.Refusals, Refusal{Section: c.Section, Symbol: c.Name, Reason: "init: runs only at boot, on loading or on unloading"})
			default:
				r.Functions = append(r.Functions, *c)
			}
		}
	}
}
