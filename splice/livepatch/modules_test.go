// SPDX-License-Identifier: Apache-2.0

package livepatch

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/upsplice/upsplice/splice/kimage"
	"github.com/upsplice/upsplice/splice/object"
)

// supportText stands for kmod/cfiles/support/target.c.
const supportText = `
	.section .text.upsplice_pre_patch, "ax", @progbits
	.globl upsplice_pre_patch
	.type upsplice_pre_patch, @function
upsplice_pre_patch:
	mov $upsplice_targets, %rdi
	ret
	.size upsplice_pre_patch, . - upsplice_pre_patch
	.section .text.upsplice_post_unpatch, "ax", @progbits
	.globl upsplice_post_unpatch
	.type upsplice_post_unpatch, @function
upsplice_post_unpatch:
	lea upsplice_targets(%rip), %rdi
	jmp text_poke
	.size upsplice_post_unpatch, . - upsplice_post_unpatch
	.section .orc_unwind_ip, "a", @progbits
	.long .text.upsplice_pre_patch - ., .text.upsplice_post_unpatch - .
	.section .orc_unwind, "a", @progbits
	.byte 1, 2, 3, 1, 2, 3`

const fsCode = 0xffffffffc0000000

// testModule is the image of the module testfs, which depends on lib-core. Of its
// functions open_file is replaced.
func testModule() *kimage.Image {
	// endbr64, a call that ftrace rewrites, a call of another function, code, padding
	code := append([]byte("\xf3\x0f\x1e\xfa\xe8\x11\x22\x33\x44\xe8\x55\x66\x77\x88\x31\xc0\x48\x89\xf8\xc3"), 0x90, 0x90, 0xcc, 0x90)
	code = append(code, make([]byte, 0x40)...)
	return &kimage.Image{
		Name: "testfs", Depends: []string{"lib-core"},
		Sections: []kimage.Section{{Name: ".text", Addr: fsCode, Size: uint64(len(code)), Data: code, Exec: true}},
		Symbols: []kimage.Symbol{
			{Name: "open_file", Addr: fsCode}, {Name: "close_file", Addr: fsCode + 24}, {Name: "twin", Addr: fsCode + 0x30}, {Name: "twin", Addr: fsCode + 0x38},
			{Name: "__this_module", Addr: fsCode + 0x1000}, {Name: "fs_key", Addr: fsCode + 0x2000}, {Name: "__tracepoint_fs_open", Addr: fsCode + 0x2100},
			{Name: "fs_debug", Addr: fsCode + 0x2200}, {Name: "__SCK__fs_call", Addr: fsCode + 0x2300}, {Name: "__SCT__fs_call", Addr: fsCode + 0x2400},
		},
		Sites: []kimage.Site{
			{Addr: fsCode + 4, Len: 5, Kind: kimage.SiteMcount}, {Addr: fsCode + 19, Len: 1, Kind: kimage.SiteReturn},
			{Addr: fsCode + 24, Len: 5, Kind: kimage.SiteMcount},
		},
		Relocs: []kimage.ModuleReloc{{Addr: fsCode + 5, Len: 4}, {Addr: fsCode + 10, Len: 4}},
	}
}

// inModule resolves names of testfs there, lib_ names in the module that it depends
// on, and all else in vmlinux.
func inModule(img *kimage.Image, copied ...string) func(*object.Symbol) (Resolution, error) {
	kernel := resolver(img, copied...)
	return func(s *object.Symbol) (Resolution, error) {
		if s.Name == "twin" {
			return Resolution{Source: Running, Object: "testfs", Name: s.Name, Sympos: 2}, nil
		}
		for _, k := range testModule().Symbols {
			if k.Name == s.Name {
				return Resolution{Source: Running, Object: "testfs", Name: s.Name}, nil
			}
		}
		if strings.HasPrefix(s.Name, "lib_") {
			return Resolution{Source: Running, Object: "lib_core", Name: s.Name}, nil
		}
		return kernel(s)
	}
}

// moduleInput is a splice of vmlinux and of testfs, whose new open_file has body.
func moduleInput(t testing.TB, body, more string, copied ...string) Input {
	t.Helper()
	in := oneFunction(t, function("", ""))
	in.Modules = map[string]*kimage.Image{"testfs": testModule()}
	in.Support = assembleText(t, supportText)
	text := strings.ReplaceAll(function(body, more), "changed", "open_file")
	post := assembleText(t, text)
	in.Units = append(in.Units, Unit{
		Name: "fs/test.o", Target: "testfs", Post: post, Resolve: inModule(in.Image, copied...),
		Functions: []Function{{Post: symbol(t, post, "open_file"), OldName: "open_file"}},
	})
	return in
}

