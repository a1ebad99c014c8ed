// SPDX-License-Identifier: Apache-2.0

package groups

import (
	"path"
	"slices"
	"strings"

	"github.com/upsplice/upsplice/splice/freeze"
)

// need is something of a type's new form that an entity needs.
type need struct {
	typ  *node
	name string // of the member or constant
	code string
	kind string // "new", "retyped"
}

func (w need) reason(n *node) Reason {
	tag := w.typ.name()
	r := Reason{Entity: n.e, Code: w.code, What: n.name()}
	switch {
	case w.code == CodeConstant && w.kind == "new":
		r.Detail = "the running kernel's enum " + tag + " has no " + w.name
	case w.code == CodeConstant:
		r.Detail = w.name + " of enum " + tag + " has another value in the running kernel"
	case w.code == CodeType:
		r.Detail = tag + " is another type in the running kernel"
	case w.kind == "new":
		r.Detail = "the running kernel's " + tag + " has no member " + w.name
	default:
		r.Detail = "the member " + w.name + " of the running kernel's " + tag + " has another type"
	}
	return r
}

// Need is a member, constant or type that a group needs in its new form.
type Need struct {
	User, Type *freeze.Entity
	Name       string
	Code       string
}

// Needs lists what each entity needs of types that keep their old form.
func (g *Graph) Needs() []Need {
	var list []Need
	for _, n := range g.nodes {
		for _, w := range n.need {
			list = append(list, Need{User: n.e, Type: w.typ.e, Name: w.name, Code: w.code})
		}
	}
	return list
}

// use is a mention of a member.
type use struct {
	base   string // the variable right in front of it, "" if it is none
	passed bool   // it is an argument of its own, as in offsetof
}

// memberUses maps the names that stand where members do to their uses.
func memberUses(s *side) map[string][]use {
	out := make(map[string][]use)
	if s == nil {
		return out
	}
	toks := s.toks
	for i := 1; i < len(toks); i++ {
		t := toks[i]
		if !t.ident() || word(t.text) {
			continue
		}
		p := toks[i-1]
		switch {
		case p.is("->") || p.is("."):
			u := use{}
			if i > 1 && toks[i-2].ident() && (i < 3 || !toks[i-3].is("->") && !toks[i-3].is(".")) {
				u.base = toks[i-2].text
			}
			out[t.text] = append(out[t.text], u)
		case p.is(",") && i+1 < len(toks) && (toks[i+1].is(")") || toks[i+1].is(",")):
			if _, local := s.vars[t.text]; !local {
				out[t.text] = append(out[t.text], use{passed: true})
			}
		}
	}
	return out
}

// linkMembers joins users of members and constants that a type gains, loses or
// changes with the type, and notes which of them need the new form.
func (g *Graph) linkMembers() {
	type wanted struct {
		typ  *node
		name string
		how  byte // '+', '-', '~'
	}
	want := make(map[string][]wanted)
	for _, t := range g.nodes {
		if t.typ == nil {
			continue
		}
		for _, l := range []struct {
			names []string
			how   byte
		}{{t.typ.added, '+'}, {t.typ.removed, '-'}, {t.typ.retyped, '~'}} {
			for _, name := range l.names {
				want[name] = append(want[name], wanted{t, name, l.how})
			}
		}
	}
	if len(want) == 0 {
		return
	}
	uses := make([][2]map[string][]use, len(g.nodes))
	others := make(map[string][2]int) // entities that use a member of that name, before and after
	for i, x := range g.nodes {
		uses[i] = [2]map[string][]use{memberUses(x.pre), memberUses(x.post)}
		for k, m := range uses[i] {
			for name := range m {
				if want[name] != nil {
					c := others[name]
					c[k]++
					others[name] = c
				}
			}
		}
	}
	for i, x := range g.nodes {
		if x.trivial || x.typ != nil || x.e.Kind == freeze.Declaration || x.e.Kind == freeze.Include {
			continue
		}
		names := make(map[string]bool)
		for _, m := range uses[i] {
			for name := range m {
				names[name] = want[name] != nil || names[name]
			}
		}
		for _, s := range []*side{x.pre, x.post} {
			if s != nil {
				for r := range s.refs {
					if r.class == ordinary && want[r.name] != nil {
						names[r.name] = true
					}
				}
			}
		}
		for _, name := range sortedTrue(names) {
			for _, w := range want[name] {
				if w.typ.typ.enum {
					g.linkEnumerator(x, w.typ, name, w.how)
					continue
				}
				pre := plausible(x, x.pre, w.typ, name, uses[i][0][name], others[name][1] == 0)
				post := plausible(x, x.post, w.typ, name, uses[i][1][name], others[name][0] == 0)
				switch {
				case w.how == '+' && post && !pre:
					g.linkUser(x, w.typ, WhyMember, name)
					x.need = append(x.need, need{w.typ, name, CodeMember, "new"})
				case w.how == '-' && pre && !post:
					g.linkUser(x, w.typ, WhyMember, name)
				case w.how == '~' && (pre || post) && x.changedUse(name):
					g.linkUser(x, w.typ, WhyMember, name)
					if post {
						x.need = append(x.need, need{w.typ, name, CodeMember, "retyped"})
					}
				}
			}
		}
	}
}

