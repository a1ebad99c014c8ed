// SPDX-License-Identifier: Apache-2.0

package layout

import (
	"debug/dwarf"
	"debug/elf"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// maxDebugInfo is the limit for all debug sections together, uncompressed.
const maxDebugInfo = 1 << 30 // bytes

// readDWARF reads types, and into o, if it is not nil, what else Object keeps.
func readDWARF(r io.ReaderAt, o *Object) (t *Types, err error) {
	defer func() {
		if p := recover(); p != nil {
			// debug/elf and debug/dwarf are not made for hostile files
			t, err = nil, fmt.Errorf("reading debug information: %v: %w", p, ErrFormat)
		}
	}()
	f, err := elf.NewFile(r)
	if err != nil {
		return nil, fmt.Errorf("reading debug information: %w: %w", err, ErrFormat)
	}
	var total uint64
	for _, s := range f.Sections {
		if strings.HasPrefix(s.Name, ".debug_") || strings.HasPrefix(s.Name, ".zdebug_") {
			if total += s.Size; s.Size > maxDebugInfo || total > maxDebugInfo {
				return nil, fmt.Errorf("reading debug information: more than %d bytes: %w", maxDebugInfo, ErrFormat)
			}
		}
	}
	d, err := f.DWARF()
	if err != nil {
		return nil, fmt.Errorf("reading debug information: %w: %w", err, ErrFormat)
	}
	b := &dwarfReader{index: map[dwarf.Offset]int{}, g: &graph{nodes: make([]node, 1)},
		names: names{at: map[dwarf.Offset]int{}, static: map[dwarf.Offset]bool{}, defined: map[string]bool{}, global: map[string]bool{}}}
	if err := b.read(d.Reader()); err != nil {
		return nil, fmt.Errorf("reading debug information: %w: %w", err, ErrFormat)
	}
	if len(b.g.nodes) == 1 {
		return nil, fmt.Errorf("reading debug information: there are no types: compile with -g: %w", ErrFormat)
	}
	t, err = b.g.types()
	if err != nil {
		return nil, fmt.Errorf("reading debug information: %w", err)
	}
	if o != nil {
		o.g, o.complete = b.g, b.complete
		maps.Copy(o.defined, b.names.defined)
		maps.Copy(o.external, b.names.global)
	}
	return t, nil
}

// dwarfReader turns debugging information entries into nodes in one pass, with
// references resolved behind it. It does not use dwarf.Data.Type, whose
// recursion a damaged file can drive beyond any stack.
type dwarfReader struct {
	g     *graph
	index map[dwarf.Offset]int
	// what refers to an entry by offset: of nodes and of members
	refs []dwarfRef

	names    names
	complete bool // all types of the unit are there, used or not
}

type dwarfRef struct {
	node, member int // member -1: the node's elem
	to           dwarf.Offset
}

func (b *dwarfReader) read(r *dwarf.Reader) error {
	var stack []int // nodes around, 0 for entries that are no types
	for {
		e, err := r.Next()
		if err != nil {
			return err
		}
		if e == nil {
			break
		}
		if e.Tag == 0 {
			if len(stack) > 0 {
				stack = stack[:len(stack)-1]
				b.names.around = b.names.around[:len(stack)]
			}
			continue
		}
		outer := 0
		if len(stack) > 0 {
			outer = stack[len(stack)-1]
		}
		id := b.entry(e, outer)
		if e.Children {
			stack = append(stack, id)
			function := ""
			if e.Tag == dwarf.TagSubprogram {
				function, _ = e.Val(dwarf.AttrName).(string)
			}
			b.names.around = append(b.names.around, function)
		}
	}
	for _, ref := range b.refs {
		to, ok := b.index[ref.to]
		if !ok {
			return fmt.Errorf("reference to 0x%x, where there is no type", ref.to)
		}
		if n := &b.g.nodes[ref.node]; ref.member >= 0 {
			n.members[ref.member].elem = to
		} else {
			n.elem = to
		}
	}
	b.data()
	return nil
}

// entry adds what e describes; outer is the node that e stands in. It returns
// the node that stands for e, 0 if e is no type.
func (b *dwarfReader) entry(e *dwarf.Entry, outer int) int {
	n := node{}
	n.name, _ = e.Val(dwarf.AttrName).(string)
	n.size, _ = e.Val(dwarf.AttrByteSize).(int64)
	n.declared, _ = e.Val(dwarf.AttrDeclaration).(bool)
	switch e.Tag {
	case dwarf.TagCompileUnit:
		producer, _ := e.Val(dwarf.AttrProducer).(string)
		b.complete = slices.Contains(strings.Fields(producer), AllTypes)
		return 0
	case dwarf.TagSubprogram:
		return b.subprogram(e, n)
	case dwarf.TagVariable:
		b.variable(e)
		return 0
	case dwarf.TagMember:
		b.addMember(e, outer, n.name)
		return 0
	case dwarf.TagEnumerator:
		v, _ := e.Val(dwarf.AttrConstValue).(int64)
		o := &b.g.nodes[outer]
		o.values = append(o.values, value{n.name, uint64(v)})
		return 0
	case dwarf.TagSubrangeType:
		b.addDimension(e, outer)
		return 0
	case dwarf.TagBaseType:
		n.kind = kindBase
		enc, _ := e.Val(dwarf.AttrEncoding).(int64)
		n.base = encodings[enc]
	case dwarf.TagPointerType:
		n.kind = kindPointer
		n.size = max(n.size, 8)
	case dwarf.TagStructType:
		n.kind = kindStruct
	case dwarf.TagUnionType:
		n.kind = kindUnion
	case dwarf.TagEnumerationType:
		n.kind = kindEnum
	case dwarf.TagArrayType:
		n.kind, n.count = kindArray, 1
	case dwarf.TagTypedef:
		n.kind, n.typedef = kindAlias, true
	case dwarf.TagConstType, dwarf.TagVolatileType, dwarf.TagRestrictType, dwarf.TagAtomicType:
		n.kind = kindAlias
	case dwarf.TagSubroutineType:
		n.kind, n.name = kindFunc, ""
	case dwarf.TagFormalParameter:
		b.addParameter(e, outer)
		return 0
	case dwarf.TagUnspecifiedParameters:
		b.g.nodes[outer].variadic = b.g.nodes[outer].kind == kindFunc
		return 0
	case dwarf.TagUnspecifiedType:
	default:
		return 0
	}
	id := len(b.g.nodes)
	b.g.nodes = append(b.g.nodes, n)
	b.index[e.Offset] = id
	if to, ok := e.Val(dwarf.AttrType).(dwarf.Offset); ok && n.kind != kindEnum {
		b.refs = append(b.refs, dwarfRef{id, -1, to})
	}
	return id
}

// encodings are the DW_ATE_ values that C compilers use.
var encodings = map[int64]string{
	0x02: "bool", 0x03: "complex", 0x04: "float", 0x05: "int", 0x06: "int", 0x07: "uint", 0x08: "uint", 0x10: "int",
}

func (b *dwarfReader) addMember(e *dwarf.Entry, outer int, name string) {
	o := &b.g.nodes[outer]
	m := member{name: name}
	bytes, _ := e.Val(dwarf.AttrDataMemberLoc).(int64)
	m.off = bytes * 8
	m.bits, _ = e.Val(dwarf.AttrBitSize).(int64)
	if off, ok := e.Val(dwarf.AttrDataBitOffset).(int64); ok {
		m.off = off
	} else if off, ok := e.Val(dwarf.AttrBitOffset).(int64); ok {
		// DWARF 2 counts from the most significant bit of the storage unit
		unit, _ := e.Val(dwarf.AttrByteSize).(int64)
		m.off += unit*8 - off - m.bits
	}
	o.members = append(o.members, m)
	if to, ok := e.Val(dwarf.AttrType).(dwarf.Offset); ok {
		b.refs = append(b.refs, dwarfRef{outer, len(o.members) - 1, to})
	}
}

func (b *dwarfReader) addParameter(e *dwarf.Entry, outer int) {
	o := &b.g.nodes[outer]
	to, ok := e.Val(dwarf.AttrType).(dwarf.Offset)
	if o.kind != kindFunc || !ok {
		return
	}
	o.members = append(o.members, member{})
	b.refs = append(b.refs, dwarfRef{outer, len(o.members) - 1, to})
}

// addDimension multiplies the number of elements. An array without a bound, or
// with one that is only known at run time, has 0.
func (b *dwarfReader) addDimension(e *dwarf.Entry, outer int) {
	var count int64
	if c, ok := e.Val(dwarf.AttrCount).(int64); ok {
		count = c
	} else if u, ok := e.Val(dwarf.AttrUpperBound).(int64); ok {
		count = u + 1
	}
	b.g.nodes[outer].count *= max(count, 0)
}
