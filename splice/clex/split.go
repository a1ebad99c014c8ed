// SPDX-License-Identifier: Apache-2.0

package clex

import "strings"

// Sink takes what the splitter finds, in the order of the file. The tokens are
// valid during the call only.
type Sink interface {
	// Directive is any directive, with its number sign; what else is said about it
	// follows. inside says that it stands in the middle of an entity.
	Directive(toks []Token, inside bool)
	// Macro is a #define or #undef, without the directive's name.
	Macro(undef bool, toks []Token, conds []Condition)
	// Include is what follows #include.
	Include(toks []Token, inside bool, conds []Condition)
	// Entity is a declaration, definition or invocation at the top level. open
	// says that it has no end: the file ends within it. A pragma is one, too.
	Entity(toks []Token, conds []Condition, open bool)
	// Stray is what belongs to nothing: a semicolon, the braces of extern "C".
	Stray(toks []Token)
}

// Condition is a group of #if ... #else that an entity stands in.
type Condition struct {
	Toks  []Token // all conditions of the group so far
	Guard bool    // of multiple inclusion: always true where it matters

	inside              bool // opened in the middle of an entity
	braces, parens      int  // where it began
	endBraces, endParen int  // where its first branch ended
	branches            int
}

// splitter cuts a file at the top level. It follows all branches of conditions:
// braces are counted in the first one.
type splitter struct {
	lex   *Lexer
	tok   Token
	out   Sink
	conds []Condition

	pending []Token // of the entity that has begun
	braces  int
	parens  int
	body    bool // the braces that are open are those of a function

	directives int // seen so far
	entities   int
	externs    int  // braces of extern "C" that are open
	broken     bool // an entity ended in one branch of a condition that it has other branches of
	unequal    bool
}

// Split cuts a file. It says whether braces, parentheses and conditions are
// balanced in it; if they are not, what it found may be anything.
func Split(text string, out Sink) (balanced bool) {
	s := &splitter{lex: NewLexer(text), out: out}
	s.tok = s.lex.Next()
	for s.tok.Kind != EOF {
		if s.tok.First && s.tok.Is("#") {
			s.directive()
			continue
		}
		s.code(s.tok)
		s.tok = s.lex.Next()
	}
	s.unequal = s.unequal || s.braces > 0 || s.parens > 0 || len(s.conds) > 0
	if len(s.pending) > 0 {
		s.finish(!definitions(s.pending))
	}
	return !s.unequal
}

// definitions says whether what has no end consists of macros that define what
// they are given the name of. Other macros can be called for every item of a list,
// and make whatever the including file wants.
func definitions(toks []Token) bool {
	depth := 0
	for _, t := range Code(toks) {
		switch {
		case t.Is("("):
			depth++
		case t.Is(")"):
			depth--
		case depth == 0 && !strings.HasPrefix(t.Text, "DEFINE_") && !strings.HasPrefix(t.Text, "DECLARE_") && !strings.HasPrefix(t.Text, "__DEFINE_"):
			return false
		}
	}
	return depth == 0
}

func (s *splitter) code(t Token) {
	s.pending = append(s.pending, t)
	if t.Kind != Punct {
		return
	}
	switch t.Text {
	case "(":
		s.parens++
	case ")":
		s.parens = max(0, s.parens-1)
	case "{":
		if s.braces == 0 && s.parens == 0 {
			if n := len(s.pending); n >= 3 && s.pending[n-2].Kind == String && s.pending[n-3].Text == "extern" {
				s.out.Stray(s.pending[n-3:]) // extern "C" {
				s.pending = s.pending[:n-3]
				s.externs++
				return
			}
			s.body = OpensBody(s.pending[:len(s.pending)-1])
		}
		s.braces++
	case "}":
		if s.braces == 0 {
			s.out.Stray(s.pending[len(s.pending)-1:])
			s.pending = s.pending[:len(s.pending)-1]
			s.externs--
			s.unequal = s.unequal || s.externs < 0
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
		s.out.Entity(s.pending, s.conds, open || s.broken)
		s.broken = false
	} else {
		s.out.Stray(s.pending)
	}
	s.pending, s.braces, s.parens, s.body = s.pending[:0], 0, 0, false
}

// directive takes a whole directive; s.tok is its number sign.
func (s *splitter) directive() {
	line := []Token{s.tok}
	for s.tok = s.lex.Next(); s.tok.Kind != EOF && !s.tok.First; s.tok = s.lex.Next() {
		line = append(line, s.tok)
	}
	toks := line[1:]
	inside := len(s.pending) > 0
	s.out.Directive(line, inside)
	if len(toks) == 0 {
		return
	}
	name := toks[0].Text
	s.directives++
	switch name {
	case "define", "undef":
		if len(toks) < 2 {
			return
		}
		if n := len(s.conds); n > 0 && s.directives == 2 && n == 1 && s.entities == 0 &&
			len(s.conds[0].Toks) == 2 && s.conds[0].Toks[0].Text == "ifndef" && s.conds[0].Toks[1].Text == toks[1].Text {
			s.conds[0].Guard = true
		}
		s.out.Macro(name == "undef", toks[1:], s.conds)
	case "include", "include_next":
		s.out.Include(toks[1:], inside, s.conds)
	case "if", "ifdef", "ifndef":
		if inside {
			s.inside(toks)
		}
		s.conds = append(s.conds, Condition{Toks: toks, inside: inside, braces: s.braces, parens: s.parens})
	case "elif", "else", "elifdef", "elifndef":
		if inside {
			s.inside(toks)
		}
		if len(s.conds) == 0 {
			s.unequal = true
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
		c.Guard = false
		c.Toks = append(c.Toks[:len(c.Toks):len(c.Toks)], toks...)
		s.braces, s.parens = c.braces, c.parens
	case "endif":
		if len(s.conds) == 0 {
			s.unequal = true
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
		if len(toks) > 1 && toks[1].Text == "once" {
			return
		}
		if inside {
			s.inside(toks)
		} else {
			s.entities++
			s.out.Entity(toks, s.conds, true)
		}
	}
}

// What stands around a directive within an entity.
const (
	directiveBegin = "#"
	directiveEnd   = "#end"
)

func (s *splitter) inside(toks []Token) {
	s.pending = append(s.pending, Token{Text: directiveBegin, Kind: Punct})
	s.pending = append(s.pending, toks...)
	s.pending = append(s.pending, Token{Text: directiveEnd, Kind: Punct})
}

// Code leaves out the directives within an entity.
func Code(toks []Token) []Token {
	var out []Token
	depth := 0
	for i, t := range toks {
		switch {
		case t.Is(directiveEnd):
			depth = 0
		case t.Is(directiveBegin):
			if out == nil {
				out = append(make([]Token, 0, len(toks)), toks[:i]...)
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
