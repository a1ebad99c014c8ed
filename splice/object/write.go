// SPDX-License-Identifier: Apache-2.0

package object

import (
	"debug/elf"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"slices"
)

// maxAlign keeps a damaged alignment from filling the file with padding; page
// tables, the most demanding data of a kernel, want 2 MiB.
const maxAlign = 2 << 20

// Write writes o as a relocatable object, little endian. The same object gives
// the same bytes.
//
// Sections come in the order of o.Sections, behind them group sections,
// relocation sections (".rela" and the section's name), livepatch relocation
// sections, and the symbol and string tables. Symbols keep their order, but
// local ones come first, as the format demands.
//
// Errors name the section or symbol that the format cannot hold, or that is
// referred to without being part of o.
func Write(w io.Writer, o *Object) error {
	wr := writer{obj: o, sectionIndex: map[*Section]int{}, symbolIndex: map[*Symbol]int{}}
	if err := wr.build(); err != nil {
		return fmt.Errorf("writing object: %w", err)
	}
	if _, err := w.Write(wr.file()); err != nil {
		return fmt.Errorf("writing object: %w", err)
	}
	return nil
}

type writer struct {
	obj          *Object
	out          []outSection // without the null section
	sectionIndex map[*Section]int
	symbolIndex  map[*Symbol]int
	symtab       int
}

// outSection is one section header with its contents.
type outSection struct {
	name       string
	typ        elf.SectionType
	flags      elf.SectionFlag
	data       []byte
	size       uint64
	link, info int
	align      uint64
	entsize    uint64
}

// stringTable collects the strings of a string table; the first byte is the empty string.
type stringTable struct {
	data []byte
	at   map[string]uint32
}

func newStringTable() *stringTable {
	return &stringTable{data: []byte{0}, at: map[string]uint32{"": 0}}
}

func (t *stringTable) add(s string) uint32 {
	off, ok := t.at[s]
	if !ok {
		off = uint32(len(t.data))
		t.at[s] = off
		t.data = append(append(t.data, s...), 0)
	}
	return off
}

// add appends a section and returns its index in the file.
func (wr *writer) add(s outSection) int {
	if s.data != nil {
		s.size = uint64(len(s.data))
	}
	wr.out = append(wr.out, s)
	return len(wr.out)
}

func (wr *writer) build() error {
	groups, err := wr.addSections()
	if err != nil {
		return err
	}
	// The symbol table's own index is needed by what stands before it: group and
	// relocation sections are counted first.
	wr.symtab = len(wr.out) + len(groups) + 1
	for _, s := range wr.obj.Sections {
		if len(s.Relocs) > 0 {
			wr.symtab++
		}
		wr.symtab += len(s.KlpRelocs)
	}
	if wr.symtab+2 >= int(elf.SHN_LORESERVE) {
		return fmt.Errorf("%d sections are more than the format can count", wr.symtab+2)
	}
	symbols, locals := wr.orderSymbols(groups)
	firstGroup := len(wr.out) + 1
	for _, g := range groups {
		g.info = wr.symbolIndex[g.signature]
		g.link = wr.symtab
		wr.add(g.outSection)
	}
	if err := wr.addRelocs(groups, firstGroup); err != nil {
		return err
	}
	return wr.addSymbols(symbols, locals)
}

// group is a COMDAT group: the members are filled in once their indices are known.
type group struct {
	outSection
	signature *Symbol
	own       bool // the signature is not one of the object's symbols
}

