// SPDX-License-Identifier: Apache-2.0

package kimage

import (
	"bytes"
	"cmp"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/upsplice/upsplice/splice/object"
)

// maxModule bounds a module file and what one is unpacked to, in bytes. The largest
// shipped ones have some ten megabytes.
const maxModule = 128 << 20

// VmlinuxName is the Name of the image of the kernel itself.
const VmlinuxName = "vmlinux"

// Exporter says which module exports a symbol, as Symvers.Module does.
type Exporter func(symbol string) (module string, ok bool)

// OpenModuleFile opens the module at path, see OpenModule. Errors name it.
func OpenModuleFile(path string, vmlinux *Image, exporter Exporter) (*Image, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	im, err := OpenModule(f, st.Size(), vmlinux, exporter)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	return im, nil
}

// OpenModule opens a shipped module (.ko, or one packed with xz, zstd or gzip) of
// size bytes and links it: each section gets an address that no other has, from
// 0xffffffffc0000000 on, exports of vmlinux have those of its image, symbols of other
// modules made-up ones, and all relocations are applied as the kernel's loader does.
//
// exporter, which may be nil, says of symbols that vmlinux does not export which
// module does. Symbols has what the kernel's kallsyms has once the module has been
// started: sections that are freed then do not count, though SymbolAt knows them.
//
// A module that was built for another kernel than vmlinux, by its vermagic or by the
// CRC of a symbol, is refused. Slid has the fields of Relocs that hold an address.
//
// Source of the rules: kernel/module/main.c, kallsyms.c, version.c and
// arch/x86/kernel/module.c.
func OpenModule(r io.ReaderAt, size int64, vmlinux *Image, exporter Exporter) (*Image, error) {
	raw, err := moduleBytes(r, size)
	if err != nil {
		return nil, err
	}
	o, err := object.Read(bytes.NewReader(raw), int64(len(raw)))
	if err != nil {
		return nil, fmt.Errorf("reading module: %w", err)
	}
	if o.Machine != elf.EM_X86_64 {
		return nil, fmt.Errorf("reading module: it is for %v: only x86-64 is known", o.Machine)
	}
	im := &Image{vmlinux: vmlinux, lay: vmlinux.lay, thunks: vmlinux.thunks, nops: vmlinux.nops}
	if err := im.readModinfo(o); err != nil {
		return nil, fmt.Errorf("reading module: %w", err)
	}
	if err := im.link(o, exporter); err != nil {
		return nil, fmt.Errorf("linking module %s: %w", im.Name, err)
	}
	if err := im.readModuleTables(o); err != nil {
		return nil, fmt.Errorf("reading module %s: %w", im.Name, err)
	}
	return im, nil
}

func (im *Image) readModuleTables(o *object.Object) error {
	l, err := im.lay()
	if err != nil {
		return err
	}
	if err := im.checkVersions(l, o.Section("__versions")); err != nil {
		return err
	}
	if err := im.readExports(l); err != nil {
		return err
	}
	if err := im.readSites(l); err != nil {
		return err
	}
	// The size of an entry is the kernel's, whether or not this module has one.
	for kind, size := range im.vmlinux.EntrySize {
		im.EntrySize[kind] = size
	}
	return nil
}

// moduleBytes returns the ELF file. The loader of packed modules goes by what a
// file starts with, too (kmod, kernel/module/decompress.c).
func moduleBytes(r io.ReaderAt, size int64) ([]byte, error) {
	if size < 64 || size > maxModule {
		return nil, fmt.Errorf("reading module: %d bytes is no plausible size", size)
	}
	raw := make([]byte, size)
	if n, err := r.ReadAt(raw, 0); int64(n) < size {
		return nil, fmt.Errorf("reading module: %w", err)
	}
	if isELF(raw) {
		return raw, nil
	}
	for _, p := range packers {
		if p.name != "xz" && p.name != "zstd" && p.name != "gzip" || !bytes.HasPrefix(raw, []byte(p.magic)) {
			continue
		}
		out, err := p.unpack(raw, maxModule)
		switch {
		case errors.Is(err, ErrNoXZ):
			return nil, errors.New("unpacking module: it is packed with xz: install xz-utils (or xz)")
		case err != nil:
			return nil, fmt.Errorf("unpacking module (%s): %w", p.name, err)
		case len(out) > maxModule:
			return nil, fmt.Errorf("unpacking module (%s): it has more than %d bytes", p.name, maxModule)
		case !isELF(out):
			return nil, fmt.Errorf("unpacking module (%s): the result is not an ELF file", p.name)
		}
		return out, nil
	}
	return nil, fmt.Errorf("reading module: neither an ELF file nor packed with xz, zstd or gzip: it starts with % x", raw[:4])
}

// IsModule says whether the image is a module.
func (im *Image) IsModule() bool { return im.vmlinux != nil }

// SectionAt returns the section that has addr.
func (im *Image) SectionAt(addr uint64) (Section, bool) {
	if s := im.sectionAt(addr); s != nil {
		return *s, true
	}
	return Section{}, false
}

