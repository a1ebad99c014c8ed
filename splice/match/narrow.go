// SPDX-License-Identifier: Apache-2.0

package match

import (
	"cmp"
	"slices"
)

// The linker puts the text of one object into one piece, its functions in the order
// in which the compiler made them. That decides between places whose bytes are equal:
// functions of headers are in many objects.

// narrow settles one function by where others of the object are; false if it can
// settle none.
func (m *matcher) narrow() bool { return m.narrowByNeighbours() || m.narrowBySpan() }

// narrowByNeighbours settles a function that has only one place right before or
// behind the one of its neighbour in the object.
func (m *matcher) narrowByNeighbours() bool {
	byClass := map[string][]*function{}
	for _, f := range m.funcs {
		c := class(f.sym)
		byClass[c] = append(byClass[c], f)
	}
	for _, f := range m.funcs {
		if len(f.places) < 2 {
			continue
		}
		list := byClass[class(f.sym)]
		slices.SortStableFunc(list, func(a, b *function) int {
			return cmp.Or(cmp.Compare(m.order[a.sym.Section], m.order[b.sym.Section]), cmp.Compare(a.sym.Value, b.sym.Value))
		})
		i := slices.Index(list, f)
		var next []place
		for _, p := range f.places {
			if i > 0 && m.follows(list[i-1], p.addr) || i+1 < len(list) && m.precedes(f, p.addr, list[i+1]) {
				next = append(next, p)
			}
		}
		if len(next) == 1 {
			f.places = next
			return true
		}
	}
	return false
}

// follows says whether addr is right behind f, which has one place.
func (m *matcher) follows(f *function, addr uint64) bool {
	return len(f.places) == 1 && m.adjacent(f.places[0].addr+m.imageSize(f.sym), addr)
}

// precedes says whether f at addr is right before g, which has one place.
func (m *matcher) precedes(f *function, addr uint64, g *function) bool {
	return len(g.places) == 1 && m.adjacent(addr+m.imageSize(f.sym), g.places[0].addr)
}

// adjacent says whether there is nothing but padding from end to start.
func (m *matcher) adjacent(end, start uint64) bool {
	if start < end || start-end > paddingSeen {
		return false
	}
	gap := m.img.At(end, int(start-end))
	for pos := 0; pos < len(gap); {
		k := padding(gap[pos:])
		if k == 0 {
			return false
		}
		pos += k
	}
	return gap != nil
}

// narrowBySpan settles a function that has only one place between the first and the
// last function of the object.
func (m *matcher) narrowBySpan() bool {
	type span struct{ first, last uint64 }
	spans := map[string]span{}
	for _, f := range m.funcs {
		if len(f.places) != 1 {
			continue
		}
		at := f.places[0].addr
		s, ok := spans[class(f.sym)]
		if !ok {
			s = span{at, at}
		}
		spans[class(f.sym)] = span{min(s.first, at), max(s.last, at)}
	}
	for _, f := range m.funcs {
		s, ok := spans[class(f.sym)]
		if len(f.places) < 2 || !ok {
			continue
		}
		var inside []place
		for _, p := range f.places {
			if p.addr > s.first && p.addr < s.last {
				inside = append(inside, p)
			}
		}
		if len(inside) == 1 {
			f.places = inside
			return true
		}
	}
	return false
}
