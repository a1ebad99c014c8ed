// SPDX-License-Identifier: Apache-2.0

package objdiff

import (
	"cmp"
	"debug/elf"
	"slices"

	"github.com/upsplice/upsplice/splice/object"
)

func (d *differ) pair(pre, post *object.Symbol) {
	if d.back[pre] != nil || d.twin[post] != nil {
		return
	}
	if pre.Section != nil && isBoot(pre.Section.Name) && post.Section != nil && !isBoot(post.Section.Name) {
		return // the running kernel has thrown it away
	}
	d.twin[post], d.back[pre] = pre, post
}

// correlate finds the twins, the surest first: a wrong pair of functions costs a
// needless replacement, a wrong pair of variables mixes up their values.
func (d *differ) correlate() {
	d.pairNames()
	d.pairClones()
	var same, other []*object.Symbol // of post
	for _, f := range d.post.code {
		if p := d.twin[f]; p != nil && d.pre.isCode(p) {
			if d.sameShape(p, f) {
				same = append(same, f)
			} else {
				other = append(other, f)
			}
		}
	}
	for _, f := range same {
		d.pairFields(d.pre.fields(d.twin[f]), d.post.fields(f))
	}
	d.followData()
	d.pairFamilies(other)
	d.followData()
	d.pairConstants()
	d.partSites()
}

// partSites takes apart variables of one place of use that differ, as when the
// text of a pr_debug changes: then the new code has a variable of its own.
func (d *differ) partSites() {
	for _, b := range d.post.data {
		a := d.twin[b]
		if a != nil && isPerSite(b.Name) && a.Section != nil && d.difference(d.pre.body(a), d.post.body(b), 0) != "" {
			delete(d.twin, b)
			delete(d.back, a)
		}
	}
}

// pairNames pairs what has a name of its own.
func (d *differ) pairNames() {
	pre := byName(d.pre, func(s *object.Symbol) bool { return !numbered(s.Name) })
	post := byName(d.post, func(s *object.Symbol) bool { return !numbered(s.Name) })
	for name, list := range post {
		others := pre[name]
		if len(list) != len(others) {
			// the global one is one thing everywhere
			list, others = globals(list), globals(others)
		}
		if len(list) != len(others) {
			continue
		}
		for i, s := range list {
			p := others[i]
			if s.Section == nil || p.Section == nil {
				if s.Special == elf.SHN_ABS || p.Special == elf.SHN_ABS {
					if s.Special == p.Special && s.Value == p.Value {
						d.pair(p, s)
					}
					continue
				}
				// a static symbol is not the one that is defined elsewhere
				if s.Bind != elf.STB_LOCAL && p.Bind != elf.STB_LOCAL {
					d.pair(p, s)
				}
			} else if d.pre.isCode(p) == d.post.isCode(s) {
				d.pair(p, s)
			}
		}
	}
}

// byName lists the symbols other than those of sections and files, in file order.
func byName(s *side, want func(*object.Symbol) bool) map[string][]*object.Symbol {
	m := map[string][]*object.Symbol{}
	for _, sym := range s.obj.Symbols {
		if sym.Type != elf.STT_SECTION && sym.Type != elf.STT_FILE && sym.Name != "" && want(sym) {
			m[plain(sym.Name)] = append(m[plain(sym.Name)], sym)
		}
	}
	return m
}

func globals(list []*object.Symbol) []*object.Symbol {
	var g []*object.Symbol
	for _, s := range list {
		if s.Bind != elf.STB_LOCAL {
			g = append(g, s)
		}
	}
	return g
}

