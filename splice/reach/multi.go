// SPDX-License-Identifier: Apache-2.0

package reach

import (
	"cmp"
	"slices"
)

// pairs collects what a multi is made of.
type pairs []struct{ from, to uint32 }

func (p *pairs) add(from, to uint32) { *p = append(*p, struct{ from, to uint32 }{from, to}) }

// multi maps numbers to lists of numbers.
type multi struct {
	start []uint32
	list  []uint32
}

// index makes the map for keys below n.
func (p pairs) index(n int) multi {
	m := multi{start: make([]uint32, n+1), list: make([]uint32, len(p))}
	for _, x := range p {
		m.start[x.from+1]++
	}
	for i := 1; i <= n; i++ {
		m.start[i] += m.start[i-1]
	}
	at := slices.Clone(m.start)
	for _, x := range p {
		m.list[at[x.from]] = x.to
		at[x.from]++
	}
	return m
}

func (m multi) of(key uint32) []uint32 {
	if int(key)+1 >= len(m.start) {
		return nil
	}
	return m.list[m.start[key]:m.start[key+1]]
}

// unique sorts pairs and drops repeated ones.
func (p pairs) unique() pairs {
	slices.SortFunc(p, func(a, b struct{ from, to uint32 }) int {
		return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(a.to, b.to))
	})
	return slices.Compact(p)
}
