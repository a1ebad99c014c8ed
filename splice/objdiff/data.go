// SPDX-License-Identifier: Apache-2.0

package objdiff

import (
	"debug/elf"
	"fmt"
	"slices"
	"strings"

	"github.com/upsplice/upsplice/splice/object"
)

// clearLines clears the line numbers that the descriptors of messages hold:
// struct _ddebug (include/linux/dynamic_debug.h), 18 bits behind four pointers,
// and struct pi_entry (include/linux/printk.h), an int behind three.
func clearLines(sym *object.Symbol, data []byte) {
	switch {
	case (sym.Section.Name == "__dyndbg" || sym.Section.Name == "__verbose") && len(data) >= 36:
		data[32], data[33] = 0, 0
		data[34] &^= 3
	case stem(sym.Name) == "_entry" && numbered(sym.Name) && len(data) >= 28:
		clear(data[24:28])
	}
}

func (d *differ) compareData(r *Result) {
	for _, b := range d.post.data {
		if isKeeper(b) {
			continue
		}
		if isContent(b) {
			continue // counts for the code that refers to it
		}
		a := d.twin[b]
		if a == nil || a.Section == nil || d.pre.class[a.Section] != classData {
			d.addData(r, Change{Name: b.Name, Kind: KindNew, Post: b, Section: b.Section.Name}, "")
			continue
		}
		a = d.pre.canonical(a)
		why := d.difference(d.pre.body(a), d.post.body(b), 0)
		if (a.Section.Flags^b.Section.Flags)&elf.SHF_WRITE != 0 {
			why = fmt.Sprintf("moved from section %s to %s", a.Section.Name, b.Section.Name)
		}
		if isPercpu(a) != isPercpu(b) {
			why = fmt.Sprintf("moved from section %s to %s: one is per-cpu", a.Section.Name, b.Section.Name)
		}
		if why != "" {
			d.addData(r, Change{Name: b.Name, Kind: KindChanged, Pre: a, Post: b, Why: why, Section: b.Section.Name},
				"existing data changed: "+b.Name)
		}
	}
	gone := map[string]bool{}
	for _, a := range d.pre.data {
		b := d.back[a]
		if isContent(a) || isKeeper(a) || b != nil && b.Section != nil && d.post.class[b.Section] == classData {
			continue
		}
		d.addData(r, Change{Name: a.Name, Kind: KindRemoved, Pre: a, Section: a.Section.Name}, "")
		if numbered(a.Name) {
			gone[stem(a.Name)] = true
		}
	}
	d.checkRenamed(r)
	for _, c := range r.Data {
		// A value lives in the old one; that the new one is another variable is not known.
		if c.Kind == KindNew && numbered(c.Name) && gone[stem(c.Name)] && !isPerSite(c.Name) && c.Post.Section.Flags&elf.SHF_WRITE != 0 {
			r.Refusals = append(r.Refusals, Refusal{Section: c.Section, Symbol: c.Name,
				Reason: "existing data changed: cannot tell which static variable of the old code is " + c.Name})
		}
	}
}

// checkRenamed refuses a new variable that may be one of the old code under another
// name: its value lives in the old one.
func (d *differ) checkRenamed(r *Result) {
	for _, b := range r.Data {
		if b.Kind != KindNew || numbered(b.Name) || b.Post.Section.Flags&elf.SHF_WRITE == 0 {
			continue
		}
		for _, a := range r.Data {
			if a.Kind == KindRemoved && !numbered(a.Name) && a.Pre.Type == b.Post.Type && place(a.Pre) == place(b.Post) &&
				d.difference(d.pre.body(a.Pre), d.post.body(b.Post), 0) == "" {
				r.Refusals = append(r.Refusals, Refusal{Section: b.Section, Symbol: b.Name,
					Reason: "existing data changed: cannot tell whether " + b.Name + " is a new variable or the old " + a.Name})
				break
			}
		}
	}
}

