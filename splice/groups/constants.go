// SPDX-License-Identifier: Apache-2.0

package groups

import (
	"slices"
	"strings"

	"github.com/upsplice/upsplice/splice/clex"
	"github.com/upsplice/upsplice/splice/freeze"
)

// linkConstants finds macros with another value: old and new code would disagree
// about them. Who uses the value in changed statements goes with the macro.
func (g *Graph) linkConstants() {
	for _, m := range g.nodes {
		if m.e.Kind != freeze.Macro || !m.both() || m.trivial {
			continue
		}
		pre, post, ok := bodies(m)
		if !ok || g.sameValue(m.e.File, pre, post) || isStatement(pre) || isStatement(post) {
			continue
		}
		name := m.name()
		m.why = append(m.why, Reason{Entity: m.e, Code: CodeConstant, What: name,
			Detail: "its value changes from " + short(pre) + " to " + short(post) + ": what still runs has the old one"})
		for _, x := range g.nodes {
			if x.trivial || x == m || !(x.pre != nil && x.pre.has(name) || x.post != nil && x.post.has(name)) || x.typ != nil {
				continue
			}
			if x.changedUse(name) && (slices.Contains(g.scope.resolve(x.e.File, ref{name, ordinary}, true), m) || slices.Contains(g.scope.resolve(x.e.File, ref{name, ordinary}, false), m)) {
				g.link(x, m, WhyConstant, name)
			}
		}
	}
	// A typedef is a type without members: who uses it in changed statements.
	for _, t := range g.nodes {
		if t.e.Kind != freeze.Type || !t.both() || t.trivial || t.typ != nil || same(bareType(t.pre.toks), bareType(t.post.toks)) {
			continue
		}
		name := t.name()
		for _, x := range g.nodes {
			if x != t && !x.trivial && x.post != nil && x.post.has(name) && x.changedUse(name) && x.typ == nil &&
				slices.Contains(g.scope.resolve(x.e.File, ref{name, ordinary}, true), t) {
				g.linkUser(x, t, WhyConstant, name)
				x.need = append(x.need, need{t, name, CodeType, "retyped"})
			}
		}
	}
}

// bodies are the replacements of an object-like macro in both trees.
func bodies(m *node) (pre, post []token, ok bool) {
	a, pa, _ := macroHead(m.pre.toks)
	b, pb, _ := macroHead(m.post.toks)
	if a < 0 || b < 0 || pa != nil || pb != nil {
		return nil, nil, false
	}
	return directiveRest(m.pre.toks, a), directiveRest(m.post.toks, b), true
}

// directiveRest is what follows a token on its line.
func directiveRest(toks []token, at int) []token {
	end := at + 1
	for end < len(toks) && !toks[end].first {
		end++
	}
	return toks[at+1 : end]
}

// sameValue says whether two spellings mean the same number. Where the type of the
// constant can make a difference, only the same spelling is.
func (g *Graph) sameValue(file string, pre, post []token) bool {
	if same(pre, post) {
		// What it is made of may have changed.
		for _, t := range pre {
			if !t.ident() {
				continue
			}
			for _, n := range g.scope.byName[t.text] {
				if n.e.Kind == freeze.Macro && !n.trivial && visible(n, file) {
					return false
				}
			}
		}
		return true
	}
	a, ok1 := evaluate(pre, g.constants(file, false))
	b, ok2 := evaluate(post, g.constants(file, true))
	return ok1 && ok2 && a == b && a >= 0 && a <= 0x7fffffff && unsigned(pre) == unsigned(post)
}