// relocsOf lists what the relocations of a section refer to, by the section that
// they are in, "" for ordinary ones.
func relocsOf(s *object.Section) map[string][]string {
	list := map[string][]string{}
	add := func(of string, relocs []object.Reloc) {
		for _, r := range relocs {
			name := r.Symbol.Name
			if r.Symbol.Section != nil {
				name = r.Symbol.Section.Name
			}
			list[of] = append(list[of], name)
		}
	}
	add("", s.Relocs)
	for _, k := range s.KlpRelocs {
		add(k.Name, k.Relocs)
	}
	return list
}

func TestWriteModuleTarget(t *testing.T) {
	in := moduleInput(t, `
		call close_file
		call twin
		call lib_function
		call exported_function
		call unexported
		mov $__this_module, %rdi
		mov $open_file, %rdi`, "")
	b := mustWrite(t, in)
	if again := mustWrite(t, in); !bytes.Equal(b, again) {
		t.Error("the same input gives other bytes")
	}
	o := checkModule(t, b)
	want := map[string][]string{
		"":                                  {"__fentry__", "exported_function"},
		".klp.rela.vmlinux..text.open_file": {".klp.sym.vmlinux.unexported,0"},
		".klp.rela.testfs..text.open_file": {
			".klp.sym.testfs.close_file,0", ".klp.sym.testfs.twin,2", ".klp.sym.lib_core.lib_function,0",
			".klp.sym.testfs.__this_module,0", ".klp.sym.testfs.open_file,0",
		},
	}
	if d := cmp.Diff(want, relocsOf(o.Section(".text.open_file"))); d != "" {
		t.Errorf("references of the new code (-want +got):\n%s", d)
	}
	if names := string(o.Section(".rodata.klp_strings").Data); names != "changed\x00testfs\x00open_file\x00" {
		t.Errorf("names are %q", names)
	}
	// objs at 56: vmlinux with a NULL name, testfs, the end; then three and two klp_func
	data := o.Section(".data")
	if len(data.RelocsIn(56, 56+8)) != 0 || len(data.RelocsIn(56+88, 56+88+8)) != 1 || len(data.RelocsIn(56+2*88, 56+3*88)) != 0 {
		t.Errorf("the objects are not vmlinux, testfs and the end: %+v", data.Relocs)
	}
	if want := uint64(56 + 3*88 + 4*48); data.Size != want {
		t.Errorf("the structs take %d bytes, want %d", data.Size, want)
	}
	if info := string(o.Section(".modinfo").Data); !strings.Contains(info, "depends=\x00") {
		t.Errorf("the module depends on others: %q", info)
	}
}

// A name means what it means where the code is linked: two modules may each have a
// function of one name, and vmlinux a third.
func TestNamesOfTargets(t *testing.T) {
	in := moduleInput(t, "call shared_name\ncall added", ".globl open_file")
	in.Image.Symbols = append(in.Image.Symbols, kimage.Symbol{Name: "open_file", Addr: 0xffffffff81a00000})
	post := assembleText(t, function("call open_file\ncall close_file", `
		.section .text.close_file, "ax"
		.globl close_file
		.type close_file, @function
	close_file: ret
		.size close_file, 1
		.section .text.added, "ax"
		.globl added
		.type added, @function
	added:	ret
		.size added, 1
		.section .text.shared_name, "ax"
		.globl shared_name
		.type shared_name, @function
	shared_name: ret
		.size shared_name, 1`))
	in.Units[0].Post = post
	in.Units[0].Functions = []Function{
		{Post: symbol(t, post, "changed"), OldName: "changed"}, {Post: symbol(t, post, "close_file")},
		{Post: symbol(t, post, "added")}, {Post: symbol(t, post, "shared_name")},
	}
	testfs := in.Modules["testfs"]
	testfs.Symbols = append(testfs.Symbols, kimage.Symbol{Name: "shared_name", Addr: fsCode + 0x3000})
	inFS := in.Units[1].Resolve
	in.Units[1].Resolve = func(s *object.Symbol) (Resolution, error) {
		if s.Name == "shared_name" {
			return Resolution{Source: Running, Object: "testfs", Name: s.Name}, nil
		}
		return inFS(s)
	}
	o := checkModule(t, mustWrite(t, in))
	want := map[string][]string{"": {"__fentry__", ".text.close_file"}, ".klp.rela.vmlinux..text.changed": {".klp.sym.vmlinux.open_file,0"}}
	if d := cmp.Diff(want, relocsOf(o.Section(".text.changed"))); d != "" {
		t.Errorf("code of vmlinux (-want +got):\n%s", d)
	}
	want = map[string][]string{"": {"__fentry__", ".text.added"}, ".klp.rela.testfs..text.open_file": {".klp.sym.testfs.shared_name,0"}}
	if d := cmp.Diff(want, relocsOf(o.Section(".text.open_file"))); d != "" {
		t.Errorf("code of the module (-want +got):\n%s", d)
	}
}

