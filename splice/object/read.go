// SPDX-License-Identifier: Apache-2.0

package object

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Limits of Read. The largest kernel objects with debug information have some
// tens of megabytes.
const (
	MaxFileSize   = 512 << 20 // bytes of one object file
	MaxNobitsSize = 1 << 32   // bytes of one SHT_NOBITS section
)

// sizes of the structures of the file, ELF-64 Object File Format, version 1.5
const (
	ehdrSize = 64
	shdrSize = 64
	symSize  = 24
	relaSize = 24
)

const grpComdat = 1 // GRP_COMDAT, first word of a SHT_GROUP section

// ErrFormat is what every error of Read about the contents of a file wraps.
var ErrFormat = errors.New("not a usable relocatable object")

// Read reads a relocatable object: ELF64, little endian, for x86-64 or AArch64.
//
// Symbol tables, string tables, group sections and relocation sections do not
// appear in Sections, nor symbols that stand in them in Symbols. The relocations of a section are in order of offset. All
// section data share one buffer that belongs to the Object. Every symbol lies
// within its section and every relocation offset within the section's data, so
// that users need not check again.
//
// An error that wraps ErrFormat means that the contents are wrong or beyond the
// limits; other errors come from r.
func Read(r io.ReaderAt, size int64) (*Object, error) {
	if size < ehdrSize {
		return nil, formatf("%d bytes are too short for an ELF header", size)
	}
	if size > MaxFileSize {
		return nil, formatf("%d bytes are more than the limit of %d", size, int64(MaxFileSize))
	}
	// The reader may have less than size says: do not trust it with one big allocation.
	var buf bytes.Buffer
	n, err := io.Copy(&buf, io.NewSectionReader(r, 0, size))
	if err != nil {
		return nil, fmt.Errorf("reading object: %w", err)
	}
	if n != size {
		return nil, formatf("%d of %d bytes are there", n, size)
	}
	rd := &reader{file: buf.Bytes()}
	if err := rd.read(); err != nil {
		return nil, err
	}
	return &rd.obj, nil
}

func formatf(format string, args ...any) error {
	return fmt.Errorf("reading object: %s: %w", fmt.Sprintf(format, args...), ErrFormat)
}

type shdr struct {
	name, typ, link, info uint32
	flags, off, size      uint64
	align, entsize        uint64
	sec                   *Section // nil for the sections that are folded away
	decodedName           string
}

type reader struct {
	file []byte
	hdrs []shdr
	obj  Object
	syms []*Symbol // by index; nil for the null symbol and those in folded
	// symbols in sections that are folded away, by index
	folded map[uint64]*Symbol
	// relocations seen so far, to keep overlapping tables from multiplying
	relocs uint64
}

func (rd *reader) read() error {
	shstrndx, err := rd.readHeader()
	if err != nil {
		return err
	}
	names, err := rd.stringTable(shstrndx)
	if err != nil {
		return err
	}
	symtab := -1
	for i := range rd.hdrs {
		h := &rd.hdrs[i]
		var ok bool
		if h.decodedName, ok = cstring(names, h.name); !ok {
			return formatf("the name of section %d lies outside the string table", i)
		}
		switch elf.SectionType(h.typ) {
		case elf.SHT_NULL, elf.SHT_STRTAB, elf.SHT_GROUP, elf.SHT_RELA:
		case elf.SHT_SYMTAB:
			if symtab >= 0 {
				return formatf("two symbol tables")
			}
			symtab = i
		case elf.SHT_REL, elf.SHT_SYMTAB_SHNDX:
			return formatf("section %s is of type %v, which the supported processors' compilers do not write", h.decodedName, elf.SectionType(h.typ))
		default:
			if err := rd.addSection(h); err != nil {
				return err
			}
		}
	}
	if err := rd.readSymbols(symtab); err != nil {
		return err
	}
	for i := range rd.hdrs {
		h := &rd.hdrs[i]
		switch elf.SectionType(h.typ) {
		case elf.SHT_RELA:
			err = rd.readRelocs(h, symtab)
		case elf.SHT_GROUP:
			err = rd.readGroup(h)
		}
		if err != nil {
			return err
		}
		// sh_link means another section for SHF_LINK_ORDER only
		if h.sec != nil && elf.SectionFlag(h.flags)&elf.SHF_LINK_ORDER != 0 {
			if h.link == 0 || int(h.link) >= len(rd.hdrs) {
				return formatf("section %s is linked to section %d, which is not there", h.decodedName, h.link)
			}
			h.sec.Link = rd.hdrs[h.link].sec
		}
	}
	for _, s := range rd.obj.Sections {
		slices.SortStableFunc(s.Relocs, compareOffset)
	}
	return nil
}

func compareOffset(a, b Reloc) int {
	switch {
	case a.Offset < b.Offset:
		return -1
	case a.Offset > b.Offset:
		return 1
	}
	return 0
}

