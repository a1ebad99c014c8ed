// SPDX-License-Identifier: Apache-2.0

package freeze

import (
	"slices"
	"strings"
)

// Frozen says whether the entity has to be old wherever the layouts of the running
// kernel are kept: a type with members, or a typedef, that both trees have in
// different form. So do an #include line and a file that only the old tree has,
// because code that stays old may need them; and a file that both have and that
// cannot be cut up. Types that only the new tree has are taken, and those that only
// the old one has are left out.
func (e *Entity) Frozen() bool {
	switch {
	case e.frozen:
		return true
	case e.Kind == Include, e.Kind == Whole:
		return e.old && !e.new
	}
	return false
}

// Both says whether both trees have the entity.
func (e *Entity) Both() bool { return e.old && e.new }

// define takes what an item of one side defines.
func (e *Entity) define(i *item, side int) {
	for _, n := range i.names {
		if !slices.Contains(e.Names, n) {
			e.Names = append(e.Names, n)
		}
	}
	for _, t := range i.types {
		if e.parts[side] == nil {
			e.parts[side] = make(map[string]string)
		}
		e.parts[side][t.name] += i.src[t.start:t.end] + "\n"
	}
}

// add takes the pieces of a step.
func (e *Entity) add(o *op, local bool) {
	switch {
	case !e.old && !e.new:
		e.Local = local
		if o.post != nil {
			e.Kind = o.post.kind
		} else {
			e.Kind = o.pre.kind
		}
	case o.post != nil && !e.new:
		e.Kind = o.post.kind // what it is now
	}
	for n, i := range []*item{o.post, o.pre} {
		if i == nil {
			continue
		}
		e.Local = e.Local && (i.static || i.kind == Macro || i.kind == Type || i.kind == Include)
		side, text := 1, &e.Post
		if n == 1 {
			side, text = 0, &e.Pre
			e.old = true
		} else {
			e.new = true
		}
		e.define(i, side)
		if *text != "" {
			*text += "\n"
		}
		*text += i.lead()
		if i.head > 0 {
			e.heads[side] += i.src[i.start:i.head]
		} else {
			e.heads[side] += i.text()
		}
	}
}

// finish is called once all pieces are there.
func (e *Entity) finish() {
	for name, text := range e.parts[0] {
		if now, ok := e.parts[1][name]; ok && !same(text, now) {
			e.frozen = true
		}
	}
	e.headed = !e.Both() || !same(e.heads[0], e.heads[1])
	e.heads = [2]string{}
	e.PreRefs, e.PostRefs = mentions(e.Pre, e.Names), mentions(e.Post, e.Names)
}

// String is for people.
func (e *Entity) String() string {
	name := e.File
	if len(e.Names) > 0 {
		name = e.Names[0] + " in " + e.File
	}
	return strings.TrimSpace(e.Kind.String() + " " + name)
}

func (k Kind) String() string {
	return [...]string{"function", "macro", "type", "data", "declaration", "invocation", "include", "file"}[min(k, Whole)]
}
