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
	steps int // taken to write the text of all types
	text  int // bytes written for types that are done
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
	w.brief(n, depth)
	return nil
}

// brief writes a type as seen through a pointer: only what it is called.
func (w *writer) brief(n *node, depth int) {
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
		if depth < maxDepth {
			w.brief(&w.g.nodes[w.g.strip(n.elem)], depth+1)
		}
	case kindArray:
		w.text.WriteString("[]")
		if depth < maxDepth {
			w.brief(&w.g.nodes[w.g.strip(n.elem)], depth+1)
		}
	case kindFunc:
		w.text.WriteString("func")
	default:
		w.text.WriteString(strings.TrimSpace(word(n.kind) + " " + n.name))
	}
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

// types writes all named types whose layout is there.
func (g *graph) types() (*Types, error) {
	t := &Types{byName: map[string][]Type{}}
	for id := range g.nodes {
		n := &g.nodes[id]
		if n.name == "" || n.declared {
			continue
		}
		var key string
		switch {
		case n.kind == kindStruct || n.kind == kindUnion || n.kind == kindEnum:
			key = word(n.kind) + " " + n.name
		case n.kind == kindAlias && n.typedef:
			key = "typedef " + n.name
		default:
			continue
		}
		typ, err := g.describe(n)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
		if !slices.Contains(t.byName[key], typ) {
			t.byName[key] = append(t.byName[key], typ)
		}
	}
	return t, nil
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
