// SPDX-License-Identifier: Apache-2.0

package livepatch

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"
	"github.com/google/go-cmp/cmp"

	"github.com/upsplice/upsplice/splice/kimage"
	"github.com/upsplice/upsplice/splice/object"
)

var update = flag.Bool("update", false, "write testdata/*.txt anew")

// The types of the test's kernel have sizes and offsets that no real kernel has:
// a number that the writer knows by heart shows.
func testTypes(t testing.TB) []byte {
	t.Helper()
	intOf := func(name string, size uint32) btf.Type { return &btf.Int{Name: name, Size: size} }
	char, short, long := intOf("char", 1), intOf("short", 2), intOf("long", 8)
	word := intOf("int", 4)
	pointer := &btf.Pointer{Target: char}
	array := func(n uint32) btf.Type { return &btf.Array{Index: word, Type: char, Nelems: n} }
	structure := func(name string, size uint32, members ...btf.Member) btf.Type {
		return &btf.Struct{Name: name, Size: size, Members: members}
	}
	at := func(name string, offset uint32, typ btf.Type) btf.Member {
		return btf.Member{Name: name, Offset: btf.Bits(offset * 8), Type: typ}
	}
	anonymous := &btf.Struct{Size: 16, Members: []btf.Member{at("exit", 8, pointer)}}
	builder, err := btf.NewBuilder([]btf.Type{
		structure("module", 408, at("name", 16, array(56)), at("init", 96, pointer), at("", 200, anonymous)),
		structure("klp_patch", 52, at("mod", 8, pointer), at("objs", 16, pointer), at("replace", 40, char)),
		structure("klp_object", 88, at("name", 0, pointer), at("funcs", 24, pointer), at("callbacks", 40, &btf.Array{Index: word, Type: pointer, Nelems: 5})),
		structure("klp_callbacks", 40, at("pre_patch", 32, pointer), at("post_patch", 8, pointer), at("pre_unpatch", 24, pointer), at("post_unpatch", 16, pointer)),
		structure("_ddebug", 24, at("format", 0, pointer), at("key", 8, array(16))),
		structure("klp_func", 48, at("old_name", 8, pointer), at("new_func", 16, pointer), at("old_sympos", 32, long)),
		structure("modversion_info", 72, at("crc", 0, long), at("name", 8, array(64))),
		structure("bug_entry", 12, at("bug_addr_disp", 0, word), at("file_disp", 4, word), at("line", 8, short), at("flags", 10, short)),
		structure("alt_instr", 12, at("instr_offset", 0, word), at("repl_offset", 4, word), at("cpuid", 8, short), at("instrlen", 10, char), at("replacementlen", 11, char)),
		structure("jump_entry", 16, at("code", 0, word), at("target", 4, word), at("key", 8, long)),
		structure("static_call_site", 8, at("addr", 0, word), at("key", 4, word)),
		structure("exception_table_entry", 12, at("insn", 0, word), at("fixup", 4, word), at("data", 8, word)),
		structure("orc_entry", 3, at("sp_offset", 0, short), at("rest", 2, char)),
		structure("paravirt_patch_site", 16, at("instr", 0, pointer), at("type", 8, char), at("len", 9, char)),
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := builder.Marshal(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// testImage is a kernel with the symbols that testdata/unit.s refers to. Two are
// called running_array.
func testImage(t testing.TB) *kimage.Image {
	t.Helper()
	raw := testTypes(t)
	img := &kimage.Image{
		Release:  "9.8.7-test",
		Sections: []kimage.Section{{Name: ".BTF", Size: uint64(len(raw)), Data: raw}},
		Exports:  map[string]kimage.Export{},
	}
	for i, name := range []string{
		"bystander", "changed", "static_changed", "running_key", "running_array", "pair_b", "running_array",
		"running_ops", "once_b", "word_b", "boot_cpu_data", "__SCK__running", "__SCT__running", "alt_2", "alt_3", "other",
		"retpoline_module_ok", "unexported", "after", "text_poke",
	} {
		addr := 0xffffffff81000000 + uint64(i)*0x100
		img.Symbols = append(img.Symbols, kimage.Symbol{Name: name, Addr: addr, Kind: 't'})
		if name == "changed" || name == "static_changed" || name == "after" {
			// with an ENDBR64 in front
			img.Sites = append(img.Sites, kimage.Site{Addr: addr + 4, Len: 5, Kind: kimage.SiteMcount})
		}
		if name == "changed" {
			img.Exports[name] = kimage.Export{Addr: addr, CRC: 0xc0de, HasCRC: true}
		}
	}
	for i, name := range []string{
		"module_layout", "klp_enable_patch", "__fentry__", "__x86_return_thunk", "__x86_indirect_thunk_rax",
		"pv_ops", "exported_function", "__stack_chk_fail",
	} {
		img.Exports[name] = kimage.Export{Addr: 0xffffffff82000000 + uint64(i), CRC: 0x1000 + uint32(i), HasCRC: true}
	}
	e := img.Exports["exported_function"]
	e.Namespace = "TESTS"
	img.Exports["exported_function"] = e
	return img
}

func assemble(t testing.TB, file string) *object.Object {
	t.Helper()
	out := filepath.Join(t.TempDir(), "unit.o")
	if msg, err := exec.Command("gcc", "-c", "-o", out, file).CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, msg)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return read(t, b)
}

func assembleText(t testing.TB, text string) *object.Object {
	t.Helper()
	file := filepath.Join(t.TempDir(), "unit.s")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return assemble(t, file)
}

func read(t testing.TB, b []byte) *object.Object {
	t.Helper()
	o, err := object.Read(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func symbol(t testing.TB, o *object.Object, name string) *object.Symbol {
	t.Helper()
	found := o.Lookup(name)
	if len(found) != 1 {
		t.Fatalf("the object has %d symbols %s", len(found), name)
	}
	return found[0]
}

// resolver answers from the exports and symbols of an image, and says that the
// listed names are copied.
func resolver(img *kimage.Image, copied ...string) func(*object.Symbol) (Resolution, error) {
	return func(s *object.Symbol) (Resolution, error) {
		for _, c := range copied {
			if s.Name == c {
				return Resolution{Source: Copied}, nil
			}
		}
		if _, ok := img.Exports[s.Name]; ok {
			return Resolution{Source: Exported, Name: s.Name}, nil
		}
		n := 0
		for _, k := range img.Symbols {
			if k.Name == s.Name {
				n++
			}
		}
		switch n {
		case 0:
			return Resolution{}, fmt.Errorf("no symbol %s", s.Name)
		case 1:
			return Resolution{Source: Running, Object: "vmlinux", Name: s.Name}, nil
		}
		return Resolution{Source: Running, Object: "vmlinux", Name: s.Name, Sympos: n}, nil
	}
}

func testInput(t testing.TB) Input {
	t.Helper()
	img := testImage(t)
	post := assemble(t, "testdata/unit.s")
	return Input{
		Name: "upsplice_test", Vermagic: "9.8.7-test SMP mod_unload modversions ", Image: img, Replace: true,
		Units: []Unit{{
			Target: vmlinux,
			Name:   "kernel/unit.o", Post: post,
			Functions: []Function{
				{Post: symbol(t, post, "changed"), OldName: "changed"},
				{Post: symbol(t, post, "helper")},
				{Post: symbol(t, post, "static_changed"), OldName: "static_changed", OldSympos: 1},
			},
			Resolve: resolver(img, "new_data", "new_bss"),
		}},
	}
}

func mustWrite(t testing.TB, in Input) []byte {
	t.Helper()
	b, err := Write(in)
	if err != nil {
		t.Fatal(err)
	}
	return b.Data
}

// listing shows a module as text: what refers to what.
func listing(o *object.Object) string {
	var b strings.Builder
	relocs := func(title string, rs []object.Reloc) {
		if len(rs) > 0 {
			fmt.Fprintf(&b, "  %s\n", title)
		}
		for _, r := range rs {
			name := r.Symbol.Name
			if r.Symbol.Type == elf.STT_SECTION {
				name = r.Symbol.Section.Name
			}
			fmt.Fprintf(&b, "    %04x %-4s %s%+#x\n", r.Offset, strings.TrimPrefix(elf.R_X86_64(r.Type).String(), "R_X86_64_"), name, r.Addend)
		}
	}
	for _, s := range o.Sections {
		fmt.Fprintf(&b, "%s %v align %d size %d\n", s.Name, s.Flags, s.Align, s.Size)
		relocs("relocations", s.Relocs)
		for _, k := range s.KlpRelocs {
			relocs(k.Name, k.Relocs)
		}
	}
	for _, s := range o.Symbols {
		if s.Type == elf.STT_SECTION {
			continue
		}
		where := s.Special.String()
		if s.Special == object.SHN_LIVEPATCH {
			where = "livepatch"
		}
		if s.Section != nil {
			where = fmt.Sprintf("%s+%#x", s.Section.Name, s.Value)
		}
		fmt.Fprintf(&b, "%v %v %s size %d: %s\n", s.Bind, s.Type, s.Name, s.Size, where)
	}
	return b.String()
}

func TestWriteListing(t *testing.T) {
	got := listing(read(t, mustWrite(t, testInput(t))))
	const golden = "testdata/module.txt"
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("the module differs from %s (-want +got):\n%s", golden, d)
	}
}

func TestWriteDeterministic(t *testing.T) {
	first := mustWrite(t, testInput(t))
	for range 3 {
		if !bytes.Equal(first, mustWrite(t, testInput(t))) {
			t.Fatal("the same input gives other bytes")
		}
	}
}

// checkModule demands of any module what the loader of the kernel demands.
func checkModule(t *testing.T, b []byte) *object.Object {
	t.Helper()
	file := filepath.Join(t.TempDir(), "module.ko")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("readelf", "-aW", file).CombinedOutput()
	if err != nil || strings.Contains(string(out), "Warning") || strings.Contains(string(out), "Error") {
		t.Errorf("readelf: %v\n%s", err, out)
	}
	o := read(t, b)
	names := map[string]bool{}
	versions := o.Section("__versions")
	for _, s := range o.Sections {
		if s.Flags&elf.SHF_WRITE != 0 && s.Flags&elf.SHF_EXECINSTR != 0 {
			t.Errorf("section %s is writable and executable", s.Name)
		}
		if names[s.Name] {
			t.Errorf("two sections %s", s.Name)
		}
		names[s.Name] = true
		check := func(r object.Reloc, livepatch bool) {
			width := widths[elf.R_X86_64(r.Type)]
			if width == 0 {
				t.Errorf("%s+%#x: relocation type %v", s.Name, r.Offset, elf.R_X86_64(r.Type))
				return
			}
			if field := s.Data[r.Offset : r.Offset+width]; !bytes.Equal(field, make([]byte, width)) {
				t.Errorf("%s+%#x: the field is %x, not zero", s.Name, r.Offset, field)
			}
			if got := r.Symbol.Special == object.SHN_LIVEPATCH; got != livepatch {
				t.Errorf("%s+%#x: %s is in the wrong relocation section", s.Name, r.Offset, r.Symbol.Name)
			}
			if r.Symbol.Section == nil && r.Symbol.Special == elf.SHN_UNDEF && !bytes.Contains(versions.Data, []byte(r.Symbol.Name+"\x00")) {
				t.Errorf("%s has no version", r.Symbol.Name)
			}
		}
		for _, r := range s.Relocs {
			check(r, false)
		}
		for _, k := range s.KlpRelocs {
			of, ok := strings.CutPrefix(strings.TrimSuffix(k.Name, "."+s.Name), ".klp.rela.")
			if !ok || strings.Contains(of, ".") {
				t.Errorf("livepatch relocations of %s are called %s", s.Name, k.Name)
			}
			for _, r := range k.Relocs {
				// klp_resolve_symbols in kernel/livepatch/core.c
				if got := strings.HasPrefix(r.Symbol.Name, ".klp.sym.vmlinux."); got != (of == vmlinux) {
					t.Errorf("%s refers to %s", k.Name, r.Symbol.Name)
				}
				if r.Type != uint32(elf.R_X86_64_NONE) {
					check(r, true)
				}
			}
		}
	}
	return o
}

func TestWriteLoadable(t *testing.T) {
	o := checkModule(t, mustWrite(t, testInput(t)))
	info := string(o.Section(".modinfo").Data)
	want := "license=GPL\x00depends=\x00retpoline=Y\x00import_ns=TESTS\x00livepatch=Y\x00name=upsplice_test\x00vermagic=9.8.7-test SMP mod_unload modversions \x00"
	if info != want {
		t.Errorf(".modinfo is %q, want %q", info, want)
	}
	module := o.Section(".gnu.linkonce.this_module")
	if module.Size != 408 || !bytes.HasPrefix(module.Data[16:], []byte("upsplice_test\x00")) {
		t.Errorf("struct module has %d bytes and name %q", module.Size, module.Data[16:32])
	}
	if rs := module.RelocsIn(96, 104); len(rs) != 1 || rs[0].Symbol.Name != "init_module" {
		t.Errorf("struct module has %+v at 96, want init_module", rs)
	}
	versions := o.Section("__versions").Data
	crcs := map[string]uint32{}
	for ; len(versions) > 0; versions = versions[72:] {
		name, _, _ := bytes.Cut(versions[8:72], []byte{0})
		crcs[string(name)] = binary.LittleEndian.Uint32(versions)
	}
	if crcs["module_layout"] != 0x1000 || crcs["exported_function"] != 0x1006 || crcs["changed"] != 0xc0de {
		t.Errorf("versions are %x", crcs)
	}
}

func TestWriteKlpStructs(t *testing.T) {
	for _, replace := range []bool{false, true} {
		in := testInput(t)
		in.Replace = replace
		o := read(t, mustWrite(t, in))
		data := o.Section(".data")
		if got := data.Data[40] == 1; got != replace {
			t.Errorf("replace is %v, want %v", got, replace)
		}
		// klp_patch has 52 bytes, aligned 56; two klp_object of 88; three klp_func of 48
		if data.Size != 56+2*88+3*48 {
			t.Errorf("the structs take %d bytes", data.Size)
		}
		if got := binary.LittleEndian.Uint64(data.Data[56+2*88+48+32:]); got != 1 {
			t.Errorf("the second function's position is %d, want 1", got)
		}
		if got := string(o.Section(".rodata.klp_strings").Data); got != "changed\x00static_changed\x00" {
			t.Errorf("names are %q", got)
		}
	}
}
