// SPDX-License-Identifier: Apache-2.0

package objdiff

import (
	"debug/elf"

	"github.com/upsplice/upsplice/splice/insn"
	"github.com/upsplice/upsplice/splice/object"
)

type targetKind int

const (
	toNothing  targetKind = iota // the null symbol
	toOutside                    // a symbol that the object does not define
	toSymbol                     // a symbol that it defines
	toLiteral                    // an entry of a mergeable section
	toContents                   // a place that no symbol names
)

// target is what a reference means.
type target struct {
	kind targetKind
	sym  *object.Symbol  // toOutside, toSymbol
	sec  *object.Section // toLiteral, toContents
	off  int64           // from sym or from the start of sec
}

// ref is one field that is filled with an address.
type ref struct {
	off     uint64 // from the start of the body
	width   int
	typ     uint32
	branch  bool     // of a call or jump
	targets []target // more than one where the instruction could not be decoded: all that it may mean
}

// body is a stretch of bytes with its fields cleared.
type body struct {
	data []byte // nil: no contents in the file
	size uint64
	refs []ref
	// opaque: an instruction could not be decoded and the section holds more than
	// this function, so that there may be references without relocation
	opaque bool
}

func (s *side) body(sym *object.Symbol) *body {
	b := s.bodies[sym]
	if b == nil {
		b = s.region(sym.Section, sym.Value, sym.Value+sym.Size)
		clearLines(sym, b.data)
		s.bodies[sym] = b
	}
	return b
}

// region returns the bytes from..to of a section. In code it reads from one
// instruction to the next, because a PC-relative field counts from the end of
// its instruction, and because the assembler resolves branches within a section
// itself.
func (s *side) region(sec *object.Section, from, to uint64) *body {
	b := &body{size: to - from}
	if sec.Data == nil {
		return b
	}
	b.data = append([]byte{}, sec.Data[from:to]...)
	relocs := sec.RelocsIn(from, to)
	if sec.Flags&elf.SHF_EXECINSTR == 0 {
		for _, r := range relocs {
			s.addReloc(b, r, from, []int64{0})
		}
		return b
	}
	pos := from
	for pos < to {
		in, err := insn.Decode(sec.Data[pos:to])
		if err != nil {
			break
		}
		end := pos + uint64(in.Len)
		field, relocated := pos+uint64(in.FieldOff), false
		for len(relocs) > 0 && relocs[0].Offset < end {
			r := relocs[0]
			relocs = relocs[1:]
			adjust := unsureAdjust
			switch r.Offset - pos {
			case uint64(in.DispOff), uint64(in.ImmOff):
				adjust = []int64{int64(end - r.Offset)}
			}
			relocated = relocated || r.Offset == field
			s.addReloc(b, r, from, adjust)
			b.refs[len(b.refs)-1].branch = in.Branch()
		}
		if dest := int64(pos) + in.Target; in.Relative && !relocated && (dest < int64(from) || dest >= int64(to)) {
			b.refs = append(b.refs, ref{
				off: field - from, width: in.FieldLen, typ: uint32(elf.R_X86_64_PC32),
				branch: in.Branch(), targets: []target{s.at(sec, dest)},
			})
			clear(b.data[field-from:][:in.FieldLen])
		}
		pos = end
	}
	for _, r := range relocs {
		s.addReloc(b, r, from, unsureAdjust)
	}
	b.opaque = pos < to && (from > 0 || to < sec.Size)
	return b
}

// unsureAdjust are the distances from a PC-relative field to the end of its
// instruction that occur: no immediate behind the field, or one of 1, 2 or 4 bytes.
var unsureAdjust = []int64{4, 5, 6, 8}

func (s *side) addReloc(b *body, r object.Reloc, from uint64, adjust []int64) {
	width := r.Width(s.obj.Machine)
	f := ref{off: r.Offset - from, width: width, typ: r.Type}
	switch elf.R_X86_64(r.Type) {
	case elf.R_X86_64_PLT32:
		// the same as PC32 in a kernel: there is no procedure linkage table
		f.typ = uint32(elf.R_X86_64_PC32)
	case elf.R_X86_64_PC32, elf.R_X86_64_PC64, elf.R_X86_64_PC16, elf.R_X86_64_PC8,
		elf.R_X86_64_GOTPCREL, elf.R_X86_64_GOTPCRELX, elf.R_X86_64_REX_GOTPCRELX:
	default:
		adjust = []int64{0}
	}
	for _, a := range adjust {
		f.targets = append(f.targets, s.target(r.Symbol, r.Addend+a))
	}
	b.refs = append(b.refs, f)
	// A field may reach over the end of the stretch where a table is cut at a wrong place.
	if f.off < uint64(len(b.data)) {
		clear(b.data[f.off:min(f.off+uint64(width), uint64(len(b.data)))])
	}
}

// target says what sym+off means.
func (s *side) target(sym *object.Symbol, off int64) target {
	switch {
	case sym == nil:
		return target{off: off}
	case sym.Section == nil:
		return target{kind: toOutside, sym: sym, off: off}
	case sym.Type == elf.STT_SECTION || s.class[sym.Section] == classLiteral:
		return s.at(sym.Section, int64(sym.Value)+off)
	}
	return target{kind: toSymbol, sym: s.canonical(sym), off: off}
}

// at says what a place in a section means.
func (s *side) at(sec *object.Section, off int64) target {
	if s.class[sec] == classLiteral {
		return target{kind: toLiteral, sec: sec, off: off}
	}
	if off >= 0 && uint64(off) < sec.Size {
		if c := s.index.Covering(sec, uint64(off)); c != nil {
			return target{kind: toSymbol, sym: c, off: off - int64(c.Value)}
		}
	}
	// Outside of the only symbol: an index that starts below 0, or the end of an array.
	if c := s.alone[sec]; c != nil && c.Value == 0 && c.Size == sec.Size {
		return target{kind: toSymbol, sym: c, off: off}
	}
	return target{kind: toContents, sec: sec, off: off}
}

// padding says that bytes only fill up to the next alignment.
func padding(sec *object.Section, b []byte) bool {
	if sec.Flags&elf.SHF_EXECINSTR == 0 {
		for _, c := range b {
			if c != 0 {
				return false
			}
		}
		return true
	}
	for len(b) > 0 {
		in, err := insn.Decode(b)
		if err != nil {
			return false
		}
		switch in.Opcode {
		case 0x90, 0xcc, 0x0f1f: // nop, int3, nop r/m
		default:
			return false
		}
		b = b[in.Len:]
	}
	return true
}