// RelocsIn returns the module's relocations with fields in [addr, addr+n).
func (im *Image) RelocsIn(addr uint64, n int) []ModuleReloc {
	at := func(a uint64) int {
		i, _ := slices.BinarySearchFunc(im.Relocs, a, func(r ModuleReloc, a uint64) int { return cmp.Compare(r.Addr, a) })
		return i
	}
	i := at(addr)
	j := max(i, at(addr+uint64(n)))
	return im.Relocs[i:j:j]
}

// Refer says how a loaded module's copy of addr can be found: Object, Symbol, Sympos
// and Addend, or Object, Section and Offset of the result are set, nothing else.
func (im *Image) Refer(addr uint64) (ModuleReloc, error) {
	if s := im.sectionAt(addr); s != nil {
		return im.referSection(s.Name, addr-s.Addr, addr)
	}
	for _, i := range im.Imports {
		exact := i.Addr == addr
		if exact || i.Object != VmlinuxName && addr-i.Addr < importStep {
			return ModuleReloc{Object: i.Object, Symbol: i.Name, Sympos: i.Sympos, Addend: int64(addr - i.Addr)}, nil
		}
	}
	// All of the kernel moves by the same distance, so any symbol near will do.
	if vm := im.vmlinux; vm != nil {
		first := addr
		if s := vm.sectionAt(addr); s != nil {
			first = s.Addr
		}
		for i := vm.firstAt(addr+1) - 1; i >= 0 && vm.Symbols[i].Addr >= first; i-- {
			s := vm.Symbols[i]
			if _, ambiguous := vm.sympos(s.Name, s.Addr); !ambiguous {
				return ModuleReloc{Object: VmlinuxName, Symbol: s.Name, Addend: int64(addr - s.Addr)}, nil
			}
		}
	}
	return ModuleReloc{}, fmt.Errorf("%#x has no name by which it can be found in the running kernel", addr)
}

// ReferKey says the same of the key of a static call. The table has the trampoline
// in its place if only that is exported, and the kernel then looks up the key
// (tramp_key_lookup in kernel/static_call_inline.c).
func (im *Image) ReferKey(target uint64) (ModuleReloc, error) {
	const tramp, key = "__SCT__", "__SCK__"
	for _, s := range im.symbolAt(target) {
		rest, ok := strings.CutPrefix(s.Name, tramp)
		if !ok {
			continue
		}
		at, err := im.Refer(target)
		if err != nil {
			return at, err
		}
		var keys []Symbol
		switch at.Object {
		case VmlinuxName:
			keys = im.vmlinux.lookup(key + rest)
		case im.Name:
			if keys = im.lookup(key + rest); len(keys) == 1 {
				return im.Refer(keys[0].Addr)
			}
		default: // its symbols are not known here; the check of live memory counts them
			keys = make([]Symbol, 1)
		}
		if len(keys) != 1 {
			return at, fmt.Errorf("%s has %d symbols %s", at.Object, len(keys), key+rest)
		}
		return ModuleReloc{Object: at.Object, Symbol: key + rest}, nil
	}
	return im.Refer(target)
}

// referSection returns the place at an offset in a section. Of per-cpu sections the
// kernel does not tell where it has put them, so that a symbol has to.
func (im *Image) referSection(section string, off, addr uint64) (ModuleReloc, error) {
	if section != perCPU {
		return ModuleReloc{Object: im.Name, Section: section, Offset: off}, nil
	}
	i := im.firstAt(addr + 1)
	for i--; i >= 0 && im.byAddr[i].Addr >= addr-off; i-- {
		s := im.byAddr[i]
		if pos, ambiguous := im.sympos(s.Name, s.Addr); pos == 1 && !ambiguous {
			return ModuleReloc{Object: im.Name, Symbol: s.Name, Addend: int64(addr - s.Addr)}, nil
		}
	}
	return ModuleReloc{}, fmt.Errorf("offset %#x of section %s has no symbol of a name of its own", off, perCPU)
}

// position returns the position of an export of vmlinux, 0 if its name is unique.
func (im *Image) position(e Export, name string) (int, error) {
	pos, ambiguous := im.sympos(name, e.Addr)
	if !ambiguous {
		return 0, nil
	}
	if pos == 0 {
		return 0, fmt.Errorf("kallsyms has no %s at %#x, where it is exported", name, e.Addr)
	}
	return pos, nil
}

// notKept says whether the loader drops the section, or frees it once the module has
// been started.
func (im *Image) notKept(name string) (dropped, freed bool) {
	switch {
	case name == ".modinfo" || name == "__versions":
		return true, false
	case strings.HasPrefix(name, ".init"):
		return false, true
	case strings.HasPrefix(name, ".exit"):
		// without the option that makes modules removable
		return false, !slices.Contains(strings.Fields(im.Vermagic), "mod_unload")
	}
	return false, false
}
