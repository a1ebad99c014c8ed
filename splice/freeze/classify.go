// SPDX-License-Identifier: Apache-2.0

package freeze

import (
	"slices"
	"strings"

	"github.com/upsplice/upsplice/splice/clex"
)

// about is what the tokens of an item say.
type about struct {
	kind   Kind
	names  []string
	defs   []string // what it defines, with the name space in front: no two of these in one file
	key    string   // of the item that it is in the other version
	static bool
	types  []part // types with their members
	head   int    // end of a function's head, 0 if it is none
}

// part of a text. Its name tells it from others in the same item.
type part struct {
	name       string
	start, end int
}

// classify looks at an item that is no directive.
func classify(all []clex.Token) about {
	toks := clex.Code(all)
	if len(toks) == 0 {
		return nameless(all)
	}
	whole := part{start: int(toks[0].Pos), end: int(toks[len(toks)-1].End)}
	a := about{static: slices.ContainsFunc(toks[:headEnd(toks)], func(t clex.Token) bool { return t.Text == "static" })}
	switch first := toks[0].Text; first {
	case "static_assert", "_Static_assert", "asm", "__asm__":
		n := nameless(all)
		n.names = []string{first}
		return n
	}
	if from, to := clex.Aggregate(all); to > 0 {
		a.aggregate(all, from, to, whole)
		return a
	}
	body := headEnd(toks)
	if body < len(toks) && toks[body].Is("{") && clex.OpensBody(toks[:body]) {
		a.kind, a.head = Function, int(toks[body].Pos)
		a.function(toks[:body])
		return a
	}
	d := clex.Declared(toks[:body], nil)
	if macro := invoked(toks); macro != "" {
		a.invocation(macro, d)
		return a
	}
	a.names = d.Names
	space := "name "
	switch {
	case toks[0].Text == "typedef":
		a.kind = Type
		whole.name = strings.Join(a.names, " ")
		a.types = []part{whole}
	case body < len(toks):
		a.kind = Data // initialised
	case len(toks) == 3 && (toks[0].Text == "struct" || toks[0].Text == "union" || toks[0].Text == "enum"):
		a.kind, a.names, space = Declaration, []string{toks[1].Text}, "" // struct s;
	case toks[0].Text == "extern" || prototype(toks):
		a.kind = Declaration
	default:
		a.kind = Data
	}
	if len(a.names) == 0 {
		return nameless(all)
	}
	if space != "" {
		a.define(space, a.names...)
	}
	a.key = key(a.kind, a.names)
	return a
}

func key(k Kind, names []string) string {
	return string('0'+rune(k)) + " " + strings.Join(names, " ")
}

func (a *about) define(space string, names ...string) {
	for _, n := range names {
		a.defs = append(a.defs, space+n)
	}
}

// nameless is an item that is known by its text only.
func nameless(toks []clex.Token) about {
	var b strings.Builder
	for _, t := range toks {
		b.WriteByte(' ')
		b.WriteString(t.Text)
	}
	return about{kind: Invocation, key: "text" + b.String()}
}

// headEnd is the index of the first brace or equals sign outside of parentheses.
func headEnd(toks []clex.Token) int {
	depth := 0
	for i, t := range toks {
		switch {
		case t.Is("("):
			depth++
		case t.Is(")"):
			depth--
		case depth == 0 && (t.Is("{") || t.Is("=")):
			return i
		}
	}
	return len(toks)
}

// aggregate takes a struct, union or enum whose braces are at from and to.
func (a *about) aggregate(toks []clex.Token, from, to int, whole part) {
	a.kind = Type
	tag, enum, depth := "", false, 0
	for i, t := range toks[:from] {
		switch {
		case t.Is("("):
			depth++
		case t.Is(")"):
			depth--
		case t.Text == "struct" || t.Text == "union" || t.Text == "enum":
			tag, enum = "", t.Text == "enum"
		case depth == 0 && i > 0 && t.Kind == clex.Ident && tag == "" && !clex.Attribute(t.Text) && !clex.Keyword(t.Text) && !clex.Basic(t.Text):
			tag = t.Text
		}
	}
	a.names = nil
	if tag != "" {
		a.names = append(a.names, tag)
		a.define("tag ", tag)
	}
	after := toks[to+1:]
	n := headEnd(after)
	declared := clex.Declared(after[:n], nil).Names
	a.define("name ", declared...)
	if n < len(after) {
		// A variable with its type.
		a.kind, whole.end = Data, int(toks[to].End)
		a.names = append(slices.Clone(declared), a.names...)
	} else {
		a.names = append(a.names, declared...)
	}
	if tag == "" && len(declared) > 0 && toks[0].Text == "typedef" {
		tag = declared[0]
	}
	if enum {
		c := constants(clex.Code(toks[from+1 : to]))
		a.names = append(a.names, c...)
		a.define("name ", c...)
	}
	if len(a.names) == 0 {
		*a = nameless(toks)
		a.kind = Type
	} else {
		a.key = key(a.kind, a.names[:1])
		whole.name = tag // two versions without one are still of one type
	}
	a.types = []part{whole}
}

