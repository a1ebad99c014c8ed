// SPDX-License-Identifier: Apache-2.0

package match

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"github.com/upsplice/upsplice/splice/insn"
	"github.com/upsplice/upsplice/splice/kimage"
	"github.com/upsplice/upsplice/splice/object"
)

func TestWrongSymbol(t *testing.T) {
	im := image(t)
	o, fn, _ := one(t, im, any1)
	fn.Section.Relocs[0].Symbol = &object.Symbol{Name: "schedule", Bind: elf.STB_GLOBAL}
	refused(t, run(t, o, im, fn), fn, "schedule would be at")

	o, fn, _ = one(t, im, any1)
	fn.Section.Relocs[0].Addend += 0x40
	refused(t, run(t, o, im, fn), fn, "would be at")

	o, fn, _ = one(t, im, any1)
	fn.Section.Relocs[0].Type = uint32(elf.R_X86_64_GOTPCREL)
	refused(t, run(t, o, im, fn), fn, "not known")
}

func TestBinding(t *testing.T) {
	im := image(t)
	o, fn, _ := one(t, im, func(s kimage.Symbol, _ []byte) bool { return s.Kind == 'T' })
	fn.Bind = elf.STB_WEAK
	refused(t, run(t, o, im, fn), fn, "it is weak")
	fn.Bind = elf.STB_LOCAL
	refused(t, run(t, o, im, fn), fn, "kallsyms has no such function")

	o, fn, _ = one(t, im, func(s kimage.Symbol, _ []byte) bool { return s.Kind == 't' })
	fn.Bind = elf.STB_GLOBAL
	refused(t, run(t, o, im, fn), fn, "kallsyms has no such function")

	fn.Bind, fn.Name = elf.STB_LOCAL, "upsplice_has_no_such_function"
	if f := refused(t, run(t, o, im, fn), fn, "kallsyms has no such function"); f.Offset != -1 || f.Candidates != 0 {
		t.Errorf("the mismatch is %+v", f)
	}
}

func TestOverriddenWeakNeighbour(t *testing.T) {
	im := image(t)
	_, whole, s := one(t, im, func(_ kimage.Symbol, code []byte) bool { return len(code) > 200 })
	// cut the function in two: the second half is a weak one whose name another has
	pos := instAfter(t, whole.Section.Data, 100)
	o, fn := cut(im, s, pos)
	refused(t, run(t, o, im, fn), fn, "goes on where the object's ends")
	rest := &object.Section{Name: ".text.schedule", Type: elf.SHT_PROGBITS, Flags: fn.Section.Flags, Align: 16}
	size := im.SymbolAfter(s.Addr) - s.Addr - uint64(pos)
	rest.Size, rest.Data = size, slices.Clone(im.At(s.Addr+uint64(pos), int(size)))
	o.Sections = append(o.Sections, rest)
	o.Symbols = append(o.Symbols, &object.Symbol{Name: "schedule", Bind: elf.STB_WEAK, Type: elf.STT_FUNC, Section: rest, Size: size})
	if rep := run(t, o, im, fn); len(rep.Failed) > 0 {
		t.Error(rep.Failed[0])
	}
}

func instAfter(t *testing.T, code []byte, from int) int {
	t.Helper()
	pos := 0
	for pos < from || padding(code[pos:]) > 0 {
		in, err := insn.Decode(code[pos:])
		if err != nil {
			t.Fatal(err)
		}
		pos += in.Len
	}
	return pos
}

// cut lifts the first size bytes of a function.
func cut(im *kimage.Image, s kimage.Symbol, size int) (*object.Object, *object.Symbol) {
	l := newLifter(im)
	fn := l.declare(s)
	fn.Size = uint64(size)
	fn.Section.Size, fn.Section.Data = fn.Size, fn.Section.Data[:size]
	l.fill(fn, s.Addr)
	return l.o, fn
}

func TestShortJumpIsNamed(t *testing.T) {
	im := image(t)
	at := 0
	o, fn, _ := one(t, im, func(_ kimage.Symbol, code []byte) bool {
		for pos := 0; pos+5 < len(code); {
			in, err := insn.Decode(code[pos:])
			if err != nil {
				return false
			}
			if in.Opcode == 0xeb {
				at = pos
				return true
			}
			pos += in.Len
		}
		return false
	})
	copy(fn.Section.Data[at:], []byte{0xe9, 0, 0, 0, 0})
	fn.Section.Relocs = slices.DeleteFunc(fn.Section.Relocs, func(r object.Reloc) bool { return r.Offset >= uint64(at) })
	fn.Section.Relocs = append(fn.Section.Relocs, object.Reloc{Offset: uint64(at + 1), Type: uint32(elf.R_X86_64_PLT32), Symbol: o.Symbols[1], Addend: -4})
	refused(t, run(t, o, im, fn), fn, "short jump to a neighbouring function")
}

