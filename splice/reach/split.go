// SPDX-License-Identifier: Apache-2.0

package reach

import "strings"

// sink takes what the splitter finds, in the order of the file. The tokens are
// valid during the call only.
type sink interface {
	// macro is a #define or #undef, without the directive's name.
	macro(undef bool, toks []token, conds []condition)
	// include is what follows #include; inside says that it stands in the middle
	// of an entity.
	include(toks []token, inside bool, conds []condition)
	// entity is a declaration, definition or invocation at the top level. open
	// says that it has no end: the file ends within it.
	entity(toks []token, conds []condition, open bool)
}

// condition is a group of #if ... #else that an entity stands in. Its text has
// all conditions of the group so far.
type condition struct {
	toks  []token
	guard bool // of multiple inclusion: always true where it matters

	inside              bool // opened in the middle of an entity
	braces, parens      int  // where it began
	endBraces, endParen int  // where its first branch ended
	branches            int
}

// splitter cuts a file at the top level. It follows all branches of conditions:
// braces are counted in the first one.
type splitter struct {
	lex   *lexer
	tok   token
	out   sink
	conds []condition

	pending []token // of the entity that has begun
	braces  int
	parens  int
	body    bool // the braces that are open are those of a function

	directives int // seen so far
	entities   int
	broken     bool // an entity ended in one branch of a condition that it has other branches of
}

func split(text string, out sink) {
	s := &splitter{lex: newLexer(text), out: out}
	s.tok = s.lex.next()
	for s.tok.kind != tokEOF {
		if s.tok.first && s.tok.is("#") {
			s.directive()
			continue
		}
		s.code(s.tok)
		s.tok = s.lex.next()
	}
	if len(s.pending) > 0 {
		s.finish(!definitions(s.pending))
	}
}

// definitions says whether what has no end consists of macros that define what
// they are given the name of. Other macros can be called for every item of a list,
// and make whatever the including file wants.
func definitions(toks []token) bool {
	depth := 0
	for _, t := range code(toks) {
		switch {
		case t.is("("):
			depth++
		case t.is(")"):
			depth--
		case depth == 0 && !strings.HasPrefix(t.text, "DEFINE_") && !strings.HasPrefix(t.text, "DECLARE_") && !strings.HasPrefix(t.text, "__DEFINE_"):
			return false
		}
	}
	return depth == 0
}

func (s *splitter) code(t token) {
	s.pending = append(s.pending, t)
	if t.kind != tokPunct {
		return
	}
	switch t.text {
	case "(":
		s.parens++
	case ")":
		s.parens = max(0, s.parens-1)
	case "{":
		if s.braces == 0 && s.parens == 0 {
			if n := len(s.pending); n >= 3 && s.pending[n-2].kind == tokString && s.pending[n-3].text == "extern" {
				s.pending = s.pending[:n-3] // extern "C" {: its end is dropped below
				return
			}
			s.body = opensBody(s.pending[:len(s.pending)-1])
		}
		s.braces++
	case "}":
		if s.braces == 0 {
			s.pending = s.pending[:len(s.pending)-1]
			return
		}
		s.braces--
		if s.braces == 0 {
			s.parens = 0 // unequal ones come from conditions
			if s.body {
				s.finish(false)
			}
		}
	case ";":
		if s.braces == 0 && s.parens == 0 {
			s.finish(false)
		}
	}
}

func (s *splitter) finish(open bool) {
	if len(s.pending) > 1 || open {
		s.entities++
		s.out.entity(s.pending, s.conds, open || s.broken)
		s.broken = false
	}
	s.pending, s.braces, s.parens, s.body = s.pending[:0], 0, 0, false
}

// opensBody says whether a brace after these tokens is that of a function. An
// aggregate ends at the semicolon after its brace, a function at the brace.
func opensBody(toks []token) bool {
	aggregate, called := false, false
	for i, depth := 0, 0; i < len(toks); i++ {
		t := toks[i]
		switch {
		case t.is("("):
			if depth == 0 && i > 0 && !attribute(toks[i-1].text) {
				called, aggregate = true, false
			}
			depth++
		case t.is(")"):
			depth--
		case depth > 0:
		case t.is("="):
			return false
		case t.is("*"):
			aggregate = false
		case t.text == "struct" || t.text == "union" || t.text == "enum":
			aggregate = !called
		}
	}
	return called && !aggregate
}

