// SPDX-License-Identifier: Apache-2.0

package layout

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// kind is what DWARF and BTF have in common.
type kind int

const (
	kindVoid kind = iota
	kindBase
	kindPointer
	kindStruct
	kindUnion
	kindEnum
	kindArray
	kindAlias // typedef, const, volatile, ...: the same layout as what it refers to
	kindFunc
)

// node is one type of either source; others are referred to by index.
type node struct {
	kind     kind
	name     string
	size     int64
	base     string // kindBase: "int", "uint", "bool", "float"
	elem     int    // of pointers, arrays, aliases
	count    int64  // of arrays
	declared bool   // only announced: the layout is not here
	typedef  bool   // kindAlias with a name of its own
	members  []member
	values   []value
	narrow   bool // enum values have lost what is beyond 32 bits
	variadic bool // kindFunc: members are the parameters, elem is the result
}

type member struct {
	name string
	elem int
	off  int64 // bits
	bits int64 // width of a bit field, 0 for others
}

type value struct {
	name string
	val  uint64
}

// graph is all types of one source. Node 0 is void.
type graph struct {
	nodes []node
	funcs []named // prototypes of functions
	vars  []named // types of data
	steps int     // taken to write the text of all types
	text  int     // bytes written for types that are done
}

// named is a function or a datum.
type named struct {
	name string
	id   int
}

// Limits of writing out types: a whole kernel stays far below, and what refers to
// itself without a name in between, or doubles with each level, must end.
const (
	maxDepth = 64
	maxSteps = 1 << 26
	maxText  = 256 << 20 // bytes
)

// ErrFormat is what errors about the contents of type information wrap.
var ErrFormat = errors.New("unusable type information")

// writer builds the canonical text of one type.
type writer struct {
	g    *graph
	text strings.Builder
	wide bool // print enum values with 64 bits where the enum has them
}

func (w *writer) check(depth int) error {
	w.g.steps++
	if depth > maxDepth || w.g.steps > maxSteps || w.g.text+w.text.Len() > maxText {
		return fmt.Errorf("types are nested too deeply: %w", ErrFormat)
	}
	return nil
}

// strip follows typedefs and qualifiers, which have no layout of their own.
func (g *graph) strip(id int) int {
	for range maxDepth {
		if g.nodes[id].kind != kindAlias {
			return id
		}
		id = g.nodes[id].elem
	}
	return 0
}

// elemType writes the type of a member.
func (w *writer) elemType(id, depth int) error {
	if err := w.check(depth); err != nil {
		return err
	}
	n := &w.g.nodes[w.g.strip(id)]
	switch n.kind {
	case kindArray:
		// BTF has one array of all elements where DWARF has several dimensions
		count := n.count
		elem := w.g.strip(n.elem)
		for i := 0; w.g.nodes[elem].kind == kindArray; i++ {
			if err := w.check(i); err != nil {
				return err
			}
			count *= w.g.nodes[elem].count
			elem = w.g.strip(w.g.nodes[elem].elem)
		}
		fmt.Fprintf(&w.text, "[%d]", count)
		return w.elemType(elem, depth+1)
	case kindStruct, kindUnion:
		if n.name == "" {
			fmt.Fprintf(&w.text, "%s/%d{", word(n.kind), n.size)
			if err := w.memberList(n, 0, depth+1, ";"); err != nil {
				return err
			}
			w.text.WriteByte('}')
			return nil
		}
	case kindEnum:
		fmt.Fprintf(&w.text, "%s/%d", strings.TrimSpace("enum "+n.name), n.size)
		if n.name == "" {
			w.text.WriteByte('{')
			w.valueList(n, ";")
			w.text.WriteByte('}')
		}
		return nil
	}
	return w.brief(n, depth)
}

// brief writes a type as seen through a pointer: only what it is called, if it has
// a name.
func (w *writer) brief(n *node, depth int) error {
	if err := w.check(depth); err != nil {
		return err
	}
	switch n.kind {
	case kindVoid:
		w.text.WriteString("void")
	case kindBase:
		// BTF has no sign for char
		base := n.base
		if n.size == 1 && base == "uint" {
			base = "int"
		}
		fmt.Fprintf(&w.text, "%s%d", base, n.size)
	case kindPointer:
		w.text.WriteByte('*')
		return w.target(n.elem, depth+1)
	case kindArray:
		w.text.WriteString("[]")
		return w.target(n.elem, depth+1)
	case kindFunc:
		return w.prototype(n, depth)
	default:
		w.text.WriteString(strings.TrimSpace(word(n.kind) + " " + n.name))
	}
	return nil
}

// target writes what a pointer points to: a type without a name is nowhere else.
func (w *writer) target(id, depth int) error {
	n := &w.g.nodes[w.g.strip(id)]
	if n.name == "" && !n.declared && (n.kind == kindStruct || n.kind == kindUnion || n.kind == kindEnum) {
		return w.elemType(id, depth)
	}
	return w.brief(n, depth)
}

