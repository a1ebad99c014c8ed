// SPDX-License-Identifier: Apache-2.0

package freeze

import (
	"slices"
	"strings"
)

// op is a step in writing a merged file: one of two pieces. Without an entity it
// is the first one there is.
type op struct {
	pre, post *item
	ent       *Entity
	branches  int // number of the group that it is a branch of, 0 for none
	gone      bool
}

// merged is a file in both versions, and how to write what is between them.
type merged struct {
	file      string
	pre, post string // "" and absent below if the tree does not have it
	whole     *Entity
	absent    [2]bool // in pre, in post
	ops       []op
	tail      string
	ents      []*Entity
	groups    int
}

// compare cuts both versions of a file and finds the entities.
func compare(file, pre, post string) *merged {
	m := &merged{file: file, pre: pre, post: post}
	a, end, ok := cut(pre)
	b, _, okPost := cut(post)
	if !ok || !okPost {
		if !same(pre, post) {
			m.one()
		}
		return m
	}
	m.tail = pre[end:]
	m.list(a, b)
	m.moved()
	m.entities()
	// What cannot be put together again is not cut up.
	if text, _ := m.emit(nil); !same(text, post) {
		m.one()
	}
	return m
}

// one makes the whole file one entity.
func (m *merged) one() {
	m.ops = nil
	e := &Entity{File: m.file, Kind: Whole, Pre: m.pre, Post: m.post, old: !m.absent[0], new: !m.absent[1]}
	e.frozen = e.old && e.new
	for side, text := range []string{m.pre, m.post} {
		items, _, _ := cut(text)
		for _, i := range items {
			e.define(i, side)
		}
	}
	e.finish()
	m.whole, m.ents = e, []*Entity{e}
}

func (m *merged) list(pre, post []*item) {
	i, j := 0, 0
	until := func(p, q int) {
		for ; i < p; i++ {
			m.ops = append(m.ops, op{pre: pre[i]})
		}
		for ; j < q; j++ {
			m.ops = append(m.ops, op{post: post[j]})
		}
	}
	for _, p := range match(pre, post) {
		until(p[0], p[1])
		m.pair(pre[i], post[j])
		i, j = i+1, j+1
	}
	until(len(pre), len(post))
}

// pair takes two versions of an item.
func (m *merged) pair(a, b *item) {
	if a.branches == nil {
		o := op{pre: a, post: b}
		if !same(a.text(), b.text()) {
			o.ent = &Entity{}
		}
		m.ops = append(m.ops, o)
		return
	}
	// The first branch is the same; of the others, those that only one version has
	// come and go together.
	m.groups++
	group := m.groups
	i, j := 0, 0
	rest := func(br *branch, pre bool) {
		i := *br.cond
		i.end = br.cond.end
		for _, n := range br.items {
			i.end = n.end
			i.take(n)
		}
		if len(br.items) > 0 {
			i.kind = br.items[0].kind
		}
		o := op{pre: &i, branches: group}
		if !pre {
			o = op{post: &i, branches: group}
		}
		m.ops = append(m.ops, o)
	}
	until := func(p, q int) {
		for ; i < p; i++ {
			rest(a.branches[i], true)
		}
		for ; j < q; j++ {
			rest(b.branches[j], false)
		}
	}
	conds := func(list []*branch) (items []*item) {
		for _, br := range list {
			items = append(items, br.cond)
		}
		return items
	}
	for _, p := range match(conds(a.branches), conds(b.branches)) {
		until(p[0], p[1])
		m.ops = append(m.ops, op{pre: a.branches[i].cond, post: b.branches[j].cond})
		m.list(a.branches[i].items, b.branches[j].items)
		i, j = i+1, j+1
	}
	until(len(a.branches), len(b.branches))
	m.ops = append(m.ops, op{pre: a.closing, post: b.closing})
}

func (o *op) alone() *item {
	switch {
	case o.gone:
		return nil
	case o.pre == nil:
		return o.post
	case o.post == nil:
		return o.pre
	}
	return nil
}

