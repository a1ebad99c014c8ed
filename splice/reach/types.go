// SPDX-License-Identifier: Apache-2.0

package reach

import (
	"slices"
	"strings"

	"github.com/upsplice/upsplice/splice/clex"
)

// typ fills the entity of a type whose braces are at from and to.
func (b *builder) typ(e *entity, toks []clex.Token, from, to int) {
	e.kind = kindType
	if toks[0].Text == "typedef" {
		e.tags = b.declared(toks[to+1:], e)
	} else {
		e.defs = b.declared(toks[to+1:], e)
	}
	e.tail = b.key(toks[:from], toks[to:])
	e.uses = b.uses(toks[:from])
	e.uses = compactUses(append(e.uses, b.uses(toks[to:])...))
	m := members{b: b, e: e}
	m.head(toks[:from])
	if m.enum {
		e.enum = true
		for i, t := range toks {
			e.attrs = e.attrs || (i < from || i > to) && (strings.HasPrefix(t.Text, "__"))
		}
		m.constants(toks[from+1 : to])
		return
	}
	m.struc(toks[from+1 : to])
}

// members collects the members of a type.
type members struct {
	b    *builder
	e    *entity
	enum bool // what the last head says
}

// head takes the tag before a brace.
func (m *members) head(toks []clex.Token) {
	toks = clex.Code(toks)
	at := -1
	for i, t := range toks {
		if t.Text == "struct" || t.Text == "union" || t.Text == "enum" {
			at, m.enum = i, t.Text == "enum"
		}
	}
	if at < 0 {
		return
	}
	depth := 0
	for _, t := range toks[at+1:] {
		switch {
		case t.Is("("):
			depth++
		case t.Is(")"):
			depth--
		case depth == 0 && t.Kind == clex.Ident && !clex.Attribute(t.Text) && !clex.Keyword(t.Text) && !clex.Basic(t.Text):
			m.e.tags = append(m.e.tags, m.b.names.id(t.Text))
		}
	}
}

// constants takes the text between the braces of an enum. Constants that a macro
// makes have names that are not known here.
func (m *members) constants(toks []clex.Token) {
	for len(toks) > 0 {
		end, depth := len(toks), 0
		for i, t := range toks {
			if t.Is("(") {
				depth++
			} else if t.Is(")") {
				depth--
			} else if t.Is(",") && depth == 0 {
				end = i
				break
			}
		}
		part := toks[:end]
		toks = toks[min(end+1, len(toks)):]
		if len(part) == 0 {
			continue
		}
		c := member{key: m.b.key(part), uses: m.b.uses(part), start: int32(len(m.e.members))}
		part = clex.Code(part)
		if len(part) == 0 {
			m.e.members = append(m.e.members, c) // conditions alone
			continue
		}
		for i, t := range part {
			switch {
			case t.Is("="):
				c.computed = !(len(part) == i+2 && small(part[i+1].Text))
			case t.Kind != clex.Ident || clex.Keyword(t.Text):
			case i+1 == len(part) || part[i+1].Is("="):
				if !c.computed {
					c.names = append(c.names, m.b.names.id(t.Text))
				}
			case i+1 < len(part) && part[i+1].Is("(") && !c.computed && len(c.names) == 0 && !clex.Attribute(t.Text):
				m.e.kind = kindOpen
			}
			if c.computed {
				break
			}
		}
		if len(c.names) == 0 {
			// Conditions, or a macro that stands for constants.
			for _, t := range part {
				if t.Kind == clex.Ident && !clex.Keyword(t.Text) {
					c.names = append(c.names, m.b.names.id(t.Text))
				}
			}
			if len(part) == 1 {
				m.e.kind = kindOpen
			}
		}
		m.e.members = append(m.e.members, c)
	}
	if m.e.kind == kindOpen {
		for _, c := range m.e.members {
			m.e.uses = append(m.e.uses, c.uses...)
		}
		m.e.uses = compactUses(m.e.uses)
	}
}

// small says whether a value leaves the type of the constants int.
func small(number string) bool {
	return len(number) > 0 && number[0] >= '0' && number[0] <= '9' && (len(number) <= 9 || strings.HasPrefix(number, "0x") && len(number) <= 9) && !strings.ContainsAny(number, "uUlL")
}