func (wr *writer) addSections() ([]*group, error) {
	var groups []*group
	byName := map[string]*group{}
	for _, s := range wr.obj.Sections {
		if _, dup := wr.sectionIndex[s]; dup {
			return nil, fmt.Errorf("section %s is listed twice", s.Name)
		}
		if s.Type == elf.SHT_NOBITS {
			if len(s.Data) > 0 {
				return nil, fmt.Errorf("section %s is of type SHT_NOBITS and has contents", s.Name)
			}
			if len(s.Relocs)+len(s.KlpRelocs) > 0 {
				return nil, fmt.Errorf("section %s is of type SHT_NOBITS and has relocations", s.Name)
			}
		} else if uint64(len(s.Data)) != s.Size {
			return nil, fmt.Errorf("section %s has %d bytes and says %d", s.Name, len(s.Data), s.Size)
		}
		if s.Align&(s.Align-1) != 0 || s.Align > maxAlign {
			return nil, fmt.Errorf("section %s has alignment %d", s.Name, s.Align)
		}
		index := wr.add(outSection{
			name: s.Name, typ: s.Type, flags: s.Flags, data: s.Data, size: s.Size,
			align: s.Align, entsize: s.EntSize,
		})
		wr.sectionIndex[s] = index
		if s.Group == "" {
			continue
		}
		g := byName[s.Group]
		if g == nil {
			g = &group{outSection: outSection{name: ".group", typ: elf.SHT_GROUP, align: 4, entsize: 4}}
			g.data = binary.LittleEndian.AppendUint32(nil, grpComdat)
			if g.signature = wr.signature(s.Group); g.signature == nil {
				g.signature, g.own = &Symbol{Name: s.Group}, true
			}
			byName[s.Group] = g
			groups = append(groups, g)
		}
		g.data = binary.LittleEndian.AppendUint32(g.data, uint32(index))
	}
	for _, s := range wr.obj.Sections {
		if s.Link == nil {
			if s.Flags&elf.SHF_LINK_ORDER != 0 {
				return nil, fmt.Errorf("section %s is ordered after another and does not say which", s.Name)
			}
			continue
		}
		link, ok := wr.sectionIndex[s.Link]
		if !ok {
			return nil, fmt.Errorf("section %s is linked to section %s, which is not in the object", s.Name, s.Link.Name)
		}
		wr.out[wr.sectionIndex[s]-1].link = link
	}
	return groups, nil
}

// signature returns the symbol that names a group.
func (wr *writer) signature(name string) *Symbol {
	for _, s := range wr.obj.Symbols {
		if s.Name == name && s.Type != elf.STT_SECTION {
			return s
		}
	}
	return nil
}

// orderSymbols gives every symbol its index, and returns them with the number of
// local ones, the null symbol not counted. Group names that are no symbols of the
// object become local symbols in the group section, as the GNU assembler does it.
func (wr *writer) orderSymbols(groups []*group) (symbols []*Symbol, locals int) {
	for _, s := range wr.obj.Symbols {
		if s.Bind == elf.STB_LOCAL {
			symbols = append(symbols, s)
		}
	}
	for i, g := range groups {
		if g.own {
			g.signature.Special = elf.SectionIndex(len(wr.out) + i + 1)
			symbols = append(symbols, g.signature)
		}
	}
	locals = len(symbols)
	for _, s := range wr.obj.Symbols {
		if s.Bind != elf.STB_LOCAL {
			symbols = append(symbols, s)
		}
	}
	for i, s := range symbols {
		wr.symbolIndex[s] = i + 1
	}
	return symbols, locals
}

func (wr *writer) addRelocs(groups []*group, firstGroup int) error {
	byName := map[string]int{}
	for i, g := range groups {
		byName[g.signature.Name] = firstGroup + i
	}
	for _, s := range wr.obj.Sections {
		if len(s.Relocs) == 0 {
			continue
		}
		index, err := wr.addRela(s, ".rela"+s.Name, elf.SHF_INFO_LINK|s.Flags&elf.SHF_GROUP, s.Relocs)
		if err != nil {
			return err
		}
		if s.Group != "" { // a group's relocations are members of it
			g := &wr.out[byName[s.Group]-1]
			g.data = binary.LittleEndian.AppendUint32(g.data, uint32(index))
			g.size = uint64(len(g.data))
		}
	}
	for _, s := range wr.obj.Sections {
		for _, k := range s.KlpRelocs {
			if _, err := wr.addRela(s, k.Name, elf.SHF_INFO_LINK|elf.SHF_ALLOC|SHF_RELA_LIVEPATCH, k.Relocs); err != nil {
				return err
			}
		}
	}
	return nil
}

func (wr *writer) addRela(s *Section, name string, flags elf.SectionFlag, relocs []Reloc) (int, error) {
	le := binary.LittleEndian
	data := make([]byte, 0, len(relocs)*relaSize)
	for _, r := range relocs {
		sym := 0
		if r.Symbol != nil {
			var ok bool
			if sym, ok = wr.symbolIndex[r.Symbol]; !ok {
				return 0, fmt.Errorf("section %s refers to symbol %s, which is not in the object", s.Name, r.Symbol.Name)
			}
		}
		width := uint64(fieldWidth(wr.obj.Machine, r.Type))
		if r.Offset > s.Size || width > s.Size-r.Offset {
			return 0, fmt.Errorf("section %s has a relocation at 0x%x, beyond its end", s.Name, r.Offset)
		}
		data = le.AppendUint64(data, r.Offset)
		data = le.AppendUint64(data, uint64(sym)<<32|uint64(r.Type))
		data = le.AppendUint64(data, uint64(r.Addend))
	}
	return wr.add(outSection{
		name: name, typ: elf.SHT_RELA, flags: flags, data: data,
		link: wr.symtab, info: wr.sectionIndex[s], align: 8, entsize: relaSize,
	}), nil
}

