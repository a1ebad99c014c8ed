// SPDX-License-Identifier: Apache-2.0

package reach

import "slices"

// expander finds all names that a piece of code mentions once its macros are
// expanded, and the types whose values it can have.
type expander struct {
	s     *solver
	now   uint32
	seen  []uint32 // by name: now if it is mentioned
	names []uint32
	have  []uint32 // by type: now if it is at hand
	types []int32

	groups  []uint32 // by group of pasting macros: now if one of them is reached
	joins   bool     // the code itself calls a macro that joins its parameters
	tried   []uint32 // by name: now if it was asked whether it can be pasted
	answers []answer // by word
}

func newExpander(s *solver) *expander {
	return &expander{s: s, seen: make([]uint32, len(s.states)), have: make([]uint32, len(s.types.list)),
		groups: make([]uint32, len(s.paster.patterns)), tried: make([]uint32, len(s.states)), answers: make([]answer, len(s.paster.words))}
}

func (x *expander) begin() {
	x.now++
	x.names, x.types = x.names[:0], x.types[:0]
}

func (x *expander) add(name uint32) {
	if int(name) < len(x.seen) && x.seen[name] != x.now {
		x.seen[name] = x.now
		x.names = append(x.names, name)
	}
}

func (x *expander) has(name uint32) bool { return x.seen[name] == x.now }

// result expands what was added and returns the origins of the changes that it
// meets by types and by pasted names; nil for none. why is told each name.
func (x *expander) result(why func(name uint32, b bits)) bits {
	s := x.s
	x.joins = slices.ContainsFunc(x.names, func(n uint32) bool { return s.paster.joins[n] })
	for i := 0; i < len(x.names); i++ {
		for _, n := range s.bodies.of(x.names[i]) {
			x.add(n)
		}
	}
	var found bits
	hit := func(name uint32, b bits) {
		if found == nil {
			found = newBits(s.headers)
		}
		found.add(b)
		if why != nil {
			why(name, b)
		}
	}
	if s.typed {
		x.atHand()
		for _, t := range x.types {
			tag := s.types.list[t].tag
			if st := s.states[tag]; st != nil && !st.typ.empty() {
				hit(tag, st.typ)
			}
		}
	}
	if len(s.paster.by) == 0 {
		return found
	}
	for _, n := range x.names {
		for _, g := range s.paster.of[n] {
			x.groups[g] = x.now
		}
	}
	for _, n := range x.names {
		for _, c := range s.paster.by[n] {
			if x.tried[c] == x.now {
				continue
			}
			x.tried[c] = x.now
			if !s.paster.pasted(x, s.paster.root[c]) {
				continue
			}
			st := s.states[c]
			b := slices.Clone(st.macro)
			b.add(st.plain)
			b.add(st.constant)
			b.add(st.typ)
			hit(c, b)
		}
	}
	return found
}

// atHand finds the types of which the code can have a value or a pointer: it
// names them, names something declared with them, or a member of such a type of
// a type at hand.
func (x *expander) atHand() {
	s := x.s
	add := func(t int32) {
		if x.have[t] != x.now {
			x.have[t] = x.now
			x.types = append(x.types, t)
		}
	}
	for _, n := range x.names {
		if t, ok := s.types.byTag[n]; ok {
			add(t)
		}
		for _, t := range s.types.gives.of(n) {
			add(int32(t))
		}
	}
	for i := 0; i < len(x.types); i++ {
		t := &s.types.list[x.types[i]]
		for _, l := range t.links {
			add(l)
		}
		for _, m := range t.members {
			if len(m.names) == 0 || slices.ContainsFunc(m.names, x.has) {
				for _, l := range m.types {
					add(l)
				}
			}
		}
	}
}

// types are all types that headers define, and how one comes from another.
type types struct {
	list  []typeInfo
	byTag map[uint32]int32
	gives multi // name that is declared to the types in its declaration
}

type typeInfo struct {
	tag     uint32
	links   []int32 // what a typedef stands for
	members []typedMember
}

type typedMember struct {
	names []uint32
	types []int32
}

func (t *types) build(ents []ref, names int) {
	t.byTag = make(map[uint32]int32)
	for _, r := range ents {
		for _, tag := range r.e.tags {
			if _, ok := t.byTag[tag]; !ok {
				t.byTag[tag] = int32(len(t.list))
				t.list = append(t.list, typeInfo{tag: tag})
			}
		}
	}
	// What is declared with a type in its parameters does not give one.
	in := func(uses []use, inner bool) []int32 {
		var list []int32
		for _, u := range uses {
			if i, ok := t.byTag[u.name()]; ok && u&onlyMember == 0 && (inner || u&onlyInner == 0) {
				list = append(list, i)
			}
		}
		return list
	}
	var gives pairs
	for _, r := range ents {
		e := r.e
		outer := in(e.uses, e.kind == kindInvoke || e.kind == kindOpen || len(e.invoked) > 0)
		for _, d := range e.defs {
			if e.kind == kindMacro {
				break // expanded where it is used
			}
			for _, l := range outer {
				gives.add(d, uint32(l))
			}
			for _, tag := range e.tags {
				gives.add(d, uint32(t.byTag[tag]))
			}
		}
		if len(e.tags) == 0 {
			continue
		}
		var members []typedMember
		for _, m := range e.members {
			if l := in(m.uses, false); len(l) > 0 {
				members = append(members, typedMember{m.names, l})
			}
		}
		for _, tag := range e.tags {
			info := &t.list[t.byTag[tag]]
			info.members = append(info.members, members...)
			for _, l := range outer {
				if l != t.byTag[tag] && !slices.Contains(info.links, l) {
					info.links = append(info.links, l)
				}
			}
		}
	}
	t.gives = gives.unique().index(names)
}
