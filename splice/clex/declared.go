// SPDX-License-Identifier: Apache-2.0

package clex

import (
	"slices"
	"strings"
)

// Declaration is what a declaration, or a macro that is called at the top level,
// declares. It may name too much: an attribute that is not known.
type Declaration struct {
	Names   []string // in order; the single names among a macro's arguments included
	Args    []string // those
	Invoked []string // macros that may be called
}

// Declared takes a declaration up to its body. called says whether a name is that
// of a macro with parameters; it may be nil.
func Declared(toks []Token, called func(string) bool) Declaration {
	var d Declaration
	toks = Code(toks)
	add := func(name string) {
		if !Basic(name) && !slices.Contains(d.Names, name) {
			d.Names = append(d.Names, name)
		}
	}
	depth, value, skip := 0, false, -1
	// Without a type in front it is no function that is declared, but a macro called.
	calls, call := true, false
	for i, t := range toks {
		if Attribute(t.Text) && depth == 0 && skip < 0 && i+1 < len(toks) && toks[i+1].Is("(") {
			skip = 0 // the parentheses after it
			continue
		}
		if skip >= 0 {
			if t.Is("(") {
				skip++
			} else if t.Is(")") {
				skip--
			}
			if skip == 0 {
				skip = -1
			}
			continue
		}
		next := Token{Kind: Punct, Text: ";"}
		if i+1 < len(toks) {
			next = toks[i+1]
		}
		if depth == 0 && t.Kind == Ident && !Keyword(t.Text) && !Basic(t.Text) {
			call = next.Is("(") && (calls || t.Text == strings.ToUpper(t.Text))
			calls = call
		} else if depth == 0 && (Keyword(t.Text) && !Storage(t.Text) || t.Is("*")) {
			calls = false
		}
		switch {
		case t.Is("(") || t.Is("[") || t.Is("{"):
			depth++
		case t.Is(")") || t.Is("]") || t.Is("}"):
			depth--
		case t.Is("=") && depth == 0:
			value = true
		case t.Is(",") && depth == 0:
			value = false
		case value || t.Kind != Ident || Keyword(t.Text):
		case depth == 1 && i > 1 && (toks[i-1].Is("*") || toks[i-1].Is("(")) && (next.Is(")") || next.Is("(") || next.Is("[")) && Starred(toks[:i]):
			add(t.Text) // (*name)
		case depth == 1 && i > 1 && toks[i-1].Is("(") && next.Is(")") && i+2 < len(toks) && toks[i+2].Is("("):
			add(t.Text) // (name)(parameters)
		case depth == 1 && call && (next.Is(",") || next.Is(")")) && (toks[i-1].Is("(") || toks[i-1].Is(",")):
			// The only name in an argument. A macro for each item of a list is not
			// what is defined.
			if !strings.HasSuffix(t.Text, "_t") && !Basic(t.Text) && (called == nil || !called(t.Text)) {
				add(t.Text)
				d.Args = append(d.Args, t.Text)
			}
		case depth != 0:
		case i > 0 && (toks[i-1].Text == "struct" || toks[i-1].Text == "union" || toks[i-1].Text == "enum"):
		case next.Is("("):
			if call {
				d.Invoked = append(d.Invoked, t.Text)
			}
			if i > 0 && t.Text != strings.ToUpper(t.Text) {
				add(t.Text)
			}
		case next.Kind == Punct && strings.Contains(";,[=:)", next.Text):
			add(t.Text)
		case next.Kind == Ident && strings.HasPrefix(next.Text, "__"):
			if !strings.HasSuffix(t.Text, "_t") {
				add(t.Text)
			}
		}
	}
	return d
}