// The tables say which fields have to be zeroed and what the replaced function
// looks like outside of what the kernel rewrites.
func TestSupportTables(t *testing.T) {
	in := moduleInput(t, "call close_file\nmovabs $close_file, %rax", "")
	o := checkModule(t, mustWrite(t, in))
	if o.Sections[0].Name != supportSection {
		t.Fatalf("the first section is %s", o.Sections[0].Name)
	}
	tables := o.Sections[0]
	le := binary.LittleEndian
	at := func(off uint64) int64 { // what the pointer at off leads to
		rs := tables.RelocsIn(off, off+8)
		if len(rs) != 1 || rs[0].Type != uint32(elf.R_X86_64_64) {
			t.Fatalf("at %d there are %d pointers", off, len(rs))
		}
		return rs[0].Addend
	}
	if got := string(at2(t, o, tables, 0)); !strings.HasPrefix(got, "testfs\x00") {
		t.Errorf("the name is %q", got)
	}
	if got := le.Uint64(tables.Data[32:]); got != 0 {
		t.Errorf("keep_fields is %d for a kernel without clear_relocate_add", got)
	}
	check := uint64(at(8))
	size, sum, holes := le.Uint64(tables.Data[check:]), le.Uint64(tables.Data[check+8:]), uint64(at(check+16))
	var spans [][2]uint64
	for i := range le.Uint64(tables.Data[check+24:]) {
		spans = append(spans, [2]uint64{le.Uint64(tables.Data[holes+16*i:]), le.Uint64(tables.Data[holes+16*i+8:])})
	}
	// endbr64 and the call of __fentry__; the field of the call; the return
	if d := cmp.Diff([][2]uint64{{0, 9}, {10, 4}, {19, 1}}, spans); d != "" || size != 20 {
		t.Errorf("%d bytes, holes (-want +got):\n%s", size, d)
	}
	want := uint64(0xcbf29ce484222325)
	for _, c := range []byte("\xe8\x31\xc0\x48\x89\xf8") {
		want = (want ^ uint64(c)) * 0x100000001b3
	}
	if sum != want {
		t.Errorf("the sum is %#x, want %#x", sum, want)
	}
	fields := uint64(at(16))
	if n := le.Uint64(tables.Data[24:]); n != 2 {
		t.Fatalf("%d fields", n)
	}
	if a, b := le.Uint64(tables.Data[fields+8:]), le.Uint64(tables.Data[fields+24:]); a != 4 || b != 8 {
		t.Errorf("the fields have %d and %d bytes", a, b)
	}
	if a, b := at(fields), at(fields+16); a != 6 || b != 12 {
		t.Errorf("the fields are at %d and %d", a, b)
	}
	// every symbol is looked up before a field is filled
	announced := relocsOf(tables)[".klp.rela.testfs."+supportSection]
	if d := cmp.Diff([]string{".klp.sym.testfs.close_file,0", ".klp.sym.testfs.open_file,0"}, announced); d != "" {
		t.Errorf("announced symbols (-want +got):\n%s", d)
	}
	for _, r := range tables.KlpRelocs[0].Relocs {
		if r.Type != uint32(elf.R_X86_64_NONE) {
			t.Errorf("an announcement is of type %d", r.Type)
		}
	}

	in = moduleInput(t, "", "")
	in.Image.Symbols = append(in.Image.Symbols, kimage.Symbol{Name: "clear_relocate_add", Addr: 0xffffffff81900000})
	if got := read(t, mustWrite(t, in)).Sections[0].Data[32]; got != 1 {
		t.Errorf("keep_fields is %d for a kernel with clear_relocate_add", got)
	}
}

