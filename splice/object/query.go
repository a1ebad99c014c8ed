// SPDX-License-Identifier: Apache-2.0

package object

import (
	"cmp"
	"debug/elf"
	"slices"
	"sort"
)

// Functions returns the defined STT_FUNC symbols, in file order.
func (o *Object) Functions() []*Symbol {
	var fs []*Symbol
	for _, s := range o.Symbols {
		if s.Type == elf.STT_FUNC && s.Section != nil {
			fs = append(fs, s)
		}
	}
	return fs
}

// Lookup returns all symbols of this name, in file order: local symbols may
// share one.
func (o *Object) Lookup(name string) []*Symbol {
	var found []*Symbol
	for _, s := range o.Symbols {
		if s.Name == name {
			found = append(found, s)
		}
	}
	return found
}

// Section returns the first section of this name, nil if there is none.
func (o *Object) Section(name string) *Section {
	for _, s := range o.Sections {
		if s.Name == name {
			return s
		}
	}
	return nil
}

// Bytes returns the contents of a defined symbol, nil if it has none: undefined,
// or in a SHT_NOBITS section.
func (s *Symbol) Bytes() []byte {
	if s.Section == nil || s.Section.Data == nil {
		return nil
	}
	return s.Section.Data[s.Value : s.Value+s.Size : s.Value+s.Size]
}

// Relocs returns the relocations within a defined symbol, in order of offset.
// Their offsets stay relative to the section.
func (s *Symbol) Relocs() []Reloc {
	if s.Section == nil {
		return nil
	}
	return s.Section.RelocsIn(s.Value, s.Value+s.Size)
}

// RelocsIn returns the relocations with from <= Offset < to. The section's
// relocations must be in order of offset, as Read leaves them.
func (s *Section) RelocsIn(from, to uint64) []Reloc {
	i := sort.Search(len(s.Relocs), func(i int) bool { return s.Relocs[i].Offset >= from })
	j := sort.Search(len(s.Relocs), func(j int) bool { return s.Relocs[j].Offset >= to })
	return s.Relocs[i:max(i, j):max(i, j)]
}

// Width returns how many bytes the field of a relocation of this type has, 0 for
// types without a field.
func (r Reloc) Width(m elf.Machine) int { return fieldWidth(m, r.Type) }

// fieldWidth knows the types that are not 4 bytes wide. An unknown type is taken
// as 4: no processor supplement here has a smaller default.
func fieldWidth(m elf.Machine, typ uint32) int {
	if typ == 0 {
		return 0
	}
	if m == elf.EM_AARCH64 {
		switch elf.R_AARCH64(typ) {
		case elf.R_AARCH64_NULL:
			return 0
		case elf.R_AARCH64_ABS64, elf.R_AARCH64_PREL64:
			return 8
		case elf.R_AARCH64_ABS16, elf.R_AARCH64_PREL16:
			return 2
		}
		return 4
	}
	switch elf.R_X86_64(typ) {
	case elf.R_X86_64_64, elf.R_X86_64_PC64, elf.R_X86_64_SIZE64, elf.R_X86_64_GOTOFF64:
		return 8
	case elf.R_X86_64_16, elf.R_X86_64_PC16:
		return 2
	case elf.R_X86_64_8, elf.R_X86_64_PC8:
		return 1
	}
	return 4
}

// Index answers which symbol an address within a section belongs to.
type Index struct {
	bySection map[*Section]*places
}

type places struct {
	syms []*Symbol // by Value, then rank
	end  []uint64  // end[i] is the furthest end of syms[:i+1]
}

// NewIndex returns an index of the defined symbols of o, section and file
// symbols excepted. Later changes of o are not seen.
func NewIndex(o *Object) *Index {
	x := &Index{bySection: map[*Section]*places{}}
	for _, s := range o.Symbols {
		if s.Section == nil || s.Type == elf.STT_SECTION || s.Type == elf.STT_FILE {
			continue
		}
		p := x.bySection[s.Section]
		if p == nil {
			p = &places{}
			x.bySection[s.Section] = p
		}
		p.syms = append(p.syms, s)
	}
	for _, p := range x.bySection {
		slices.SortStableFunc(p.syms, func(a, b *Symbol) int {
			return cmp.Or(cmp.Compare(a.Value, b.Value), cmp.Compare(rank(a), rank(b)))
		})
		var end uint64
		for _, s := range p.syms {
			end = max(end, s.Value+s.Size)
			p.end = append(p.end, end)
		}
	}
	return x
}

// rank orders symbols at the same place: the one that people would name comes first.
func rank(s *Symbol) int {
	r := 0
	if s.Size == 0 {
		r += 4
	}
	if s.Type == elf.STT_NOTYPE {
		r += 2
	}
	if s.Bind == elf.STB_LOCAL {
		r++
	}
	return r
}

// Covering returns the symbol whose bytes include off: Value <= off <
// Value+Size. Of several the one that starts last wins, of aliases the function
// or object with global binding, then the first of the file. Where no symbol
// has the byte, a label (a symbol without size) at just this place is returned,
// else nil.
func (x *Index) Covering(sec *Section, off uint64) *Symbol {
	p := x.bySection[sec]
	if p == nil {
		return nil
	}
	i := sort.Search(len(p.syms), func(i int) bool { return p.syms[i].Value > off })
	var label, best *Symbol
	for i--; i >= 0; i-- {
		s := p.syms[i]
		if best != nil && s.Value != best.Value {
			break
		}
		switch {
		case off-s.Value < s.Size:
			best = s
		case s.Value == off:
			label = s
		case p.end[i] <= off:
			return cmp.Or(best, label)
		}
	}
	return cmp.Or(best, label)
}

// In returns the symbols of a section in order of their place.
func (x *Index) In(sec *Section) []*Symbol {
	if p := x.bySection[sec]; p != nil {
		return p.syms
	}
	return nil
}