// prototype writes a function as "func(PARAMETERS)RESULT".
func (w *writer) prototype(n *node, depth int) error {
	w.text.WriteString("func(")
	for i, p := range n.members {
		if i > 0 {
			w.text.WriteByte(',')
		}
		if err := w.passed(p.elem, depth+1); err != nil {
			return err
		}
	}
	if n.variadic {
		w.text.WriteString("...")
	}
	w.text.WriteByte(')')
	return w.passed(n.elem, depth+1)
}

// passed writes the type of a parameter or result. Not every unit that names an
// enum there knows its size.
func (w *writer) passed(id, depth int) error {
	if n := &w.g.nodes[w.g.strip(id)]; n.kind == kindEnum && n.name != "" {
		return w.brief(n, depth)
	}
	return w.elemType(id, depth)
}

func word(k kind) string {
	return map[kind]string{kindStruct: "struct", kindUnion: "union", kindEnum: "enum"}[k]
}

// memberList writes each member as "BIT:WIDTH NAME TYPE", those of anonymous
// structs and unions as if they stood in the outer one.
func (w *writer) memberList(n *node, base int64, depth int, sep string) error {
	if err := w.check(depth); err != nil {
		return err
	}
	for _, m := range n.members {
		id := w.g.strip(m.elem)
		inner := &w.g.nodes[id]
		if m.name == "" && inner.name == "" && (inner.kind == kindStruct || inner.kind == kindUnion) {
			if err := w.memberList(inner, base+m.off, depth+1, sep); err != nil {
				return err
			}
			continue
		}
		bits := m.bits
		if bits == inner.size*8 && (base+m.off)%8 == 0 {
			bits = 0 // a bit field that is as wide as its type: not one for every source
		}
		fmt.Fprintf(&w.text, "%d:%d %s ", base+m.off, bits, m.name)
		if err := w.elemType(id, depth+1); err != nil {
			return err
		}
		w.text.WriteString(sep)
	}
	return nil
}

func (w *writer) valueList(n *node, sep string) {
	values := slices.Clone(n.values)
	slices.SortStableFunc(values, func(a, b value) int { return cmp.Compare(a.name, b.name) })
	for _, v := range values {
		val := v.val
		if n.size <= 4 || !w.wide {
			val = uint64(uint32(val))
		}
		fmt.Fprintf(&w.text, "%s=%d%s", v.name, val, sep)
	}
}

// types writes all types that have a name and whose layout is there, the
// constants of enums without a name, and functions and data.
func (g *graph) types() (*Types, error) {
	t := &Types{byName: map[string][]Type{}, funcs: map[string][]Type{}, vars: map[string][]Type{}}
	for id := range g.nodes {
		n := &g.nodes[id]
		keys := n.keys()
		if len(keys) == 0 {
			continue
		}
		typ, err := g.describe(n)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", keys[0], err)
		}
		for i, key := range keys {
			if n.kind == kindEnum && n.name == "" {
				add(t.byName, key, n.constant(i))
			} else {
				add(t.byName, key, typ)
			}
		}
	}
	for _, f := range g.funcs {
		if err := g.object(t.funcs, f); err != nil {
			return nil, err
		}
	}
	for _, v := range g.vars {
		if err := g.object(t.vars, v); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// keys are the names under which a type is compared.
func (n *node) keys() []string {
	switch {
	case n.declared:
	case n.kind == kindEnum && n.name == "":
		keys := make([]string, len(n.values))
		for i, v := range n.values {
			keys[i] = constantKey + v.name
		}
		return keys
	case n.name == "":
	case n.kind == kindStruct || n.kind == kindUnion || n.kind == kindEnum:
		return []string{word(n.kind) + " " + n.name}
	case n.kind == kindAlias && n.typedef:
		return []string{"typedef " + n.name}
	}
	return nil
}

// constant is one of an enum without a name. As with a macro, others may come to it.
func (n *node) constant(i int) Type {
	one := node{kind: kindEnum, size: n.size, values: n.values[i : i+1], narrow: n.narrow}
	typ, _ := (&graph{}).describe(&one) // nothing of it can be nested
	return typ
}

// object writes the type of a function or a datum.
func (g *graph) object(to map[string][]Type, o named) error {
	w := &writer{g: g}
	if err := w.elemType(o.id, 0); err != nil {
		return fmt.Errorf("%s: %w", o.name, err)
	}
	// Not every unit that declares a datum knows its size.
	typ := Type{Members: w.text.String()}
	g.text += len(typ.Members)
	add(to, o.name, typ)
	return nil
}

func add(to map[string][]Type, key string, typ Type) {
	if !slices.Contains(to[key], typ) {
		to[key] = append(to[key], typ)
	}
}

func (g *graph) describe(n *node) (Type, error) {
	w := &writer{g: g, wide: true}
	var err error
	switch n.kind {
	case kindEnum:
		w.valueList(n, "\n")
	case kindAlias:
		err = w.elemType(n.elem, 0)
	default:
		err = w.memberList(n, 0, 0, "\n")
	}
	typ := Type{Size: n.size, Members: w.text.String(), narrow: n.narrow}
	g.text += len(typ.Members)
	if n.kind == kindAlias {
		typ.Size = g.nodes[g.strip(n.elem)].size
	}
	if n.kind == kindEnum && n.size > 4 {
		w = &writer{g: g}
		w.valueList(n, "\n")
		typ.low = w.text.String()
	}
	return typ, err
}
