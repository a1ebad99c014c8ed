// SPDX-License-Identifier: Apache-2.0

// Package clex cuts C into preprocessing tokens and files into the items at their
// top level, without preprocessing them: it sees all branches of conditions. It
// takes any bytes, and knows the macros and attributes that the Linux kernel uses
// in declarations.
package clex

import "strings"

// Kind is what a token is.
type Kind uint8

// Kinds of tokens.
const (
	EOF Kind = iota
	Ident
	Number
	String // string or character constant
	Punct
)

// Token is a preprocessing token. Its text is a part of the file's, less the ends
// of continued lines.
type Token struct {
	Text  string
	Pos   int32 // byte offset in the file
	End   int32 // offset behind it
	Kind  Kind
	First bool // of its line
}

// Is says whether the token is that punctuation mark.
func (t Token) Is(punct string) bool { return t.Kind == Punct && t.Text == punct }

// MaxSize is that of the largest file that offsets have room for.
const MaxSize = 1<<31 - 1

// Lexer cuts C or assembly into preprocessing tokens. It takes any bytes: what is
// no token of C is a punctuation mark of one byte.
type Lexer struct {
	text  string
	pos   int
	first bool

	joins []join // that are still ahead
	gone  int    // bytes taken out up to here
}

// join is a place where a continued line was joined with the next one.
type join struct{ at, gone int }

// NewLexer joins continued lines first, as translation phase 2 of C does. Blanks
// between the backslash and the end of the line do not matter to the compiler.
func NewLexer(text string) *Lexer {
	l := &Lexer{text: text, first: true}
	var out strings.Builder
	from := 0
	for i := strings.IndexByte(text, '\\'); i >= 0; {
		j := i + 1
		for j < len(text) && (text[j] == ' ' || text[j] == '\t' || text[j] == '\r' || text[j] == '\f' || text[j] == '\v') {
			j++
		}
		if j < len(text) && text[j] == '\n' {
			if out.Len() == 0 {
				out.Grow(len(text))
			}
			out.WriteString(text[from:i])
			from = j + 1
			l.joins = append(l.joins, join{out.Len(), from - i})
		}
		next := strings.IndexByte(text[j:], '\\')
		if next < 0 {
			break
		}
		i = j + next
	}
	if l.joins != nil {
		out.WriteString(text[from:])
		l.text = out.String()
	}
	return l
}

// offset is the place in the file of a place in the joined text. It is asked for
// rising places only.
func (l *Lexer) offset(pos int) int {
	for len(l.joins) > 0 && l.joins[0].at <= pos {
		l.gone += l.joins[0].gone
		l.joins = l.joins[1:]
	}
	return pos + l.gone
}

// Next returns the next token, of kind EOF at the end.
func (l *Lexer) Next() Token {
	l.blank()
	s, i := l.text, l.pos
	if i >= len(s) {
		at := int32(l.offset(len(s)))
		return Token{First: true, Pos: at, End: at}
	}
	t := Token{Kind: Punct, First: l.first, Pos: int32(l.offset(i))}
	l.first = false
	j := i + 1
	switch c := s[i]; {
	case identStart(c):
		t.Kind = Ident
		for j < len(s) && identPart(s[j]) {
			j++
		}
	case digit(c), c == '.' && j < len(s) && digit(s[j]):
		t.Kind = Number
		for j < len(s) && (identPart(s[j]) || s[j] == '.' || (s[j] == '+' || s[j] == '-') && strings.IndexByte("eEpP", s[j-1]) >= 0) {
			j++
		}
	case c == '"' || c == '\'':
		t.Kind = String
		for j < len(s) && s[j] != c && s[j] != '\n' {
			if s[j] == '\\' && j+1 < len(s) && s[j+1] != '\n' {
				j++
			}
			j++
		}
		if j < len(s) && s[j] == c {
			j++
		}
	default:
		if j < len(s) {
			switch s[i : j+1] {
			case "##", "->", "++", "--":
				j++
			case "..":
				if j+1 < len(s) && s[j+1] == '.' {
					j += 2
				}
			}
		}
	}
	t.Text, l.pos = s[i:j], j
	t.End = int32(l.offset(j-1) + 1)
	return t
}

// blank goes to the next token. A line break within a comment ends no directive.
func (l *Lexer) blank() {
	s := l.text
	for l.pos < len(s) {
		switch c := s[l.pos]; {
		case c == '\n':
			l.first = true
			l.pos++
		case c <= ' ':
			l.pos++
		case c == '/' && strings.HasPrefix(s[l.pos:], "/*"):
			end := strings.Index(s[l.pos+2:], "*/")
			if end < 0 {
				l.pos = len(s)
				return
			}
			l.pos += end + 4
		case c == '/' && strings.HasPrefix(s[l.pos:], "//"):
			end := strings.IndexByte(s[l.pos:], '\n')
			if end < 0 {
				l.pos = len(s)
				return
			}
			l.pos += end
		default:
			return
		}
	}
}

func digit(c byte) bool { return '0' <= c && c <= '9' }

func identStart(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '_' || c >= 0x80
}

func identPart(c byte) bool { return identStart(c) || digit(c) }