// pairClones pairs functions with numbered names (foo.isra.0, foo.constprop.1)
// within all clones of the same kind of the same function: those of the same
// shape first, then those of the same name, then in order.
func (d *differ) pairClones() {
	group := func(s *side) map[string][]*object.Symbol {
		m := map[string][]*object.Symbol{}
		for _, f := range s.code {
			if numbered(f.Name) {
				m[stem(f.Name)] = append(m[stem(f.Name)], f)
			}
		}
		return m
	}
	pre, post := group(d.pre), group(d.post)
	for key, list := range post {
		others := pre[key]
		rules := []func(a, b *object.Symbol) bool{
			func(a, b *object.Symbol) bool { return a.Name == b.Name && d.sameShape(a, b) },
			func(a, b *object.Symbol) bool { return d.sameShape(a, b) },
			func(a, b *object.Symbol) bool { return a.Name == b.Name },
			func(a, b *object.Symbol) bool { return true },
		}
		for _, rule := range rules {
			for _, b := range list {
				for _, a := range others {
					if d.twin[b] == nil && d.back[a] == nil && rule(a, b) {
						d.pair(a, b)
					}
				}
			}
		}
	}
}

// sameShape compares bytes and the kinds of the fields, not what they refer to.
func (d *differ) sameShape(pre, post *object.Symbol) bool {
	a, b := d.pre.body(pre), d.post.body(post)
	if a.size != b.size || firstDifference(a.data, b.data) >= 0 {
		return false
	}
	return slices.EqualFunc(d.pre.fields(pre), d.post.fields(post), func(x, y ref) bool {
		return x.off == y.off && x.typ == y.typ
	})
}

// pairFields pairs variables that stand at the same places of the same code.
func (d *differ) pairFields(pre, post []ref) {
	for i, y := range post {
		x := pre[i]
		if len(x.targets) != len(y.targets) {
			continue
		}
		for k := range y.targets {
			a, b := x.targets[k], y.targets[k]
			// Several meanings may point into neighbours: only agreement counts.
			if k > 0 && (a.sym != x.targets[0].sym || b.sym != y.targets[0].sym) {
				break
			}
			if k == len(y.targets)-1 && a.kind == toSymbol && b.kind == toSymbol && a.off == b.off && d.kindred(a.sym, b.sym) {
				d.pair(a.sym, b.sym)
			}
		}
	}
}

// kindred says that two variables with numbered names may be the same one.
func (d *differ) kindred(a, b *object.Symbol) bool {
	return d.isVariable(a, d.pre) && d.isVariable(b, d.post) && stem(a.Name) == stem(b.Name) && place(a) == place(b)
}

func (d *differ) isVariable(s *object.Symbol, side *side) bool {
	return s.Section != nil && numbered(s.Name) && !isContent(s) && side.class[s.Section] == classData
}

// followData pairs what variables that are pairs refer to, until nothing is new.
func (d *differ) followData() {
	done := map[*object.Symbol]bool{}
	for again := true; again; {
		again = false
		for _, b := range d.post.data {
			a := d.twin[b]
			if a == nil || a.Section == nil || done[b] || d.pre.class[a.Section] != classData {
				continue
			}
			done[b], again = true, true
			if d.sameShape(a, b) {
				d.pairFields(d.pre.body(a).refs, d.post.body(b).refs)
			}
		}
	}
}

// pairFamilies pairs the variables of functions that differ: those of the same
// stem that a function, its parts and its clones refer to. If there is one on
// each side, it is that one; of several it is not known which. Variables of one
// place of use are paired where that place is the same.
func (d *differ) pairFamilies(changed []*object.Symbol) {
	families := map[string]bool{}
	for _, f := range changed {
		families[family(f.Name)] = true
	}
	pre, post := d.pre.members(families), d.post.members(families)
	for _, name := range sortedKeys(families, nil) {
		byStem := d.unpaired(d.pre, pre[name], d.back)
		now := d.unpaired(d.post, post[name], d.twin)
		for _, key := range sortedKeys(now, nil) {
			list, others := now[key], byStem[key]
			switch {
			case isPerSite(list[0].Name):
				d.pairSites(others, list, d.pre.uses(pre[name]), d.post.uses(post[name]))
			case len(list) == 1 && len(others) == 1 && d.kindred(others[0], list[0]):
				d.pair(others[0], list[0])
			}
		}
	}
}

