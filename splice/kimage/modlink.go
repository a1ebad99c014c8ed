// SPDX-License-Identifier: Apache-2.0

package kimage

import (
	"bytes"
	"cmp"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/upsplice/upsplice/splice/object"
)

// Where sections and symbols of other modules are put: in the part of the address
// space that the kernel has for modules, so that 32-bit fields reach everything.
const (
	moduleBase  = 0xffffffffc0000000
	moduleEnd   = 0xffffffffe0000000
	importBase  = 0xfffffffff0000000
	importEnd   = 0xfffffffffe000000
	importStep  = 1 << 12
	sectionStep = 1 << 12 // sections start on such a boundary, with at least as much between them
)

// perCPU is the section that the loader copies for every processor.
const perCPU = ".data..percpu"

// linker is the work on one module.
type linker struct {
	im       *Image
	exporter Exporter
	addr     map[*object.Section]uint64
	imports  map[string]Import
	next     uint64 // address for the next import of another module
}

func (im *Image) link(o *object.Object, exporter Exporter) error {
	k := &linker{im: im, exporter: exporter, addr: map[*object.Section]uint64{}, imports: map[string]Import{}, next: importBase}
	if err := k.place(o); err != nil {
		return err
	}
	for _, s := range o.Symbols {
		if s.Special == elf.SHN_UNDEF && s.Section == nil && s.Name != "" {
			if err := k.resolve(s); err != nil {
				return err
			}
		}
	}
	k.symbols(o)
	// Places in a section may have to be named by symbols, so relocations come last.
	for _, sec := range o.Sections {
		if _, ok := k.addr[sec]; !ok {
			continue
		}
		for _, r := range sec.Relocs {
			if err := k.relocate(sec, r); err != nil {
				return fmt.Errorf("section %s, offset %#x: %w", sec.Name, r.Offset, err)
			}
		}
	}
	slices.SortStableFunc(im.Relocs, func(a, b ModuleReloc) int { return cmp.Compare(a.Addr, b.Addr) })
	slices.SortStableFunc(im.Slid, func(a, b Slid) int { return cmp.Compare(a.Addr, b.Addr) })
	return nil
}

// place gives an address to each section that the loader keeps for a while.
func (k *linker) place(o *object.Object) error {
	next := uint64(moduleBase)
	names := map[string]bool{}
	for _, sec := range o.Sections {
		if dropped, _ := k.im.notKept(sec.Name); dropped || sec.Flags&elf.SHF_ALLOC == 0 {
			continue
		}
		if sec.Align > 1<<20 || sec.Size > moduleEnd-moduleBase {
			return fmt.Errorf("section %s has %d bytes with alignment %d", sec.Name, sec.Size, sec.Align)
		}
		step := max(sec.Align, sectionStep)
		addr := (next + step - 1) &^ (step - 1)
		if next = addr + sec.Size + sectionStep; next > moduleEnd {
			return errors.New("its sections do not fit into the part of the address space that modules have")
		}
		k.addr[sec] = addr
		if sec.Size == 0 {
			continue
		}
		if names[sec.Name] {
			return fmt.Errorf("two sections are called %s, and nothing tells where the kernel has put which", sec.Name)
		}
		names[sec.Name] = true
		sec.Data = bytes.Clone(sec.Data) // several may share bytes of the file
		k.im.Sections = append(k.im.Sections, Section{Name: sec.Name, Addr: addr, Size: sec.Size, Data: sec.Data,
			Exec: sec.Flags&elf.SHF_EXECINSTR != 0})
	}
	k.im.alloc = k.im.Sections
	return nil
}

// resolve finds an undefined symbol.
func (k *linker) resolve(s *object.Symbol) error {
	if _, ok := k.imports[s.Name]; ok {
		return nil
	}
	i := Import{Name: s.Name}
	if e, ok := k.im.vmlinux.Exports[s.Name]; ok {
		pos, err := k.im.vmlinux.position(e, s.Name)
		if err != nil {
			return err
		}
		i.Object, i.Addr, i.Sympos = VmlinuxName, e.Addr, pos
	} else {
		if k.exporter != nil {
			i.Object, _ = k.exporter(s.Name)
		}
		switch {
		case i.Object == VmlinuxName || i.Object == k.im.Name:
			return fmt.Errorf("%s is said to export %s, and does not", i.Object, s.Name)
		case k.next >= importEnd:
			return errors.New("it takes too many symbols from other modules")
		}
		i.Addr, k.next = k.next, k.next+importStep
	}
	k.imports[s.Name] = i
	k.im.Imports = append(k.im.Imports, i)
	return nil
}

