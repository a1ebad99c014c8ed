// SPDX-License-Identifier: Apache-2.0

package objdiff

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"

	"github.com/upsplice/upsplice/splice/object"
)

// special describes the entries of a table about code. The first field of each
// entry refers to the instruction that it is about.
//
// Sources: Documentation/ and include/ of Linux 4.19 to 6.18: struct alt_instr,
// bug_entry, exception_table_entry, jump_entry, static_call_site,
// paravirt_patch_site; the .*_sites sections and .smp_locks hold 4-byte
// PC-relative addresses, __mcount_loc and __patchable_function_entries 8-byte
// absolute ones.
type special struct {
	sizes []int // of an entry in the kernels there are; relocations tell which
	// line is the offset of a 16-bit line number by size of the entry
	line map[int]int
	// replacement is the offset of the byte with the length of the replacement
	// code by size of the entry; the code is what the second field refers to
	replacement map[int]int
}

var specials = map[string]special{
	".altinstructions":      {sizes: []int{12, 13, 14}, replacement: map[int]int{12: 11, 13: 11, 14: 13}},
	".altinstr_replacement": {},
	"__bug_table":           {sizes: []int{12, 16, 8}, line: map[int]int{12: 8, 16: 12}},
	"__ex_table":            {sizes: []int{12, 8}},
	"__jump_table":          {sizes: []int{16, 24}},
	"__mcount_loc":          {sizes: []int{8}},
	".parainstructions":     {sizes: []int{16}},
	".static_call_sites":    {sizes: []int{8}},
	".smp_locks":            {sizes: []int{4}},
	".retpoline_sites":      {sizes: []int{4}},
	".return_sites":         {sizes: []int{4}},
	".call_sites":           {sizes: []int{4}},
	".cfi_sites":            {sizes: []int{4}},
	".kcfi_traps":           {sizes: []int{4}},
	".ibt_endbr_seal":       {sizes: []int{4}},
}

// entry is one entry of a special section.
type entry struct {
	table string
	at    uint64 // of the instruction, from the start of its function
	place target // of the instruction
	*body
	code  *body     // replacement code
	types [2]uint32 // of the relocations that place and code come from
}

func (s *side) readSpecials() error {
	for _, sec := range s.obj.Sections {
		sp, ok := specials[sec.Name]
		if !ok || len(sp.sizes) == 0 || sec.Size == 0 || s.class[sec] != classSpecial {
			continue
		}
		size := entrySize(sec, sp.sizes)
		if size == 0 {
			return fmt.Errorf("comparing objects: %s has %d bytes and %d relocations: entries of none of the known sizes %v",
				sec.Name, sec.Size, len(sec.Relocs), sp.sizes)
		}
		for pos := uint64(0); pos < sec.Size; pos += uint64(size) {
			if err := s.readEntry(sec, sp, pos, size); err != nil {
				return err
			}
		}
	}
	for _, list := range s.entries {
		slices.SortStableFunc(list, func(a, b entry) int {
			return cmp.Or(cmp.Compare(a.table, b.table), cmp.Compare(a.at, b.at))
		})
	}
	return nil
}

// entrySize returns the first size for which each entry starts with a relocation,
// 0 if there is none.
func entrySize(sec *object.Section, sizes []int) int {
	starts := map[uint64]bool{}
	for _, r := range sec.Relocs {
		starts[r.Offset] = true
	}
next:
	for _, n := range sizes {
		if sec.Size%uint64(n) != 0 || sec.Data == nil {
			continue
		}
		for pos := uint64(0); pos < sec.Size; pos += uint64(n) {
			if !starts[pos] {
				continue next
			}
		}
		return n
	}
	return 0
}

func (s *side) readEntry(sec *object.Section, sp special, pos uint64, size int) error {
	b := s.region(sec, pos, pos+uint64(size))
	e := entry{table: sec.Name, place: b.refs[0].targets[0], body: b, types: [2]uint32{b.refs[0].typ}}
	// A size can hide the line number or the length of the replacement.
	if off, ok := sp.line[size]; ok {
		clear(b.data[off : off+2])
		wholeStrings(b.refs[1:])
	}
	if off, ok := sp.replacement[size]; ok {
		n := uint64(b.data[off])
		if len(b.refs) < 2 || b.refs[1].off != 4 {
			return fmt.Errorf("comparing objects: entry at 0x%x of %s has no replacement", pos, sec.Name)
		}
		t := b.refs[1].targets[0]
		e.types[1] = b.refs[1].typ
		switch {
		case n == 0:
		case t.sec == nil || t.off < 0 || uint64(t.off)+n > t.sec.Size || t.sec.Data == nil:
			return fmt.Errorf("comparing objects: entry at 0x%x of %s has %d bytes of replacement where there are less", pos, sec.Name, n)
		default:
			e.code = s.region(t.sec, uint64(t.off), uint64(t.off)+n)
		}
		b.refs = slices.Delete(b.refs, 1, 2)
	}
	b.refs = b.refs[1:]

	owner := e.place.sym
	if e.place.kind != toSymbol || !s.isCode(owner) || owner.Size == 0 {
		s.stray[sec.Name] = append(s.stray[sec.Name], e)
		return nil
	}
	e.at = uint64(e.place.off)
	s.entries[owner] = append(s.entries[owner], e)
	if sec.Name == "__mcount_loc" && e.at < fentryWithin {
		s.fentry[owner] = true
	}
	return nil
}

// wholeStrings makes references to the middle of a string ones to its start: in
// some kernels the address of the file's name in struct bug_entry counts from the
// start of the entry, so that the place that the relocation means is 4 too far.
func wholeStrings(refs []ref) {
	for _, r := range refs {
		for i := range r.targets {
			t := &r.targets[i]
			if t.kind != toLiteral || t.off < 0 || t.off >= int64(len(t.sec.Data)) {
				continue
			}
			t.off = int64(bytes.LastIndexByte(t.sec.Data[:t.off], 0) + 1)
		}
	}
}

// fentryWithin is how far from its start the call that ftrace hooks can be in a
// function that begins with endbr64.
const fentryWithin = 16

// fields returns all references of a function, those of its entries included, in
// an order that two compilations of the same code share.
func (s *side) fields(sym *object.Symbol) []ref {
	refs := slices.Clone(s.body(sym).refs)
	for _, e := range s.entries[sym] {
		refs = append(refs, e.refs...)
		if e.code != nil {
			refs = append(refs, e.code.refs...)
		}
	}
	return refs
}