func (rd *reader) readHeader() (shstrndx int, err error) {
	f, le := rd.file, binary.LittleEndian
	if !bytes.HasPrefix(f, []byte(elf.ELFMAG)) {
		return 0, formatf("no ELF magic")
	}
	if elf.Class(f[elf.EI_CLASS]) != elf.ELFCLASS64 || elf.Data(f[elf.EI_DATA]) != elf.ELFDATA2LSB {
		return 0, formatf("not 64-bit little endian")
	}
	if t := elf.Type(le.Uint16(f[16:])); t != elf.ET_REL {
		return 0, formatf("type %v, not ET_REL", t)
	}
	rd.obj.Machine = elf.Machine(le.Uint16(f[18:]))
	if m := rd.obj.Machine; m != elf.EM_X86_64 && m != elf.EM_AARCH64 {
		return 0, formatf("machine %v; only x86-64 and AArch64 are known", m)
	}
	rd.obj.Flags = le.Uint32(f[48:])
	shoff := le.Uint64(f[40:])
	shentsize, shnum, strndx := le.Uint16(f[58:]), le.Uint16(f[60:]), le.Uint16(f[62:])
	if shnum == 0 || strndx >= shnum {
		return 0, formatf("no section headers, or more than 65279")
	}
	if shentsize != shdrSize {
		return 0, formatf("section headers of %d bytes", shentsize)
	}
	table, ok := rd.slice(shoff, uint64(shnum)*shdrSize)
	if !ok {
		return 0, formatf("the section headers lie outside the file")
	}
	rd.hdrs = make([]shdr, shnum)
	for i := range rd.hdrs {
		b := table[i*shdrSize:]
		rd.hdrs[i] = shdr{
			name: le.Uint32(b[0:]), typ: le.Uint32(b[4:]), flags: le.Uint64(b[8:]),
			off: le.Uint64(b[24:]), size: le.Uint64(b[32:]),
			link: le.Uint32(b[40:]), info: le.Uint32(b[44:]),
			align: le.Uint64(b[48:]), entsize: le.Uint64(b[56:]),
		}
	}
	return int(strndx), nil
}

// slice returns n bytes of the file from off, without room to grow into what follows.
func (rd *reader) slice(off, n uint64) ([]byte, bool) {
	size := uint64(len(rd.file))
	if off > size || n > size-off {
		return nil, false
	}
	return rd.file[off : off+n : off+n], true
}

// stringTable returns a string table as one string: names cut from it share its memory.
func (rd *reader) stringTable(i int) (string, error) {
	if i <= 0 || i >= len(rd.hdrs) || elf.SectionType(rd.hdrs[i].typ) != elf.SHT_STRTAB {
		return "", formatf("section %d is used as string table and is none", i)
	}
	b, ok := rd.slice(rd.hdrs[i].off, rd.hdrs[i].size)
	if !ok {
		return "", formatf("string table %d lies outside the file", i)
	}
	return string(b), nil
}

func cstring(table string, off uint32) (string, bool) {
	if uint64(off) >= uint64(len(table)) {
		return "", off == 0
	}
	s := table[off:]
	end := strings.IndexByte(s, 0)
	if end < 0 {
		return "", false
	}
	return s[:end], true
}

func (rd *reader) addSection(h *shdr) error {
	s := &Section{
		Name: h.decodedName, Type: elf.SectionType(h.typ), Flags: elf.SectionFlag(h.flags),
		Align: h.align, EntSize: h.entsize, Size: h.size,
	}
	if h.align&(h.align-1) != 0 {
		return formatf("section %s has alignment %d", s.Name, h.align)
	}
	if s.Type == elf.SHT_NOBITS {
		if s.Size > MaxNobitsSize {
			return formatf("section %s has %d bytes, more than the limit of %d", s.Name, s.Size, int64(MaxNobitsSize))
		}
	} else {
		var ok bool
		if s.Data, ok = rd.slice(h.off, h.size); !ok {
			return formatf("section %s lies outside the file", s.Name)
		}
	}
	h.sec = s
	rd.obj.Sections = append(rd.obj.Sections, s)
	return nil
}

