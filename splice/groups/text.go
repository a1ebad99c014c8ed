// SPDX-License-Identifier: Apache-2.0

package groups

import (
	"strings"

	"github.com/upsplice/upsplice/splice/clex"
	"github.com/upsplice/upsplice/splice/freeze"
)

// class says in which name space a mention stands.
type class uint8

const (
	ordinary class = iota // function, datum, macro, constant, typedef
	tagged                // after struct, union or enum
	membered              // after -> or .
)

type ref struct {
	name  string
	class class
}

// side is one of the two texts of an entity.
type side struct {
	toks []token
	refs map[ref]bool
	vars map[string]string // variables and parameters to the tags of their types, "" for others

	stmts map[string]map[string]int // names to the statements that mention them
}

func newSide(text string) *side {
	s := &side{toks: lex(text)}
	s.vars = variables(s.toks)
	s.refs = references(s.toks, s.vars)
	return s
}

func (s *side) has(name string) bool {
	return s.refs[ref{name, ordinary}] || s.refs[ref{name, tagged}]
}

// references collects what the tokens mention, without their own variables.
func references(toks []token, vars map[string]string) map[ref]bool {
	refs := make(map[ref]bool)
	for i, t := range toks {
		if !t.ident() || word(t.text) {
			continue
		}
		r := ref{name: t.text}
		if i > 0 {
			switch p := toks[i-1]; {
			case p.is("->"), p.is(".") && !designated(toks, i-1), p.is(".") && designated(toks, i-1):
				r.class = membered
			case p.text == "struct" || p.text == "union" || p.text == "enum":
				r.class = tagged
			case p.text == "goto":
				continue
			}
		}
		if r.class == ordinary {
			if _, local := vars[t.text]; local {
				continue
			}
		}
		refs[r] = true
	}
	return refs
}

// designated says whether the dot at i begins a designated initialiser.
func designated(toks []token, i int) bool {
	return i > 0 && (toks[i-1].is("{") || toks[i-1].is(","))
}

// variables finds the parameters and local variables that a function declares,
// with the tags of their types.
func variables(toks []token) map[string]string {
	vars := make(map[string]string)
	for i := 0; i < len(toks); i++ {
		t := toks[i]
		if !t.ident() || t.text == "return" || t.text == "goto" || t.text == "else" || t.text == "case" || t.text == "typedef" {
			continue
		}
		if i > 0 && !startsDeclaration(toks[i-1]) {
			continue
		}
		// The words of the type, then stars, then a name.
		j, tag, words := i, "", 0
		for j < len(toks) && toks[j].ident() {
			if (toks[j].text == "struct" || toks[j].text == "union" || toks[j].text == "enum") && j+1 < len(toks) && toks[j+1].ident() {
				tag = toks[j+1].text
				j++
			}
			j++
			words++
		}
		if words == 0 || j >= len(toks) {
			continue
		}
		name := j - 1
		if toks[j].is("*") {
			for j < len(toks) && (toks[j].is("*") || toks[j].text == "const" || toks[j].text == "__rcu" || toks[j].text == "__user" || toks[j].text == "restrict") {
				j++
			}
			if j >= len(toks) || !toks[j].ident() {
				continue
			}
			name = j
		} else if words < 2 || toks[name].text == tag && toks[name-1].text != tag && words == 1 {
			continue
		}
		if tag == "" && words > 0 {
			tag = typeWord(toks[i:name])
		}
		for {
			if !ends(toks, name+1) || word(toks[name].text) {
				break
			}
			if toks[name].text == tag && toks[name-1].text != "*" && (toks[name-1].text == "struct" || toks[name-1].text == "union" || toks[name-1].text == "enum") {
				break
			}
			vars[toks[name].text] = tag
			// Further ones of the same declaration.
			k := name + 1
			for k < len(toks) && !toks[k].is(",") && !toks[k].is(";") && !toks[k].is(")") && !toks[k].is("{") {
				if toks[k].is("(") || toks[k].is("[") {
					k = after(toks, k)
					continue
				}
				if toks[k].is("=") && k+1 < len(toks) && toks[k+1].is("{") {
					k = after(toks, k+1)
					continue
				}
				k++
			}
			if k >= len(toks) || !toks[k].is(",") {
				break
			}
			k++
			for k < len(toks) && toks[k].is("*") {
				k++
			}
			if k >= len(toks) || !toks[k].ident() || !ends(toks, k+1) {
				break
			}
			name = k
		}
	}
	return vars
}

func startsDeclaration(t token) bool {
	return t.kind == clex.Punct && (t.text == ";" || t.text == "{" || t.text == "}" || t.text == "(" || t.text == "," || t.text == ":")
}

func ends(toks []token, i int) bool {
	if i >= len(toks) || toks[i].kind != clex.Punct {
		return false
	}
	switch toks[i].text {
	case ",", ";", "=", ")", "[":
		return true
	}
	return false
}

