// SPDX-License-Identifier: Apache-2.0

package livepatch

import (
	"cmp"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/upsplice/upsplice/splice/object"
)

// The code of kmod/cfiles/support, and what it refers to.
const (
	supportName    = "support code for modules"
	supportTargets = "upsplice_targets"
	supportSection = ".data.upsplice_targets"

	supportPrePatch    = "upsplice_pre_patch"
	supportPostUnpatch = "upsplice_post_unpatch"
)

// Layout of the structs of kmod/cfiles/support/target.h, in bytes.
const (
	holeSize   = 16 // start, size
	fieldSize  = 16 // at, size
	checkSize  = 32 // size, sum, holes, nr_holes
	targetSize = 56 // name, checks, fields, nr_fields, keep_fields, pre_patch, post_unpatch
)

// support is the code that looks after modules, and its tables.
type support struct {
	unit   *unit
	tables *object.Section
	checks map[string][]fingerprint // by module
	chain  map[string]map[string]target
}

// fingerprint describes a function that is replaced, for the code that looks whether a
// module is the build that the splice was made for.
type fingerprint struct {
	size, sum uint64
	holes     []span
}

// span is a part of a function: [start, end).
type span struct{ start, end uint64 }

// addSupport takes the support code if a module is patched. Its tables come first
// of all sections: see announceSymbols.
func (b *builder) addSupport() error {
	i := slices.IndexFunc(b.units, func(u *unit) bool { return u.Target != vmlinux })
	if i < 0 {
		return nil
	}
	if b.in.Support == nil {
		return b.units[i].unsupported(nil, "", fmt.Sprintf("the code is not at hand that recognises another build of the module %s and lets it be loaded again", b.units[i].Target))
	}
	in := &Unit{Name: supportName, Target: vmlinux, Post: b.in.Support, Resolve: b.resolveSupport}
	for _, f := range b.in.Support.Functions() {
		if !strings.Contains(f.Name, ".cold") && !strings.HasPrefix(f.Name, prefixName) {
			in.Functions = append(in.Functions, Function{Post: f})
		}
	}
	u, err := b.newUnit(in)
	if err != nil {
		return err
	}
	b.units = append(b.units, u)
	tables := &object.Section{Name: supportSection, Type: elf.SHT_PROGBITS, Flags: elf.SHF_ALLOC | elf.SHF_WRITE, Align: 8}
	b.names[supportSection] = true
	b.addSection(tables)
	b.obj.Sections = append([]*object.Section{tables}, b.obj.Sections[:len(b.obj.Sections)-1]...)
	b.support = &support{unit: u, tables: tables, checks: map[string][]fingerprint{}, chain: map[string]map[string]target{}}
	return nil
}

// resolveSupport finds what the support code refers to by name alone.
func (b *builder) resolveSupport(s *object.Symbol) (Resolution, error) {
	if s.Section != nil {
		return Resolution{Source: Copied}, nil
	}
	if _, ok := b.in.Image.Exports[s.Name]; ok {
		return Resolution{Source: Exported, Object: vmlinux, Name: s.Name}, nil
	}
	return Resolution{Source: Running, Object: vmlinux, Name: s.Name}, nil
}

// addChecks puts the support code's callbacks before those of the units, and
// computes what the replaced functions look like.
func (b *builder) addChecks(list []patched) error {
	if b.support == nil {
		return nil
	}
	for _, p := range list {
		if p.name == vmlinux {
			continue
		}
		for _, f := range p.functions {
			c, err := f.fingerprint()
			if err != nil {
				return err
			}
			b.support.checks[p.name] = append(b.support.checks[p.name], c)
		}
		chain := map[string]target{}
		for when, name := range map[string]string{PrePatch: supportPrePatch, PostUnpatch: supportPostUnpatch} {
			i := slices.IndexFunc(b.globals[name], func(g *global) bool { return g.unit == b.support.unit })
			if i < 0 {
				return fmt.Errorf("the support code has no function %s", name)
			}
			if own, ok := p.callbacks[when]; ok {
				chain[when] = own
			}
			p.callbacks[when] = b.globals[name][i].target(object.Reloc{})
		}
		b.support.chain[p.name] = chain
	}
	return nil
}

// fingerprint sums up what the kernel does not rewrite in the replaced function:
// FNV-1a, as in target.c.
func (f replacedFunction) fingerprint() (fingerprint, error) {
	where := f.unit.b.image(f.unit.Target)
	code := where.bytes(f.addr)
	holes := where.holes(f.addr, uint64(len(code)))
	// What the compiler puts between functions the kernel may use for thunks.
	code = code[:len(code)-padding(code)]
	c := fingerprint{size: uint64(len(code)), sum: 0xcbf29ce484222325}
	for _, h := range holes {
		h.end = min(h.end, c.size)
		if last := len(c.holes) - 1; last >= 0 && h.start <= c.holes[last].end {
			c.holes[last].end = max(c.holes[last].end, h.end)
		} else if h.start < h.end {
			c.holes = append(c.holes, h)
		}
	}
	sure := 0
	for i, holes := uint64(0), c.holes; i < c.size; i++ {
		if len(holes) > 0 && i >= holes[0].end {
			holes = holes[1:]
		}
		if len(holes) > 0 && i >= holes[0].start {
			continue
		}
		c.sum = (c.sum ^ uint64(code[i])) * 0x100000001b3
		sure++
	}
	if sure == 0 {
		return fingerprint{}, f.unit.unsupported(f.Post.Section, f.Post.Name, fmt.Sprintf("the image of the module %s has no code of %s that the kernel leaves alone", f.unit.Target, f.OldName))
	}
	return c, nil
}

