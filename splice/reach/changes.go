// SPDX-License-Identifier: Apache-2.0

package reach

import (
	"cmp"
	"context"
	"slices"
	"strings"
)

func changes(ctx context.Context, t Trees, headers []string) ([]Change, error) {
	f := newForest(t)
	names := newInterner(f.table)
	var list []Change
	for _, h := range headers {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if same(f.dir(f.t.Pre, h), f.dir(f.t.Post, h)) {
			continue
		}
		pre, err := readFile(f.dir(f.t.Pre, h))
		if err != nil {
			return nil, err
		}
		post, err := readFile(f.dir(f.t.Post, h))
		if err != nil {
			return nil, err
		}
		c := differ{names: f.table, c: Change{Header: h}, bare: t.OldStays}
		c.compare(parse(names, string(pre)), parse(names, string(post)))
		if c.c.Whole || len(c.c.effects) > 0 || len(c.c.includes) > 0 {
			if c.finish(); len(c.c.Names) > 0 || c.c.Whole {
				list = append(list, c.c)
			}
		}
	}
	return list, nil
}

// differ compares two versions of a header.
type differ struct {
	names *table
	c     Change
	bare  bool // lines that include do not count
}

// item is an entity or an include, in the order of the file: to move one before
// another can change what both mean.
type item struct {
	key uint64
	e   *entity
	inc *include
}

func items(f *file) []item {
	list := make([]item, 0, len(f.ents)+len(f.includes))
	next := 0
	for i := range f.ents {
		for ; next < len(f.includes) && f.includes[next].at <= i; next++ {
			if f.includes[next].key != 0 {
				list = append(list, item{key: f.includes[next].key, inc: &f.includes[next]})
			}
		}
		list = append(list, item{key: f.ents[i].key, e: &f.ents[i]})
	}
	for ; next < len(f.includes); next++ {
		if f.includes[next].key != 0 {
			list = append(list, item{key: f.includes[next].key, inc: &f.includes[next]})
		}
	}
	return list
}

func (d *differ) compare(pre, post *file) {
	removed, added := difference(items(pre), items(post))
	// Types are compared by member with their other version.
	other := func(e *entity, list []item) *entity {
		for _, x := range list {
			if x.e != nil && x.e.kind == kindType && slices.Equal(x.e.tags, e.tags) && slices.Equal(x.e.conds, e.conds) &&
				(len(e.tags) > 0 || shares(x.e, e)) {
				return x.e
			}
		}
		return nil
	}
	for i, list := range [][]item{removed, added} {
		for _, x := range list {
			if x.inc != nil {
				d.c.includes = append(d.c.includes, x.inc.name)
				continue
			}
			from := 0
			if x.e.kind == kindType {
				if o := other(x.e, [][]item{added, removed}[i]); o != nil {
					from = firstDifference(x.e, o)
				}
			}
			d.entity(x.e, from)
		}
	}
}

// shares says whether two types without tags have their first member in common.
func shares(a, b *entity) bool {
	return len(a.members) > 0 && len(b.members) > 0 && slices.Equal(a.members[0].names, b.members[0].names)
}

func (d *differ) entity(e *entity, from int) {
	if e.kind == kindOpen {
		d.c.Whole = true
	}
	for _, x := range e.effects(from) {
		d.c.effects = append(d.c.effects, effect{d.names.name(x.name), x.class})
	}
}

// mark is an effect by numbers.
type mark struct {
	name  uint32
	class class
}

// effects are the names that differ if an entity does; of a type, from the given
// member on.
func (e *entity) effects(from int) []mark {
	var list []mark
	plain := classPlain
	if e.kind == kindMacro {
		plain = classMacro
	}
	for _, n := range e.defs {
		list = append(list, mark{name: n, class: plain})
	}
	for _, n := range e.tags {
		if e.enum && !e.attrs && !slices.ContainsFunc(e.members[min(from, len(e.members)):], func(m member) bool { return m.computed }) {
			break // an int before and after
		}
		list = append(list, mark{name: n, class: classType})
	}
	if e.kind != kindType {
		return list
	}
	moved := e.moved(from)
	for _, n := range moved {
		if e.enum {
			list = append(list, mark{name: n, class: classConst})
			continue
		}
		list = append(list, mark{name: n, class: classMoved})
	}
	return list
}

func (d *differ) finish() {
	c := &d.c
	slices.SortFunc(c.effects, func(a, b effect) int {
		return cmp.Or(strings.Compare(a.name, b.name), cmp.Compare(a.class, b.class))
	})
	c.effects = slices.Compact(c.effects)
	for _, e := range c.effects {
		if n := len(c.Names); n == 0 || c.Names[n-1] != e.name {
			c.Names = append(c.Names, e.name)
		}
	}
	slices.Sort(c.includes)
	c.includes = slices.Compact(c.includes)
	if len(c.includes) > 0 && !d.bare {
		c.Whole = true
	}
}

// maxTable bounds the memory of difference: cells of its table.
const maxTable = 16 << 20

// difference returns what is in only one of two lists, by a longest common
// subsequence.
func difference(a, b []item) (removed, added []item) {
	for len(a) > 0 && len(b) > 0 && a[0].key == b[0].key {
		a, b = a[1:], b[1:]
	}
	for len(a) > 0 && len(b) > 0 && a[len(a)-1].key == b[len(b)-1].key {
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	if len(a)*len(b) > maxTable {
		return a, b // too many to tell which of them moved
	}
	w := len(b) + 1
	length := make([]int32, (len(a)+1)*w)
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i].key == b[j].key {
				length[i*w+j] = length[(i+1)*w+j+1] + 1
			} else {
				length[i*w+j] = max(length[(i+1)*w+j], length[i*w+j+1])
			}
		}
	}
	i, j := 0, 0
	for i < len(a) && j < len(b) {
		switch {
		case a[i].key == b[j].key:
			i, j = i+1, j+1
		case length[(i+1)*w+j] >= length[i*w+j+1]:
			removed = append(removed, a[i])
			i++
		default:
			added = append(added, b[j])
			j++
		}
	}
	return append(removed, a[i:]...), append(added, b[j:]...)
}
