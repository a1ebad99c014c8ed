// SPDX-License-Identifier: Apache-2.0

package match

import (
	"debug/elf"
	"encoding/binary"

	"github.com/upsplice/upsplice/splice/insn"
	"github.com/upsplice/upsplice/splice/object"
)

// With -ffunction-sections a jump to a neighbouring function is long, because the
// assembler does not know how far it will be. The kernel was compiled without, and
// has a short jump there if the neighbour is near; what follows moves. Such a
// function is compared instruction by instruction, each as if the jumps were long.

// shrink says that from an offset of the object's section on, the image is n bytes
// behind.
type shrink struct{ off, n uint64 }

// shrinks are those of one function, in order.
type shrinks []shrink

// image returns how far from the start of the section an offset is in the image.
func (s shrinks) image(off uint64) uint64 {
	gone := uint64(0)
	for _, x := range s {
		if x.off > off {
			break
		}
		gone = x.n
	}
	return off - gone
}

// shortJump says that the object has a long jump with a relocation where the image
// has a short one with the same condition.
func (d *difference) shortJump(sec *object.Section, start uint64, want []byte) bool {
	in, err := insn.Decode(want[d.off:])
	if err != nil || len(sec.RelocsIn(start+uint64(d.off), start+uint64(d.off)+uint64(in.Len))) != 1 {
		return false
	}
	return shortened(in, d.have)
}

// shortened says whether code starts with the short form of a long jump.
func shortened(in insn.Inst, code []byte) bool {
	switch {
	case len(code) < 2:
		return false
	case in.Opcode == 0xe9:
		return code[0] == 0xeb
	}
	return in.Opcode&^0xf == 0x0f80 && code[0] == 0x70|byte(in.Opcode&0xf)
}

// inner is a branch within the function: where it is in the object, and where the
// image's leads.
type inner struct {
	off    uint64
	in     insn.Inst
	target uint64
}

// expand returns the image's function at addr with the jumps as long as the
// object's, so that all else is where it is in the object. PC-relative fields are
// changed to lead to the same place from there. ok is false if that is not all that
// differs in the length of instructions.
func (m *matcher) expand(fn *object.Symbol, addr uint64) (have []byte, s shrinks, ok bool) {
	want, sec := fn.Bytes(), fn.Section
	var inside []inner
	gone := uint64(0)
	for off := uint64(0); off < uint64(len(want)); {
		in, err := insn.Decode(want[off:])
		if err != nil {
			return nil, nil, false
		}
		n := uint64(in.Len)
		code := m.img.At(addr+off-gone, in.Len)
		if code == nil {
			return nil, nil, false
		}
		relocs := sec.RelocsIn(fn.Value+off, fn.Value+off+n)
		part := append([]byte(nil), code...)
		short := in.Relative && in.FieldLen == 4 && shortened(in, code)
		target := addr + off - gone + n
		switch {
		case short:
			target = addr + off - gone + 2 + uint64(int64(int8(code[1])))
			copy(part, want[off:off+uint64(in.FieldOff)])
			binary.LittleEndian.PutUint32(part[in.FieldOff:], uint32(target-(addr+off+n)))
		case in.Relative && in.FieldLen == 1:
			target += uint64(int64(int8(code[in.FieldOff])))
		case in.Relative && in.FieldLen == 4:
			target += uint64(int64(int32(binary.LittleEndian.Uint32(code[in.FieldOff:]))))
		}
		if in.Relative && len(relocs) == 0 {
			inside = append(inside, inner{off, in, target})
		}
		if !short {
			for _, r := range relocs {
				if f := r.Offset - fn.Value - off; pcRelative32(r) && f+4 <= n {
					field := part[f:]
					binary.LittleEndian.PutUint32(field, binary.LittleEndian.Uint32(field)-uint32(gone))
				}
			}
		}
		have = append(have, part...)
		off += n
		if short {
			gone += n - 2
			s = append(s, shrink{fn.Value + off, gone})
		}
	}
	for _, b := range inside {
		to := b.off + uint64(b.in.Target)
		if to > uint64(len(want)) || b.target != addr+s.image(fn.Value+to)-fn.Value {
			return nil, nil, false
		}
		field := b.off + uint64(b.in.FieldOff)
		copy(have[field:field+uint64(b.in.FieldLen)], want[field:])
	}
	return have, s, len(s) > 0
}

func pcRelative32(r object.Reloc) bool {
	typ := elf.R_X86_64(r.Type)
	return typ == elf.R_X86_64_PC32 || typ == elf.R_X86_64_PLT32
}

// relax looks for functions that the image has with shorter jumps. It is known only
// afterwards where in them the object's sections are, so that all of the work has to
// be done again if it finds one.
func (m *matcher) relax() bool {
	m.relaxed = map[*object.Section]shrinks{}
	for _, f := range m.funcs {
		fn := f.sym
		if len(f.places) > 0 || f.best == nil || class(fn) == fn.Section.Name {
			continue
		}
		var found []shrinks
		for _, k := range m.named(fn.Name) {
			if !kindFits(fn, k.Kind) {
				continue
			}
			if have, s, ok := m.expand(fn, k.Addr); ok {
				if _, diff := m.compare(fn.Section, fn.Value, fn.Bytes(), have, k.Addr); diff == nil {
					found = append(found, s)
				}
			}
		}
		if len(found) == 1 {
			m.relaxed[fn.Section] = found[0]
		}
	}
	return len(m.relaxed) > 0
}

// imageOffset returns where an offset of a section is, counted from where the
// image has the start of the section.
func (m *matcher) imageOffset(sec *object.Section, off uint64) uint64 {
	return m.relaxed[sec].image(off)
}

// imageSize returns the size of a function in the image.
func (m *matcher) imageSize(fn *object.Symbol) uint64 {
	return m.imageOffset(fn.Section, fn.Value+fn.Size) - fn.Value
}

// within corrects what a use of a place within a relaxed function implies about
// where the function starts. The field r of sec stands in code that begins at start.
func (m *matcher) within(got ref, sec *object.Section, start uint64, r object.Reloc) (ref, error) {
	if m.relaxed[got.thing.sec] == nil {
		return got, nil
	}
	to := r.Symbol.Value + uint64(r.Addend)
	if pcRelative32(r) {
		end, err := instEnd(sec, start, r.Offset)
		if err != nil {
			return ref{}, err
		}
		to += end - r.Offset
	}
	got.addr += to - m.imageOffset(got.thing.sec, to)
	return got, nil
}