// struc takes the text between the braces of a struct or union.
func (m *members) struc(toks []clex.Token) {
	depth, parens, start := 0, 0, int32(-1)
	first := 0
	for i := 0; i < len(toks); i++ {
		t := toks[i]
		switch {
		case t.Is("("):
			parens++
		case t.Is(")"):
			parens--
		case parens > 0:
		case t.Is("{"):
			m.head(toks[first:i])
			if m.enum {
				end := clex.Closing(toks, i)
				m.constants(toks[i+1 : end])
				m.enum = false
				i, first = end, end+1
				continue
			}
			if depth == 0 {
				start = int32(len(m.e.members))
			}
			depth++
			m.add(toks[first:i], start)
			first = i + 1
		case t.Is("}"):
			m.add(toks[first:i], start)
			first = i + 1
			if depth = max(0, depth-1); depth == 0 {
				// What is declared after the brace begins where the nested struct does.
				end := i + 1
				for end < len(toks) && !toks[end].Is(";") {
					end++
				}
				m.add(toks[first:end], start)
				first, i, start = min(end+1, len(toks)), end, -1
			}
		case t.Is(";"):
			m.add(toks[first:i], start)
			first = i + 1
		}
	}
	m.add(toks[first:], start)
}

func (m *members) add(toks []clex.Token, start int32) {
	if len(toks) == 0 {
		return
	}
	if start < 0 {
		start = int32(len(m.e.members))
	}
	mb := member{key: m.b.key(toks), start: start}
	all := toks
	toks = clex.Code(toks)
	// What is left without the names that are declared: struct hwrng hwrng uses the
	// type of the name that it declares.
	rest := slices.Clone(toks)
	declare := func(i int) {
		mb.names = append(mb.names, m.b.names.id(toks[i].Text))
		rest[i] = clex.Token{Kind: clex.Punct, Text: ";"}
	}
	pointer, depth := false, 0
	for i, t := range toks {
		next := clex.Token{Kind: clex.Punct, Text: ";"}
		if i+1 < len(toks) {
			next = toks[i+1]
		}
		switch {
		case t.Is("("):
			depth++
			pointer = pointer || next.Is("*")
		case t.Is(")"):
			depth--
		case t.Is(":"):
			mb.bits = true
		case t.Kind != clex.Ident || clex.Keyword(t.Text) || clex.Basic(t.Text):
		case i > 0 && (toks[i-1].Text == "struct" || toks[i-1].Text == "union" || toks[i-1].Text == "enum") && depth == 0:
		case depth > 0 && pointer:
			if i > 0 && toks[i-1].Is("*") && (next.Is(")") || next.Is("[") || next.Is("(")) && clex.Starred(toks[:i]) {
				declare(i)
			}
		case next.Kind == clex.Punct && strings.Contains(";,[=:)", next.Text) && depth == 0:
			declare(i)
		case next.Kind == clex.Punct && strings.Contains(";,[=:)", next.Text), next.Kind == clex.Ident && strings.HasPrefix(next.Text, "__"):
			// Perhaps the name, perhaps a macro's argument or a type.
			mb.names = append(mb.names, m.b.names.id(t.Text))
		}
	}
	mb.uses = m.b.uses(rest)
	if len(all) != len(toks) {
		mb.uses = compactUses(append(mb.uses, m.b.uses(all)...)) // with the names in conditions
	}
	if !pointer {
		// Parentheses that are no parameters: a macro's arguments.
		for i := range mb.uses {
			mb.uses[i] &^= onlyInner
		}
	}
	m.e.members = append(m.e.members, mb)
}

// moved are the names of the members whose place can differ once the i-th one
// does, or is put before it.
func (e *entity) moved(i int) []uint32 {
	if i < 0 {
		i = 0
	}
	if i < len(e.members) {
		i = int(e.members[i].start)
	}
	for i > 0 && i <= len(e.members) && e.members[i-1].bits {
		i-- // bits share the word that they are accessed in
	}
	var names []uint32
	for _, m := range e.members[min(i, len(e.members)):] {
		names = append(names, m.names...)
	}
	return names
}

// firstDifference is the index of the first member from which on two versions of
// a type differ; 0 if they differ as a whole.
func firstDifference(a, b *entity) int {
	if a.tail != b.tail || a.kind != b.kind || a.enum != b.enum {
		return 0
	}
	i := 0
	for i < len(a.members) && i < len(b.members) && a.members[i].key == b.members[i].key && a.members[i].start == b.members[i].start {
		i++
	}
	if a.enum {
		for _, e := range []*entity{a, b} {
			for _, m := range e.members[i:] {
				if m.computed {
					return 0 // one large value changes the type of all constants
				}
			}
		}
	}
	return i
}