func (wr *writer) addSymbols(symbols []*Symbol, locals int) error {
	le := binary.LittleEndian
	names := newStringTable()
	data := make([]byte, symSize, (len(symbols)+1)*symSize)
	for _, s := range symbols {
		index := int(s.Special)
		if s.Section != nil {
			var ok bool
			if index, ok = wr.sectionIndex[s.Section]; !ok {
				return fmt.Errorf("symbol %s is in section %s, which is not in the object", s.Name, s.Section.Name)
			}
			if s.Value > s.Section.Size || s.Size > s.Section.Size-s.Value {
				return fmt.Errorf("symbol %s reaches beyond section %s", s.Name, s.Section.Name)
			}
		}
		name := names.add(s.Name)
		data = le.AppendUint32(data, name)
		data = append(data, byte(s.Bind)<<4|byte(s.Type)&0xf, s.Other)
		data = le.AppendUint16(data, uint16(index))
		data = le.AppendUint64(data, s.Value)
		data = le.AppendUint64(data, s.Size)
	}
	if uint64(len(names.data)) > math.MaxUint32 {
		return fmt.Errorf("symbol names take %d bytes, more than the format can count", len(names.data))
	}
	wr.add(outSection{
		name: ".symtab", typ: elf.SHT_SYMTAB, data: data,
		link: wr.symtab + 1, info: locals + 1, align: 8, entsize: symSize,
	})
	wr.add(outSection{name: ".strtab", typ: elf.SHT_STRTAB, data: names.data, align: 1})
	return nil
}

// file lays out what build collected: header, contents in order, section headers.
func (wr *writer) file() []byte {
	le := binary.LittleEndian
	names := newStringTable()
	nameAt := make([]uint32, len(wr.out), len(wr.out)+1)
	for i, s := range wr.out {
		nameAt[i] = names.add(s.name)
	}
	nameAt = append(nameAt, names.add(".shstrtab"))
	out := append(slices.Clip(wr.out), outSection{
		name: ".shstrtab", typ: elf.SHT_STRTAB, data: names.data, size: uint64(len(names.data)), align: 1,
	})

	file := make([]byte, ehdrSize)
	offsets := make([]uint64, len(out))
	for i, s := range out {
		file = pad(file, s.align)
		offsets[i] = uint64(len(file))
		file = append(file, s.data...)
	}
	file = pad(file, 8)
	shoff := uint64(len(file))
	file = append(file, make([]byte, shdrSize)...)
	for i, s := range out {
		file = le.AppendUint32(file, nameAt[i])
		file = le.AppendUint32(file, uint32(s.typ))
		file = le.AppendUint64(file, uint64(s.flags))
		file = le.AppendUint64(file, 0)
		file = le.AppendUint64(file, offsets[i])
		file = le.AppendUint64(file, s.size)
		file = le.AppendUint32(file, uint32(s.link))
		file = le.AppendUint32(file, uint32(s.info))
		file = le.AppendUint64(file, s.align)
		file = le.AppendUint64(file, s.entsize)
	}

	copy(file, elf.ELFMAG)
	file[elf.EI_CLASS] = byte(elf.ELFCLASS64)
	file[elf.EI_DATA] = byte(elf.ELFDATA2LSB)
	file[elf.EI_VERSION] = byte(elf.EV_CURRENT)
	le.PutUint16(file[16:], uint16(elf.ET_REL))
	le.PutUint16(file[18:], uint16(wr.obj.Machine))
	le.PutUint32(file[20:], uint32(elf.EV_CURRENT))
	le.PutUint64(file[40:], shoff)
	le.PutUint32(file[48:], wr.obj.Flags)
	le.PutUint16(file[52:], ehdrSize)
	le.PutUint16(file[58:], shdrSize)
	le.PutUint16(file[60:], uint16(len(out)+1))
	le.PutUint16(file[62:], uint16(len(out)))
	return file
}

func pad(b []byte, align uint64) []byte {
	if align > 1 {
		b = append(b, make([]byte, -uint64(len(b))&(align-1))...)
	}
	return b
}
