// SPDX-License-Identifier: Apache-2.0

package kimage

import (
	"bytes"
	"debug/elf"
	"testing"

	"github.com/cilium/ebpf/btf"

	"github.com/upsplice/upsplice/splice/object"
)

// toyVmlinux is a kernel with two exports and the types of its tables.
func toyVmlinux(t testing.TB) *Image {
	t.Helper()
	u32 := &btf.Int{Name: "unsigned int", Size: 4}
	var types []btf.Type
	record := func(name string, size uint32, members ...string) {
		s := &btf.Struct{Name: name, Size: size}
		for i, m := range members {
			s.Members = append(s.Members, btf.Member{Name: m, Type: u32, Offset: btf.Bits(32 * i)})
		}
		types = append(types, s)
	}
	record("kernel_symbol", 12, "value_offset", "name_offset", "namespace_offset")
	record("static_call_site", 8, "addr", "key")
	record("jump_entry", 16, "code", "target", "key")
	record("modversion_info", 64, "crc", "crc_high", "name")
	record("paravirt_patch_site", 16, "instr", "pad", "len")
	record("alt_instr", 16, "instr_offset", "repl_offset", "instrlen", "replacementlen")
	b, err := btf.NewBuilder(types, nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := b.Marshal(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	spec, err := btf.LoadSpecFromReader(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	vm := textImage(make([]byte, 0x100))
	vm.Name, vm.Release = VmlinuxName, "1.0"
	vm.lay = func() (*layouts, error) { return &layouts{spec}, nil }
	vm.Exports = map[string]Export{"__fentry__": {Addr: textBase}, "printk": {Addr: textBase + 16, CRC: 7, HasCRC: true}}
	return vm
}

// toyModule is a file with a little of everything that OpenModule reads.
func toyModule(t testing.TB) []byte {
	t.Helper()
	o := &object.Object{Machine: elf.EM_X86_64}
	section := func(name string, flags elf.SectionFlag, data []byte) *object.Section {
		s := &object.Section{Name: name, Type: elf.SHT_PROGBITS, Flags: elf.SHF_ALLOC | flags, Align: 16, Data: data, Size: uint64(len(data))}
		o.Sections = append(o.Sections, s)
		return s
	}
	note := section(".note.gnu.build-id", 0, append([]byte("\x04\x00\x00\x00\x04\x00\x00\x00\x03\x00\x00\x00GNU\x00"), 1, 2, 3, 4))
	note.Type = elf.SHT_NOTE
	section(".modinfo", 0, []byte("name=toy\x00vermagic=1.0 SMP mod_unload \x00depends=other,a-b\x00"))
	section(".gnu.linkonce.this_module", elf.SHF_WRITE, make([]byte, 64))
	versions := make([]byte, 64)
	versions[0] = 7
	copy(versions[8:], "printk")
	section("__versions", 0, versions)
	text := section(".text", elf.SHF_EXECINSTR, []byte("\xe8\x00\x00\x00\x00\xe8\x00\x00\x00\x00\xe9\x00\x00\x00\x00\x90\x90\x90"))
	data := section(".data", elf.SHF_WRITE, make([]byte, 32))
	percpu := section(".data..percpu", elf.SHF_WRITE, make([]byte, 8))
	mcount := section("__mcount_loc", 0, make([]byte, 8))
	calls := section(".static_call_sites", elf.SHF_WRITE, make([]byte, 8))
	alt := section(".altinstructions", 0, []byte("\x00\x00\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x01\x00\x00\x00"))
	repl := section(".altinstr_replacement", elf.SHF_EXECINSTR, []byte("\xfa"))

	symbol := func(name string, sec *object.Section, bind elf.SymBind, typ elf.SymType, at, size uint64) *object.Symbol {
		s := &object.Symbol{Name: name, Bind: bind, Type: typ, Section: sec, Value: at, Size: size}
		o.Symbols = append(o.Symbols, s)
		return s
	}
	f := symbol("f", text, elf.STB_LOCAL, elf.STT_FUNC, 0, 18)
	key := symbol("key", data, elf.STB_LOCAL, elf.STT_OBJECT, 8, 16)
	counter := symbol("counter", percpu, elf.STB_LOCAL, elf.STT_OBJECT, 0, 8)
	r := symbol("", repl, elf.STB_LOCAL, elf.STT_SECTION, 0, 0)
	fentry := symbol("__fentry__", nil, elf.STB_GLOBAL, elf.STT_NOTYPE, 0, 0)
	printk := symbol("printk", nil, elf.STB_GLOBAL, elf.STT_NOTYPE, 0, 0)
	other := symbol("other", nil, elf.STB_GLOBAL, elf.STT_NOTYPE, 0, 0)
	reloc := func(in *object.Section, off uint64, typ elf.R_X86_64, to *object.Symbol, addend int64) {
		in.Relocs = append(in.Relocs, object.Reloc{Offset: off, Type: uint32(typ), Symbol: to, Addend: addend})
	}
	reloc(text, 1, elf.R_X86_64_PLT32, fentry, -4)
	reloc(text, 6, elf.R_X86_64_PLT32, other, -4)
	reloc(text, 11, elf.R_X86_64_PLT32, printk, -4)
	reloc(data, 0, elf.R_X86_64_64, counter, 0)
	reloc(mcount, 0, elf.R_X86_64_64, f, 0)
	reloc(calls, 0, elf.R_X86_64_PC32, f, 5)
	reloc(calls, 4, elf.R_X86_64_PC32, key, 0)
	reloc(alt, 0, elf.R_X86_64_PC32, f, 15)
	reloc(alt, 4, elf.R_X86_64_PC32, r, 0)
	var out bytes.Buffer
	if err := object.Write(&out, o); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestToyModule(t *testing.T) {
	im, err := openBytes(toyModule(t), toyVmlinux(t), func(s string) (string, bool) { return "provider", s == "other" })
	if err != nil {
		t.Fatal(err)
	}
	if im.Name != "toy" || im.BuildID != "01020304" || len(im.Depends) != 2 || im.Depends[1] != "a_b" {
		t.Errorf("%q, build id %q, depends on %q", im.Name, im.BuildID, im.Depends)
	}
	if len(im.Imports) != 3 || im.Imports[1].Name != "other" || im.Imports[1].Object != "provider" || im.Imports[2].Object != VmlinuxName {
		t.Errorf("imports %+v", im.Imports)
	}
	if len(im.Sites) != 3 || len(im.Relocs) != 9 || len(im.Slid) != 2 {
		t.Errorf("%d sites, %d relocations, %d addresses", len(im.Sites), len(im.Relocs), len(im.Slid))
	}
	for _, s := range im.Sites {
		if p, err := im.Refer(s.Target); s.Kind == SiteStaticCall && (err != nil || p.Section != ".data" || p.Offset != 8) {
			t.Errorf("the key is found as %+v, %v", p, err)
		}
	}
	c := im.Lookup("counter")[0]
	if p, err := im.Refer(c.Addr + 4); err != nil || p.Symbol != "counter" || p.Addend != 4 || p.Object != "toy" {
		t.Errorf("the per-cpu variable is found as %+v, %v", p, err)
	}
}

// FuzzOpenModule: modules are untrusted bytes.
func FuzzOpenModule(f *testing.F) {
	vm := toyVmlinux(f)
	f.Add(toyModule(f))
	f.Fuzz(func(t *testing.T, b []byte) {
		im, err := openBytes(b, vm, nil)
		if err != nil {
			return
		}
		for _, r := range im.Relocs {
			if im.At(r.Addr, r.Len) == nil {
				t.Fatalf("%+v is not in a section", r)
			}
		}
		for _, s := range im.Sites {
			im.Refer(s.Target)
			im.At(s.Addr, s.Len)
		}
	})
}