// at2 returns the data that the pointer at off of a section leads to.
func at2(t *testing.T, o *object.Object, s *object.Section, off uint64) []byte {
	t.Helper()
	rs := s.RelocsIn(off, off+8)
	if len(rs) != 1 || rs[0].Symbol.Section == nil {
		t.Fatalf("at %d there is no pointer", off)
	}
	return rs[0].Symbol.Section.Data[int64(rs[0].Symbol.Value)+rs[0].Addend:]
}

// The parts of unit keys: what each entry of a special section becomes.
func TestModuleKeys(t *testing.T) {
	branch := func(key string) string {
		return "\n.section __jump_table, \"aw\"\n.balign 8\n.long 1b - ., 1b - .\n.quad " + key + " - .\n"
	}
	call := "\n.section .static_call_sites, \"aw\"\n.long 1b - .\n"
	datum := func(section, name string, size int) string {
		return ".section " + section + ", \"aw\"\n.type " + name + ", @object\n" + name + ": .fill " + string(rune('0'+size/8)) + ", 8, 0\n.size " + name + ", . - " + name + "\n"
	}
	nop := "1: .byte 0x0f, 0x1f, 0x44, 0, 0"
	tests := map[string]struct {
		body, more string
		section    string // whose entries are looked at
		kept       bool
		note       string
	}{
		"key of vmlinux":         {nop, branch("running_key"), "__jump_table", true, ""},
		"new key":                {nop, branch("new_key") + datum(".data.new_key", "new_key", 16), "__jump_table", true, ""},
		"tracepoint of module":   {nop, branch("__tracepoint_fs_open + 8"), "__jump_table", false, "fs/test.o: open_file: the tracepoint fs_open of the module testfs stays off"},
		"message of module":      {nop, branch("fs_debug + 8") + datum("__dyndbg", "fs_debug", 24), "__jump_table", false, "the dynamic debug message of the module testfs stays off"},
		"new message":            {nop, branch("new_debug + 8") + datum("__dyndbg", "new_debug", 24), "__jump_table", true, ""},
		"static call of module":  {"1: call __SCT__fs_call", call + ".long __SCK__fs_call - .", ".static_call_sites", false, ""},
		"static call of vmlinux": {"1: call __SCT__running", call + ".long __SCK__running - .", ".static_call_sites", true, ""},
		"call of module":         {"1: call close_file", "\n.section .call_sites, \"a\"\n.long 1b - .", ".call_sites", false, ""},
		"call of vmlinux":        {"1: call exported_function", "\n.section .call_sites, \"a\"\n.long 1b - .", ".call_sites", true, ""},
		"message index":          {"nop", "\n.section .printk_index, \"a\"\n.quad open_file", ".printk_index", false, ""},
		"unused ENDBR":           {"nop", "\n.section .ibt_endbr_seal, \"a\"\n.long open_file - .", ".ibt_endbr_seal", false, ""},
		"room in front":          {"nop", "\n.section __patchable_function_entries, \"awo\", @progbits, .text.open_file\n.quad open_file", "__patchable_function_entries", false, ""},
		"call of a tracepoint":   {"nop", "\n.section __tracepoints, \"aw\"\n.quad open_file", "__tracepoints", false, ""},
		"new flag": {"movb $1, new_once(%rip)", "\n.section .data..once, \"aw\"\n.byte 0\n.type new_once, @object\nnew_once: .byte 0\n.size new_once, 1",
			".data..once", true, ""},
		"new tunable": {"movl $1, new_tunable(%rip)", "\n.section .data..read_mostly, \"aw\"\n.long 0\n.type new_tunable, @object\nnew_tunable: .long 5\n.size new_tunable, 4",
			".data..read_mostly", true, ""},
		"old code in an alternative": {"1: jmp 2f", "\n.section .altinstr_aux, \"ax\"\n2: testb $1, boot_cpu_data(%rip)\n", ".altinstr_aux", true, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			in := moduleInput(t, tt.body, tt.more, "new_key", "new_debug", "new_once", "new_tunable")
			m, err := Write(in)
			if err != nil {
				t.Fatal(err)
			}
			o := checkModule(t, m.Data)
			if got := o.Section(tt.section) != nil; got != tt.kept {
				t.Errorf("the module has section %s: %v, want %v", tt.section, got, tt.kept)
			}
			if got := strings.Join(m.Notes, "\n"); !strings.Contains(got, tt.note) || (tt.note == "") != (got == "") {
				t.Errorf("notes are %q, want %q", got, tt.note)
			}
		})
	}
}

