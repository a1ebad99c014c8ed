// SPDX-License-Identifier: Apache-2.0

package kimage

import (
	"bytes"
	"cmp"
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sort"
)

// readSections fills Sections and returns where the ELF file ends in Vmlinux.
func (im *Image) readSections() (end uint64, err error) {
	f, err := elf.NewFile(bytes.NewReader(im.Vmlinux))
	if err != nil {
		return 0, fmt.Errorf("reading vmlinux: %w", err)
	}
	if f.Class != elf.ELFCLASS64 || f.Data != elf.ELFDATA2LSB || f.Machine != elf.EM_X86_64 {
		return 0, fmt.Errorf("reading vmlinux: it is for %v, %v: only x86-64 is known", f.Machine, f.Class)
	}
	size := uint64(len(im.Vmlinux))
	shoff := binary.LittleEndian.Uint64(im.Vmlinux[0x28:])
	end = shoff + uint64(len(f.Sections))*uint64(binary.LittleEndian.Uint16(im.Vmlinux[0x3a:]))
	if end < shoff || end > size {
		return 0, errors.New("reading vmlinux: the section headers lie outside the file")
	}
	for _, s := range f.Sections {
		if s.Flags&elf.SHF_ALLOC == 0 || s.Size == 0 {
			continue
		}
		sec := Section{Name: s.Name, Addr: s.Addr, Size: s.Size, Exec: s.Flags&elf.SHF_EXECINSTR != 0}
		if s.Addr+s.Size < s.Addr {
			return 0, fmt.Errorf("reading vmlinux: section %s wraps around", s.Name)
		}
		if s.Type != elf.SHT_NOBITS {
			if s.Offset > size || s.Size > size-s.Offset {
				return 0, fmt.Errorf("reading vmlinux: section %s lies outside the file", s.Name)
			}
			if s.Flags&elf.SHF_COMPRESSED != 0 {
				return 0, fmt.Errorf("reading vmlinux: section %s is compressed", s.Name)
			}
			sec.Data = im.Vmlinux[s.Offset : s.Offset+s.Size : s.Offset+s.Size]
			end = max(end, s.Offset+s.Size)
		}
		im.Sections = append(im.Sections, sec)
	}
	for _, s := range f.Sections {
		if s.Type != elf.SHT_NOBITS && s.Offset <= size && s.FileSize <= size-s.Offset {
			end = max(end, s.Offset+s.FileSize)
		}
	}
	im.alloc = slices.Clone(im.Sections)
	slices.SortStableFunc(im.alloc, func(a, b Section) int { return cmp.Compare(a.Addr, b.Addr) })
	return end, nil
}

func (im *Image) section(name string) *Section {
	for i := range im.Sections {
		if im.Sections[i].Name == name {
			return &im.Sections[i]
		}
	}
	return nil
}

// sectionAt returns the section that has addr, nil if none has.
func (im *Image) sectionAt(addr uint64) *Section {
	i := sort.Search(len(im.alloc), func(i int) bool { return im.alloc[i].Addr > addr })
	// .bss and the like may lie over others: the nearest that reaches here counts
	for i--; i >= 0; i-- {
		if addr-im.alloc[i].Addr < im.alloc[i].Size {
			return &im.alloc[i]
		}
		if im.alloc[i].Data != nil {
			break
		}
	}
	return nil
}

func (im *Image) at(addr uint64, n int) []byte {
	s := im.sectionAt(addr)
	if s == nil || n < 0 {
		return nil
	}
	off := addr - s.Addr
	if off > uint64(len(s.Data)) || uint64(n) > uint64(len(s.Data))-off {
		return nil
	}
	return s.Data[off : off+uint64(n) : off+uint64(n)]
}

// inText says whether addr is in a section with code.
func (im *Image) inText(addr uint64) bool {
	s := im.sectionAt(addr)
	return s != nil && s.Exec
}

func (im *Image) btf() []byte {
	if im.ownBTF != nil {
		return im.ownBTF
	}
	if s := im.section(".BTF"); s != nil {
		return s.Data
	}
	return nil
}

// buildID finds the GNU build id among ELF notes.
func buildID(notes []byte) string {
	const ntGNUBuildID = 3
	for len(notes) >= 12 {
		namesz := uint64(binary.LittleEndian.Uint32(notes))
		descsz := uint64(binary.LittleEndian.Uint32(notes[4:]))
		typ := binary.LittleEndian.Uint32(notes[8:])
		notes = notes[12:]
		name, desc := (namesz+3)&^3, (descsz+3)&^3
		if name+desc > uint64(len(notes)) {
			return ""
		}
		if typ == ntGNUBuildID && string(notes[:namesz]) == "GNU\x00" {
			return hex.EncodeToString(notes[name : name+descsz])
		}
		notes = notes[name+desc:]
	}
	return ""
}

// cstring returns the string that ends with a zero byte at addr, "" if there is none.
func (im *Image) cstring(addr uint64) string {
	s := im.sectionAt(addr)
	if s == nil || addr-s.Addr >= uint64(len(s.Data)) {
		return ""
	}
	d := s.Data[addr-s.Addr:]
	if i := bytes.IndexByte(d[:min(len(d), 4096)], 0); i >= 0 {
		return string(d[:i])
	}
	return ""
}
