// SPDX-License-Identifier: Apache-2.0

package reach

import "strings"

type tokenKind uint8

const (
	tokEOF tokenKind = iota
	tokIdent
	tokNumber
	tokString // string or character constant
	tokPunct
)

// token is a preprocessing token. Its text is a part of the file's.
type token struct {
	text  string
	kind  tokenKind
	first bool // of its line
}

func (t token) is(punct string) bool { return t.kind == tokPunct && t.text == punct }

// lexer cuts C or assembly into preprocessing tokens. It takes any bytes: what is
// no token of C is a punctuation mark of one byte.
type lexer struct {
	text  string
	pos   int
	first bool
}

// newLexer joins continued lines first, as translation phase 2 of C does.
func newLexer(text string) *lexer {
	if strings.Contains(text, "\\\n") || strings.Contains(text, "\\\r\n") {
		text = strings.ReplaceAll(strings.ReplaceAll(text, "\\\r\n", ""), "\\\n", "")
	}
	return &lexer{text: text, first: true}
}

func (l *lexer) next() token {
	l.blank()
	s, i := l.text, l.pos
	if i >= len(s) {
		return token{first: true}
	}
	t := token{kind: tokPunct, first: l.first}
	l.first = false
	j := i + 1
	switch c := s[i]; {
	case identStart(c):
		t.kind = tokIdent
		for j < len(s) && identPart(s[j]) {
			j++
		}
	case digit(c), c == '.' && j < len(s) && digit(s[j]):
		t.kind = tokNumber
		for j < len(s) && (identPart(s[j]) || s[j] == '.' || (s[j] == '+' || s[j] == '-') && strings.IndexByte("eEpP", s[j-1]) >= 0) {
			j++
		}
	case c == '"' || c == '\'':
		t.kind = tokString
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
	t.text, l.pos = s[i:j], j
	return t
}

// blank goes to the next token. A line break within a comment ends no directive.
func (l *lexer) blank() {
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
