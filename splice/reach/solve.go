// SPDX-License-Identifier: Apache-2.0

package reach

import (
	"context"
	"runtime"
	"slices"
	"sync"
)

// state is what is known of a changed name: the changed headers it comes from.
type state struct {
	macro, plain, constant, typ bits
}

// ref is an entity of some header.
type ref struct {
	e    *entity
	node int32
}

// solver spreads changes over the names of all headers until nothing is added.
type solver struct {
	f       *forest
	headers int // changed ones, by parts
	ents    []ref
	byName  multi // name to the entities that mention it
	bodies  multi // macro to the names in its bodies
	types   types

	states []*state // by name
	queue  []uint32 // names whose state grew
	open   []bits   // by node: what is compiled into every unit that includes it
	events []bits   // by node: what is compiled into the unit that creates its trace points
	traces []bool   // by node: defines trace points

	counts []int // by changed header: names that it changes
	coarse bits  // headers that change so many that all which include them count as affected

	paster paster
	typed  bool // some type changed
	fresh  bool // there are rules or types that the entities were not scanned for
}

func newSolver(f *forest, headers int) *solver {
	s := &solver{f: f, headers: headers}
	var mentions, bodies pairs
	var macros []*entity
	s.traces = make([]bool, len(f.nodes))
	for i, n := range f.nodes {
		for _, v := range n.versions {
			for _, inc := range v.includes {
				s.traces[i] = s.traces[i] || inc.name == "trace/define_trace.h"
			}
			for j := range v.ents {
				e := &v.ents[j]
				if e.kind == kindMacro {
					for _, u := range e.uses {
						bodies.add(e.defs[0], u.name())
					}
					s.paster.add(e)
					macros = append(macros, e)
				}
				if n.source {
					continue
				}
				at := uint32(len(s.ents))
				s.ents = append(s.ents, ref{e, int32(i)})
				for _, u := range e.uses {
					mentions.add(u.name(), at)
				}
				for _, c := range e.conds {
					mentions.add(c, at)
				}
				for _, m := range e.members {
					for _, u := range m.uses {
						mentions.add(u.name(), at)
					}
					for _, n := range m.names {
						mentions.add(n, at)
					}
				}
			}
		}
	}
	s.paster.close(macros)
	n := len(f.table.names)
	s.byName, s.bodies = mentions.index(n), bodies.index(n)
	s.types.build(s.ents, n)
	s.counts, s.coarse = make([]int, headers), newBits(headers)
	s.states = make([]*state, n)
	s.open, s.events = make([]bits, len(f.nodes)), make([]bits, len(f.nodes))
	return s
}

// maxChanged is how many names a header may change, with those that follow, until
// nothing is gained by looking closer. Patches of a function or a macro bring some
// dozens.
const maxChanged = 1200

// grow adds to the state of a name and says whether that was new.
func (s *solver) grow(name uint32, c class, b bits) bool {
	st := s.states[name]
	if st == nil {
		n := s.headers
		st = &state{newBits(n), newBits(n), newBits(n), newBits(n)}
		s.states[name] = st
	}
	set, grew := st.plain, false
	switch c {
	case classMacro:
		set = st.macro
	case classConst:
		set = st.constant
	case classType:
		set, s.typed = st.typ, true
	case classMoved:
		return false
	}
	for i := range s.headers {
		if !b.has(i) || set.has(i) || s.coarse.has(i) {
			continue
		}
		set.set(i)
		grew = true
		if s.counts[i]++; s.counts[i] > maxChanged {
			s.coarse.set(i)
		}
	}
	if !grew {
		return false
	}
	s.queue = append(s.queue, name)
	s.fresh = true
	return true
}

// fine says whether a name comes from a header that is not in coarse.
func (s *solver) fine(st *state) bool {
	for i, w := range s.coarse {
		if (st.macro[i]|st.plain[i]|st.constant[i]|st.typ[i])&^w != 0 {
			return true
		}
	}
	return false
}

// apply marks what an entity defines, of a type from a member on.
func (s *solver) apply(r ref, from int, b bits) {
	if b.empty() {
		return
	}
	grew := false
	for _, m := range r.e.effects(from) {
		grew = s.grow(m.name, m.class, b) || grew
	}
	if !grew && r.e.kind != kindOpen && r.e.kind != kindInvoke {
		return
	}
	for _, n := range s.paster.made(s, r.e) {
		s.grow(n, classPlain, b)
	}
	add := func(sets []bits) {
		if sets[r.node] == nil {
			sets[r.node] = newBits(s.headers)
		}
		sets[r.node].add(b)
	}
	switch {
	case r.e.kind == kindOpen:
		add(s.open)
	case r.e.kind == kindInvoke && s.traces[r.node]:
		add(s.events)
	}
}

// spread follows names until nothing grows.
func (s *solver) spread(ctx context.Context) error {
	for {
		for len(s.queue) > 0 {
			name := s.queue[len(s.queue)-1]
			s.queue = s.queue[:len(s.queue)-1]
			for _, at := range s.byName.of(name) {
				s.trigger(s.ents[at], name)
			}
		}
		if !s.fresh {
			return nil
		}
		s.fresh = false
		s.paster.rules(s)
		if err := s.scan(ctx); err != nil {
			return err
		}
	}
}

// trigger applies the state of a name to an entity that mentions it.
func (s *solver) trigger(r ref, name uint32) {
	st := s.states[name]
	e := r.e
	if slices.Contains(e.conds, name) {
		b := slices.Clone(st.macro)
		b.add(st.plain)
		b.add(st.constant)
		s.apply(r, 0, b)
	}
	if u, ok := find(e.uses, name); ok {
		s.apply(r, 0, st.effect(u, e.kind != kindDecl && e.kind != kindType))
	}
	for i, m := range e.members {
		own := slices.Contains(m.names, name)
		if own && e.enum {
			continue
		}
		if own {
			s.apply(r, i, st.macro)
		}
		if u, ok := find(m.uses, name); ok {
			s.apply(r, i, st.effect(u, false))
		}
	}
}

// effect is the part of a state that a mention brings about.
func (st *state) effect(u use, code bool) bits {
	b := slices.Clone(st.macro)
	if u&onlyMember != 0 {
		return b
	}
	b.add(st.constant)
	if code {
		b.add(st.plain)
	}
	if code || u&onlyPointer == 0 {
		b.add(st.typ)
	}
	return b
}

func find(list []use, name uint32) (use, bool) {
	i, _ := slices.BinarySearchFunc(list, name, func(u use, n uint32) int {
		switch {
		case u.name() < n:
			return -1
		case u.name() > n:
			return 1
		}
		return 0
	})
	if i < len(list) && list[i].name() == name {
		return list[i], true
	}
	return 0, false
}

// scan looks at all entities that become code for what no single name tells:
// types at hand, names that are pasted.
func (s *solver) scan(ctx context.Context) error {
	found := make([]bits, len(s.ents))
	jobs := runtime.GOMAXPROCS(0)
	var wg sync.WaitGroup
	for j := range jobs {
		wg.Go(func() {
			x := newExpander(s)
			for i := j; i < len(s.ents); i += jobs {
				if i&1023 == j && ctx.Err() != nil {
					return
				}
				e := s.ents[i].e
				if e.kind == kindMacro || e.kind == kindDecl || e.kind == kindType {
					continue
				}
				x.begin()
				for _, u := range e.uses {
					x.add(u.name())
				}
				found[i] = x.result(nil)
			}
		})
	}
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return err
	}
	for i, b := range found {
		if b != nil {
			s.apply(s.ents[i], 0, b)
		}
	}
	return nil
}
