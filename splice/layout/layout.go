// SPDX-License-Identifier: Apache-2.0

// Package layout compares what two objects, or an object and a kernel, believe
// about data: sizes, member offsets, bit fields, enum values, array lengths.
package layout

import "io"

// Types is a set of named types with their layouts, anonymous members flattened.
// A name can have several: private types of different units may share one.
type Types struct {
	byName map[string][]Type // key: "struct foo", "union foo", "enum foo", "typedef foo", "constant FOO" of an enum without a name
	funcs  map[string][]Type // prototypes of functions
	vars   map[string][]Type // types of data; BTF has those of per-CPU variables
}

// Type is the layout of one type in a form that both sources share: typedefs and
// qualifiers are followed to what they stand for, and several dimensions of an
// array are one, because BTF has no more than that.
type Type struct {
	Size int64 // bytes
	// Members is, for structs and unions, a line for each member: bit offset,
	// width if it is a bit field else 0, name, type; for enums a line for each
	// value, sorted by name; for typedefs what they stand for.
	Members string

	// BTF before Linux 6.0 keeps 32 bits of the values of 64-bit enums.
	low    string // as Members with the low 32 bits
	narrow bool   // there are no more than those
}

// FromDWARF reads the types that a relocatable object with debug information
// uses (DWARF 4 or 5, see dwarfstd.org). Types that are only declared are left
// out. Errors about the contents wrap ErrFormat.
func FromDWARF(r io.ReaderAt) (*Types, error) { return readDWARF(r, nil) }

// FromBTF reads the types of a kernel image: its .BTF section, or
// /sys/kernel/btf/vmlinux (Documentation/bpf/btf.rst). Errors about the contents
// wrap ErrFormat.
func FromBTF(btf []byte) (*Types, error) { return fromBTF(btf) }

// FromModuleBTF reads the types of a module from its .BTF section, which builds on
// the kernel's, and adds those of the kernel, read by FromBTF from base before.
func FromModuleBTF(kernel *Types, base, module []byte) (*Types, error) {
	return fromModuleBTF(kernel, base, module)
}

// Join returns what several sources know together: a module's types and those of the
// modules that it builds on.
func Join(types ...*Types) *Types {
	all := &Types{byName: map[string][]Type{}, funcs: map[string][]Type{}, vars: map[string][]Type{}}
	for _, t := range types {
		merge(all.byName, t.byName)
		merge(all.funcs, t.funcs)
		merge(all.vars, t.vars)
	}
	return all
}

// Difference is one type that two sides see differently.
type Difference struct {
	Type   string // "struct ext4_buddy"
	Detail string // "size 56 became 64", "member bd_bitmap moved from 8 to 16"
}

// Compare returns the named types that are in both and differ, sorted by name.
// Where a name has several layouts, those of one side must be among those of the
// other: an object knows its own, a kernel those of all its units.
func Compare(a, b *Types) []Difference { return compareTypes(a, b) }
