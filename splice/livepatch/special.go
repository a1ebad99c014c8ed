// SPDX-License-Identifier: Apache-2.0

package livepatch

import (
	"debug/elf"
	"fmt"

	"github.com/upsplice/upsplice/splice/kimage"
	"github.com/upsplice/upsplice/splice/object"
)

// carryTables copies the entries of the special sections that are about the code
// that was taken.
func (u *unit) carryTables() error {
	for _, t := range tables {
		for _, sec := range u.Post.Sections {
			if sec.Name != t.section || len(sec.Relocs) == 0 {
				continue
			}
			if err := u.carryTable(t, sec); err != nil {
				return err
			}
		}
	}
	return u.readRuntimeConstants()
}

// entryLayout is what has to be known of the entries of a table.
type entryLayout struct {
	size uint64 // bytes
	site uint64 // offset of the address of the place in the code
}

func (u *unit) entryLayout(t table, sec *object.Section) (entryLayout, error) {
	if t.structure == "" {
		return entryLayout{size: widths[elf.R_X86_64(sec.Relocs[0].Type)]}, nil
	}
	s, err := u.b.kernel.structure(t.structure)
	if err != nil {
		return entryLayout{}, err
	}
	for _, name := range t.site {
		m, lookupErr := s.member(name)
		if lookupErr == nil {
			return entryLayout{size: s.size, site: m.offset}, nil
		}
		err = lookupErr
	}
	return entryLayout{}, err
}

func (u *unit) carryTable(t table, sec *object.Section) error {
	layout, err := u.entryLayout(t, sec)
	if err != nil {
		return err
	}
	if layout.size == 0 || sec.Size%layout.size != 0 {
		return u.unsupported(sec, "", fmt.Sprintf("%d bytes are no whole number of entries of %d bytes", sec.Size, layout.size))
	}
	for at := uint64(0); at < sec.Size; at += layout.size {
		relocs := sec.RelocsIn(at, at+layout.size)
		where, err := u.takenCode(sec, relocs, at+layout.site)
		if err != nil {
			return err
		}
		if where.chunk == nil {
			continue
		}
		keep := true
		switch t.section {
		case "__jump_table":
			keep, err = u.keepJumpLabel(t, sec, at, relocs, where)
		case ".static_call_sites":
			keep = u.keepStaticCall(t, sec, at, relocs)
		case ".call_sites":
			// The kernel looks where the call goes before it knows where a module is.
			// Without an entry the call is not counted (CONFIG_CALL_DEPTH_TRACKING).
			keep = !u.filledLater(where, branchField+1)
		case ".altinstructions":
			err = u.takeReplacement(sec, at, relocs, where)
		}
		if err != nil {
			return err
		}
		if !keep {
			continue
		}
		if err := u.carryEntry(sec, at, layout.size, relocs); err != nil {
			return err
		}
	}
	return nil
}

// site is a place in taken code that a table is about.
type site struct {
	chunk *chunk // nil: the code was not taken
	off   uint64 // in the section of the post object
}

// takenCode returns what the relocation at offset at refers to. Every entry must
// have that relocation.
func (u *unit) takenCode(sec *object.Section, relocs []object.Reloc, at uint64) (site, error) {
	for _, r := range relocs {
		if r.Offset != at || elf.R_X86_64(r.Type) == elf.R_X86_64_NONE {
			continue
		}
		if r.Symbol == nil || r.Symbol.Section == nil {
			return site{}, u.unsupported(sec, "", fmt.Sprintf("the entry with the relocation at 0x%x is about no code of the unit", r.Offset))
		}
		return site{u.takenAt(r), r.Symbol.Value + uint64(r.Addend)}, nil
	}
	return site{}, u.unsupported(sec, "", fmt.Sprintf("the entry has no relocation at 0x%x, where the kernel's types have the address", at))
}

// filledLater reports whether one of the n bytes at a place is filled in when a
// module is loaded that is patched, after the kernel has processed the tables.
func (u *unit) filledLater(s site, n uint64) bool {
	if u.Target == vmlinux {
		return false
	}
	start := s.chunk.at + s.off - s.chunk.start
	name := livepatchRelocsName(u.Target, s.chunk.out)
	for _, k := range s.chunk.out.KlpRelocs {
		for _, r := range k.Relocs {
			if k.Name == name && r.Offset < start+n && start < r.Offset+uint64(r.Width(u.Post.Machine)) {
				return true
			}
		}
	}
	return false
}