// symbols fills Symbols with what kallsyms keeps of the module, in its order, and
// the index by address with all others too.
func (k *linker) symbols(o *object.Object) {
	im := k.im
	im.unstable = map[string]bool{}
	for _, s := range o.Symbols {
		if s.Name == "" || s.Special == elf.SHN_UNDEF && s.Section == nil {
			continue
		}
		addr, placed := k.addr[s.Section]
		if !placed {
			im.unstable[s.Name] = true
			continue
		}
		sym := Symbol{Name: s.Name, Addr: addr + s.Value, Kind: nmLetter(s)}
		im.byAddr = append(im.byAddr, sym)
		if _, freed := im.notKept(s.Section.Name); freed {
			im.unstable[s.Name] = true
			continue
		}
		im.Symbols = append(im.Symbols, sym)
	}
	slices.SortFunc(im.Imports, func(a, b Import) int { return cmp.Compare(a.Name, b.Name) })
	for _, i := range im.Imports {
		im.byAddr = append(im.byAddr, Symbol{Name: i.Name, Addr: i.Addr, Kind: 'U'})
	}
	slices.SortStableFunc(im.byAddr, func(a, b Symbol) int { return cmp.Compare(a.Addr, b.Addr) })
	im.indexSymbols()
}

// nmLetter is upper case for global symbols, unlike in the running kernel, which
// shows exported ones so.
func nmLetter(s *object.Symbol) byte {
	kind := byte('d')
	switch {
	case s.Bind == elf.STB_WEAK && s.Type == elf.STT_OBJECT:
		kind = 'v'
	case s.Bind == elf.STB_WEAK:
		kind = 'w'
	case s.Section.Flags&elf.SHF_EXECINSTR != 0:
		kind = 't'
	case s.Section.Type == elf.SHT_NOBITS:
		kind = 'b'
	case s.Section.Flags&elf.SHF_WRITE == 0:
		kind = 'r'
	}
	if s.Bind != elf.STB_LOCAL {
		kind -= 'a' - 'A'
	}
	return kind
}

// target returns the value of a relocation's symbol and how the running kernel's can
// be found. fixed says that it is a number, the same everywhere.
func (k *linker) target(s *object.Symbol) (value uint64, to ModuleReloc, fixed bool, err error) {
	switch {
	case s == nil:
		return 0, to, true, nil
	case s.Section != nil:
		addr, ok := k.addr[s.Section]
		if !ok {
			return 0, to, false, fmt.Errorf("section %s, which the loader does not keep, is referred to", s.Section.Name)
		}
		to, err = k.im.referSection(s.Section.Name, s.Value, addr+s.Value)
		return addr + s.Value, to, false, err
	case s.Special == elf.SHN_ABS:
		return s.Value, to, true, nil
	case s.Special == elf.SHN_UNDEF && s.Name != "":
		i := k.imports[s.Name]
		return i.Addr, ModuleReloc{Object: i.Object, Symbol: i.Name, Sympos: i.Sympos}, false, nil
	}
	return 0, to, false, fmt.Errorf("symbol %q in section %v is referred to", s.Name, s.Special)
}

// relocate fills a field as the loader does, and notes what it did.
func (k *linker) relocate(sec *object.Section, r object.Reloc) error {
	typ := elf.R_X86_64(r.Type)
	n := r.Width(elf.EM_X86_64)
	if typ == elf.R_X86_64_NONE {
		return nil
	}
	if r.Offset > uint64(len(sec.Data)) || uint64(n) > uint64(len(sec.Data))-r.Offset {
		return errors.New("the relocation leaves the section")
	}
	value, to, fixed, err := k.target(r.Symbol)
	if err != nil {
		return err
	}
	field := sec.Data[r.Offset : r.Offset+uint64(n)]
	to.Addr, to.Len = k.addr[sec]+r.Offset, n
	to.Addend += r.Addend
	value += uint64(r.Addend)
	fits := true
	switch typ {
	case elf.R_X86_64_64:
	case elf.R_X86_64_32:
		fits = value == uint64(uint32(value))
	case elf.R_X86_64_32S:
		to.Signed = true
		fits = value == uint64(int64(int32(value)))
	case elf.R_X86_64_PC32, elf.R_X86_64_PLT32:
		to.PCRel = true
		value -= to.Addr
		fits = value == uint64(int64(int32(value)))
	case elf.R_X86_64_PC64:
		to.PCRel = true
		value -= to.Addr
	default:
		return fmt.Errorf("relocation %v is not known", typ)
	}
	switch {
	case !fits:
		return fmt.Errorf("what relocation %v leads to is too far away", typ)
	case fixed && to.PCRel:
		return errors.New("a relative field refers to a fixed number")
	case !zero(field):
		return errors.New("a field that is to be filled is not zero")
	}
	if n == 8 {
		binary.LittleEndian.PutUint64(field, value)
	} else {
		binary.LittleEndian.PutUint32(field, uint32(value))
	}
	if fixed {
		return nil
	}
	k.im.Relocs = append(k.im.Relocs, to)
	if !to.PCRel {
		kind := SlidAbs32
		if n == 8 {
			kind = SlidAbs64
		}
		k.im.Slid = append(k.im.Slid, Slid{to.Addr, kind})
	}
	return nil
}