// New descriptors of messages are one array, as the kernel expects it.
func TestNewDynamicDebug(t *testing.T) {
	descriptor := func(name string) string {
		return "\n.section __dyndbg, \"aw\"\n.balign 8\n.type " + name + ", @object\n" + name + ": .quad 0, 7, 8\n.size " + name + ", 24\n"
	}
	in := moduleInput(t, "mov $new_b, %rdi", descriptor("new_a")+descriptor("new_b")+descriptor("new_c"), "new_a", "new_b", "new_c")
	in.Units[0].Post = assembleText(t, function("mov $new_c, %rdi", descriptor("new_c")))
	in.Units[0].Functions[0].Post = symbol(t, in.Units[0].Post, "changed")
	in.Units[0].Resolve = resolver(in.Image, "new_c")
	o := checkModule(t, mustWrite(t, in))
	if s := o.Section("__dyndbg"); s == nil || s.Size != 48 || s.Align < 8 {
		t.Errorf("the section of descriptors is %+v, want two descriptors", s)
	}
}

// A static call with a key of its own: key, trampoline and site are in the module.
func TestNewStaticCall(t *testing.T) {
	in := oneFunction(t, function("1: call __SCT__new", `
		.section .static_call_sites, "aw"
		.long 1b - ., __SCK__new - .
		.section .data.__SCK__new, "aw"
		.globl __SCK__new
		.type __SCK__new, @object
	__SCK__new: .quad changed, 0
		.size __SCK__new, 16
		.section .static_call.text, "ax"
		.globl __SCT__new
		.type __SCT__new, @function
	__SCT__new: .byte 0xe9
		.long changed - (. + 4)
		.byte 0x0f, 0xb9, 0xcc
		.size __SCT__new, . - __SCT__new
		.section .static_call_tramp_key, "a"
		.long __SCT__new - ., __SCK__new - .`))
	post := in.Units[0].Post
	in.Units[0].Resolve = resolver(in.Image, "__SCK__new", "__SCT__new")
	if _, err := Write(in); err == nil || !strings.Contains(err.Error(), "is not among those that were taken") {
		t.Errorf("without its trampoline the error is %v", err)
	}
	in.Units[0].Functions = append(in.Units[0].Functions, Function{Post: symbol(t, post, "__SCT__new")})
	m, err := Write(in)
	if err != nil {
		t.Fatal(err)
	}
	o := checkModule(t, m.Data)
	if s := o.Section(".static_call_sites"); s == nil || s.Size != 8 || s.Relocs[1].Symbol.Section.Name != ".data.__SCK__new" {
		t.Errorf("static call sites are %+v", s)
	}
	if s := o.Section(".static_call.text"); s == nil || s.Relocs[0].Symbol.Section.Name != ".text.changed" {
		t.Errorf("the trampoline is %+v", s)
	}
	if m.Pinned {
		t.Error("the module is pinned by a trampoline")
	}
}