// takenAt returns the chunk of code that a reference from a table is about.
func (u *unit) takenAt(r object.Reloc) *chunk {
	if r.Symbol.Section.Flags&elf.SHF_EXECINSTR == 0 {
		return nil
	}
	return u.chunkAt(r.Symbol.Section, r.Symbol.Value+uint64(r.Addend))
}

func (u *unit) carryEntry(sec *object.Section, at, size uint64, relocs []object.Reloc) error {
	out := u.b.collected(sec)
	out.Align = max(out.Align, natural(size))
	base := uint64(len(out.Data))
	out.Data = append(out.Data, sec.Data[at:at+size]...)
	out.Size = uint64(len(out.Data))
	for _, r := range relocs {
		if err := u.carry(out, base+r.Offset-at, sec, r, at+size, true); err != nil {
			return err
		}
	}
	return nil
}

// natural returns the alignment that the kernel's compiler expects of an array of
// entries of this size, whose alignment the linker script of modules would give.
func natural(size uint64) uint64 { return min(size&-size, 8) }

// takeReplacement copies the instructions that an alternative may put in place.
func (u *unit) takeReplacement(sec *object.Section, at uint64, relocs []object.Reloc, where site) error {
	layout, err := u.b.kernel.structure("alt_instr")
	if err != nil {
		return err
	}
	repl, err := layout.member("repl_offset")
	if err != nil {
		return err
	}
	length, err := layout.member("replacementlen")
	if err != nil {
		return err
	}
	original, err := layout.member("instrlen")
	if err != nil {
		return err
	}
	if length.size != 1 || original.size != 1 {
		return u.unsupported(sec, "", fmt.Sprintf("alt_instr.replacementlen has %d bytes, instrlen %d, not 1", length.size, original.size))
	}
	if u.filledLater(where, uint64(sec.Data[at+original.offset])) {
		return &UnsupportedError{Unit: u.Name, Section: sec.Name, Symbol: u.nameIn(where.chunk), Reason: errSpecial.Error(), Err: errSpecial}
	}
	n := uint64(sec.Data[at+length.offset])
	for _, r := range relocs {
		if r.Offset != at+repl.offset {
			continue
		}
		s := r.Symbol
		if s == nil || s.Section == nil || s.Section.Name != altReplacement {
			return u.unsupported(sec, "", fmt.Sprintf("the replacement of the alternative at 0x%x is not in %s", at, altReplacement))
		}
		start := s.Value + uint64(r.Addend)
		if size := uint64(len(s.Section.Data)); start > size || n > size-start {
			return u.unsupported(sec, "", fmt.Sprintf("the replacement of the alternative at 0x%x lies outside of %s", at, altReplacement))
		}
		if c := u.chunkAt(s.Section, start); c != nil && c.end >= start+n {
			return nil
		}
		u.takeInto(u.b.collected(s.Section), s.Section, start, start+n)
		return nil
	}
	return u.unsupported(sec, "", fmt.Sprintf("the alternative at 0x%x has no replacement", at))
}

// checkStrangers refuses sections that say something about the code that was
// taken which this writer does not understand.
func (u *unit) checkStrangers() error {
	for _, sec := range u.Post.Sections {
		if sec.Flags&elf.SHF_ALLOC == 0 || sec.Flags&elf.SHF_EXECINSTR != 0 || isTable(sec.Name) || isHarmless(sec.Name) {
			continue
		}
		if _, _, ok := kimage.RuntimeConstant(sec.Name); ok {
			continue
		}
		for _, r := range sec.Relocs {
			if r.Symbol == nil || r.Symbol.Section == nil {
				continue
			}
			if c := u.takenAt(r); c != nil {
				return u.unsupported(sec, u.nameIn(c), "the section has entries about the function and is not one that is known")
			}
		}
	}
	return nil
}

// nameIn returns the name of the function in a chunk of code.
func (u *unit) nameIn(c *chunk) string {
	for _, s := range u.idx.In(c.sec) {
		if s.Value >= c.start && s.Type == elf.STT_FUNC {
			return s.Name
		}
	}
	return ""
}
