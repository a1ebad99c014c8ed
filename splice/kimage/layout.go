// SPDX-License-Identifier: Apache-2.0

package kimage

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/cilium/ebpf/btf"
)

// record is the layout of one table entry, in bytes, from the image's own types.
type record struct {
	size   int
	fields map[string]int // offset of each member
}

// layouts reads the layout of structs from the image's BTF.
type layouts struct{ spec *btf.Spec }

func (im *Image) layouts() (*layouts, error) {
	raw := im.btf()
	if raw == nil {
		return nil, errors.New("reading kernel types: the image has no .BTF section (CONFIG_DEBUG_INFO_BTF), so the size of its tables' entries is unknown")
	}
	spec, err := btf.LoadSpecFromReader(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("reading kernel types: %w", err)
	}
	return &layouts{spec}, nil
}

// of returns the layout of a struct, which must have the named members.
func (l *layouts) of(name string, members ...string) (record, error) {
	var s *btf.Struct
	if err := l.spec.TypeByName(name, &s); err != nil {
		return record{}, fmt.Errorf("reading kernel types: struct %s: %w", name, err)
	}
	r := record{size: int(s.Size), fields: map[string]int{}}
	addMembers(r.fields, s.Members, 0)
	for _, m := range members {
		if _, ok := r.fields[m]; !ok {
			return record{}, fmt.Errorf("reading kernel types: struct %s has no member %s", name, m)
		}
	}
	if r.size == 0 {
		return record{}, fmt.Errorf("reading kernel types: struct %s is empty", name)
	}
	return r, nil
}

// addMembers collects members, those of anonymous structs and unions too.
func addMembers(to map[string]int, members []btf.Member, at int) {
	for _, m := range members {
		off := at + int(m.Offset.Bytes())
		if m.Name != "" {
			to[m.Name] = off
			continue
		}
		switch t := btf.UnderlyingType(m.Type).(type) {
		case *btf.Struct:
			addMembers(to, t.Members, off)
		case *btf.Union:
			addMembers(to, t.Members, off)
		}
	}
}
