// SPDX-License-Identifier: Apache-2.0

package livepatch

import (
	"debug/elf"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/upsplice/upsplice/splice/object"
)

// Sections that make a module of the code. The kernel finds .modinfo, __versions
// and .gnu.linkonce.this_module by name, and frees those that start with .init.
const (
	dataSection     = ".data"
	stringsSection  = ".rodata.klp_strings"
	initSection     = ".init.text"
	exitSection     = ".text"
	modinfoSection  = ".modinfo"
	versionsSection = "__versions"
	moduleSection   = ".gnu.linkonce.this_module"
)

var frameSections = []string{
	dataSection, stringsSection, initSection, exitSection, modinfoSection, versionsSection, moduleSection,
}

// thisModuleSymbol is the struct module of a module, under the same name in each.
const thisModuleSymbol = "__this_module"

// returnThunk is where functions return through in kernels with return thunks.
const returnThunk = "__x86_return_thunk"

func (b *builder) section(name string, flags elf.SectionFlag, align uint64, data []byte) *object.Section {
	s := &object.Section{Name: name, Type: elf.SHT_PROGBITS, Flags: elf.SHF_ALLOC | flags, Align: align, Data: data, Size: uint64(len(data))}
	b.addSection(s)
	return s
}

func (b *builder) symbol(name string, bind elf.SymBind, typ elf.SymType, sec *object.Section, at, size uint64) *object.Symbol {
	s := &object.Symbol{Name: name, Bind: bind, Type: typ, Section: sec, Value: at, Size: size}
	b.obj.Symbols = append(b.obj.Symbols, s)
	return s
}

func reloc(sec *object.Section, at uint64, typ elf.R_X86_64, to *object.Symbol, addend int64) {
	sec.Relocs = append(sec.Relocs, object.Reloc{Offset: at, Type: uint32(typ), Symbol: to, Addend: addend})
}

// frame adds what makes a livepatch module of the code.
func (b *builder) frame() error {
	module, err := b.thisModule()
	if err != nil {
		return err
	}
	patch, err := b.patch(module.self)
	if err != nil {
		return err
	}
	initModule, err := b.initModule(patch)
	if err != nil {
		return err
	}
	reloc(module.section, module.init, elf.R_X86_64_64, initModule, 0)
	if !b.pinned {
		cleanup, err := b.cleanupModule()
		if err != nil {
			return err
		}
		reloc(module.section, module.exit, elf.R_X86_64_64, cleanup, 0)
	}
	slices.SortFunc(module.section.Relocs, func(a, b object.Reloc) int { return int(a.Offset) - int(b.Offset) })
	b.modinfo()
	return b.versions()
}

// thisModule is the struct module of the module.
type thisModule struct {
	section    *object.Section
	self       *object.Symbol
	init, exit uint64 // offsets of the pointers to the two functions
}

func (b *builder) thisModule() (thisModule, error) {
	layout, err := b.kernel.structure("module")
	if err != nil {
		return thisModule{}, err
	}
	m := map[string]member{}
	for _, name := range []string{"name", "init", "exit"} {
		if m[name], err = layout.member(name); err != nil {
			return thisModule{}, err
		}
	}
	if uint64(len(b.in.Name)) >= m["name"].size {
		return thisModule{}, fmt.Errorf("module name %s is longer than the %d bytes that the kernel has for it", b.in.Name, m["name"].size-1)
	}
	data := make([]byte, layout.size)
	copy(data[m["name"].offset:], b.in.Name)
	const cacheLine = 64
	s := b.section(moduleSection, elf.SHF_WRITE, cacheLine, data)
	return thisModule{
		section: s,
		self:    b.symbol(thisModuleSymbol, elf.STB_GLOBAL, elf.STT_OBJECT, s, 0, layout.size),
		init:    m["init"].offset, exit: m["exit"].offset,
	}, nil
}

// strings is a section of strings that data point to.
type stringData struct {
	section *object.Section
	at      map[string]int64
}

func (s *stringData) add(text string) int64 {
	at, ok := s.at[text]
	if !ok {
		at = int64(len(s.section.Data))
		s.at[text] = at
		s.section.Data = append(append(s.section.Data, text...), 0)
		s.section.Size = uint64(len(s.section.Data))
	}
	return at
}

// endbr64 starts every function that is called through a pointer: kernels with
// indirect branch tracking demand it, for others it does nothing.
var endbr64 = []byte{0xf3, 0x0f, 0x1e, 0xfa}

