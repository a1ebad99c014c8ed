// SPDX-License-Identifier: Apache-2.0

package match

import (
	"debug/elf"
	"encoding/binary"
	"fmt"

	"github.com/upsplice/upsplice/splice/insn"
	"github.com/upsplice/upsplice/splice/object"
)

// thing is what has an address of its own in the image: a symbol that is defined,
// or may be overridden, elsewhere; a section of the object as a whole; or one
// element of a mergeable section, which the linker moves by itself.
type thing struct {
	sym *object.Symbol
	sec *object.Section
	off uint64 // of the element
}

func (t thing) String() string {
	switch {
	case t.sym != nil:
		return t.sym.Name
	case t.sec.Flags&elf.SHF_MERGE != 0:
		return fmt.Sprintf("%s+%#x", t.sec.Name, t.off)
	}
	return t.sec.Name
}

// ref is one thing at the address that a use of it implies.
type ref struct {
	thing thing
	addr  uint64
}

// thingOf returns what a symbol belongs to and where in it the symbol is.
func thingOf(s *object.Symbol) (t thing, off uint64) {
	switch {
	case s.Section == nil, s.Bind == elf.STB_WEAK:
		return thing{sym: s}, 0
	case s.Section.Flags&elf.SHF_MERGE != 0:
		return thing{sec: s.Section, off: s.Value}, 0
	}
	return thing{sec: s.Section}, s.Value
}

// readField reads a relocated field back: the address of the symbol plus addend
// that it implies for a field at place. A PC-relative one counts from its own start.
func readField(r object.Reloc, field []byte, place uint64) (value uint64, pcrel bool, err error) {
	switch typ := elf.R_X86_64(r.Type); typ {
	case elf.R_X86_64_64:
		return binary.LittleEndian.Uint64(field), false, nil
	case elf.R_X86_64_PC64:
		return binary.LittleEndian.Uint64(field) + place, true, nil
	case elf.R_X86_64_32:
		return uint64(binary.LittleEndian.Uint32(field)), false, nil
	case elf.R_X86_64_32S:
		return uint64(int64(int32(binary.LittleEndian.Uint32(field)))), false, nil
	case elf.R_X86_64_PC32, elf.R_X86_64_PLT32:
		return uint64(int64(int32(binary.LittleEndian.Uint32(field)))) + place, true, nil
	default:
		return 0, false, fmt.Errorf("relocation %v at offset %#x is not known", typ, r.Offset)
	}
}

// refOf returns what a relocated field of sec implies. start is where the
// instructions around it begin, for fields in code.
func refOf(sec *object.Section, start uint64, r object.Reloc, field []byte, place uint64) (ref, error) {
	value, pcrel, err := readField(r, field, place)
	if err != nil {
		return ref{}, err
	}
	s := r.Symbol
	if s.Special == elf.SHN_COMMON && s.Section == nil {
		return ref{}, fmt.Errorf("%s is a common symbol", s.Name)
	}
	if s.Type == elf.STT_SECTION && s.Section != nil && s.Section.Flags&elf.SHF_MERGE != 0 {
		// the element is what the whole field leads to, not what the symbol does
		off := uint64(r.Addend)
		if pcrel {
			end, err := instEnd(sec, start, r.Offset)
			if err != nil {
				return ref{}, err
			}
			off += end - r.Offset
			value += end - r.Offset
		}
		return ref{thing{sec: s.Section, off: off}, value}, nil
	}
	t, off := thingOf(s)
	return ref{t, value - uint64(r.Addend) - off}, nil
}

// instEnd returns where the instruction that has the field at off ends.
func instEnd(sec *object.Section, start, off uint64) (uint64, error) {
	if sec.Flags&elf.SHF_EXECINSTR == 0 {
		return off, nil // .long string - .
	}
	for pos := start; pos <= off && pos < uint64(len(sec.Data)); {
		in, err := insn.Decode(sec.Data[pos:])
		if err != nil {
			return 0, fmt.Errorf("decoding offset %#x of %s: %w", pos, sec.Name, err)
		}
		pos += uint64(in.Len)
		if pos > off {
			return pos, nil
		}
	}
	return 0, fmt.Errorf("no instruction of %s has offset %#x", sec.Name, off)
}
