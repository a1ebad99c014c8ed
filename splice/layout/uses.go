// SPDX-License-Identifier: Apache-2.0

package layout

import "strings"

// uses returns which of the types and data in keys code with these identifiers
// can use. To use a type, code must name it, or have a value of a type that
// contains one, or get at it through a member whose name it has; a function that is
// called through a pointer hands out what it returns.
func (o *Object) uses(idents, keys map[string]bool) map[string]bool {
	used := map[string]bool{}
	w := walker{o: o, idents: idents, seen: make([]bool, len(o.g.nodes))}
	for _, v := range o.g.vars {
		name := v.name[strings.LastIndexByte(v.name, '.')+1:]
		if idents[name] {
			w.visit(v.id)
			if keys[v.name] {
				used[v.name] = true
			}
		}
	}
	for _, f := range o.g.funcs {
		if idents[f.name] {
			w.visit(f.id)
		}
	}
	for id := range o.g.nodes {
		for _, key := range o.g.nodes[id].keys() {
			if _, name, _ := strings.Cut(key, " "); idents[name] {
				w.visit(id)
			}
		}
		for _, v := range o.g.nodes[id].values {
			if idents[v.name] {
				w.visit(id)
			}
		}
	}
	for id, seen := range w.seen {
		if !seen {
			continue
		}
		for _, key := range o.g.nodes[id].keys() {
			if keys[key] {
				used[key] = true
			}
		}
	}
	return used
}

type walker struct {
	o      *Object
	idents map[string]bool
	seen   []bool
	queue  []int
}

// visit marks a type and all that can be had from it.
func (w *walker) visit(id int) {
	w.queue = append(w.queue, id)
	for len(w.queue) > 0 {
		id := w.queue[len(w.queue)-1]
		w.queue = w.queue[:len(w.queue)-1]
		if w.seen[id] {
			continue
		}
		w.seen[id] = true
		n := &w.o.g.nodes[id]
		switch n.kind {
		case kindStruct, kindUnion:
			for _, m := range n.members {
				if m.name == "" || w.idents[m.name] || !w.points(m.elem) {
					w.queue = append(w.queue, m.elem)
				}
			}
		case kindFunc:
			for _, p := range n.members {
				w.queue = append(w.queue, p.elem)
			}
			w.queue = append(w.queue, n.elem)
		case kindPointer, kindArray, kindAlias:
			w.queue = append(w.queue, n.elem)
		}
	}
}

// points says whether a member is a pointer or an array of pointers.
func (w *walker) points(id int) bool {
	for range maxDepth {
		switch n := &w.o.g.nodes[id]; n.kind {
		case kindArray, kindAlias:
			id = n.elem
		default:
			return n.kind == kindPointer
		}
	}
	return false
}