// directive takes a whole directive; s.tok is its number sign.
func (s *splitter) directive() {
	var toks []token
	for s.tok = s.lex.next(); s.tok.kind != tokEOF && !s.tok.first; s.tok = s.lex.next() {
		toks = append(toks, s.tok)
	}
	if len(toks) == 0 {
		return
	}
	name := toks[0].text
	s.directives++
	inside := len(s.pending) > 0
	switch name {
	case "define", "undef":
		if len(toks) < 2 {
			return
		}
		if n := len(s.conds); n > 0 && s.directives == 2 && n == 1 && s.entities == 0 &&
			len(s.conds[0].toks) == 2 && s.conds[0].toks[0].text == "ifndef" && s.conds[0].toks[1].text == toks[1].text {
			s.conds[0].guard = true
		}
		s.out.macro(name == "undef", toks[1:], s.conds)
	case "include", "include_next":
		s.out.include(toks[1:], inside, s.conds)
	case "if", "ifdef", "ifndef":
		if inside {
			s.inside(toks)
		}
		s.conds = append(s.conds, condition{toks: toks, inside: inside, braces: s.braces, parens: s.parens})
	case "elif", "else", "elifdef", "elifndef":
		if inside {
			s.inside(toks)
		}
		if len(s.conds) == 0 {
			return
		}
		c := &s.conds[len(s.conds)-1]
		if c.branches == 0 {
			c.endBraces, c.endParen = s.braces, s.parens
		}
		if c.inside && !inside {
			s.broken = true
		}
		c.branches++
		c.guard = false
		c.toks = append(c.toks[:len(c.toks):len(c.toks)], toks...)
		s.braces, s.parens = c.braces, c.parens
	case "endif":
		if len(s.conds) == 0 {
			return
		}
		c := s.conds[len(s.conds)-1]
		s.conds = s.conds[:len(s.conds)-1]
		if c.branches > 0 && inside {
			s.braces, s.parens = c.endBraces, c.endParen
		}
		if inside {
			s.inside(toks[:1])
		}
	case "pragma":
		if len(toks) > 1 && toks[1].text == "once" {
			return
		}
		if inside {
			s.inside(toks)
		} else {
			s.entities++
			s.out.entity(toks, s.conds, true)
		}
	}
}

// What stands around a directive within an entity.
const (
	directiveBegin = "#"
	directiveEnd   = "#end"
)

func (s *splitter) inside(toks []token) {
	s.pending = append(s.pending, token{text: directiveBegin, kind: tokPunct})
	s.pending = append(s.pending, toks...)
	s.pending = append(s.pending, token{text: directiveEnd, kind: tokPunct})
}

// code leaves out the directives within an entity.
func code(toks []token) []token {
	var out []token
	depth := 0
	for i, t := range toks {
		switch {
		case t.is(directiveEnd):
			depth = 0
		case t.is(directiveBegin):
			if out == nil {
				out = append(make([]token, 0, len(toks)), toks[:i]...)
			}
			depth = 1
		case depth == 0 && out != nil:
			out = append(out, t)
		}
	}
	if out == nil {
		return toks
	}
	return out
}

// attribute says whether a name that is followed by parentheses belongs to a
// declaration without being what is declared.
func attribute(name string) bool {
	switch name {
	case "__attribute__", "__attribute", "__aligned", "__section", "__printf", "__scanf", "__acquires", "__releases",
		"__must_hold", "__cond_acquires", "__alloc_size", "__malloc", "__alias", "__assume_aligned", "__asm__", "asm", "__asm",
		"__typeof__", "typeof", "__typeof", "__alignas", "_Alignas", "__counted_by", "__no_sanitize_or_inline", "__mode",
		"__realloc_size", "__copy", "__cleanup", "__designated_init", "__diagnose_as", "__compiletime_error",
		"__compiletime_warning", "__nonnull", "__nocfi", "__error", "__warning", "__no_context_analysis", "__guarded_by",
		"__declspec", "__exidx", "__cold_on", "____cacheline_aligned_in_smp", "sizeof", "_Static_assert", "static_assert":
		return true
	}
	return strings.HasPrefix(name, "__attribute")
}