// constants are those of an enum.
func constants(toks []clex.Token) (names []string) {
	depth, want := 0, true
	for _, t := range toks {
		switch {
		case t.Is("(") || t.Is("{"):
			depth++
		case t.Is(")") || t.Is("}"):
			depth--
		case t.Is(",") && depth == 0:
			want = true
		case want && t.Kind == clex.Ident:
			names = append(names, t.Text)
			want = false
		}
	}
	return names
}

// function takes the head of a function.
func (a *about) function(head []clex.Token) {
	depth := 0
	typed := false // something in front that is no storage class
	for i, t := range head {
		switch {
		case t.Is("("):
			depth++
		case t.Is(")"):
			depth--
		case depth > 0 || t.Kind != clex.Ident:
		case i+1 < len(head) && head[i+1].Is("(") && !clex.Attribute(t.Text) && !clex.Keyword(t.Text):
			if typed {
				if i+2 < len(head) && head[i+2].Is("*") {
					break // a function that returns a pointer to one
				}
				a.names = []string{t.Text}
			} else {
				a.names = makes(t.Text, head[i+1:])
			}
			a.define("name ", a.names...)
			a.key = key(Function, a.names)
			if !typed {
				a.key += " " + t.Text
			}
			return
		case !clex.Storage(t.Text):
			typed = true
		}
	}
	a.names = clex.Declared(head, nil).Names
	a.define("name ", a.names...)
	a.key = key(Function, a.names)
}

// makes are the names of functions that a macro makes of its arguments.
func makes(macro string, args []clex.Token) []string {
	name := ""
	for _, t := range args {
		if t.Kind == clex.Ident {
			name = t.Text
			break
		}
	}
	switch {
	case name == "":
		return []string{macro}
	case strings.HasPrefix(macro, "SYSCALL_DEFINE"):
		return []string{"__do_sys_" + name, "__se_sys_" + name, "__x64_sys_" + name}
	case strings.HasPrefix(macro, "COMPAT_SYSCALL_DEFINE"):
		return []string{"__do_compat_sys_" + name, "__se_compat_sys_" + name, "__ia32_compat_sys_" + name}
	case strings.HasPrefix(macro, "BPF_CALL_"):
		return []string{name, "____" + name}
	case strings.HasPrefix(macro, "DEFINE_IDTENTRY"):
		return []string{name, "__" + name}
	}
	return []string{name}
}

// invoked is the macro that is called at the top level, "" if it is a declaration.
func invoked(toks []clex.Token) string {
	for i, t := range toks {
		switch {
		case t.Kind != clex.Ident:
			return ""
		case clex.Storage(t.Text) && t.Text != "extern" || t.Text == "__initdata":
		case i+1 < len(toks) && toks[i+1].Is("(") && !clex.Attribute(t.Text) && !clex.Keyword(t.Text):
			return t.Text
		default:
			return ""
		}
	}
	return ""
}

func (a *about) invocation(macro string, d clex.Declaration) {
	a.kind, a.names = Invocation, d.Args
	if len(a.names) == 0 {
		a.names = d.Names
	}
	if len(a.names) == 0 {
		a.names = []string{macro}
	}
	a.key = key(Invocation, append([]string{macro}, a.names...))
	switch {
	case strings.HasPrefix(macro, "EXPORT_"):
		a.define("export ", a.names[0])
	case strings.HasPrefix(macro, "DEFINE_EVENT"), strings.HasPrefix(macro, "DEFINE_PER_CPU"):
		a.define("name ", a.names[len(a.names)-1])
	case strings.HasPrefix(macro, "DEFINE_"), strings.HasPrefix(macro, "TRACE_EVENT"):
		a.define("name ", a.names[0])
	}
}

// prototype says whether a declaration without a value is one of a function.
func prototype(toks []clex.Token) bool {
	depth := 0
	for i, t := range toks {
		switch {
		case t.Is("("):
			if depth == 0 && i > 0 && toks[i-1].Kind == clex.Ident && !clex.Attribute(toks[i-1].Text) && !clex.Keyword(toks[i-1].Text) {
				return !(i+1 < len(toks) && toks[i+1].Is("*") && clex.Basic(toks[i-1].Text))
			}
			depth++
		case t.Is(")"):
			depth--
		}
	}
	return false
}

// directive looks at a directive that is no condition. toks begin with the number sign.
func directive(toks []clex.Token) about {
	a := nameless(toks)
	if len(toks) < 3 {
		return a
	}
	switch toks[1].Text {
	case "define":
		a = about{kind: Macro, names: []string{toks[2].Text}}
		a.key = key(Macro, a.names)
		a.define("name ", a.names...)
	case "undef":
		a = about{kind: Macro, names: []string{toks[2].Text}, key: "undef " + toks[2].Text}
	case "include", "include_next":
		var name strings.Builder
		for _, t := range toks[2:] {
			name.WriteString(t.Text)
		}
		a.kind, a.names = Include, []string{strings.Trim(name.String(), `<>"`)}
	}
	return a
}
