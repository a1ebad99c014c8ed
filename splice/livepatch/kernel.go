// SPDX-License-Identifier: Apache-2.0

package livepatch

import (
	"bytes"
	"fmt"

	"github.com/cilium/ebpf/btf"

	"github.com/upsplice/upsplice/splice/kimage"
)

// kernel is what has to be known of the kernel that the module is for.
type kernel struct {
	symbols // of vmlinux
	types   *btf.Spec
}

func newKernel(img *kimage.Image) (*kernel, error) {
	raw := img.BTF()
	if raw == nil {
		return nil, fmt.Errorf("reading kernel types: the image has no .BTF section; without CONFIG_DEBUG_INFO_BTF the layout of struct module is not known")
	}
	spec, err := btf.LoadSpecFromReader(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("reading kernel types: %w", err)
	}
	return &kernel{symbols: newSymbols("the kernel", img), types: spec}, nil
}

// structure is the layout of a C struct of the kernel.
type structure struct {
	name string
	size uint64 // bytes
	typ  *btf.Struct
}

func (k *kernel) structure(name string) (structure, error) {
	var typ *btf.Struct
	if err := k.types.TypeByName(name, &typ); err != nil {
		return structure{}, fmt.Errorf("reading kernel types: struct %s: %w", name, err)
	}
	return structure{name: name, size: uint64(typ.Size), typ: typ}, nil
}

// member is a field of a structure, in bytes.
type member struct{ offset, size uint64 }

func (s structure) member(name string) (member, error) {
	m, err := findMember(s.typ.Members, name, 0)
	if err != nil {
		return member{}, fmt.Errorf("reading kernel types: struct %s: %w", s.name, err)
	}
	return m, nil
}

// findMember looks into anonymous structs and unions too. BTF of the kernel may
// not nest deeper than C code does, but a damaged one may.
func findMember(members []btf.Member, name string, depth int) (member, error) {
	const maxDepth = 16
	for _, m := range members {
		if m.Name == name && name != "" {
			if m.BitfieldSize != 0 {
				return member{}, fmt.Errorf("member %s is a bit field", name)
			}
			size, err := btf.Sizeof(m.Type)
			if err != nil || size < 0 {
				return member{}, fmt.Errorf("member %s has no known size", name)
			}
			return member{uint64(m.Offset.Bytes()), uint64(size)}, nil
		}
		if m.Name != "" || depth == maxDepth {
			continue
		}
		var inner []btf.Member
		switch t := btf.UnderlyingType(m.Type).(type) {
		case *btf.Struct:
			inner = t.Members
		case *btf.Union:
			inner = t.Members
		}
		if found, err := findMember(inner, name, depth+1); err == nil {
			found.offset += uint64(m.Offset.Bytes())
			return found, nil
		}
	}
	return member{}, fmt.Errorf("there is no member %s", name)
}
