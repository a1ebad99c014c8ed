// SPDX-License-Identifier: Apache-2.0

package clex

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func lexed(text string) (list []Token) {
	l := NewLexer(text)
	for t := l.Next(); t.Kind != EOF; t = l.Next() {
		list = append(list, t)
	}
	return list
}

func TestOffsets(t *testing.T) {
	text := "#define A \\\n  b\\\r\nc /* x\\\n */ \"s\\\nt\"\\ \n-\\\n> d"
	var got []string
	for _, tok := range lexed(text) {
		got = append(got, tok.Text+"="+text[tok.Pos:tok.End])
	}
	want := []string{"#=#", "define=define", "A=A", "bc=b\\\r\nc", "\"st\"=\"s\\\nt\"", "->=-\\\n>", "d=d"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// collect writes down what the splitter says.
type collect []string

func words(toks []Token) string {
	var list []string
	for _, t := range toks {
		list = append(list, t.Text)
	}
	return strings.Join(list, " ")
}

func (c *collect) Directive(toks []Token, inside bool) {
	s := "directive: "
	if inside {
		s = "directive inside: "
	}
	*c = append(*c, s+words(toks))
}
func (c *collect) Macro(_ bool, toks []Token, _ []Condition)  {}
func (c *collect) Include([]Token, bool, []Condition)         {}
func (c *collect) Entity(toks []Token, _ []Condition, _ bool) { *c = append(*c, words(Code(toks))) }
func (c *collect) Stray(toks []Token)                         { *c = append(*c, "stray: "+words(toks)) }

func TestSplit(t *testing.T) {
	for _, tt := range []struct {
		text     string
		want     collect
		balanced bool
	}{
		{"extern \"C\" {\nint a;\n};\n", collect{"stray: extern \"C\" {", "int a ;", "stray: }", "stray: ;"}, true},
		{"int f(void) {\n#if 1\nif (a) {\n#else\nif (b) {\n#endif\n}}\n#include <a.h>\n",
			collect{"directive inside: # if 1", "directive inside: # else", "directive inside: # endif", "int f ( void ) { if ( a ) { if ( b ) { } }", "directive: # include < a . h >"}, true},
		{"int f(void) { return 0;\n", collect{"int f ( void ) { return 0 ;"}, false},
		{"int a; }\n", collect{"int a ;", "stray: }"}, false},
		{"#endif\n", collect{"directive: # endif"}, false},
		{"#if 1\n", collect{"directive: # if 1"}, false},
	} {
		var got collect
		if balanced := Split(tt.text, &got); balanced != tt.balanced {
			t.Errorf("%q: balanced %v", tt.text, balanced)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", tt.text, diff)
		}
	}
}

// FuzzSplit: tokens lie in the file one after the other, and outside of them there
// is nothing but white space, comments and joined lines.
func FuzzSplit(f *testing.F) {
	f.Add("#define A(x) \\\n x##1\nint f(a)\nint a;\n{ return '\\''; } /* } */ // \\\n}\nstruct s { int a; };")
	f.Add("int f(\n#if 1\nint a) {\n#else\nvoid) {\n#endif\n}\nextern \"C\" {\n};")
	f.Fuzz(func(t *testing.T, text string) {
		last := int32(0)
		for _, tok := range lexed(text) {
			if tok.Pos < last || tok.End <= tok.Pos || int(tok.End) > len(text) {
				t.Fatalf("token %q at %d to %d, after one that ends at %d", tok.Text, tok.Pos, tok.End, last)
			}
			if !strings.Contains(text[tok.Pos:tok.End], "\\") && text[tok.Pos:tok.End] != tok.Text {
				t.Fatalf("token %q is %q", tok.Text, text[tok.Pos:tok.End])
			}
			last = tok.End
		}
		var c collect
		Split(text, &c)
	})
}