func TestCallbacks(t *testing.T) {
	callback := func(name string) string {
		return "\n.section .text." + name + ", \"ax\"\n.type " + name + ", @function\n" + name + ": ret\n.size " + name + ", 1\n.section .kpatch.callbacks." + name + ", \"aw\"\n.quad " + name + "\n"
	}
	in := moduleInput(t, "", callback("before")+callback("after_undo")+callback("running"))
	u := &in.Units[1]
	for when, name := range map[string]string{PrePatch: "before", PostUnpatch: "after_undo", PostPatch: "running"} {
		f := symbol(t, u.Post, name)
		u.Functions = append(u.Functions, Function{Post: f})
		u.Callbacks = append(u.Callbacks, Callback{When: when, Function: f})
	}
	slices.SortFunc(u.Functions, func(a, b Function) int { return strings.Compare(a.Post.Name, b.Post.Name) })
	m, err := Write(in)
	if err != nil {
		t.Fatal(err)
	}
	if m.Pinned {
		t.Error("a callback pins the module")
	}
	o := checkModule(t, m.Data)
	to := func(s *object.Section, off uint64) string {
		rs := s.RelocsIn(off, off+8)
		if len(rs) != 1 {
			return ""
		}
		return rs[0].Symbol.Section.Name
	}
	data, fs := o.Section(".data"), uint64(56+88+40) // klp_object.callbacks of testfs
	got := map[string]string{
		"pre": to(data, fs+32), "post": to(data, fs+8), "pre-undo": to(data, fs+24), "post-undo": to(data, fs+16),
		"chained pre": to(o.Sections[0], 40), "chained post-undo": to(o.Sections[0], 48), "vmlinux": to(data, fs-88+8),
	}
	want := map[string]string{
		"pre": ".text.upsplice_pre_patch", "post": ".text.running", "pre-undo": "", "post-undo": ".text.upsplice_post_unpatch",
		"chained pre": ".text.before", "chained post-undo": ".text.after_undo", "vmlinux": "",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("callbacks (-want +got):\n%s", d)
	}

	in.Units = append(in.Units, Unit{Name: "fs/second.o", Target: "testfs", Post: u.Post, Resolve: u.Resolve, Functions: u.Functions[:1], Callbacks: nil})
	second := &in.Units[2]
	second.Functions = []Function{{Post: symbol(t, u.Post, "before")}}
	second.Callbacks = []Callback{{When: PrePatch, Function: second.Functions[0].Post}}
	var e *UnsupportedError
	if _, err := Write(in); !errors.As(err, &e) || e.Unit != "fs/second.o" || !strings.Contains(e.Reason, "second pre_patch callback for testfs after one of fs/test.o") {
		t.Errorf("error is %v", err)
	}
}

// A splice may consist of callbacks alone.
func TestCallbacksAlone(t *testing.T) {
	in := oneFunction(t, function("", ""))
	u := &in.Units[0]
	u.Functions[0].OldName = ""
	u.Callbacks = []Callback{{When: PostPatch, Function: u.Functions[0].Post}}
	checkModule(t, mustWrite(t, in))
	u.Callbacks[0].When = "later"
	if _, err := Write(in); err == nil || !strings.Contains(err.Error(), `no callbacks "later"`) {
		t.Errorf("error is %v", err)
	}
	u.Callbacks[0] = Callback{When: PostPatch, Function: symbol(t, assembleText(t, function("", "")), "changed")}
	if _, err := Write(in); err == nil || !strings.Contains(err.Error(), "not among the functions that were taken") {
		t.Errorf("error is %v", err)
	}
}

// What a new function's address is used for decides whether the module can go.
func TestPinned(t *testing.T) {
	added := `
		.section .text.added, "ax"
		.type added, @function
	added:	nop
		jmp added + 1
		ret
		.size added, . - added
		`
	tests := map[string]struct {
		body, more string
		want       bool
	}{
		"called":                    {"call added", added, false},
		"passed on":                 {"lea added(%rip), %rdi", added, true},
		"passed on absolutely":      {"mov $added, %rdi", added, true},
		"stored in data":            {"mov $new_data, %rdi", added + ".section .data.new_data, \"aw\"\n.type new_data, @object\nnew_data: .quad added\n.size new_data, 8", true},
		"a place inside":            {"mov $added + 1, %rdi", added, false},
		"the replaced one's":        {"mov $changed, %rdi\ncall added", added, false},
		"the place in an own table": {"call added\n1: nop", added + ".section __bug_table, \"aw\"\n.long added - ., 0, 0", false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			in := oneFunction(t, function(tt.body, tt.more))
			in.Units[0].Functions = append(in.Units[0].Functions, Function{Post: symbol(t, in.Units[0].Post, "added")})
			m, err := Write(in)
			if err != nil {
				t.Fatal(err)
			}
			o := checkModule(t, m.Data)
			cleanup := len(o.Lookup("cleanup_module")) == 1 && len(o.Section(".gnu.linkonce.this_module").RelocsIn(208, 216)) == 1
			if m.Pinned != tt.want || cleanup == tt.want || strings.Contains(strings.Join(m.Notes, ""), "the new function added") != tt.want {
				t.Errorf("pinned is %v, an exit function %v, notes %q", m.Pinned, cleanup, m.Notes)
			}
		})
	}
}

