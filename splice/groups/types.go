// SPDX-License-Identifier: Apache-2.0

package groups

import (
	"strconv"
	"strings"

	"github.com/upsplice/upsplice/splice/clex"
	"github.com/upsplice/upsplice/splice/freeze"
)

// typeDef is how a struct, union or enum that both trees have differs.
type typeDef struct {
	enum    bool
	tags    []string // tag and typedefs
	added   []string
	removed []string
	retyped []string // members of another type, constants of another value
	oldType map[string]string
	newType map[string]string
}

type member struct{ name, typ string }

// constant is an enumerator with the tokens of its value, nil if it has none.
type constant struct {
	name  string
	value []token
}

// aggregateBrace is the brace of a type with members, -1 if there is none.
func aggregateBrace(toks []token) int {
	for i, t := range toks {
		switch {
		case t.is("{"):
			return i
		case t.is("="), t.is("("):
			if i > 0 && clex.Attribute(toks[i-1].text) {
				continue
			}
			return -1
		}
	}
	return -1
}

// enumerators are the constants of an enum.
func enumerators(toks []token) []constant {
	toks = plain(toks)
	brace := aggregateBrace(toks)
	if brace < 0 || !isEnum(toks[:brace]) {
		return nil
	}
	var list []constant
	for _, a := range arguments(toks, brace) {
		if len(a) == 0 || !a[0].ident() {
			continue
		}
		c := constant{name: a[0].text}
		if len(a) > 2 && a[1].is("=") {
			c.value = a[2:]
		}
		list = append(list, c)
	}
	return list
}

func isEnum(head []token) bool {
	for _, t := range head {
		if t.text == "enum" {
			return true
		}
	}
	return false
}

// values are the constants of an enum with their values, spelt if they can be
// evaluated, and otherwise as text that is unlike that of another value.
func values(list []constant) map[string]string {
	out := make(map[string]string, len(list))
	known := make(map[string]int64)
	base, offset := "", int64(0)
	for _, c := range list {
		if c.value != nil {
			if v, ok := evaluate(c.value, known); ok {
				base, offset = "", v
			} else {
				base, offset = spell(c.value), 0
			}
		}
		out[c.name] = base + "+" + strconv.FormatInt(offset, 10)
		if base == "" {
			known[c.name] = offset
		}
		offset++
	}
	return out
}

// members are those of a struct or union, nested ones included, in one list.
func members(toks []token) []member {
	toks = plain(toks)
	brace := aggregateBrace(toks)
	if brace < 0 {
		return nil
	}
	end := after(toks, brace)
	return memberList(nil, toks[brace+1:max(brace+1, end-1)], 0)
}

const maxNesting = 32

func memberList(list []member, toks []token, depth int) []member {
	if depth > maxNesting {
		return list
	}
	for from := 0; from < len(toks); {
		end, d := from, 0
		for ; end < len(toks); end++ {
			t := toks[end]
			if t.is("{") || t.is("(") || t.is("[") {
				d++
			} else if t.is("}") || t.is(")") || t.is("]") {
				d--
			} else if d == 0 && t.is(";") {
				break
			}
		}
		list = memberDecl(list, toks[from:end], depth)
		from = end + 1
	}
	return list
}

// memberMacros are those that make members of what they are given: the index of
// the argument that is the name, -1 if further members follow the first.
var memberMacros = map[string]int{
	"DECLARE_BITMAP": 0, "DECLARE_FLEX_ARRAY": 1, "__DECLARE_FLEX_ARRAY": 1, "DECLARE_HASHTABLE": 0, "DECLARE_KFIFO": 0, "DECLARE_KFIFO_PTR": 0,
	"struct_group": -1, "struct_group_attr": -1, "struct_group_tagged": -1, "__struct_group": -1,
}

func memberDecl(list []member, toks []token, depth int) []member {
	if len(toks) < 2 {
		return list
	}
	if toks[0].ident() && toks[1].is("(") {
		if at, ok := memberMacros[toks[0].text]; ok {
			args := arguments(toks, 1)
			if at < 0 {
				for _, a := range args {
					list = memberList(list, a, depth+1)
				}
				if len(args) > 0 && len(args[0]) == 1 {
					list = append(list, member{args[0][0].text, "group"})
				}
				return list
			}
			if at < len(args) && len(args[at]) == 1 {
				list = append(list, member{args[at][0].text, spell(toks)})
			}
			return list
		}
	}
	for i, t := range toks {
		if t.is("{") {
			end := after(toks, i)
			nested := memberList(nil, toks[i+1:max(i+1, end-1)], depth+1)
			list = append(list, nested...)
			for _, m := range declarators(toks[end:]) {
				list = append(list, member{m.name, spell(bareType(toks[:i])) + "{}" + m.typ})
			}
			return list
		}
	}
	// The type ends before the first declarator.
	return append(list, declarators(toks)...)
}