func (rd *reader) readSymbols(symtab int) error {
	if symtab < 0 {
		return nil
	}
	h := &rd.hdrs[symtab]
	table, ok := rd.slice(h.off, h.size)
	if !ok || h.size%symSize != 0 {
		return formatf("the symbol table lies outside the file or is cut off")
	}
	names, err := rd.stringTable(int(h.link))
	if err != nil {
		return err
	}
	le := binary.LittleEndian
	rd.folded = map[uint64]*Symbol{}
	rd.syms = make([]*Symbol, len(table)/symSize)
	for i := 1; i < len(rd.syms); i++ {
		b := table[i*symSize:]
		s := &Symbol{
			Bind: elf.ST_BIND(b[4]), Type: elf.ST_TYPE(b[4]), Other: b[5],
			Value: le.Uint64(b[8:]), Size: le.Uint64(b[16:]),
		}
		if s.Name, ok = cstring(names, le.Uint32(b)); !ok {
			return formatf("the name of symbol %d lies outside the string table", i)
		}
		switch ndx := elf.SectionIndex(le.Uint16(b[6:])); {
		case ndx == elf.SHN_UNDEF || ndx == elf.SHN_ABS || ndx == elf.SHN_COMMON || ndx == SHN_LIVEPATCH:
			s.Special = ndx
		case int(ndx) < len(rd.hdrs) && rd.hdrs[ndx].sec != nil:
			s.Section = rd.hdrs[ndx].sec
			if s.Value > s.Section.Size || s.Size > s.Section.Size-s.Value {
				return formatf("symbol %s reaches beyond section %s", s.Name, s.Section.Name)
			}
		case int(ndx) < len(rd.hdrs):
			// the name of a group, or the section symbol of a table: folded away too
			rd.folded[uint64(i)] = s
			continue
		default:
			return formatf("symbol %s is in section %d, which is not there", s.Name, int(ndx))
		}
		rd.syms[i] = s
		rd.obj.Symbols = append(rd.obj.Symbols, s)
	}
	return nil
}

func (rd *reader) readRelocs(h *shdr, symtab int) error {
	table, ok := rd.slice(h.off, h.size)
	if !ok || h.size%relaSize != 0 {
		return formatf("section %s lies outside the file or is cut off", h.decodedName)
	}
	if rd.relocs += h.size / relaSize; rd.relocs > uint64(len(rd.file))/relaSize {
		return formatf("relocation sections overlap")
	}
	if int(h.info) >= len(rd.hdrs) || rd.hdrs[h.info].sec == nil {
		return formatf("section %s applies to section %d, which has no contents", h.decodedName, h.info)
	}
	if int(h.link) != symtab {
		return formatf("section %s uses section %d as symbol table", h.decodedName, h.link)
	}
	target := rd.hdrs[h.info].sec
	le := binary.LittleEndian
	relocs := make([]Reloc, 0, len(table)/relaSize)
	for b := table; len(b) > 0; b = b[relaSize:] {
		info := le.Uint64(b[8:])
		r := Reloc{Offset: le.Uint64(b), Type: uint32(info), Addend: int64(le.Uint64(b[16:]))}
		sym := info >> 32
		if sym >= uint64(len(rd.syms)) {
			return formatf("section %s refers to symbol %d of %d", h.decodedName, sym, len(rd.syms))
		}
		r.Symbol = rd.syms[sym]
		if s := rd.folded[sym]; s != nil {
			return formatf("section %s refers to symbol %s, which has no contents", h.decodedName, s.Name)
		}
		// R_X86_64_NONE and R_AARCH64_NONE are both 0 and may stand at the end
		width := uint64(fieldWidth(rd.obj.Machine, r.Type))
		if n := uint64(len(target.Data)); r.Offset > n || width > n-r.Offset {
			return formatf("section %s has a relocation at 0x%x, outside of %s", h.decodedName, r.Offset, target.Name)
		}
		relocs = append(relocs, r)
	}
	if elf.SectionFlag(h.flags)&SHF_RELA_LIVEPATCH != 0 {
		target.KlpRelocs = append(target.KlpRelocs, KlpRelocs{Name: h.decodedName, Relocs: relocs})
	} else {
		target.Relocs = append(target.Relocs, relocs...)
	}
	return nil
}

func (rd *reader) readGroup(h *shdr) error {
	b, ok := rd.slice(h.off, h.size)
	if !ok || len(b)%4 != 0 || len(b) == 0 {
		return formatf("section %s lies outside the file or is cut off", h.decodedName)
	}
	le := binary.LittleEndian
	if le.Uint32(b)&grpComdat == 0 {
		return nil
	}
	sym := rd.folded[uint64(h.info)]
	if sym == nil && uint64(h.info) < uint64(len(rd.syms)) {
		sym = rd.syms[h.info]
	}
	if sym == nil {
		return formatf("group %s is named by symbol %d, which is not there", h.decodedName, h.info)
	}
	name := sym.Name
	if sym.Type == elf.STT_SECTION && sym.Section != nil {
		name = sym.Section.Name
	}
	for b = b[4:]; len(b) > 0; b = b[4:] {
		i := le.Uint32(b)
		if uint64(i) >= uint64(len(rd.hdrs)) {
			return formatf("group %s contains section %d, which is not there", name, i)
		}
		if s := rd.hdrs[i].sec; s != nil {
			s.Group = name
		}
	}
	return nil
}
