// SPDX-License-Identifier: Apache-2.0

package layout

import "slices"

// cutter takes tokens and makes the items of a source.
type cutter struct {
	s      *source
	idents []string // of the item so far
	names  []string // what it may declare
	broken bool     // brackets that do not match

	open     []byte   // brackets; 'a' for parentheses of an attribute, 't' for braces of a type
	word     string   // the token before this one if it was a word
	declared string   // the last identifier outside of brackets
	group    []string // identifiers within the last parentheses
	grouped  bool     // the token before this one ended them
	typed    bool     // there was an identifier before them: the name at first
	first    int
	tag      int  // words since struct, union or enum, 0 for none
	assigned bool // between = and the end of the initializer
	body     bool // there was the body of a function
}

// attributes are followed by parentheses that are no part of a declarator.
var attributes = map[string]bool{"__attribute__": true, "__attribute": true, "__asm__": true, "asm": true, "__asm": true,
	"typeof": true, "__typeof__": true, "__typeof": true, "_Alignas": true, "_Static_assert": true, "__declspec": true}

// keywords say nothing about what is used.
var keywords = map[string]bool{
	"__extension__": true, "static": true, "inline": true, "__inline": true, "__inline__": true, "extern": true,
	"const": true, "__const": true, "volatile": true, "__volatile__": true, "int": true, "long": true, "short": true,
	"char": true, "void": true, "unsigned": true, "signed": true, "__signed__": true, "struct": true, "union": true,
	"enum": true, "if": true, "while": true, "for": true, "switch": true, "return": true, "sizeof": true, "do": true,
	"else": true, "goto": true, "case": true, "break": true, "continue": true, "default": true, "typedef": true,
	"_Bool": true, "register": true, "restrict": true, "__restrict": true, "__alignof__": true, "_Alignof": true,
	"__builtin_offsetof": true, "float": true, "double": true, "_Noreturn": true, "__auto_type": true,
}

func (c *cutter) token(t string, ident bool) {
	word, grouped, top := c.word, c.grouped, len(c.open) == 0
	c.word, c.grouped = "", false
	if ident {
		c.word = t
		c.identifier(t)
		return
	}
	if grouped && (t == "(" || t == "[" || t == "=") {
		// type (*f(void))(int)
		if c.typed {
			c.names = slices.Delete(c.names, c.first, c.first+1)
		}
		c.names = append(c.names, c.group...)
	}
	switch t {
	case "(":
		c.parenthesis(word, top)
	case "[":
		c.open = append(c.open, '[')
	case "{":
		kind := byte('{')
		if top && c.tag > 0 && !c.assigned {
			kind = 't'
		}
		c.body = c.body || top && kind == '{' && !c.assigned
		c.open = append(c.open, kind)
	case ")", "]", "}":
		c.closing(t[0])
	case "=":
		if top {
			c.name(c.declared)
			c.assigned = true
		}
	case "*":
		if top {
			c.tag = 0
		}
	case ",", ";":
		if !top {
			return
		}
		if !c.assigned {
			c.name(c.declared)
		}
		c.assigned, c.tag = false, 0
		if t == ";" {
			c.end()
		}
	}
}

func (c *cutter) parenthesis(word string, top bool) {
	kind := byte('(')
	if top {
		c.group, c.typed, c.first = c.group[:0], false, len(c.names)
	}
	switch {
	case c.in('a') || attributes[word]:
		kind = 'a'
	case word != "" && !keywords[word] && !c.assigned && (top || c.open[0] == '('):
		c.name(word)
		c.tag, c.typed = 0, c.typed || top
	}
	c.open = append(c.open, kind)
}

// in says whether the innermost bracket is of a kind.
func (c *cutter) in(kind byte) bool { return len(c.open) > 0 && c.open[len(c.open)-1] == kind }

func (c *cutter) identifier(t string) {
	if len(c.open) > 0 && c.open[0] == 't' {
		return
	}
	top := len(c.open) == 0
	switch {
	case top && (t == "struct" || t == "union" || t == "enum"):
		c.tag = 1
	case top && c.tag > 0 && !attributes[t]:
		if c.tag++; c.tag > 2 {
			c.tag = 0
		}
	}
	if keywords[t] || attributes[t] {
		return
	}
	c.idents = append(c.idents, t)
	switch {
	case c.assigned:
	case top:
		c.declared = t
	case c.open[0] == '(':
		c.group = append(c.group, t)
	}
}

// closing handles a closing bracket.
func (c *cutter) closing(b byte) {
	n := len(c.open) - 1
	if n < 0 {
		c.broken = true
		return
	}
	kind := c.open[n]
	c.open = c.open[:n]
	if want := map[byte]byte{'(': ')', 'a': ')', '[': ']', '{': '}', 't': '}'}[kind]; want != b {
		c.broken = true
	}
	if n > 0 {
		return
	}
	switch {
	case kind == '(':
		c.grouped = true
	case kind == 't':
		c.tag = 0
	case kind == '{' && !c.assigned:
		c.end() // the body of a function
	}
}

func (c *cutter) name(n string) {
	if n != "" {
		c.names = append(c.names, n)
	}
}

// end is the end of an item.
func (c *cutter) end() {
	if len(c.idents) > 0 {
		for _, n := range c.names {
			if list := c.s.named[n]; len(list) == 0 || list[len(list)-1] != len(c.s.items) {
				c.s.named[n] = append(list, len(c.s.items))
			}
		}
		c.s.items = append(c.s.items, item{c.idents, c.body})
	}
	*c = cutter{s: c.s, broken: c.broken, open: c.open[:0]}
}
