// SPDX-License-Identifier: Apache-2.0

package lines

import (
	"bytes"
	"regexp"
)

// cond is what a line is to conditional compilation.
type cond byte

const (
	condNone cond = iota
	condIf
	condElif
	condElse
	condEnd
)

// line of a source.
type line struct {
	text []byte // with its newline
	safe bool   // a directive can stand before it
	cond cond
}

// source is what is known of a file.
type source struct {
	lines []line
	given bool // it cannot or need not be laid out
}

var (
	ownNumbers = regexp.MustCompile(`^[ \t]*#[ \t]*(line\b|[0-9])`)
	// An initialiser (".type = 1,") is no assembly.
	assembly    = regexp.MustCompile(`^[ \t]*(\.(globl|global|section|pushsection|type|align|text|data|macro|endm)([ \t]+[^= \t\r\n].*|[ \t]*)|SYM_(FUNC|CODE|DATA|INNER)_[A-Z_]*\(.*|ENTRY\(.*)[\r\n]*$`)
	forBoth     = regexp.MustCompile(`__ASSEMBL(Y|ER)__`)
	macroStart  = regexp.MustCompile(`^[ \t]*\.macro\b`)
	macroEnd    = regexp.MustCompile(`^[ \t]*\.endm\b`)
	closingLine = regexp.MustCompile(`^};?[ \t]*[\r\n]*$`)
)

// scanner is the state between two lines.
type scanner struct {
	comment  bool // within /* */
	spliced  bool // the last line ended with a backslash
	quote    byte // of a string that goes on behind the backslash, 0 if none
	slashes  bool // a // comment that goes on behind the backslash
	hash     bool // within a directive
	lost     bool // something that is not understood: nothing is safe from here
	asmMacro bool
	depth    set // numbers of parentheses that may be open
	stack    []branches
}

// branches of an #if: the parentheses that may be open where they begin and end.
type branches struct {
	entry, ends set
	whole       bool
}

// scan goes through a file as the preprocessor does: comments and strings, spliced
// lines, directives, parentheses.
func scan(text []byte) source {
	var src source
	both := forBoth.Match(text)
	s := scanner{depth: set{0: true}}
	var first []byte // per line: the first character of code, 0 for none, '#' for a directive
	for _, l := range bytes.SplitAfter(text, []byte("\n")) {
		if len(l) == 0 {
			continue
		}
		free := !s.comment && !s.spliced
		begins := byte(0) // what the line begins with: most need not be looked at closely
		if text := bytes.TrimLeft(l, " \t"); len(text) > 0 {
			begins = text[0]
		}
		if free && begins == '#' && ownNumbers.Match(l) || free && !both && (begins == '.' || begins == 'S' || begins == 'E') && assembly.Match(l) && s.depth.is(0) {
			src.given = true
		}
		if begins == '.' && macroStart.Match(l) {
			s.asmMacro = true
		}
		out := line{text: l, safe: free && !s.lost && !s.asmMacro && s.depth.is(0)}
		if begins == '.' && macroEnd.Match(l) {
			s.asmMacro = false
		}
		begin, directive := s.next(l)
		if directive != nil {
			out.cond = s.conditional(directive)
		}
		first = append(first, begin)
		src.lines = append(src.lines, out)
	}
	// The name of a macro may stand on one line and its parenthesis on the next.
	after := byte(0)
	for i := len(first) - 1; i >= 0; i-- {
		if first[i] != 0 && first[i] != '#' {
			after = first[i]
		}
		if after == '(' {
			src.lines[i].safe = false
		}
	}
	return src
}

