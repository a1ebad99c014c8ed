// SPDX-License-Identifier: Apache-2.0

package match

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"slices"
	"sync"
	"testing"

	"github.com/upsplice/upsplice/kmod/lab"
	"github.com/upsplice/upsplice/splice/insn"
	"github.com/upsplice/upsplice/splice/kimage"
	"github.com/upsplice/upsplice/splice/object"
)

var shipped = struct {
	once sync.Once
	im   *kimage.Image
	err  error
}{}

// image opens the newest kernel of the archive, once for all tests.
func image(t testing.TB) *kimage.Image {
	t.Helper()
	shipped.once.Do(func() {
		k := lab.NeedNewest(t, lab.Image)
		shipped.im, shipped.err = kimage.OpenFile(k.Vmlinuz)
	})
	if shipped.im == nil {
		t.Fatalf("the shipped kernel is not there: %v", shipped.err)
	}
	return shipped.im
}

// ownImage returns an image that the test may write to through At.
func ownImage(t testing.TB) *kimage.Image {
	t.Helper()
	v := bytes.Clone(image(t).Vmlinux)
	im, err := kimage.Open(bytes.NewReader(v), int64(len(v)))
	if err != nil {
		t.Fatal(err)
	}
	return im
}

// lifter turns functions of an image back into an object: what the linker filled in
// becomes relocations again, and the kernel's tables become sections.
type lifter struct {
	im     *kimage.Image
	o      *object.Object
	byAddr map[uint64]*object.Symbol // lifted functions
	undef  map[uint64]*object.Symbol // by address: static symbols share names
}

func newLifter(im *kimage.Image) *lifter {
	return &lifter{im, &object.Object{Machine: elf.EM_X86_64}, map[uint64]*object.Symbol{}, map[uint64]*object.Symbol{}}
}

// lift returns an object with these functions.
func lift(im *kimage.Image, syms ...kimage.Symbol) (*object.Object, []*object.Symbol) {
	l := newLifter(im)
	var fns []*object.Symbol
	for _, s := range syms {
		fns = append(fns, l.declare(s))
	}
	for i, s := range syms {
		l.fill(fns[i], s.Addr)
	}
	return l.o, fns
}

func (l *lifter) declare(s kimage.Symbol) *object.Symbol {
	size := l.im.SymbolAfter(s.Addr) - s.Addr
	sec := &object.Section{Name: ".text." + s.Name, Type: elf.SHT_PROGBITS,
		Flags: elf.SHF_ALLOC | elf.SHF_EXECINSTR, Align: 16, Size: size,
		Data: slices.Clone(l.im.At(s.Addr, int(size)))}
	bind := map[byte]elf.SymBind{'t': elf.STB_LOCAL, 'T': elf.STB_GLOBAL, 'W': elf.STB_WEAK}[s.Kind]
	fn := &object.Symbol{Name: s.Name, Bind: bind, Type: elf.STT_FUNC, Section: sec, Size: size}
	l.o.Sections = append(l.o.Sections, sec)
	l.o.Symbols = append(l.o.Symbols, fn)
	l.byAddr[s.Addr] = fn
	return fn
}

// symbolFor returns a symbol for an address and its distance from the symbol.
func (l *lifter) symbolFor(addr uint64) (*object.Symbol, int64) {
	if fn := l.byAddr[addr]; fn != nil {
		return fn, 0
	}
	i, exact := slices.BinarySearchFunc(l.im.Symbols, addr, func(s kimage.Symbol, a uint64) int {
		if s.Addr < a {
			return -1
		}
		return min(int(s.Addr-a), 1)
	})
	if !exact {
		i--
	}
	k := l.im.Symbols[i]
	sym := l.undef[k.Addr]
	if sym == nil {
		sym = &object.Symbol{Name: k.Name, Bind: elf.STB_GLOBAL, Special: elf.SHN_UNDEF}
		l.undef[k.Addr] = sym
		l.o.Symbols = append(l.o.Symbols, sym)
	}
	return sym, int64(addr - k.Addr)
}

func (l *lifter) reloc(sec *object.Section, off uint64, typ elf.R_X86_64, to uint64, addend int64) {
	sym, dist := l.symbolFor(to)
	sec.Relocs = append(sec.Relocs, object.Reloc{Offset: off, Type: uint32(typ), Symbol: sym, Addend: dist + addend})
	clear(sec.Data[off : off+uint64(object.Reloc{Type: uint32(typ)}.Width(elf.EM_X86_64))])
}