// padding returns how many bytes at the end are NOPs of one byte and INT3.
func padding(code []byte) int {
	const nop, int3 = 0x90, 0xcc
	n := 0
	for n < len(code) && (code[len(code)-1-n] == nop || code[len(code)-1-n] == int3) {
		n++
	}
	return n
}

// holes lists what the kernel may have rewritten in a function when a module is
// loaded, in order.
func (k *symbols) holes(addr, size uint64) []span {
	// apply_ibt_endbr replaces the first instruction of functions that are not called
	// through pointers
	holes := []span{{0, uint64(len(endbr64))}}
	add := func(at uint64, n int) {
		if at < addr+size && addr < at+uint64(n) {
			holes = append(holes, span{max(at, addr) - addr, min(at+uint64(n), addr+size) - addr})
		}
	}
	for _, r := range k.img.Relocs {
		add(r.Addr, r.Len)
	}
	for _, s := range k.img.Sites {
		add(s.Addr, s.Len)
	}
	slices.SortFunc(holes, func(a, b span) int { return cmp.Compare(a.start, b.start) })
	return holes
}

// fillSupport writes the tables of the support code: the module is complete.
func (b *builder) fillSupport() error {
	if b.support == nil {
		return nil
	}
	s, out := b.support, b.support.tables
	names := stringData{b.section(".rodata.upsplice_names", 0, 1, nil), map[string]int64{}}
	here, there := b.sectionSymbol(out), b.sectionSymbol(names.section)
	modules := slices.DeleteFunc(slices.Clone(b.targets), func(t string) bool { return t == vmlinux })
	grow := func(n int) uint64 {
		at := uint64(len(out.Data))
		out.Data = append(out.Data, make([]byte, n)...)
		out.Size = uint64(len(out.Data))
		return at
	}
	put := func(at, value uint64) { binary.LittleEndian.PutUint64(out.Data[at:], value) }
	pointer := func(at uint64, to *object.Symbol, addend int64) { reloc(out, at, elf.R_X86_64_64, to, addend) }

	grow((len(modules) + 1) * targetSize)
	for i, name := range modules {
		at := uint64(i * targetSize)
		pointer(at, there, names.add(name))

		checks := grow(len(s.checks[name]) * checkSize)
		pointer(at+8, here, int64(checks))
		for j, c := range s.checks[name] {
			to := checks + uint64(j*checkSize)
			put(to, c.size)
			put(to+8, c.sum)
			holes := grow(len(c.holes) * holeSize)
			pointer(to+16, here, int64(holes))
			put(to+24, uint64(len(c.holes)))
			for n, h := range c.holes {
				put(holes+uint64(n*holeSize), h.start)
				put(holes+uint64(n*holeSize)+8, h.end-h.start)
			}
		}

		list := b.laterFields(name)
		fields := grow(len(list) * fieldSize)
		pointer(at+16, here, int64(fields))
		put(at+24, uint64(len(list)))
		for n, f := range list {
			pointer(fields+uint64(n*fieldSize), b.sectionSymbol(f.section), int64(f.offset))
			put(fields+uint64(n*fieldSize)+8, f.width)
		}
		if len(b.kernel.symbols.addrs["clear_relocate_add"]) > 0 {
			put(at+32, 1) // Linux 6.3 and later
		}
		for off, when := range map[uint64]string{40: PrePatch, 48: PostUnpatch} {
			if t, ok := s.chain[name][when]; ok {
				pointer(at+off, t.symbol, t.addend)
			}
		}
		if err := b.announceSymbols(name); err != nil {
			return err
		}
	}
	b.symbol(supportTargets, elf.STB_LOCAL, elf.STT_OBJECT, out, 0, uint64((len(modules)+1)*targetSize))
	slices.SortFunc(out.Relocs, func(a, b object.Reloc) int { return cmp.Compare(a.Offset, b.Offset) })
	return nil
}

// laterField is a field that the livepatch core fills when a module is loaded.
type laterField struct {
	section       *object.Section
	offset, width uint64
}

func (b *builder) laterFields(module string) []laterField {
	var list []laterField
	for _, s := range b.obj.Sections {
		for _, k := range s.KlpRelocs {
			if k.Name != livepatchRelocsName(module, s) {
				continue
			}
			for _, r := range k.Relocs {
				list = append(list, laterField{s, r.Offset, uint64(r.Width(b.obj.Machine))})
			}
		}
	}
	return list
}

// announceSymbols has the livepatch core look up every symbol of a module before
// it fills in any field: relocations that change nothing, in the first of its
// sections. Otherwise a module of another build, which lacks the last of them,
// would leave the fields half filled, and the right one could not be loaded.
func (b *builder) announceSymbols(module string) error {
	var list []object.Reloc
	seen := map[*object.Symbol]bool{}
	announce := func(s *object.Symbol) {
		if !seen[s] {
			seen[s] = true
			list = append(list, object.Reloc{Type: uint32(elf.R_X86_64_NONE), Symbol: s})
		}
	}
	for _, s := range b.obj.Sections {
		for _, k := range s.KlpRelocs {
			for _, r := range k.Relocs {
				if k.Name == livepatchRelocsName(module, s) {
					announce(r.Symbol)
				}
			}
		}
	}
	for _, u := range b.units {
		for _, f := range u.Functions {
			if u.Target != module || f.OldName == "" {
				continue
			}
			t, err := u.original(u, f)
			if err != nil {
				return err
			}
			announce(t.symbol)
		}
	}
	if len(list) > 0 {
		livepatchRelocs(b.support.tables, module).Relocs = list
	}
	return nil
}