// initModule writes: mov $patch,%rdi; jmp klp_enable_patch, behind a check of the build
// id that otherwise returns -ENOEXEC. Without a frame of its own it needs no entry in
// the unwind table.
func (b *builder) initModule(patch *object.Symbol) (*object.Symbol, error) {
	enable, err := b.outside(vmlinux, Resolution{Source: Exported, Name: enablePatch}, false)
	if err != nil {
		return nil, fmt.Errorf("%w: it has no livepatch support", err)
	}
	s := b.section(initSection, elf.SHF_EXECINSTR, 16, slices.Clone(endbr64))
	call := []byte{0x48, 0xc7, 0xc7, 0, 0, 0, 0, 0xe9, 0, 0, 0, 0}
	b.checkBuild(s, len(call))
	at := uint64(len(s.Data))
	s.Data = append(s.Data, call...)
	reloc(s, at+3, elf.R_X86_64_32S, patch, 0)
	reloc(s, at+8, elf.R_X86_64_PLT32, enable.symbol, -4)
	if b.fixed != nil {
		s.Data = append(s.Data, 0xb8, 0xf8, 0xff, 0xff, 0xff) // mov $-ENOEXEC,%eax
		if err := b.addReturn(s); err != nil {
			return nil, err
		}
	}
	s.Size = uint64(len(s.Data))
	return b.symbol("init_module", elf.STB_GLOBAL, elf.STT_FUNC, s, 0, s.Size), nil
}

// cleanupModule writes a function that returns. The kernel does not unload a module
// that has an init function and none of this kind (delete_module in
// kernel/module/main.c).
func (b *builder) cleanupModule() (*object.Symbol, error) {
	s := b.section(exitSection, elf.SHF_EXECINSTR, 16, slices.Clone(endbr64))
	if err := b.addReturn(s); err != nil {
		return nil, err
	}
	return b.symbol("cleanup_module", elf.STB_GLOBAL, elf.STT_FUNC, s, 0, s.Size), nil
}

// addReturn appends a return, as the kernel's compiler writes it.
func (b *builder) addReturn(s *object.Section) error {
	const ret, jmp, int3 = 0xc3, 0xe9, 0xcc
	defer func() { s.Size = uint64(len(s.Data)) }()
	if _, thunk := b.in.Image.Exports[returnThunk]; !thunk {
		s.Data = append(s.Data, ret, int3)
		return nil
	}
	t, err := b.outside(vmlinux, Resolution{Source: Exported, Name: returnThunk}, false)
	if err != nil {
		return err
	}
	at := uint64(len(s.Data))
	s.Data = append(s.Data, jmp, 0, 0, 0, 0, int3)
	reloc(s, at+1, elf.R_X86_64_PLT32, t.symbol, -4)
	// newer kernels warn when a return that they were not told of is executed
	sites := b.collected(&object.Section{Name: ".return_sites", Flags: elf.SHF_ALLOC, Align: 4})
	entry := uint64(len(sites.Data))
	sites.Data = append(sites.Data, 0, 0, 0, 0)
	sites.Size = uint64(len(sites.Data))
	reloc(sites, entry, elf.R_X86_64_PC32, b.sectionSymbol(s), int64(at))
	return nil
}

func (b *builder) modinfo() {
	info := []string{"license=GPL", "depends="}
	// the function with which the kernel asks for the promise that a module's
	// indirect branches go through thunks; the units are built with its flags
	if len(b.kernel.symbols.addrs["retpoline_module_ok"]) > 0 {
		info = append(info, "retpoline=Y")
	}
	namespaces := map[string]bool{}
	for _, name := range b.exported {
		if ns := b.in.Image.Exports[name].Namespace; ns != "" {
			namespaces[ns] = true
		}
	}
	for _, ns := range slices.Sorted(maps.Keys(namespaces)) {
		info = append(info, "import_ns="+ns)
	}
	info = append(info, "livepatch=Y", "name="+b.in.Name, "vermagic="+b.in.Vermagic)
	b.section(modinfoSection, 0, 1, []byte(strings.Join(info, "\x00")+"\x00"))
}

// moduleLayout stands in __versions for the layout of the module structs.
const moduleLayout = "module_layout"

// versions writes the CRC of each exported symbol, if the kernel has CRCs.
func (b *builder) versions() error {
	if !b.in.Image.Exports[moduleLayout].HasCRC {
		return nil
	}
	layout, err := b.kernel.structure("modversion_info")
	if err != nil {
		return err
	}
	crc, err := layout.member("crc")
	if err != nil {
		return err
	}
	name, err := layout.member("name")
	if err != nil {
		return err
	}
	names := append([]string{moduleLayout}, b.exported...)
	data := make([]byte, uint64(len(names))*layout.size)
	for i, n := range names {
		export := b.in.Image.Exports[n]
		if !export.HasCRC {
			return fmt.Errorf("the kernel has no CRC of its export %s, though it has of others", n)
		}
		if uint64(len(n)) >= name.size {
			return fmt.Errorf("the name of the export %s is longer than the kernel's format allows", n)
		}
		entry := data[uint64(i)*layout.size:][:layout.size]
		binary.LittleEndian.PutUint32(entry[crc.offset:], export.CRC)
		copy(entry[name.offset:], n)
	}
	b.section(versionsSection, 0, 32, data)
	return nil
}
