// SPDX-License-Identifier: Apache-2.0

package reach

import (
	"cmp"
	"context"
	"maps"
	"path"
	"runtime"
	"slices"
	"sync"

	"github.com/upsplice/upsplice/splice/kbuild"

	"github.com/upsplice/upsplice/splice/clex"
)

// Each changed header counts as two: what of it is known by its name, and what
// follows from types having another size or other members.
const (
	partNames = iota
	partTypes
	parts
)

func affected(ctx context.Context, t Trees, units []kbuild.Unit, changes []Change) (map[string][]Reason, error) {
	if len(changes) == 0 || len(units) == 0 {
		return nil, nil
	}
	f := newForest(t)
	lines, err := f.load(ctx, units, nil)
	if err != nil {
		return nil, err
	}
	n := parts * len(changes)
	s := newSolver(f, n)
	whole := newBits(n)
	changed := make([][]int32, n) // nodes
	for i, c := range changes {
		if at, ok := f.index[path.Clean(c.Header)]; ok {
			for p := range parts {
				changed[parts*i+p] = []int32{at}
			}
		}
		if c.Whole {
			whole.set(parts * i)
		}
		s.begin(c, i)
	}
	if err := s.spread(ctx); err != nil {
		return nil, err
	}
	whole.add(s.coarse)
	r := newReacher(f)
	sees := r.spread(changed, n)
	open := r.gather(s.open, n)
	events := r.gather(s.events, n)

	found := make(map[string][]Reason)
	var mu sync.Mutex
	var wg sync.WaitGroup
	create := f.table.ids["CREATE_TRACE_POINTS"]
	jobs := runtime.GOMAXPROCS(0)
	for j := range jobs {
		wg.Go(func() {
			x := newExpander(s)
			for i := j; i < len(units) && ctx.Err() == nil; i += jobs {
				u := unit{s: s, x: x, reasons: make(map[int][]uint32)}
				roots := []int32{f.index[units[i].Source]}
				for _, inc := range lines[i].include {
					roots = append(roots, f.index[inc])
				}
				u.sees = newBits(n)
				for _, at := range roots {
					u.sees.add(sees[at])
				}
				if u.sees.empty() {
					continue
				}
				x.begin()
				u.text(roots[0], make(map[int32]bool))
				u.defines(lines[i].defines)
				x.result(u.why)
				u.all(whole)
				for _, at := range roots {
					u.all(open[at])
					if create != 0 && x.has(create) {
						u.all(events[at])
					}
				}
				if list := u.list(changes); len(list) > 0 {
					mu.Lock()
					found[units[i].Object] = list
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	return found, ctx.Err()
}

// begin marks what the change of the i-th header names.
func (s *solver) begin(c Change, i int) {
	b, types := newBits(s.headers), newBits(s.headers)
	b.set(parts*i + partNames)
	types.set(parts*i + partTypes)
	effects := c.effects
	if effects == nil {
		for _, n := range c.Names {
			for _, cl := range []class{classMacro, classType} {
				effects = append(effects, effect{name: n, class: cl})
			}
		}
	}
	known := make(map[uint32]bool)
	for _, e := range effects {
		id := s.f.table.ids[e.name]
		if id == 0 || int(id) >= len(s.states) {
			// No unit can see it, or it is made by pasting: then its parts are seen.
			id = s.add(e.name)
		}
		known[id] = true
		if e.class == classType {
			s.grow(id, e.class, types)
		} else {
			s.grow(id, e.class, b)
		}
	}
	// What an invocation that changed makes by pasting.
	for _, r := range s.ents {
		if s.f.nodes[r.node].path == c.Header && len(r.e.args) > 0 && slices.ContainsFunc(r.e.args, func(a uint32) bool { return known[a] }) {
			s.apply(r, 0, b)
		}
	}
}

// add numbers a name that no file has.
func (s *solver) add(name string) uint32 {
	id := newInterner(s.f.table).id(name)
	for int(id) >= len(s.states) {
		s.states = append(s.states, nil)
	}
	return id
}

// unit collects why a unit is affected.
type unit struct {
	s       *solver
	x       *expander
	sees    bits
	reasons map[int][]uint32 // by changed header; no names: it is enough to include it
}

func (u *unit) why(name uint32, b bits) {
	for i := range u.s.headers {
		if b.has(i) && u.sees.has(i) && !slices.Contains(u.reasons[i], name) {
			u.reasons[i] = append(u.reasons[i], name)
		}
	}
}

func (u *unit) all(b bits) {
	for i := range u.s.headers {
		if b != nil && b.has(i) && u.sees.has(i) && u.reasons[i] == nil {
			u.reasons[i] = []uint32{}
		}
	}
}

// text takes the names of a file and of those that become part of its text.
func (u *unit) text(at int32, seen map[int32]bool) {
	if seen[at] {
		return
	}
	seen[at] = true
	n := u.s.f.nodes[at]
	mention := func(list []use) {
		for _, m := range list {
			u.x.add(m.name())
			if st := u.s.states[m.name()]; st != nil {
				u.why(m.name(), st.effect(m, true))
			}
		}
	}
	for _, v := range n.versions {
		mention(v.mentions)
		if n.source {
			continue
		}
		for _, e := range v.ents {
			mention(e.uses)
			for _, m := range e.members {
				mention(m.uses)
				for _, n := range m.names {
					mention([]use{use(n)<<useShift | onlyMember})
				}
			}
		}
	}
	for _, to := range n.text {
		u.text(to, seen)
	}
}

// defines takes the names in the options -D.
func (u *unit) defines(list []string) {
	for _, d := range list {
		l := clex.NewLexer(d)
		for t := l.Next(); t.Kind != clex.EOF; t = l.Next() {
			if id := u.s.f.table.lookup(t.Text); id != 0 && int(id) < len(u.s.states) {
				u.x.add(id)
				if st := u.s.states[id]; st != nil {
					u.why(id, st.effect(use(id)<<useShift, true))
				}
			}
		}
	}
}

func (u *unit) list(changes []Change) []Reason {
	var list []Reason
	for _, at := range slices.Sorted(maps.Keys(u.reasons)) {
		i := at / parts
		if at%parts == partTypes && len(list) > 0 && list[len(list)-1].Header == changes[i].Header {
			continue
		}
		r := Reason{Header: changes[i].Header, Layout: at%parts == partTypes}
		for _, n := range u.reasons[at] {
			r.Names = append(r.Names, u.s.f.table.name(n))
		}
		slices.SortFunc(r.Names, func(a, b string) int {
			// Those of the header itself first.
			_, x := slices.BinarySearch(changes[i].Names, a)
			_, y := slices.BinarySearch(changes[i].Names, b)
			if x != y {
				if x {
					return -1
				}
				return 1
			}
			return cmp.Compare(a, b)
		})
		r.Names = r.Names[:min(len(r.Names), maxNames)]
		list = append(list, r)
	}
	return list
}

// reacher follows includes backwards.
type reacher struct {
	f    *forest
	from multi // file to those that include it
}

func newReacher(f *forest) *reacher {
	var p pairs
	for i, n := range f.nodes {
		for _, to := range n.edges {
			p.add(uint32(to), uint32(i))
		}
	}
	return &reacher{f, p.index(len(f.nodes))}
}

// spread says of each file which of the given groups of files it can include.
func (r *reacher) spread(groups [][]int32, n int) []bits {
	out := make([]bits, len(r.f.nodes))
	for i := range out {
		out[i] = newBits(n)
	}
	for i, g := range groups {
		queue := slices.Clone(g)
		for _, at := range queue {
			out[at].set(i)
		}
		for len(queue) > 0 {
			at := queue[len(queue)-1]
			queue = queue[:len(queue)-1]
			for _, by := range r.from.of(uint32(at)) {
				if !out[by].has(i) {
					out[by].set(i)
					queue = append(queue, int32(by))
				}
			}
		}
	}
	return out
}

// gather gives each file the union of the sets of all files that it can include.
func (r *reacher) gather(sets []bits, n int) []bits {
	groups := make([][]int32, n)
	for at, b := range sets {
		for i := range n {
			if b != nil && b.has(i) {
				groups[i] = append(groups[i], int32(at))
			}
		}
	}
	return r.spread(groups, n)
}

func including(ctx context.Context, t Trees, units []kbuild.Unit, files []string) (map[string][]string, error) {
	if len(files) == 0 || len(units) == 0 {
		return nil, nil
	}
	f := newForest(t)
	if _, err := f.load(ctx, units, nil); err != nil {
		return nil, err
	}
	groups := make([][]int32, len(files))
	for i, name := range files {
		if at, ok := f.index[path.Clean(name)]; ok {
			groups[i] = []int32{at}
		}
	}
	sees := newReacher(f).spread(groups, len(files))
	found := make(map[string][]string)
	for _, u := range units {
		for i, name := range files {
			if u.Source != name && sees[f.index[u.Source]].has(i) {
				found[u.Object] = append(found[u.Object], name)
			}
		}
	}
	return found, nil
}