// pairSites pairs variables of one place of use: those that say what they are for
// by it, as the descriptor of a message does, the others by the code around.
func (d *differ) pairSites(pre, post []*object.Symbol, preUses, postUses map[*object.Symbol]string) {
	for _, b := range post {
		for _, a := range pre {
			if d.back[a] != nil || !d.kindred(a, b) {
				continue
			}
			same := preUses[a] == postUses[b]
			if len(d.post.body(b).refs) > 0 {
				same = d.difference(d.pre.body(a), d.post.body(b), 0) == ""
			}
			if same {
				d.pair(a, b)
				break
			}
		}
	}
}

// behind is how many references behind that to a variable tell which place of use
// it is: what is called, and the message.
const behind = 3

// uses describes where functions use variables of one place of use.
func (s *side) uses(funcs []*object.Symbol) map[*object.Symbol]string {
	m := map[*object.Symbol]string{}
	for _, f := range funcs {
		refs := s.body(f).refs
		for i, r := range refs {
			v := r.targets[0].sym
			if v == nil || !isPerSite(v.Name) {
				continue
			}
			for _, next := range refs[i+1 : min(len(refs), i+1+behind)] {
				m[v] += stem(next.name()) + "\n"
			}
			m[v] += "\n"
		}
	}
	return m
}

// members lists the functions of each family, the main one first.
func (s *side) members(families map[string]bool) map[string][]*object.Symbol {
	m := map[string][]*object.Symbol{}
	for _, f := range s.code {
		if name := family(f.Name); families[name] {
			m[name] = append(m[name], f)
		}
	}
	for _, list := range m {
		slices.SortStableFunc(list, func(a, b *object.Symbol) int {
			return cmp.Or(cmp.Compare(len(a.Name), len(b.Name)), cmp.Compare(a.Name, b.Name))
		})
	}
	return m
}

// unpaired lists the numbered variables without a twin that functions refer to,
// by stem, in order of the first use.
func (d *differ) unpaired(s *side, funcs []*object.Symbol, paired map[*object.Symbol]*object.Symbol) map[string][]*object.Symbol {
	m := map[string][]*object.Symbol{}
	for _, f := range funcs {
		for _, r := range s.fields(f) {
			t := r.targets[0]
			if t.kind != toSymbol || !d.isVariable(t.sym, s) || paired[t.sym] != nil {
				continue
			}
			if key := stem(t.sym.Name); !slices.Contains(m[key], t.sym) {
				m[key] = append(m[key], t.sym)
			}
		}
	}
	return m
}

// pairConstants pairs by contents what is left and has no value that could get
// lost: what cannot be written to, what is gone after boot, what nothing uses, and
// descriptors.
func (d *differ) pairConstants() {
	left := func(s *side, paired map[*object.Symbol]*object.Symbol) map[string][]*object.Symbol {
		m := map[string][]*object.Symbol{}
		for _, sym := range s.data {
			fixed := sym.Section.Flags&elf.SHF_WRITE == 0 || isBoot(sym.Section.Name) || !s.used[sym] || isPerSite(sym.Name) && len(s.body(sym).refs) > 0
			if paired[sym] == nil && numbered(sym.Name) && fixed {
				m[stem(sym.Name)] = append(m[stem(sym.Name)], sym)
			}
		}
		return m
	}
	pre, post := left(d.pre, d.back), left(d.post, d.twin)
	for again := true; again; {
		again = false // what refers to a pair may be one
		for _, key := range sortedKeys(post, nil) {
			for _, b := range post[key] {
				for _, a := range pre[key] {
					if d.twin[b] == nil && d.back[a] == nil && place(a) == place(b) && d.difference(d.pre.body(a), d.post.body(b), 0) == "" {
						d.pair(a, b)
						again = again || d.twin[b] != nil
					}
				}
			}
		}
	}
}