// typeWord is the name of a typedef in the words of a type.
func typeWord(toks []token) string {
	for i := len(toks) - 1; i >= 0; i-- {
		if toks[i].ident() && toks[i].text != "const" && toks[i].text != "static" && !strings.HasPrefix(toks[i].text, "__") {
			return toks[i].text
		}
	}
	return ""
}

// statements maps each name to the statements that mention it, with how often
// each stands there.
func (s *side) statements(name string) map[string]int {
	if s.stmts == nil {
		s.stmts = make(map[string]map[string]int)
		from := 0
		toks := s.toks
		for i := 0; i <= len(toks); i++ {
			if i < len(toks) && !(toks[i].is(";") || toks[i].is("{") || toks[i].is("}")) {
				continue
			}
			if run := toks[from:i]; len(run) > 0 {
				text := spell(run)
				for _, t := range run {
					if !t.ident() {
						continue
					}
					m := s.stmts[t.text]
					if m == nil {
						m = make(map[string]int)
						s.stmts[t.text] = m
					}
					m[text]++
				}
			}
			from = i + 1
		}
	}
	return s.stmts[name]
}

// node is an entity with what its texts say.
type node struct {
	e         *freeze.Entity
	i         int
	pre, post *side // nil where it has no text
	own       map[string]bool
	defs      []string // names that others can mention, aliases included
	trivial   bool     // both texts have the same tokens

	typ  *typeDef // of a struct, union or enum that both have
	need []need
	why  []Reason // known before grouping
}

func newNode(i int, e *freeze.Entity) *node {
	n := &node{e: e, i: i, own: make(map[string]bool)}
	for _, name := range e.Names {
		n.own[name] = true
	}
	if e.Pre != "" {
		n.pre = newSide(e.Pre)
	}
	if e.Post != "" {
		n.post = newSide(e.Post)
	}
	n.trivial = n.pre != nil && n.post != nil && same(n.pre.toks, n.post.toks)
	n.defs = n.defines()
	return n
}

func (n *node) both() bool { return n.pre != nil && n.post != nil }

func (n *node) side(post bool) *side {
	if post {
		return n.post
	}
	return n.pre
}

func (n *node) name() string {
	if len(n.e.Names) > 0 && n.e.Kind != freeze.Whole {
		return n.e.Names[0]
	}
	return n.e.File
}

// changedUse says whether the statements that mention a name differ.
func (n *node) changedUse(name string) bool {
	if !n.both() {
		return true
	}
	a, b := n.pre.statements(name), n.post.statements(name)
	if len(a) != len(b) {
		return true
	}
	for k, v := range a {
		if b[k] != v {
			return true
		}
	}
	return false
}

// aliases are what macros at the top level make of the names they are given.
var aliases = map[string][]string{
	"TRACE_EVENT": {"trace_"}, "DEFINE_EVENT": {"trace_"}, "DECLARE_TRACE": {"trace_"}, "TRACE_EVENT_CONDITION": {"trace_"}, "TRACE_EVENT_FN": {"trace_"},
	"DEVICE_ATTR": {"dev_attr_"}, "DEVICE_ATTR_RW": {"dev_attr_"}, "DEVICE_ATTR_RO": {"dev_attr_"}, "DEVICE_ATTR_WO": {"dev_attr_"},
	"BIN_ATTR_RO": {"bin_attr_"}, "BIN_ATTR_RW": {"bin_attr_"}, "BPF_CALL_0": {"bpf_"},
}

// defines lists the names that others can mention it by.
func (n *node) defines() []string {
	var names []string
	seen := make(map[string]bool)
	add := func(name string) {
		if name != "" && !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
	}
	if n.e.Kind != freeze.Whole { // which names what is its own, too
		for _, name := range n.e.Names {
			add(name)
		}
	}
	for _, s := range []*side{n.pre, n.post} {
		if s == nil {
			continue
		}
		switch n.e.Kind {
		case freeze.Type:
			for _, c := range enumerators(s.toks) {
				add(c.name)
			}
		case freeze.Invocation:
			if len(s.toks) == 0 {
				continue
			}
			for _, prefix := range aliases[s.toks[0].text] {
				for _, name := range n.e.Names {
					add(prefix + name)
				}
			}
		}
	}
	if n.e.Kind == freeze.Whole {
		for _, text := range []string{n.e.Pre, n.e.Post} {
			for _, name := range defined(text, strings.HasSuffix(n.e.File, ".c")) {
				add(name)
			}
		}
	}
	return names
}

// isCode says whether the entity is code or data that can go live.
func isCode(e *freeze.Entity) bool {
	switch e.Kind {
	case freeze.Function, freeze.Data, freeze.Macro, freeze.Whole:
		return true
	}
	return false
}
