// SPDX-License-Identifier: Apache-2.0

package layout

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf/btf"
)

const (
	maxBTF   = 256 << 20 // bytes; the largest kernels have some ten megabytes
	btfMagic = 0xeb9f
)

func fromBTF(raw []byte) (*Types, error) {
	return readBTF(func() (*btf.Spec, error) { return loadBTF(raw, nil) })
}

func fromModuleBTF(kernel *Types, base, module []byte) (*Types, error) {
	own, err := readBTF(func() (*btf.Spec, error) {
		spec, err := loadBTF(base, nil)
		if err != nil {
			return nil, err
		}
		return loadBTF(module, spec)
	})
	if err != nil {
		return nil, err
	}
	// What the module refers to of the kernel's types is in both.
	merge(own.byName, kernel.byName)
	merge(own.funcs, kernel.funcs)
	merge(own.vars, kernel.vars)
	return own, nil
}

func merge(to, from map[string][]Type) {
	for key, types := range from {
		for _, t := range types {
			if !slices.ContainsFunc(to[key], t.same) {
				to[key] = append(slices.Clip(to[key]), t)
			}
		}
	}
}

// loadBTF checks what the library leaves to its callers.
func loadBTF(raw []byte, base *btf.Spec) (*btf.Spec, error) {
	if len(raw) > maxBTF {
		return nil, fmt.Errorf("%d bytes are more than the limit of %d", len(raw), maxBTF)
	}
	if len(raw) < 2 || binary.LittleEndian.Uint16(raw) != btfMagic {
		return nil, errors.New("no BTF magic")
	}
	if base != nil {
		return btf.LoadSplitSpecFromReader(bytes.NewReader(raw), base)
	}
	return btf.LoadSpecFromReader(bytes.NewReader(raw))
}

func readBTF(load func() (*btf.Spec, error)) (t *Types, err error) {
	defer func() {
		if p := recover(); p != nil {
			t, err = nil, fmt.Errorf("reading BTF: %v: %w", p, ErrFormat)
		}
	}()
	spec, err := load()
	if err != nil {
		return nil, fmt.Errorf("reading BTF: %w: %w", err, ErrFormat)
	}
	b := &btfReader{index: map[btf.Type]int{}, g: &graph{nodes: make([]node, 1)}}
	for typ, err := range spec.All() {
		if err != nil {
			return nil, fmt.Errorf("reading BTF: %w: %w", err, ErrFormat)
		}
		b.id(typ)
	}
	// Adding one may reveal more.
	for i := 0; i < len(b.queue); i++ {
		b.add(b.queue[i])
	}
	b.markNarrow()
	t, err = b.g.types()
	if err != nil {
		return nil, fmt.Errorf("reading BTF: %w", err)
	}
	return t, nil
}

// btfReader turns BTF types into nodes.
type btfReader struct {
	g     *graph
	index map[btf.Type]int
	queue []btf.Type
}

// id returns the node for a type, and sees to it that it will be filled.
func (b *btfReader) id(t btf.Type) int {
	if _, void := t.(*btf.Void); void || t == nil {
		return 0
	}
	id, ok := b.index[t]
	if !ok {
		id = len(b.g.nodes)
		b.g.nodes = append(b.g.nodes, node{})
		b.index[t] = id
		b.queue = append(b.queue, t)
	}
	return id
}

func (b *btfReader) add(t btf.Type) {
	var n node
	switch t := t.(type) {
	case *btf.Int:
		n = node{kind: kindBase, size: int64(t.Size), base: "uint"}
		switch t.Encoding {
		case btf.Signed:
			n.base = "int"
		case btf.Bool:
			n.base = "bool"
		}
	case *btf.Float:
		n = node{kind: kindBase, size: int64(t.Size), base: "float"}
	case *btf.Pointer:
		n = node{kind: kindPointer, size: 8, elem: b.id(t.Target)}
	case *btf.Struct:
		n = node{kind: kindStruct, name: t.Name, size: int64(t.Size), members: b.members(t.Members)}
	case *btf.Union:
		n = node{kind: kindUnion, name: t.Name, size: int64(t.Size), members: b.members(t.Members)}
	case *btf.Enum:
		n = node{kind: kindEnum, name: t.Name, size: int64(t.Size)}
		for _, v := range t.Values {
			n.values = append(n.values, value{v.Name, v.Value})
		}
		n.declared = len(t.Values) == 0
	case *btf.Fwd:
		n = node{kind: kindStruct, name: t.Name, declared: true}
		if t.Kind == btf.FwdUnion {
			n.kind = kindUnion
		}
	case *btf.Array:
		n = node{kind: kindArray, count: int64(t.Nelems), elem: b.id(t.Type)}
	case *btf.Typedef:
		n = node{kind: kindAlias, typedef: true, name: t.Name, elem: b.id(t.Type)}
	case *btf.Const:
		n = node{kind: kindAlias, elem: b.id(t.Type)}
	case *btf.Volatile:
		n = node{kind: kindAlias, elem: b.id(t.Type)}
	case *btf.Restrict:
		n = node{kind: kindAlias, elem: b.id(t.Type)}
	case *btf.TypeTag:
		n = node{kind: kindAlias, elem: b.id(t.Type)}
	case *btf.FuncProto:
		n = node{kind: kindFunc, elem: b.id(t.Return)}
		for _, p := range t.Params {
			if id := b.id(p.Type); id != 0 {
				n.members = append(n.members, member{elem: id})
			} else {
				n.variadic = true
			}
		}
	case *btf.Func:
		b.g.funcs = append(b.g.funcs, named{t.Name, b.id(t.Type)})
	case *btf.Var:
		b.g.vars = append(b.g.vars, named{t.Name, b.id(t.Type)})
	}
	b.g.nodes[b.index[t]] = n
}

// markNarrow finds out whether the values of 64-bit enums are whole
// (BTF_KIND_ENUM64): then one of them, somewhere, needs more than 32 bits.
func (b *btfReader) markNarrow() {
	var wide []*node
	for i := range b.g.nodes {
		n := &b.g.nodes[i]
		if n.kind != kindEnum || n.size <= 4 {
			continue
		}
		for _, v := range n.values {
			if int64(v.val) != int64(int32(v.val)) && v.val != uint64(uint32(v.val)) {
				return
			}
		}
		wide = append(wide, n)
	}
	for _, n := range wide {
		n.narrow = true
	}
}

func (b *btfReader) members(list []btf.Member) []member {
	ms := make([]member, len(list))
	for i, m := range list {
		ms[i] = member{name: m.Name, elem: b.id(m.Type), off: int64(m.Offset), bits: int64(m.BitfieldSize)}
	}
	return ms
}