func TestCloneNumbers(t *testing.T) {
	im := image(t)
	o, fn, s := one(t, im, func(s kimage.Symbol, _ []byte) bool {
		return strings.HasSuffix(s.Name, ".constprop.0") && len(im.Lookup(strings.TrimSuffix(s.Name, "0")+"1")) == 0
	})
	fn.Name = strings.TrimSuffix(fn.Name, "0") + "77"
	rep := run(t, o, im, fn)
	if f := rep.Found[fn]; f.Name != s.Name || f.Addr != s.Addr {
		t.Errorf("found %+v (%v), want %+v", f, rep.Failed, s)
	}
}

func TestStem(t *testing.T) {
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"__func__.25", "__func__.3", true},
		{"f.constprop.0.cold", "f.constprop.12.cold", true},
		{"f.isra.0", "f.part.0", false},
		{"f", "f.0", false},
		{"f1", "f2", false},
		{"f.1a", "f.2a", false},
	} {
		if got := sameName(c.a, c.b); got != c.same {
			t.Errorf("sameName(%q, %q) = %v", c.a, c.b, got)
		}
	}
}

func TestSitesMustAgree(t *testing.T) {
	im := image(t)
	jump := func() (*object.Object, *object.Symbol) {
		o, fn, _ := one(t, im, with(im, kimage.SiteJumpLabel))
		return o, fn
	}
	o, fn := jump()
	if rep := run(t, o, im, fn); len(rep.Failed) > 0 {
		t.Fatal(rep.Failed[0])
	}
	tab := o.Section("__jump_table")
	tab.Relocs[1].Addend++
	refused(t, run(t, o, im, fn), fn, "imply two addresses")

	o, fn = jump()
	tab = o.Section("__jump_table")
	tab.Relocs[2].Addend += 16
	refused(t, run(t, o, im, fn), fn, "") // by its name, or by another use of the key

	o, fn = jump()
	tab = o.Section("__jump_table")
	tab.Relocs = tab.Relocs[3:]
	refused(t, run(t, o, im, fn), fn, "the image has a jump_label site there, the object has none")

	o, fn = jump()
	tab = o.Section("__jump_table")
	more := slices.Clone(tab.Relocs[:3])
	for i := range more {
		more[i].Offset += tab.Size
	}
	more[0].Addend++
	tab.Relocs = append(tab.Relocs, more...)
	tab.Size *= 2
	refused(t, run(t, o, im, fn), fn, "the object has a jump_label site there, the image has none")
}

// constant adds a read-only section that fn's relocation i leads to, with the
// contents that the image has where the relocation led before.
func constant(t *testing.T, im *kimage.Image, flags elf.SectionFlag, n int) (*object.Object, *object.Symbol, *object.Section, uint64) {
	t.Helper()
	var addr uint64
	o, fn, _ := one(t, im, func(s kimage.Symbol, code []byte) bool {
		for _, x := range im.SlidIn(s.Addr, len(code)) {
			v := im.At(x.Addr, 4)
			addr = 0xffffffff<<32 | uint64(v[0]) | uint64(v[1])<<8 | uint64(v[2])<<16 | uint64(v[3])<<24
			text := im.At(addr, 24)
			if x.Kind == kimage.SlidAbs32 && len(im.SymbolAt(addr)) == 0 && text != nil && bytes.IndexByte(text, 0) > 10 {
				return true
			}
		}
		return false
	})
	sec := &object.Section{Name: ".rodata.test", Type: elf.SHT_PROGBITS, Flags: elf.SHF_ALLOC | flags, Align: 1, EntSize: 1,
		Data: append([]byte("other\x00"), im.At(addr, n)...)}
	sec.Size = uint64(len(sec.Data))
	label := &object.Symbol{Name: ".LC1", Type: elf.STT_NOTYPE, Section: sec, Value: 6}
	o.Sections = append(o.Sections, sec)
	o.Symbols = append(o.Symbols, label)
	for i, r := range fn.Section.Relocs {
		if r.Type != uint32(elf.R_X86_64_32S) {
			continue
		}
		for _, k := range im.Lookup(r.Symbol.Name) {
			if k.Addr+uint64(r.Addend) == addr {
				fn.Section.Relocs[i].Symbol, fn.Section.Relocs[i].Addend = label, 0
			}
		}
	}
	return o, fn, sec, addr
}

