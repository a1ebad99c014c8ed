// SPDX-License-Identifier: Apache-2.0

package objdiff

import (
	"bytes"
	"cmp"
	"debug/elf"
	"fmt"
	"slices"
	"strings"

	"github.com/upsplice/upsplice/splice/object"
)

// special describes the entries of a table about code. The first field of each
// entry refers to the instruction that it is about.
//
// Sources: include/ and arch/x86/include/ of Linux 4.19 to 6.18: struct alt_instr,
// bug_entry, exception_table_entry, jump_entry, static_call_site,
// paravirt_patch_site; the .*_sites sections and .smp_locks hold 4-byte
// PC-relative addresses, __mcount_loc 8-byte absolute ones.
type special struct {
	structure string // the kernel's name of an entry, "" for plain addresses
	// fields is how many fields of an entry have a relocation, in the kernels there
	// are; none if only the first of them refers to code.
	fields []int
}

var specials = map[string]special{
	".altinstructions":      {"alt_instr", []int{2}},
	".altinstr_replacement": {},
	"__bug_table":           {"bug_entry", nil},
	"__ex_table":            {"exception_table_entry", []int{2, 3}},
	"__jump_table":          {"jump_entry", []int{3}},
	".static_call_sites":    {"static_call_site", []int{2}},
	".parainstructions":     {"paravirt_patch_site", []int{1}},
	"__mcount_loc":          {"", []int{1}},
	".smp_locks":            {"", []int{1}},
	".retpoline_sites":      {"", []int{1}},
	".return_sites":         {"", []int{1}},
	".call_sites":           {"", []int{1}},
	".cfi_sites":            {"", []int{1}},
	".kcfi_traps":           {"", []int{1}},
	".ibt_endbr_seal":       {"", []int{1}},
}

// specialOf returns the description of a table. Tables of the constants that the
// boot code writes into instructions have the name of a variable at their end.
func specialOf(section string) (special, bool) {
	if strings.HasPrefix(section, "runtime_ptr_") || strings.HasPrefix(section, "runtime_shift_") {
		return special{"", []int{1}}, true
	}
	sp, ok := specials[section]
	return sp, ok
}

// replacementLength is where struct alt_instr has the number of bytes of the
// replacement, by its size: before Linux 5.11, a length of padding came behind.
var replacementLength = map[uint64]int{12: 11, 13: 11, 14: 13}

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
		sp, ok := specialOf(sec.Name)
		if !ok || sec.Name == ".altinstr_replacement" || sec.Size == 0 || s.class[sec] != classSpecial {
			continue
		}
		t := table{Section: sec, special: sp}
		t.size = s.entrySize(t)
		if t.size == 0 {
			return fmt.Errorf("comparing objects: %s has %d bytes and %d relocations, which are no whole entries", sec.Name, sec.Size, len(sec.Relocs))
		}
		if err := s.findMembers(&t); err != nil {
			return err
		}
		for pos := uint64(0); pos < sec.Size; pos += t.size {
			if err := s.readEntry(t, pos); err != nil {
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

// table is a section with entries.
type table struct {
	*object.Section
	special
	size              uint64 // of an entry
	line, replacement int    // offsets of members, 0 if there are none
}

// entrySize returns the size of the entries: that of the kernel's type if it is
// known, else that which the relocations show; 0 if they do not fit.
func (s *side) entrySize(t table) uint64 {
	if known := s.types[t.structure].Size; known > 0 {
		return s.fits(t, uint64(known))
	}
	if t.fields == nil {
		// The entries start where something refers to code.
		var starts []uint64
		for _, r := range t.Relocs {
			if r.Symbol != nil && r.Symbol.Section != nil && r.Symbol.Section.Flags&elf.SHF_EXECINSTR != 0 {
				starts = append(starts, r.Offset)
			}
		}
		return s.fits(t, t.Size/uint64(max(1, len(starts))))
	}
	var size uint64
	for _, n := range t.fields {
		count := uint64(len(t.Relocs) / n)
		if len(t.Relocs)%n != 0 || count == 0 || t.Size%count != 0 {
			continue
		}
		fit := s.fits(t, t.Size/count)
		if fit == 0 {
			continue
		}
		// Where each word has a relocation, both numbers of fields fit: the third
		// is a function of the kernel's fault handler.
		if sym := t.Relocs[n-1].Symbol; size == 0 || sym != nil && strings.HasPrefix(sym.Name, "ex_handler_") {
			size = fit
		}
	}
	return size
}

// fits returns the size if each entry starts with a relocation and has the fields
// where the first one has them, else 0.
func (s *side) fits(t table, size uint64) uint64 {
	if size == 0 || t.Size%size != 0 || t.Data == nil {
		return 0
	}
	first := t.RelocsIn(0, size)
	for pos := uint64(0); pos < t.Size; pos += size {
		relocs := t.RelocsIn(pos, pos+size)
		if len(relocs) == 0 || relocs[0].Offset != pos {
			return 0
		}
		if t.fields != nil && !slices.EqualFunc(relocs, first, func(a, b object.Reloc) bool { return a.Offset-pos == b.Offset }) {
			return 0
		}
	}
	return size
}

// findMembers finds the members of the entries that are not compared as they are.
func (s *side) findMembers(t *table) error {
	known := s.types[t.structure].Members
	switch t.Name {
	case "__bug_table":
		t.line = known["line"]
		if len(known) > 0 {
			break
		}
		// The line follows the name of the file, which is the last address.
		for _, r := range t.Relocs {
			if off := r.Offset % t.size; off > 0 {
				t.line = max(t.line, int(off)+r.Width(s.obj.Machine))
			}
		}
	case ".altinstructions":
		t.replacement = known["replacementlen"]
		if len(known) == 0 {
			t.replacement = replacementLength[t.size]
		}
		if t.replacement == 0 {
			return fmt.Errorf("comparing objects: entries of %s have %d bytes, a size that is not known (pass the kernel's struct %s)", t.Name, t.size, t.structure)
		}
	}
	if uint64(t.line)+2 > t.size || uint64(t.replacement) >= t.size {
		if t.line != 0 || t.replacement != 0 {
			return fmt.Errorf("comparing objects: entries of %s have %d bytes, less than the kernel's struct %s", t.Name, t.size, t.structure)
		}
	}
	return nil
}

func (s *side) readEntry(sec table, pos uint64) error {
	b := s.region(sec.Section, pos, pos+sec.size)
	e := entry{table: sec.Name, place: b.refs[0].targets[0], body: b, types: [2]uint32{b.refs[0].typ}}
	if sec.line > 0 {
		clear(b.data[sec.line : sec.line+2])
		wholeStrings(b.refs[1:])
	}
	if sec.replacement > 0 {
		n := uint64(b.data[sec.replacement])
		if len(b.refs) < 2 {
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
			from := max(0, t.off-maxFileName)
			t.off = from + int64(bytes.LastIndexByte(t.sec.Data[from:t.off], 0)+1)
		}
	}
}

// maxFileName is longer than any path of a source, in bytes.
const maxFileName = 4096

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
