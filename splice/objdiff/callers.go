// SPDX-License-Identifier: Apache-2.0

package objdiff

import (
	"cmp"
	"debug/elf"
	"fmt"
	"slices"
	"strings"

	"github.com/upsplice/upsplice/splice/object"
)

// replaceCallers finds a way for the changed functions that ftrace cannot
// redirect, as those declared inline of which the compiler made a function
// (inline means notrace in the kernel), and parts that it split off: if the unit
// alone calls such a function, its callers are replaced by new ones that call the
// new one. Else it is refused.
func (d *differ) replaceCallers(r *Result, v *verdicts) {
	var list []*object.Symbol
	for b, c := range v.changed {
		// Only its function jumps into a cold part, and that one is in the list itself.
		inner := isCold(b.Name) && c.Parent != ""
		if c.Kind == KindChanged && !c.Fentry && !isBoot(c.Section) && !inner {
			list = append(list, b)
		}
	}
	slices.SortFunc(list, func(a, b *object.Symbol) int { return cmp.Compare(a.Name, b.Name) })
	users := d.users()
	for _, b := range list {
		w := &wayOut{d: d, v: v, users: users, callers: map[*object.Symbol]*object.Symbol{}}
		c := v.changed[b]
		if why := w.follow(c.Pre); why != "" {
			r.Refusals = append(r.Refusals, Refusal{Section: c.Section, Symbol: c.Name,
				Reason: fmt.Sprintf("no fentry: the changed function cannot be redirected: %s: %s", c.Name, why)})
			continue
		}
		for pre, callee := range w.callers {
			post := d.post.canonical(d.back[pre])
			v.changed[post] = d.change(pre, post, "calls "+callee.Name+", which cannot be redirected")
		}
	}
	if len(list) > 0 {
		d.mergeParts(v) // what was split off from the callers goes with them
	}
}

// user is a place that refers to a function.
type user struct {
	code   *object.Symbol // nil if it is data
	data   string         // name of the datum or section
	branch bool
}

// users lists, by function of pre, what refers to it from elsewhere.
func (d *differ) users() map[*object.Symbol][]user {
	m := map[*object.Symbol][]user{}
	add := func(t target, u user) {
		if t.kind == toSymbol && d.pre.isCode(t.sym) && t.sym != u.code {
			m[t.sym] = append(m[t.sym], u)
		}
	}
	for _, f := range d.pre.code {
		for _, r := range d.pre.fields(f) {
			for _, t := range r.targets {
				add(t, user{code: f, branch: r.branch})
			}
		}
	}
	for _, sec := range d.pre.obj.Sections {
		if d.pre.class[sec] != classData {
			continue
		}
		for _, rel := range sec.Relocs {
			// The middle of a function is meant by its own switch tables.
			if t := d.pre.target(rel.Symbol, rel.Addend); t.off == 0 {
				name := sec.Name
				if s := d.pre.index.Covering(sec, rel.Offset); s != nil {
					name = s.Name
				}
				add(t, user{data: name})
			}
		}
	}
	return m
}

// wayOut is the search for the functions to replace instead of one.
type wayOut struct {
	d       *differ
	v       *verdicts
	users   map[*object.Symbol][]user
	callers map[*object.Symbol]*object.Symbol // of pre, to be replaced, with the callee that is why
}

// follow returns why a function of pre cannot be reached through others, "" if it can.
func (w *wayOut) follow(f *object.Symbol) string {
	if f.Bind != elf.STB_LOCAL {
		return "other units may call it; change its callers instead" + w.names(f)
	}
	for _, u := range w.users[f] {
		switch {
		case u.code == nil:
			return "its address is in " + u.data
		case isBoot(u.code.Section.Name):
			continue // has run
		case !u.branch:
			return u.code.Name + " uses its address"
		}
		post := w.d.back[u.code]
		if post != nil {
			post = w.d.post.canonical(post)
		}
		if w.callers[u.code] != nil {
			continue
		}
		c := w.v.changed[u.code] // gone
		if post != nil && w.v.changed[post] != nil {
			c = w.v.changed[post]
		}
		switch {
		case c != nil && (c.Kind == KindRemoved || c.Fentry):
			continue // replaced, or called by what is
		case c != nil:
			continue // looked at by itself
		case post == nil || w.d.codeTwin(post) != u.code:
			return u.code.Name + " calls it and cannot be found in the new object"
		}
		if _, ignored := w.d.ignores(post); ignored {
			return u.code.Name + " calls it and is to be ignored"
		}
		w.callers[u.code] = f
		if !w.d.pre.fentry[u.code] {
			if why := w.follow(u.code); why != "" {
				return why
			}
		}
	}
	return ""
}

func (w *wayOut) names(f *object.Symbol) string {
	var names []string
	for _, u := range w.users[f] {
		if u.code != nil {
			names = append(names, u.code.Name)
		}
	}
	slices.Sort(names)
	if names = slices.Compact(names); len(names) == 0 {
		return ""
	}
	return " (here: " + strings.Join(names, ", ") + ")"
}