func isPercpu(s *object.Symbol) bool { return strings.HasPrefix(s.Section.Name, ".data..percpu") }

func (d *differ) addData(r *Result, c Change, refuse string) {
	if d.ignoresSection(r, c.Section) {
		return
	}
	if isBoot(c.Section) {
		r.Boot = append(r.Boot, c)
		r.Refusals = append(r.Refusals, Refusal{Section: c.Section, Symbol: c.Name, Reason: "init: used only at boot, on loading or on unloading"})
		return
	}
	r.Data = append(r.Data, c)
	if refuse != "" {
		r.Refusals = append(r.Refusals, Refusal{Section: c.Section, Symbol: c.Name, Reason: refuse})
	}
}

// compareRest compares what has no name: entries about code without a symbol,
// code and data between symbols. Where such a place is referred to, the function
// that does so has been compared with it.
func (d *differ) compareRest(r *Result) {
	for _, name := range sortedKeys(d.pre.stray, d.post.stray) {
		same := slices.EqualFunc(d.pre.stray[name], d.post.stray[name], func(a, b entry) bool {
			d.begin()
			return d.sameTarget(a.place, b.place, 0) && d.entryDifference(a, b) == ""
		})
		if !same && !d.ignoresSection(r, name) {
			r.Refusals = append(r.Refusals, Refusal{Section: name, Reason: "entries about code without a symbol differ"})
		}
	}
	pre, post := d.pre.unnamed(), d.post.unnamed()
	for _, name := range sortedKeys(pre, post) {
		same := slices.EqualFunc(pre[name], post[name], func(a, b *body) bool { return d.difference(a, b, 0) == "" })
		if size := growing[name]; same || size > 0 && d.onlyGrew(name, size) || d.ignoresSection(r, name) {
			continue
		}
		reason := "contents without a symbol differ"
		if isBoot(name) {
			reason = "init: " + reason
		}
		r.Refusals = append(r.Refusals, Refusal{Section: name, Reason: reason})
	}
}

// unnamed lists, by name of the section, contents that nothing names or refers to.
func (s *side) unnamed() map[string][]*body {
	m := map[string][]*body{}
	for _, sec := range s.obj.Sections {
		if c := s.class[sec]; (c == classCode || c == classData) && !s.reached[sec] {
			if g := s.gaps(sec); len(g) > 0 {
				m[sec.Name] = append(m[sec.Name], g...)
			}
		}
	}
	return m
}

func sortedKeys[V any](a, b map[string]V) []string {
	var keys []string
	for k := range a {
		keys = append(keys, k)
	}
	for k := range b {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// taken lists what the changed and new functions need to have with them.
func (d *differ) taken(r *Result) []string {
	names := map[string]bool{}
	seen := map[*object.Symbol]bool{}
	var visit func(refs []ref)
	visit = func(refs []ref) {
		for _, f := range refs {
			for _, t := range f.targets {
				switch {
				case t.kind == toLiteral || t.kind == toContents:
					names[t.sec.Name] = true
				case t.kind == toSymbol && !seen[t.sym] && (isContent(t.sym) || d.twin[t.sym] == nil && !d.post.isCode(t.sym)):
					seen[t.sym] = true
					names[t.sym.Name] = true
					visit(d.post.body(t.sym).refs)
				}
			}
		}
	}
	for _, c := range r.Functions {
		if c.Post == nil {
			continue
		}
		names[c.Name] = true
		if p := d.post.prefix[c.Post]; p != nil {
			names[p.Name] = true
		}
		visit(d.post.fields(c.Post))
		for _, e := range d.post.entries[c.Post] {
			names[e.table] = true
			if e.code != nil {
				names[".altinstr_replacement"] = true
			}
		}
		for _, sec := range d.post.obj.Sections {
			if strings.HasPrefix(sec.Name, ".orc_unwind") {
				names[sec.Name] = true
			}
		}
	}
	return append([]string{}, sortedKeys(names, nil)...)
}