func TestModuleRefusals(t *testing.T) {
	tests := map[string]struct {
		body, more string
		change     func(*Input)
		unit       string
		reason     string
	}{
		"key of the module": {
			"1: nop", "\n.section __jump_table, \"aw\"\n.balign 8\n.long 1b - ., 1b - .\n.quad fs_key - .", nil,
			"fs/test.o", "static_key_enabled()",
		},
		"replacement with a symbol of the module": {
			"1: .fill 5, 1, 0x90", ".section .altinstructions, \"a\"\n.long 1b - ., 2f - .\n.word 1\n.byte 5, 5\n.section .altinstr_replacement, \"ax\"\n2: call close_file", nil,
			"fs/test.o", "before it fills in addresses of modules",
		},
		"alternative of a call into the module": {
			"1: call close_file", ".section .altinstructions, \"a\"\n.long 1b - ., 2f - .\n.word 1\n.byte 5, 1\n.section .altinstr_replacement, \"ax\"\n2: nop", nil,
			"fs/test.o", "before it fills in addresses of modules",
		},
		"table with a symbol of the module": {
			"1: nop", ".section __bug_table, \"aw\"\n.long 1b - ., close_file - ., 0", nil,
			"fs/test.o", "before it fills in addresses of modules",
		},
		"no support code":    {"", "", func(in *Input) { in.Support = nil }, "fs/test.o", "not at hand"},
		"no image":           {"", "", func(in *Input) { in.Modules = nil }, "fs/test.o", `"testfs", whose image is not given`},
		"strange name":       {"", "", func(in *Input) { in.Units[1].Target = "test.fs" }, "fs/test.o", `"test.fs", whose image is not given`},
		"module not needed":  {"call lib_function", "", func(in *Input) { in.Modules["testfs"].Depends = nil }, "fs/test.o", "in the module lib_core, which testfs does not depend on"},
		"no such symbol":     {"call close_file", "", func(in *Input) { in.Modules["testfs"].Symbols = in.Modules["testfs"].Symbols[:1] }, "fs/test.o", "no symbol close_file"},
		"no such old one":    {"", "", func(in *Input) { in.Units[1].Functions[0].OldName = "gone" }, "fs/test.o", "the module testfs has no symbol gone"},
		"no fentry":          {"", "", func(in *Input) { in.Modules["testfs"].Sites = nil }, "fs/test.o", "no call of __fentry__"},
		"nothing to compare": {"", "", func(in *Input) { in.Modules["testfs"].Sections = nil }, "fs/test.o", "has no code of open_file"},
		"export of a module": {"call lib_function", "", func(in *Input) {
			in.Units[1].Resolve = func(s *object.Symbol) (Resolution, error) {
				return Resolution{Source: Exported, Object: "lib_core", Name: s.Name}, nil
			}
		}, "fs/test.o", "only exports of vmlinux are ordinary symbols"},
		"vmlinux refers to a module": {"", "", func(in *Input) {
			in.Units[0].Resolve = func(s *object.Symbol) (Resolution, error) {
				return Resolution{Source: Running, Object: "testfs", Name: "close_file"}, nil
			}
		}, "a/b.o", "close_file is in the module testfs, which may not be loaded"},
		"vmlinux uses a new function of a module": {"", ".globl open_file", func(in *Input) {
			in.Units[0].Post.Lookup("__fentry__")[0].Name = "open_file"
			in.Units[0].Resolve = func(*object.Symbol) (Resolution, error) { return Resolution{Source: Copied}, nil }
		}, "a/b.o", "fs/test.o defines it, as a part of the module testfs, which may not be loaded"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			in := moduleInput(t, tt.body, tt.more)
			if tt.change != nil {
				tt.change(&in)
			}
			_, err := Write(in)
			var e *UnsupportedError
			if !errors.As(err, &e) || e.Unit != tt.unit || !strings.Contains(e.Reason, tt.reason) {
				t.Errorf("error is %v, want one about %s that says %q", err, tt.unit, tt.reason)
			}
		})
	}
}

// What is wrong with the support code is not the fault of a unit.
func TestSupportBroken(t *testing.T) {
	for text, want := range map[string]string{
		strings.ReplaceAll(supportText, "text_poke", "text_smash"):            "no symbol text_smash",
		strings.ReplaceAll(supportText, "upsplice_pre_patch", "upsplice_pre"): "no function upsplice_pre_patch",
	} {
		in := moduleInput(t, "", "")
		in.Support = assembleText(t, text)
		_, err := Write(in)
		var e *UnsupportedError
		if err == nil || !strings.Contains(err.Error(), want) || errors.As(err, &e) && e.Unit != supportName {
			t.Errorf("error is %v, want one that says %q", err, want)
		}
	}
}
