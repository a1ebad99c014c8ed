// SPDX-License-Identifier: Apache-2.0

package object

import (
	"bytes"
	"debug/elf"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const source = `
	.section .text.callee, "ax", @progbits
	.globl callee
	.type callee, @function
callee:	ret
	.size callee, .-callee
	.section .text.caller, "ax", @progbits
	.type caller, @function
caller:	lea word+4(%rip), %rax
	cmpl $7, counter(%rip)
	call callee
	jmp outside
	.size caller, .-caller
	.section .text.grouped, "axG", @progbits, shared_group, comdat
	.weak grouped
	.type grouped, @function
grouped: ret
	.size grouped, .-grouped
	.section .init_order, "ao", @progbits, .text.caller
	.quad caller
	.section .data.word, "aw", @progbits
	.align 8
	.type word, @object
word:	.quad callee, 2
	.size word, 16
	.section .bss.counter, "aw", @nobits
	.type counter, @object
counter: .skip 64
	.size counter, 64
	.section .rodata.str1.1, "aMS", @progbits, 1
	.string "hello"
`

func assemble(t testing.TB, src string) []byte {
	t.Helper()
	dir := t.TempDir()
	in, out := filepath.Join(dir, "a.s"), filepath.Join(dir, "a.o")
	if err := os.WriteFile(in, []byte(src), 0o600); err != nil {
		t.Fatal(err)
	}
	if msg, err := exec.Command("gcc", "-c", "-o", out, in).CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, msg)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func readBytes(t testing.TB, b []byte) *Object {
	t.Helper()
	o, err := Read(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func one(t *testing.T, o *Object, name string) *Symbol {
	t.Helper()
	found := o.Lookup(name)
	if len(found) != 1 {
		t.Fatalf("%d symbols %s", len(found), name)
	}
	return found[0]
}

func TestRead(t *testing.T) {
	o := readBytes(t, assemble(t, source))
	if o.Machine != elf.EM_X86_64 {
		t.Errorf("machine %v", o.Machine)
	}
	for _, s := range o.Sections {
		switch s.Type {
		case elf.SHT_SYMTAB, elf.SHT_STRTAB, elf.SHT_RELA, elf.SHT_GROUP:
			t.Errorf("section %s of type %v is not folded away", s.Name, s.Type)
		}
	}
	var names []string
	for _, f := range o.Functions() {
		names = append(names, f.Name)
	}
	if diff := cmp.Diff([]string{"caller", "callee", "grouped"}, names); diff != "" {
		t.Errorf("functions (-want +got):\n%s", diff)
	}

	caller, word, counter := one(t, o, "caller"), one(t, o, "word"), one(t, o, "counter")
	type rel struct {
		Off    uint64
		Type   elf.R_X86_64
		Symbol string
		Addend int64
	}
	var got []rel
	for _, r := range caller.Relocs() {
		name := r.Symbol.Name
		if r.Symbol.Type == elf.STT_SECTION {
			name = r.Symbol.Section.Name
		}
		got = append(got, rel{r.Offset, elf.R_X86_64(r.Type), name, r.Addend})
	}
	want := []rel{
		{3, elf.R_X86_64_PC32, ".data.word", 0},
		{9, elf.R_X86_64_PC32, ".bss.counter", -5},
		{15, elf.R_X86_64_PLT32, "callee", -4},
		{20, elf.R_X86_64_PLT32, "outside", -4},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("relocations of caller (-want +got):\n%s", diff)
	}
	if w := word.Relocs(); len(w) != 1 || w[0].Width(o.Machine) != 8 {
		t.Errorf("relocations of word: %+v", w)
	}
	if counter.Section.Type != elf.SHT_NOBITS || counter.Section.Data != nil || counter.Section.Size != 64 || counter.Bytes() != nil {
		t.Errorf("counter: %+v", counter.Section)
	}
	if g := one(t, o, "grouped"); g.Section.Group != "shared_group" || g.Bind != elf.STB_WEAK {
		t.Errorf("grouped: group %q, binding %v", g.Section.Group, g.Bind)
	}
	if s := o.Section(".init_order"); s == nil || s.Link != caller.Section {
		t.Errorf("link of .init_order: %+v", s)
	}
	if out := one(t, o, "outside"); out.Section != nil || out.Special != elf.SHN_UNDEF || out.Bytes() != nil || out.Relocs() != nil {
		t.Errorf("outside: %+v", out)
	}
	if s := o.Section(".rodata.str1.1"); string(s.Data) != "hello\x00" || s.EntSize != 1 || s.Flags&(elf.SHF_MERGE|elf.SHF_STRINGS) == 0 {
		t.Errorf("strings: %+v", s)
	}
}

func TestReadAArch64(t *testing.T) {
	b := assemble(t, "\t.text\nf:\tret\n\t.size f, 1\n")
	b[18] = byte(elf.EM_AARCH64)
	if o := readBytes(t, b); o.Machine != elf.EM_AARCH64 {
		t.Errorf("machine %v", o.Machine)
	}
}

func TestCovering(t *testing.T) {
	sec := &Section{Name: ".text", Size: 64, Data: make([]byte, 64)}
	sym := func(name string, bind elf.SymBind, typ elf.SymType, value, size uint64) *Symbol {
		return &Symbol{Name: name, Bind: bind, Type: typ, Section: sec, Value: value, Size: size}
	}
	o := &Object{Sections: []*Section{sec}, Symbols: []*Symbol{
		sym("", elf.STB_LOCAL, elf.STT_SECTION, 0, 0),
		sym("alias", elf.STB_LOCAL, elf.STT_FUNC, 0, 16),
		sym("a", elf.STB_GLOBAL, elf.STT_FUNC, 0, 16),
		sym("label", elf.STB_LOCAL, elf.STT_NOTYPE, 8, 0),
		sym("outer", elf.STB_GLOBAL, elf.STT_FUNC, 16, 32),
		sym("inner", elf.STB_GLOBAL, elf.STT_FUNC, 20, 4),
		sym("end", elf.STB_LOCAL, elf.STT_NOTYPE, 48, 0),
	}}
	x := NewIndex(o)
	for off, want := range map[uint64]string{
		0: "a", 8: "a", 15: "a", 16: "outer", 20: "inner", 23: "inner", 24: "outer", 47: "outer", 48: "end", 49: "", 63: "",
	} {
		got := ""
		if s := x.Covering(sec, off); s != nil {
			got = s.Name
		}
		if got != want {
			t.Errorf("0x%x is covered by %q, want %q", off, got, want)
		}
	}
	if s := x.Covering(&Section{}, 0); s != nil {
		t.Errorf("a strange section is covered by %v", s)
	}
}

// TestReadDamaged cuts a good object at every length and damages each header
// field: Read may refuse or accept, but must not panic, and what it accepts must
// keep its promises.
func TestReadDamaged(t *testing.T) {
	good := assemble(t, source)
	for n := range good {
		if _, err := Read(bytes.NewReader(good[:n]), int64(n)); !errors.Is(err, ErrFormat) {
			t.Fatalf("cut to %d of %d bytes: error %v", n, len(good), err)
		}
		// a reader that has less than it promised
		if _, err := Read(bytes.NewReader(good[:n]), int64(len(good))); !errors.Is(err, ErrFormat) {
			t.Fatalf("short read of %d: error %v", n, err)
		}
	}
	for i := range good {
		for _, v := range []byte{0, 1, 0x7f, 0xff} {
			bad := bytes.Clone(good)
			bad[i] = v
			if o, err := Read(bytes.NewReader(bad), int64(len(bad))); err == nil {
				use(o)
			}
		}
	}
	for _, tt := range []struct {
		name string
		off  int
		val  byte
		want string
	}{
		{"executable", 16, byte(elf.ET_EXEC), "not ET_REL"},
		{"32-bit", elf.EI_CLASS, byte(elf.ELFCLASS32), "64-bit"},
		{"big endian", elf.EI_DATA, byte(elf.ELFDATA2MSB), "little endian"},
		{"riscv", 18, byte(elf.EM_RISCV), "EM_RISCV"},
		{"magic", 0, 0, "magic"},
	} {
		bad := bytes.Clone(good)
		bad[tt.off] = tt.val
		_, err := Read(bytes.NewReader(bad), int64(len(bad)))
		if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v", tt.name, err)
		}
	}
	if _, err := Read(bytes.NewReader(good), MaxFileSize+1); !errors.Is(err, ErrFormat) {
		t.Errorf("huge: error %v", err)
	}
}

// use calls everything that relies on the promises of Read.
func use(o *Object) {
	x := NewIndex(o)
	for _, s := range o.Symbols {
		_ = s.Bytes()
		for _, r := range s.Relocs() {
			_ = s.Section.Data[r.Offset : r.Offset+uint64(r.Width(o.Machine))]
		}
		if s.Section != nil {
			x.Covering(s.Section, s.Value)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add(assemble(f, source))
	f.Add(assemble(f, "\t.text\n\tret\n"))
	f.Add([]byte(elf.ELFMAG))
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := Read(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Errorf("error %v", err)
			}
			return
		}
		use(o)
	})
}