func TestStrings(t *testing.T) {
	im := image(t)
	const flags = elf.SHF_MERGE | elf.SHF_STRINGS
	o, fn, sec, addr := constant(t, im, flags, 24)
	sec.Data = append(sec.Data[:6+bytes.IndexByte(sec.Data[6:], 0)], 0, 'x', 'y', 0) // what follows does not count
	rep := run(t, o, im, fn)
	if len(rep.Failed) > 0 {
		t.Fatal(rep.Failed[0])
	}
	if got := rep.Addr[o.Symbols[len(o.Symbols)-1]]; got != addr {
		t.Errorf("the string is at %#x, want %#x", got, addr)
	}
	sec.Data[8] ^= 1
	refused(t, run(t, o, im, fn), fn, "where the image has something else")

	// through the section symbol an absolute field leads to the string by its addend
	o, fn, sec, _ = constant(t, im, flags, 24)
	for i, r := range fn.Section.Relocs {
		if r.Symbol.Section == sec {
			fn.Section.Relocs[i].Symbol = &object.Symbol{Type: elf.STT_SECTION, Section: sec}
			fn.Section.Relocs[i].Addend = 6
		}
	}
	if rep := run(t, o, im, fn); len(rep.Failed) > 0 {
		t.Error(rep.Failed[0])
	}
	sec.Data[8] ^= 1
	refused(t, run(t, o, im, fn), fn, "where the image has something else")
}

func TestConstants(t *testing.T) {
	im := image(t)
	o, fn, sec, _ := constant(t, im, 0, 24)
	sec.Data = sec.Data[6:]
	o.Symbols[len(o.Symbols)-1].Value = 0
	if rep := run(t, o, im, fn); len(rep.Failed) > 0 {
		t.Fatal(rep.Failed[0])
	}
	sec.Data[17] ^= 1
	refused(t, run(t, o, im, fn), fn, "where the image differs at offset 0x11")
	sec.Data[17] ^= 1
	o.Symbols[len(o.Symbols)-1].Name = "named_constant"
	refused(t, run(t, o, im, fn), fn, "named_constant would be at")
}

// TestTablesOfPointers follows a constant table to the functions in it.
func TestTablesOfPointers(t *testing.T) {
	im := image(t)
	i := slices.IndexFunc(im.Symbols, func(s kimage.Symbol) bool {
		size := int(im.SymbolAfter(s.Addr) - s.Addr)
		return strings.HasSuffix(s.Name, "_fops") && len(im.Lookup(s.Name)) == 1 && im.At(s.Addr, size) != nil && len(im.SlidIn(s.Addr, size)) > 3
	})
	s := im.Symbols[i]
	size := im.SymbolAfter(s.Addr) - s.Addr
	sec := &object.Section{Name: ".rodata." + s.Name, Type: elf.SHT_PROGBITS, Flags: elf.SHF_ALLOC, Align: 32,
		Size: size, Data: slices.Clone(im.At(s.Addr, int(size)))}
	l := newLifter(im)
	l.o.Sections = append(l.o.Sections, sec)
	l.o.Symbols = append(l.o.Symbols, &object.Symbol{Name: s.Name, Type: elf.STT_OBJECT, Section: sec, Size: size})
	for _, x := range im.SlidIn(s.Addr, int(size)) {
		l.reloc(sec, x.Addr-s.Addr, elf.R_X86_64_64, binary.LittleEndian.Uint64(im.At(x.Addr, 8)), 0)
	}
	follow := func() ([]ref, *difference) {
		m := &matcher{img: im, checked: map[ref]verdict{}, index: object.NewIndex(l.o)}
		return m.follow([]ref{{thing{sec: sec}, s.Addr}})
	}
	refs, diff := follow()
	if diff != nil || len(refs) < 3 {
		t.Fatalf("followed to %d refs: %v", len(refs), diff)
	}
	sec.Relocs[0].Symbol = &object.Symbol{Name: "schedule", Bind: elf.STB_GLOBAL}
	if _, diff := follow(); diff == nil || !strings.Contains(diff.reason, "schedule would be at") {
		t.Errorf("a table with another function in it: %v", diff)
	}
}

func TestRefusesToBegin(t *testing.T) {
	im := image(t)
	o, fn, _ := one(t, im, any1)
	for name, f := range map[string]func() error{
		"machine": func() error {
			_, err := Functions(&object.Object{Machine: elf.EM_AARCH64}, im, nil)
			return err
		},
		"undefined": func() error {
			_, err := Functions(o, im, []*object.Symbol{{Name: "x", Special: elf.SHN_UNDEF}})
			return err
		},
		"data": func() error {
			_, err := Functions(o, im, []*object.Symbol{{Name: "x", Type: elf.STT_OBJECT, Section: fn.Section}})
			return err
		},
	} {
		if f() == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