// moved finds what stands somewhere else now, under the same conditions. It keeps
// the place that it has in post.
func (m *merged) moved() {
	type found struct{ n, at [2]int }
	keys, defs := make(map[string]*found), make(map[string]*found)
	note := func(in map[string]*found, key string, i int) {
		f := in[key]
		if f == nil {
			f = &found{}
			in[key] = f
		}
		side := 0
		if m.ops[i].pre == nil {
			side = 1
		}
		f.n[side]++
		f.at[side] = i
	}
	for i := range m.ops {
		it := m.ops[i].alone()
		if it == nil {
			continue
		}
		for _, d := range it.defs {
			note(defs, d, i)
		}
		if it.branches == nil && m.ops[i].branches == 0 {
			note(keys, it.within+"\n"+it.key, i)
		}
	}
	once := [2]int{1, 1}
	for i := range m.ops {
		it := m.ops[i].alone()
		if it == nil || m.ops[i].pre != nil || it.branches != nil || m.ops[i].branches != 0 {
			continue
		}
		f := keys[it.within+"\n"+it.key]
		if f.n != once || slices.ContainsFunc(it.defs, func(d string) bool { return defs[d].n != once }) {
			continue
		}
		from := &m.ops[f.at[0]]
		if slices.ContainsFunc(from.pre.defs, func(d string) bool { return defs[d].n != once }) {
			continue
		}
		m.ops[i].pre = from.pre
		from.gone = true
		if !same(it.text(), from.pre.text()) {
			m.ops[i].ent = &Entity{}
		}
	}
}

// entities makes the entities of what differs. What one version defines in one
// way and the other in another (a macro that is a function now, a function that
// has two forms now) is one entity.
func (m *merged) entities() {
	sets := make([]int, len(m.ops))
	var find func(i int) int
	find = func(i int) int {
		if sets[i] != i {
			sets[i] = find(sets[i])
		}
		return sets[i]
	}
	union := func(i, j int) {
		i, j = find(i), find(j)
		sets[max(i, j)] = min(i, j)
	}
	type side struct {
		name string
		pre  bool
	}
	seen := make(map[side]int)
	groups := make(map[int]int)
	for i := range m.ops {
		sets[i] = i
		it := m.ops[i].alone()
		if it == nil {
			continue
		}
		if g := m.ops[i].branches; g != 0 {
			if first, ok := groups[g]; ok {
				union(first, i)
			}
			groups[g] = i
		}
		pre := m.ops[i].pre != nil
		for _, d := range it.defs {
			if other, ok := seen[side{d, !pre}]; ok {
				union(other, i)
				if also, ok := seen[side{d, pre}]; ok {
					union(also, i)
				}
			}
			seen[side{d, pre}] = i
		}
	}
	for i := range m.ops {
		o := &m.ops[i]
		if o.alone() == nil && o.ent == nil {
			continue
		}
		if o.alone() != nil {
			if first := find(i); first != i {
				o.ent = m.ops[first].ent
			} else {
				o.ent = &Entity{}
			}
		}
		if o.ent.File == "" {
			o.ent.File = m.file
			m.ents = append(m.ents, o.ent)
		}
		o.ent.add(o, strings.HasSuffix(m.file, ".c"))
	}
	for _, e := range m.ents {
		e.finish()
	}
}

// write writes the file with some entities old. spans say which bytes are whose.
func (m *merged) write(old func(*Entity) bool) (text string, spans []span) {
	if m.whole != nil {
		if old(m.whole) {
			return m.pre, []span{{0, len(m.pre), m.whole}}
		}
		return m.post, []span{{0, len(m.post), m.whole}}
	}
	is := make(map[*Entity]bool, len(m.ents))
	for _, e := range m.ents {
		if old(e) {
			is[e] = true
		}
	}
	if len(is) == len(m.ents) {
		// Moved items may stand in another place, and are as they were here.
		return m.pre, preSpans(m)
	}
	return m.emit(is)
}

func (m *merged) emit(old map[*Entity]bool) (text string, spans []span) {
	var b strings.Builder
	b.Grow(len(m.pre) + len(m.post)/4)
	var last *item
	for i := range m.ops {
		o := &m.ops[i]
		it := o.pre
		switch {
		case o.gone:
			continue
		case o.ent != nil && !old[o.ent], it == nil && o.ent == nil:
			it = o.post
		}
		if it == nil {
			continue
		}
		text := it.piece()
		if last != nil && !(last.src == it.src && last.end == it.from) {
			s := last.piece()
			if s[len(s)-1] != '\n' {
				b.WriteByte('\n')
			}
		}
		if o.ent != nil {
			from := b.Len() + it.start - it.from
			spans = append(spans, span{from, b.Len() + len(text), o.ent})
		}
		b.WriteString(text)
		last = it
	}
	if last != nil && last.src != m.pre && !strings.HasSuffix(last.piece(), "\n") {
		b.WriteByte('\n')
	}
	b.WriteString(m.tail)
	return b.String(), spans
}

// span is the part of a merged file that an entity has.
type span struct {
	from, to int
	ent      *Entity
}

// preSpans are those of the old version.
func preSpans(m *merged) (spans []span) {
	for i := range m.ops {
		if o := &m.ops[i]; o.ent != nil && o.pre != nil {
			spans = append(spans, span{o.pre.start, o.pre.end, o.ent})
		}
	}
	slices.SortFunc(spans, func(a, b span) int { return a.from - b.from })
	return spans
}