func sortedTrue(m map[string]bool) []string {
	var names []string
	for name, ok := range m {
		if ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (g *Graph) linkEnumerator(x, t *node, name string, how byte) {
	if t.e.Local && t.e.File != x.e.File || !visible(t, x.e.File) {
		return
	}
	r := ref{name, ordinary}
	pre, post := x.pre != nil && x.pre.refs[r], x.post != nil && x.post.refs[r]
	switch {
	case how == '+' && post && !pre:
		g.linkUser(x, t, WhyConstant, name)
		x.need = append(x.need, need{t, name, CodeConstant, "new"})
	case how == '-' && pre && !post:
		g.linkUser(x, t, WhyConstant, name)
	case how == '~' && (pre || post) && x.changedUse(name):
		g.linkUser(x, t, WhyConstant, name)
		if post {
			x.need = append(x.need, need{t, name, CodeConstant, "retyped"})
		}
	}
}

// plausible says whether one of the uses of a member can be that of the type.
// alone says that no change uses such a member in the tree that the type does not
// have it in: the name is not that of many types.
func plausible(x *node, s *side, t *node, name string, uses []use, alone bool) bool {
	if s == nil || len(uses) == 0 || t.e.Local && t.e.File != x.e.File {
		return false
	}
	if a, b := archOf(x.e.File), archOf(t.e.File); a != "" && b != "" && a != b {
		return false
	}
	mentioned := x.e.File == t.e.File
	for _, tag := range t.typ.tags {
		mentioned = mentioned || s.has(tag)
	}
	near := path.Dir(x.e.File) == path.Dir(t.e.File) || samePlace(x.e.File, t.e.File) && path.Dir(t.e.File) != "."
	for _, u := range uses {
		if u.base != "" {
			if tag, ok := s.vars[u.base]; ok && tag != "" && tag != "void" {
				if slices.Contains(t.typ.tags, tag) {
					return true
				}
				if !nestedIn(t, tag) {
					continue
				}
			}
		}
		if u.passed && !mentioned {
			continue
		}
		if mentioned || (near || includish(t.e.File)) && distinct(name) || near && alone || includish(t.e.File) && alone && len(name) > 7 {
			return true
		}
	}
	return false
}

// nestedIn says whether a type mentions another one, which may be a part of it.
func nestedIn(t *node, tag string) bool {
	return t.pre.refs[ref{tag, tagged}] || t.post.refs[ref{tag, tagged}] || t.own[tag]
}

// distinct says whether a member's name is hardly that of another type's member.
func distinct(name string) bool {
	return len(name) > 7 && strings.Contains(strings.Trim(name, "_"), "_")
}

// linkPointers joins functions that get another signature with the member of an
// operations type that gets the same one: callers go through the member.
func (g *Graph) linkPointers() {
	type change struct{ pre, post string }
	bySig := make(map[change][]hub)
	for _, t := range g.nodes {
		if t.typ == nil || t.typ.enum {
			continue
		}
		for _, m := range t.typ.retyped {
			_, pre, ok1 := strings.Cut(t.typ.oldType[m], "(*)(")
			_, post, ok2 := strings.Cut(t.typ.newType[m], "(*)(")
			if ok1 && ok2 {
				c := change{pre, post}
				bySig[c] = append(bySig[c], hub{t, m})
			}
		}
	}
	if len(bySig) == 0 {
		return
	}
	for _, x := range g.nodes {
		if x.e.Kind != freeze.Function || !x.both() {
			continue
		}
		_, pre, ok1 := strings.Cut(signature(x.e, x.pre), "(")
		_, post, ok2 := strings.Cut(signature(x.e, x.post), "(")
		if !ok1 || !ok2 || pre == post {
			continue
		}
		for _, h := range bySig[change{pre, post}] {
			if visible(h.typ, x.e.File) {
				g.linkUser(x, h.typ, WhyPointer, h.name)
				x.need = append(x.need, need{h.typ, h.name, CodeMember, "retyped"})
			}
		}
	}
}