// declarators are the names that a declaration without braces declares.
func declarators(toks []token) []member {
	var list []member
	first := true
	prefix := ""
	depth, from := 0, 0
	for i := 0; i <= len(toks); i++ {
		if i < len(toks) {
			switch t := toks[i]; {
			case t.is("(") || t.is("["):
				depth++
			case t.is(")") || t.is("]"):
				depth--
			}
			if depth != 0 || !toks[i].is(",") {
				continue
			}
		}
		run := bareType(toks[from:i])
		from = i + 1
		at := declaratorName(run)
		if at < 0 {
			continue
		}
		if first {
			first = false
			for _, t := range run[:at] {
				if !t.is("*") && !t.is("(") {
					prefix += t.text + " "
				}
			}
		}
		var rest []token
		for k, t := range run {
			if k != at && (k > at || t.is("*") || t.is("(")) {
				rest = append(rest, t)
			}
		}
		typ := spell(rest)
		if k := at + 1; k < len(run) && run[k].is(")") && k+1 < len(run) && run[k+1].is("(") {
			typ = "(*)(" + parameters(run, k+1)
		}
		list = append(list, member{run[at].text, prefix + typ})
	}
	return list
}

func declaratorName(toks []token) int {
	depth := 0
	for i, t := range toks {
		next := token{kind: clex.Punct, text: ";"}
		if i+1 < len(toks) {
			next = toks[i+1]
		}
		switch {
		case t.is("("):
			depth++
		case t.is(")"):
			depth--
		case !t.ident() || word(t.text):
		case i > 0 && (toks[i-1].text == "struct" || toks[i-1].text == "union" || toks[i-1].text == "enum"):
		case depth == 1 && i > 1 && toks[i-1].is("*"):
			return i
		case depth == 0 && (next.is(";") || next.is(":") || next.is("[")):
			return i
		}
	}
	return -1
}

// defineType compares both definitions of a type; nil if it has no members.
func defineType(n *node) *typeDef {
	if !n.both() || n.trivial || n.e.Kind != freeze.Type && n.e.Kind != freeze.Data {
		return nil
	}
	brace := aggregateBrace(plain(n.post.toks))
	if brace < 0 || aggregateBrace(plain(n.pre.toks)) < 0 {
		return nil
	}
	d := &typeDef{enum: isEnum(plain(n.post.toks)[:brace]), tags: n.e.Names}
	d.oldType, d.newType = make(map[string]string), make(map[string]string)
	if d.enum {
		d.oldType, d.newType = values(enumerators(n.pre.toks)), values(enumerators(n.post.toks))
		d.compare(orderOf(enumerators(n.pre.toks)), orderOf(enumerators(n.post.toks)))
		return d
	}
	a, b := members(n.pre.toks), members(n.post.toks)
	for _, m := range a {
		d.oldType[m.name] = m.typ
	}
	for _, m := range b {
		d.newType[m.name] = m.typ
	}
	var pre, post []string
	for _, m := range a {
		pre = append(pre, m.name)
	}
	for _, m := range b {
		post = append(post, m.name)
	}
	d.compare(pre, post)
	return d
}

func orderOf(list []constant) []string {
	var names []string
	for _, c := range list {
		names = append(names, c.name)
	}
	return names
}

func (d *typeDef) compare(pre, post []string) {
	for _, name := range pre {
		if _, ok := d.newType[name]; !ok {
			d.removed = append(d.removed, name)
		}
	}
	seen := make(map[string]bool)
	for _, name := range post {
		if seen[name] {
			continue
		}
		seen[name] = true
		if old, ok := d.oldType[name]; !ok {
			d.added = append(d.added, name)
		} else if old != d.newType[name] {
			d.retyped = append(d.retyped, name)
		}
	}
}

// includish says whether headers there are for all of the tree.
func includish(file string) bool {
	return strings.HasPrefix(file, "include/") || strings.Contains(file, "/include/")
}