// constants are the numbers that a file of one tree defines, as far as they can be
// evaluated from top to bottom.
func (g *Graph) constants(file string, post bool) map[string]int64 {
	known := make(map[string]int64)
	text := ""
	if g.opt.Text != nil {
		text = g.opt.Text(file, post)
	}
	if text == "" {
		for _, n := range g.scope.byFile[file] {
			if s := n.side(post); s != nil {
				define(s.toks, known)
			}
		}
		return known
	}
	toks := lex(text)
	for i := 0; i+1 < len(toks); i++ {
		switch {
		case toks[i].first && toks[i].is("#") && (toks[i+1].text == "define" || toks[i+1].text == "undef"):
			end := i + 1
			for end < len(toks) && !toks[end].first {
				end++
			}
			define(toks[i:end], known)
			i = end - 1
		case toks[i].text == "enum" && (toks[i+1].is("{") || i+2 < len(toks) && toks[i+2].is("{")):
			define(toks[i:after(toks, i+2-int(truth(toks[i+1].is("{"))))], known)
		}
	}
	return known
}

// define adds the constants of a macro or an enum. A macro with a second definition
// is none.
func define(toks []token, known map[string]int64) {
	at, params, _ := macroHead(toks)
	if at < 0 {
		for _, c := range enumerators(toks) {
			if v, ok := evaluate(c.value, known); ok && c.value != nil {
				known[c.name] = v
			}
		}
		return
	}
	name := toks[at].text
	if _, twice := known[name]; twice || params != nil || toks[at-1].text == "undef" {
		delete(known, name)
		return
	}
	if v, ok := evaluate(directiveRest(toks, at), known); ok {
		known[name] = v
	}
}

// unsigned says whether a number is an unsigned int: its complement has 32 bits.
func unsigned(toks []token) bool {
	for _, t := range toks {
		if t.kind == clex.Number && strings.ContainsAny(t.text, "uU") && !strings.ContainsAny(t.text, "lL") {
			return true
		}
	}
	return false
}

// isStatement says whether a macro stands for code rather than for a value: it
// calls something, assigns, or has braces.
func isStatement(toks []token) bool {
	for i, t := range toks {
		if t.kind != clex.Punct {
			if t.text == "do" || t.text == "if" || t.text == "return" {
				return true
			}
			continue
		}
		switch t.text {
		case "{", ";", "=", "->", "+=", "-=", "++", "--":
			return true
		case "(":
			if i > 0 && toks[i-1].ident() && toks[i-1].text != strings.ToUpper(toks[i-1].text) && !word(toks[i-1].text) {
				return true
			}
		}
	}
	return false
}

func short(toks []token) string {
	const most = 40
	s := spell(toks)
	if s == "" {
		return "nothing"
	}
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + " ..."
	}
	return s
}

// judgeData finds variables that both kernels have and that begin otherwise: the
// running one keeps what it holds.
func (g *Graph) judgeData() {
	for _, n := range g.nodes {
		if n.e.Kind != freeze.Data || !n.both() || n.trivial {
			continue
		}
		preType, preInit := splitData(n.pre.toks)
		postType, postInit := splitData(n.post.toks)
		detail := ""
		switch {
		case n.typ != nil && len(n.typ.added)+len(n.typ.removed)+len(n.typ.retyped) > 0, n.typ == nil && !same(preType, postType):
			detail = "the variable has another type in the running kernel"
		case !same(preInit, postInit):
			detail = "the variable has another initial value, and the running kernel's keeps its own"
		default:
			continue
		}
		n.why = append(n.why, Reason{Entity: n.e, Code: CodeData, What: n.name(), Detail: detail})
	}
}

// splitData separates the declaration of a variable from its initialiser; one that
// is zero is none.
func splitData(toks []token) (typ, init []token) {
	toks = plain(toks)
	for i, t := range toks {
		if t.is("=") {
			typ, init = bareType(toks[:i]), toks[i+1:]
			if n := len(init); n > 0 && init[n-1].is(";") {
				init = init[:n-1]
			}
			switch spell(init) {
			case "0", "NULL", "false", "{ }", "{ 0 }":
				init = nil
			}
			return typ, init
		}
	}
	return bareType(toks), nil
}