// next goes over one line and returns the first character of its code, '#' for a
// directive, 0 for a line without code. If a directive begins here, start is what
// follows its '#'.
func (s *scanner) next(l []byte) (first byte, start []byte) {
	body := bytes.TrimRight(l, "\r\n")
	// The compiler splices where only blanks follow the backslash, too.
	trimmed := bytes.TrimRight(body, " \t\v\f")
	splices := bytes.HasSuffix(trimmed, []byte(`\`))
	if splices {
		body = trimmed[:len(trimmed)-1]
	}
	directive := s.hash
	tail := byte(0) // the last character, if it is code or ends an open comment's line
	if l[0] == '}' && closingLine.Match(l) && !s.comment && !s.spliced && s.depth[0] {
		// The end of a function: parentheses that were open on some path of #if
		// are closed.
		s.depth = set{0: true}
	}
	for i := 0; i < len(body); i++ {
		c := body[i]
		tail = 0
		switch {
		case s.slashes:
			i = len(body)
		case s.comment:
			if c == '*' && i+1 < len(body) && body[i+1] == '/' {
				s.comment = false
				i++
			} else {
				tail = c
			}
		case s.quote != 0:
			if c == '\\' {
				i++
			} else if c == s.quote {
				s.quote = 0
			}
		case c == '/' && i+1 < len(body) && body[i+1] == '*':
			s.comment = true
			i++
		case c == '/' && i+1 < len(body) && body[i+1] == '/':
			s.slashes = true
		case c == ' ' || c == '\t' || c == '\v' || c == '\f':
		default:
			if first == 0 {
				first = c
				switch {
				case c != '#' || s.hash:
				case s.spliced:
					s.lost = true // a directive, if there was nothing before it
				default:
					directive, start = true, append([]byte{}, bytes.TrimLeft(body[i+1:], " \t")...)
				}
			}
			tail = c
			if c == '"' || c == '\'' {
				s.quote = c
				if c == '"' && i > 0 && body[i-1] == 'R' {
					s.lost = true // a raw string has other rules
				}
			}
			if !directive {
				s.parenthesis(c)
			}
		}
	}
	if !splices {
		// A quote that is not closed ends with the line: it is in text that is
		// skipped, or in an #error.
		s.quote, s.slashes = 0, false
	}
	// A directive goes on behind a comment that ends on a later line.
	s.hash = directive && (splices || s.comment)
	if directive {
		first = '#'
	}
	switch {
	case splices && (tail == '/' && !s.comment || tail == '*' && s.comment),
		start != nil && (bytes.HasPrefix(start, []byte("/")) || splices && word.Match(start)),
		bytes.HasPrefix(bytes.TrimLeft(body, " \t"), []byte("%:")):
		// What begins or ends a comment, or names a directive, is put together from
		// two lines or written in an odd way.
		s.lost = true
	}
	s.spliced = splices
	return first, start
}

func (s *scanner) parenthesis(c byte) {
	if c != '(' && c != ')' {
		return
	}
	if len(s.depth) == 1 {
		// Nearly always.
		n := 0
		for n = range s.depth {
		}
		if c == '(' {
			n++
		} else {
			n = max(0, n-1)
		}
		s.depth = one(n)
		s.lost = s.lost || n > maxNesting
		return
	}
	switch c {
	case '(':
		s.depth = s.depth.plus(1)
	case ')':
		s.depth = s.depth.plus(-1)
		// More closed than opened: that path does not exist.
		if delete(s.depth, -1); len(s.depth) == 0 {
			s.depth[0] = true
		}
	}
	for n := range s.depth {
		if n > maxNesting {
			s.lost = true
		}
	}
}

// ones are sets of one number, which nobody changes.
var ones = func() (list [maxNesting]set) {
	for n := range list {
		list[n] = set{n: true}
	}
	return list
}()

func one(n int) set {
	if n < len(ones) {
		return ones[n]
	}
	return set{n: true}
}

var (
	word         = regexp.MustCompile(`^[a-z]*$`)
	conditionals = regexp.MustCompile(`^(if|ifdef|ifndef|elif|elifdef|elifndef|else|endif)\b`)
)

// conditional says what a directive is to conditional compilation, and follows the
// parentheses through its branches.
func (s *scanner) conditional(directive []byte) cond {
	m := conditionals.Find(directive)
	switch string(m) {
	case "if", "ifdef", "ifndef":
		s.stack = append(s.stack, branches{entry: s.depth.plus(0), ends: set{}})
		s.lost = s.lost || len(s.stack) > maxNesting
		return condIf
	case "elif", "elifdef", "elifndef", "else":
		if len(s.stack) == 0 {
			s.lost = true
			return condElse
		}
		top := &s.stack[len(s.stack)-1]
		top.ends.add(s.depth)
		s.depth = top.entry.plus(0)
		if string(m) == "else" {
			top.whole = true
			return condElse
		}
		return condElif
	case "endif":
		if len(s.stack) == 0 {
			s.lost = true
			return condEnd
		}
		top := s.stack[len(s.stack)-1]
		s.stack = s.stack[:len(s.stack)-1]
		s.depth = s.depth.plus(0)
		s.depth.add(top.ends)
		if !top.whole {
			s.depth.add(top.entry)
		}
		return condEnd
	}
	return condNone
}
