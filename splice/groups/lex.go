// SPDX-License-Identifier: Apache-2.0

package groups

import (
	"strings"

	"github.com/upsplice/upsplice/splice/clex"
)

// token is a token of C: what clex finds, with the operators of several marks in
// one piece.
type token struct {
	text  string
	kind  clex.Kind
	first bool // of its line
	pos   int32
	end   int32
}

func (t token) is(punct string) bool { return t.kind == clex.Punct && t.text == punct }

func (t token) ident() bool { return t.kind == clex.Ident }

// operators are those that begin with another one.
var operators = set("<<", ">>", "==", "!=", "<=", ">=", "&&", "||", "+=", "-=", "|=", "&=", "^=", "*=", "/=", "%=", "<<=", ">>=")

// lex cuts text into tokens, without comments.
func lex(text string) []token {
	toks := make([]clex.Token, 0, len(text)/5+1)
	l := clex.NewLexer(text)
	for t := l.Next(); t.Kind != clex.EOF; t = l.Next() {
		toks = append(toks, t)
	}
	return merge(toks)
}

func merge(toks []clex.Token) []token {
	out := make([]token, 0, len(toks))
	for _, t := range toks {
		if n := len(out); n > 0 && t.Kind == clex.Punct && out[n-1].kind == clex.Punct && out[n-1].end == t.Pos && !t.First && operators[out[n-1].text+t.Text] {
			out[n-1].text += t.Text
			out[n-1].end = t.End
			continue
		}
		out = append(out, token{t.Text, t.Kind, t.First, t.Pos, t.End})
	}
	return out
}

// same says whether the tokens of both are alike.
func same(a, b []token) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].text != b[i].text {
			return false
		}
	}
	return true
}

// spell writes tokens with blanks between them.
func spell(toks []token) string {
	var b strings.Builder
	for i, t := range toks {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(t.text)
	}
	return b.String()
}

// after is the index behind the bracket that closes the one at i, at most len(toks).
func after(toks []token, i int) int {
	depth := 0
	for ; i < len(toks); i++ {
		if toks[i].kind != clex.Punct {
			continue
		}
		switch toks[i].text {
		case "(", "[", "{":
			depth++
		case ")", "]", "}":
			if depth--; depth <= 0 {
				return i + 1
			}
		}
	}
	return len(toks)
}

// maxCall bounds how many tokens are looked through for the arguments of a call,
// so that calls within calls take no quadratic time.
const maxCall = 1 << 11

// arguments cuts what stands in the brackets that open at i at its commas.
func arguments(toks []token, i int) [][]token {
	if toks[i].is("(") {
		toks = toks[:min(len(toks), i+maxCall)]
	}
	end := after(toks, i)
	inner := toks[i+1 : max(i+1, end-1)]
	if len(inner) == 0 {
		return nil
	}
	var list [][]token
	depth, from := 0, 0
	for k, t := range inner {
		if t.kind != clex.Punct {
			continue
		}
		switch t.text {
		case "(", "[", "{":
			depth++
		case ")", "]", "}":
			depth--
		case ",":
			if depth == 0 {
				list = append(list, inner[from:k])
				from = k + 1
			}
		}
	}
	return append(list, inner[from:])
}

// plain leaves out preprocessor lines.
func plain(toks []token) []token {
	n := 0
	for _, t := range toks {
		if t.first && t.is("#") {
			n++
		}
	}
	if n == 0 {
		return toks
	}
	out := make([]token, 0, len(toks))
	directive := false
	for _, t := range toks {
		if t.first {
			directive = t.is("#")
		}
		if !directive {
			out = append(out, t)
		}
	}
	return out
}

// word says whether a name is one of C or of a basic type, and means nothing that
// can change.
func word(name string) bool {
	switch name {
	case "NULL", "true", "false", "defined", "define", "undef", "include", "size_t", "ssize_t", "asm", "__asm__":
		return true
	}
	return clex.Keyword(name) || clex.Basic(name)
}

// basicTypes are the words of C's own types: they name no parameter.
var basicTypes = set("int", "long", "char", "short", "unsigned", "signed", "void", "bool", "_Bool", "float", "double")

func set(names ...string) map[string]bool {
	m := make(map[string]bool, len(names))
	for _, n := range names {
		m[n] = true
	}
	return m
}

// Mentioned returns those of the names that a text mentions, comments included, in
// the order in which it first does. It is for a caller's Options.Mentions.
func Mentioned(text string, names map[string]bool) []string {
	var out []string
	seen := make(map[string]bool)
	for i := 0; i < len(text); {
		if !identByte(text[i]) {
			i++
			continue
		}
		j := i + 1
		for j < len(text) && identByte(text[j]) {
			j++
		}
		if w := text[i:j]; names[w] && !seen[w] {
			seen[w] = true
			out = append(out, w)
		}
		i = j
	}
	return out
}

func identByte(c byte) bool {
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c >= 0x80
}