func (l *lifter) fill(fn *object.Symbol, addr uint64) {
	sec := fn.Section
	for pos := uint64(0); pos < fn.Size; {
		in, err := insn.Decode(sec.Data[pos:])
		if err != nil {
			break // padding that is cut off
		}
		to := addr + pos + uint64(in.Target)
		if in.Relative && in.FieldLen == 4 && to-addr >= fn.Size {
			l.reloc(sec, pos+uint64(in.FieldOff), elf.R_X86_64_PC32, to, int64(in.FieldOff)-int64(in.Len))
		}
		pos += uint64(in.Len)
	}
	for _, s := range l.im.SlidIn(addr, int(fn.Size)) {
		field := l.im.At(s.Addr, s.Kind.Len())
		switch s.Kind {
		case kimage.SlidAbs32:
			l.reloc(sec, s.Addr-addr, elf.R_X86_64_32S, uint64(int64(int32(binary.LittleEndian.Uint32(field)))), 0)
		case kimage.SlidAbs64:
			l.reloc(sec, s.Addr-addr, elf.R_X86_64_64, binary.LittleEndian.Uint64(field), 0)
		}
	}
	slices.SortFunc(sec.Relocs, func(a, b object.Reloc) int { return int(a.Offset) - int(b.Offset) })
	for _, s := range l.im.SitesIn(addr, int(fn.Size)) {
		l.site(fn, s, addr)
	}
}

// site adds an entry to the section that the linker would make the kernel's table of.
func (l *lifter) site(fn *object.Symbol, s kimage.Site, addr uint64) {
	name := ""
	for n, kind := range siteSections {
		if kind == s.Kind {
			name = n
		}
	}
	size := uint64(l.im.EntrySize[s.Kind])
	sec := l.o.Section(name)
	if sec == nil {
		sec = &object.Section{Name: name, Type: elf.SHT_PROGBITS, Flags: elf.SHF_ALLOC, Align: 8}
		l.o.Sections = append(l.o.Sections, sec)
	}
	at := sec.Size
	sec.Size += size
	sec.Data = append(sec.Data, make([]byte, size)...)
	code := func(off uint64, typ elf.R_X86_64, to uint64) {
		sec.Relocs = append(sec.Relocs, object.Reloc{Offset: at + off, Type: uint32(typ), Symbol: fn, Addend: int64(to - addr)})
	}
	switch s.Kind {
	case kimage.SiteMcount, kimage.SiteParavirt:
		code(0, elf.R_X86_64_64, s.Addr)
	case kimage.SiteJumpLabel:
		code(0, elf.R_X86_64_PC32, s.Addr)
		code(4, elf.R_X86_64_PC32, s.Target)
		l.reloc(sec, at+8, elf.R_X86_64_PC64, s.Key, 1) // with the flag "likely"
	case kimage.SiteStaticCall:
		code(0, elf.R_X86_64_PC32, s.Addr)
		l.reloc(sec, at+4, elf.R_X86_64_PC32, s.Target, 1) // with the flag "tail call"
	default:
		code(0, elf.R_X86_64_PC32, s.Addr)
	}
}

// pick returns up to n functions of .text that fit, spread over the kernel, whose
// names are unique and whose code can be decoded.
func pick(t testing.TB, im *kimage.Image, n int, fit func(kimage.Symbol, []byte) bool) []kimage.Symbol {
	t.Helper()
	var out []kimage.Symbol
	for i, step := 0, 7; i < len(im.Symbols) && len(out) < n; i += step {
		s := im.Symbols[i]
		if s.Kind != 't' && s.Kind != 'T' || len(im.Lookup(s.Name)) != 1 || len(im.SymbolAt(s.Addr)) != 1 {
			continue
		}
		size := im.SymbolAfter(s.Addr) - s.Addr
		code := im.At(s.Addr, int(size))
		if size < 16 || size > 4096 || code == nil || !decodes(code) || !fit(s, code) {
			continue
		}
		if len(im.SitesIn(s.Addr, 1)) == 0 { // traced, so it is C
			continue
		}
		out = append(out, s)
	}
	if len(out) < n {
		t.Fatalf("only %d of %d functions found to test with", len(out), n)
	}
	return out
}

func decodes(code []byte) bool {
	for len(code) > 0 {
		in, err := insn.Decode(code)
		if err != nil {
			return len(code) < insn.MaxLen && padding(code) == len(code)
		}
		code = code[in.Len:]
	}
	return true
}

func any1(kimage.Symbol, []byte) bool { return true }

// with says whether the function has a site of the kind.
func with(im *kimage.Image, kind kimage.SiteKind) func(kimage.Symbol, []byte) bool {
	return func(s kimage.Symbol, code []byte) bool {
		return slices.ContainsFunc(im.SitesIn(s.Addr, len(code)), func(x kimage.Site) bool { return x.Kind == kind })
	}
}

func run(t testing.TB, o *object.Object, im *kimage.Image, want ...*object.Symbol) *Report {
	t.Helper()
	rep, err := Functions(o, im, want)
	if err != nil {
		t.Fatal(err)
	}
	return rep
}
