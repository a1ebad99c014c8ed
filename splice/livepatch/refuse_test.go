// SPDX-License-Identifier: Apache-2.0

package livepatch

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/upsplice/upsplice/splice/kimage"
	"github.com/upsplice/upsplice/splice/object"
)

// function is the source of one that is patched. Lines of body and what stands
// behind it come with a test case.
func function(body, more string) string {
	return `
	.section .text.changed, "ax", @progbits
	.type changed, @function
changed: call __fentry__
` + body + `
	ret
	.size changed, . - changed
	.section .orc_unwind_ip, "a", @progbits
	.long .text.changed - .
	.section .orc_unwind, "a", @progbits
	.byte 1, 2, 3
` + more
}

func oneFunction(t testing.TB, text string) Input {
	t.Helper()
	in := testInput(t)
	post := assembleText(t, text)
	in.Units = []Unit{{
		Target: vmlinux,
		Name:   "a/b.o", Post: post, Resolve: resolver(in.Image, "new_data", "new_key"),
		Functions: []Function{{Post: symbol(t, post, "changed"), OldName: "changed"}},
	}}
	return in
}

func TestWriteUnsupported(t *testing.T) {
	tests := map[string]struct {
		body, more      string
		section, symbol string
		reason          string
	}{
		"symbol that is nowhere":  {body: "call nowhere", section: ".text.changed", symbol: "nowhere", reason: "no symbol nowhere"},
		"unknown special section": {body: "1: nop", more: ".section __surprise, \"a\"\n.quad 1b", section: "__surprise", symbol: "changed", reason: "is not one that is known"},
		"copied data of a special section": {
			body: "mov $new_data, %rdi",
			more: `.section __dyndbg, "aw"
				.type new_data, @object
				new_data: .quad 0
				.size new_data, 8`,
			section: "__dyndbg", symbol: "new_data", reason: "it has 8 bytes, a descriptor of the kernel has 24",
		},
		"data of a section that the kernel collects": {
			body: "mov $new_data, %rdi",
			more: `.section __ex_other, "aw"
				.type new_data, @object
				new_data: .quad 0
				.size new_data, 8`,
			section: "__ex_other", symbol: "new_data", reason: "the kernel collects this section",
		},
		"new tracepoint": {
			body: "mov $new_data, %rdi",
			more: `.section __tracepoints, "aw"
				.type new_data, @object
				new_data: .quad 0
				.size new_data, 8`,
			section: "__tracepoints", symbol: "new_data", reason: "it is a new tracepoint",
		},
		"new data shared with the hypervisor": {
			body: "mov $new_data, %rdi",
			more: `.section .data..decrypted, "aw"
				.type new_data, @object
				new_data: .quad 0
				.size new_data, 8`,
			section: ".data..decrypted", symbol: "new_data", reason: "hypervisor",
		},
		"an address in 32 bits": {
			body: ".byte 0xbf\n.long running_ops", section: ".text.changed", reason: "which no address of the kernel fits in",
		},
		"new per-cpu data": {
			body: "mov %gs:new_data, %rdi",
			more: `.section .data..percpu, "aw"
				.type new_data, @object
				new_data: .quad 0
				.size new_data, 8`,
			section: ".data..percpu", symbol: "new_data", reason: "per-CPU",
		},
		"new function that was not taken": {
			body: "call new_data",
			more: `.section .text.new_data, "ax"
				.type new_data, @function
				new_data: ret
				.size new_data, 1`,
			section: ".text.new_data", symbol: "new_data", reason: "is not among those that were taken",
		},
		"writable data without a name": {
			body: "mov $.Lwritable, %rdi", more: ".section .data.nameless, \"aw\"\n.Lwritable: .quad 0",
			section: ".data.nameless", reason: "where no symbol is",
		},
		"unnamed data beside named": {
			body: "mov $.Lunnamed, %rdi",
			more: `.section .rodata.mixed, "a"
				.Lunnamed: .quad 1
				.type running_ops, @object
				running_ops: .quad 0
				.size running_ops, 8
				.type other, @object
				other: .quad 0
				.size other, 8`,
			section: ".rodata.mixed", symbol: "running_ops", reason: "share a section",
		},
		"relocation that no module may have": {body: "mov running_ops@GOTPCREL(%rip), %rax", section: ".text.changed", reason: "GOTPCREL"},
		"table with a broken entry": {
			body: "1: nop", more: ".section __bug_table, \"aw\"\n.long 1b - ., 0\n.word 0",
			section: "__bug_table", reason: "no whole number of entries",
		},
		"table entry without code": {
			more:    ".section __bug_table, \"aw\"\n.long 0, 0, 0\n.long running_ops - ., 0, 0",
			section: "__bug_table", reason: "no relocation at 0x0",
		},
		"replacement elsewhere": {
			body: "1: nop", more: ".section .altinstructions, \"a\"\n.long 1b - ., 1b - .\n.word 1\n.byte 1, 1",
			section: ".altinstructions", reason: "is not in .altinstr_replacement",
		},
		"replacement beyond the end": {
			body: "1: nop", more: `.section .altinstructions, "a"
				.long 1b - ., 2f - .
				.word 1
				.byte 1, 7
				.section .altinstr_replacement, "ax"
				2: nop`,
			section: ".altinstructions", reason: "lies outside of .altinstr_replacement",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := Write(oneFunction(t, function(tt.body, tt.more)))
			var e *UnsupportedError
			if !errors.As(err, &e) {
				t.Fatalf("error is %v, want an UnsupportedError", err)
			}
			if e.Unit != "a/b.o" || e.Section != tt.section || e.Symbol != tt.symbol || !strings.Contains(e.Reason, tt.reason) {
				t.Errorf("error has unit %q, section %q, symbol %q, reason %q", e.Unit, e.Section, e.Symbol, e.Reason)
			}
		})
	}
}

func TestWriteRefusesFunctions(t *testing.T) {
	placed := func(section, name string) string {
		return fmt.Sprintf(".section %s, \"ax\"\n.type %s, @function\n%s: nop\n.size %s, 1\n", section, name, name, name)
	}
	tests := map[string]struct {
		text   string
		f      func(*Function)
		reason string
	}{
		"boot code":            {placed(".init.text", "changed"), nil, "only while the kernel boots"},
		"code without tracing": {placed(".noinstr.text", "changed"), nil, "must not be instrumented"},
		"no size":              {".section .text.changed, \"ax\"\n.type changed, @function\nchanged: nop\n", nil, "size is not known"},
		"not code":             {".section .data.changed, \"aw\"\n.type changed, @object\nchanged: .quad 0\n.size changed, 8", nil, "it is not code"},
		"no unwind table":      {placed(".text.changed", "changed"), nil, "no unwind table"},
		"no fentry":            {function("", ""), func(f *Function) { f.OldName = "bystander" }, "no call of __fentry__"},
		"unknown old function": {function("", ""), func(f *Function) { f.OldName = "gone" }, "no symbol gone"},
		"ambiguous":            {function("", ""), func(f *Function) { f.OldName = "running_array" }, "no position is given"},
		"position too large":   {function("", ""), func(f *Function) { f.OldSympos = 2 }, "has 1 symbols changed, not 2"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			in := oneFunction(t, tt.text)
			if tt.f != nil {
				tt.f(&in.Units[0].Functions[0])
			}
			_, err := Write(in)
			var e *UnsupportedError
			if !errors.As(err, &e) || !strings.Contains(e.Reason, tt.reason) {
				t.Errorf("error is %v, want one that says %q", err, tt.reason)
			}
		})
	}
}

func TestWriteRefusesInput(t *testing.T) {
	tests := map[string]struct {
		change func(*Input)
		want   string
	}{
		"module target":     {func(in *Input) { in.Units[0].Target = "ext4" }, `"ext4", whose image is not given`},
		"name":              {func(in *Input) { in.Name = "a/b" }, `"a/b"`},
		"long name":         {func(in *Input) { in.Name = strings.Repeat("x", 56) }, "longer than the 55 bytes"},
		"no vermagic":       {func(in *Input) { in.Vermagic = "" }, "vermagic"},
		"other kernel":      {func(in *Input) { in.Vermagic = "1.2.3 SMP" }, "of kernel 1.2.3, the image is of 9.8.7-test"},
		"no types":          {func(in *Input) { in.Image.Sections = nil }, "no .BTF section"},
		"no livepatch":      {func(in *Input) { delete(in.Image.Exports, "klp_enable_patch") }, "livepatch"},
		"nothing to do":     {func(in *Input) { in.Units = nil }, "no function is replaced"},
		"export lost":       {func(in *Input) { delete(in.Image.Exports, "pv_ops") }, "pv_ops"},
		"CRC lost":          {func(in *Input) { in.Image.Exports["pv_ops"] = kimage.Export{} }, "no CRC of its export pv_ops"},
		"other module":      {func(in *Input) { in.Units[0].Resolve = elsewhere }, "in the module ext4"},
		"twice":             {func(in *Input) { in.Units[0].Functions[1].OldName = "changed" }, "replaces the same function"},
		"foreign processor": {func(in *Input) { in.Units[0].Post.Machine = elf.EM_AARCH64 }, "EM_AARCH64"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			in := testInput(t)
			tt.change(&in)
			if _, err := Write(in); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error is %v, want one that says %q", err, tt.want)
			}
		})
	}
}

func elsewhere(s *object.Symbol) (Resolution, error) {
	return Resolution{Source: Running, Object: "ext4", Name: s.Name}, nil
}

func TestResolveErrorIsKept(t *testing.T) {
	in := testInput(t)
	sentinel := errors.New("two candidates")
	in.Units[0].Resolve = func(*object.Symbol) (Resolution, error) { return Resolution{}, sentinel }
	if _, err := Write(in); !errors.Is(err, sentinel) {
		t.Errorf("error is %v, want the one of Resolve", err)
	}
}

// A static call whose key is not to be had goes through its trampoline.
func TestStaticCallWithoutKey(t *testing.T) {
	in := oneFunction(t, function("1: call __SCT__running", ".section .static_call_sites, \"aw\"\n.long 1b - .\n.long __SCK__hidden - ."))
	o := checkModule(t, mustWrite(t, in))
	if s := o.Section(".static_call_sites"); s != nil {
		t.Errorf("the module has %d bytes of static call sites, want none", s.Size)
	}
}

func TestWriteWithoutVersions(t *testing.T) {
	in := testInput(t)
	for name, e := range in.Image.Exports {
		e.CRC, e.HasCRC = 0, false
		in.Image.Exports[name] = e
	}
	if s := read(t, mustWrite(t, in)).Section("__versions"); s != nil {
		t.Error("a kernel without CONFIG_MODVERSIONS gets versions")
	}
}

func TestCleanupWithoutReturnThunk(t *testing.T) {
	in := oneFunction(t, function("", ""))
	delete(in.Image.Exports, returnThunk)
	o := checkModule(t, mustWrite(t, in))
	if code := o.Section(".text").Data; !bytes.Equal(code, []byte{0xf3, 0x0f, 0x1e, 0xfa, 0xc3, 0xcc}) {
		t.Errorf("cleanup_module is %x", code)
	}
}

// Two units that refer to each other by global names: one has a new function and
// new data for the other, and both have sections of the same name.
func TestWriteUnits(t *testing.T) {
	in := oneFunction(t, function(`
		call new_global
		call after
		mov $after, %rdi
		mov shared_data(%rip), %rax
		mov $.Lname, %rdi`, `
		.section .rodata.str1.1, "aMS", @progbits, 1
		.Lname: .string "first"`))
	second := assembleText(t, `
		.section .text.new_global, "ax"
		.globl new_global
		.type new_global, @function
	new_global: mov $.Lname, %rdi
		ret
		.size new_global, . - new_global
		.section .text.after, "ax"
		.globl after
		.type after, @function
	after:	call __fentry__
		ret
		.size after, . - after
		.section .data.shared_data, "aw"
		.globl shared_data
		.type shared_data, @object
	shared_data: .quad inner
		.size shared_data, 8
		.section .data.inner, "aw"
		.type inner, @object
	inner:	.quad 7
		.size inner, 8
		.section .rodata.str1.1, "aMS", @progbits, 1
	.Lname: .string "second"
		.section .orc_unwind_ip, "a", @progbits
		.long .text.after - .
		.section .orc_unwind, "a", @progbits
		.byte 1, 2, 3`)
	in.Units[0].Resolve = resolver(in.Image, "shared_data")
	in.Units = append(in.Units, Unit{
		Target: vmlinux,
		Name:   "c/d.o", Post: second, Resolve: resolver(in.Image, "inner"),
		Functions: []Function{{Post: symbol(t, second, "new_global")}, {Post: symbol(t, second, "after"), OldName: "after"}},
	})
	o := checkModule(t, mustWrite(t, in))
	text := o.Section(".text.changed")
	var got []string
	for _, r := range append(text.Relocs, text.KlpRelocs[0].Relocs...) {
		name := r.Symbol.Name
		if r.Symbol.Section != nil {
			name = r.Symbol.Section.Name
		}
		got = append(got, name)
	}
	want := "__fentry__ .text.new_global .text.after .data.shared_data .rodata.str1.1 .klp.sym.vmlinux.after,0"
	if s := strings.Join(got, " "); s != want {
		t.Errorf("changed refers to %s, want %s", s, want)
	}
	if r := o.Section(".text.new_global").Relocs[0]; r.Symbol.Section.Name != ".rodata.str1.1.2" {
		t.Errorf("the second unit's string is in %s", r.Symbol.Section.Name)
	}
	if r := o.Section(".data.shared_data").Relocs[0]; r.Symbol.Section.Name != ".data.inner" {
		t.Errorf("what was taken for another unit refers to %s", r.Symbol.Section.Name)
	}
}

// A function with padding in front, which belongs to it.
func TestPrefixIsTaken(t *testing.T) {
	in := oneFunction(t, strings.Replace(function("", ""), ".type changed", ".balign 16\nnop\n.balign 16\n"+
		".type __pfx_changed, @function\n__pfx_changed: .fill 16, 1, 0x90\n.size __pfx_changed, 16\n.type changed", 1))
	o := checkModule(t, mustWrite(t, in))
	if s := symbol(t, o, "changed"); s.Section.Name != ".text.changed" || s.Value != 32 {
		t.Errorf("changed is at %s+%d", s.Section.Name, s.Value)
	}
	symbol(t, o, "__pfx_changed")
}

func TestTooLarge(t *testing.T) {
	in := testInput(t)
	b := &builder{in: &in, obj: &object.Object{}}
	for range MaxSections / 2 {
		b.obj.Sections = append(b.obj.Sections, &object.Section{Relocs: make([]object.Reloc, 2)})
	}
	if err := b.checkSize(); err != nil {
		t.Errorf("%d sections: %v", MaxSections, err)
	}
	b.obj.Sections[0].KlpRelocs = make([]object.KlpRelocs, 1)
	var large *TooLargeError
	if err := b.checkSize(); !errors.As(err, &large) || large.Sections != MaxSections+1 || large.Functions != 2 {
		t.Errorf("error = %v", err)
	}
}

// Kernels before 6.10 enter the module in a static key that they have made read-only.
func TestReadOnlyKeys(t *testing.T) {
	branch := function("1: .byte 0x0f, 0x1f, 0x44, 0, 0", ".section __jump_table, \"aw\"\n.balign 8\n.long 1b - ., 1b - .\n.quad running_key - .\n")
	call := function("1: call __SCT__running", ".section .static_call_sites, \"aw\"\n.long 1b - ., __SCK__running - .\n")
	key := func(img *kimage.Image, name string) uint64 {
		for _, s := range img.Symbols {
			if s.Name == name {
				return s.Addr
			}
		}
		t.Fatalf("no symbol %s", name)
		return 0
	}
	for name, tt := range map[string]struct {
		text, key string
		seals     bool // the kernel knows such keys
		section   string
		refused   bool
		kept      bool
	}{
		"jump label":                {branch, "running_key", false, "__jump_table", true, false},
		"jump label of new kernel":  {branch, "running_key", true, "__jump_table", false, true},
		"static call":               {call, "__SCK__running", false, ".static_call_sites", false, false},
		"jump label behind the end": {branch, "bystander", false, "__jump_table", false, true},
	} {
		t.Run(name, func(t *testing.T) {
			in := oneFunction(t, tt.text)
			addr := key(in.Image, tt.key)
			in.Image.Symbols = append(in.Image.Symbols,
				kimage.Symbol{Name: "__start_ro_after_init", Addr: addr, Kind: 'D'},
				kimage.Symbol{Name: "__end_ro_after_init", Addr: addr + 0x10, Kind: 'D'})
			if tt.seals {
				in.Image.Symbols = append(in.Image.Symbols, kimage.Symbol{Name: "jump_label_init_ro", Addr: addr + 0x1000, Kind: 'T'})
			}
			m, err := Write(in)
			var unsupported *UnsupportedError
			if refused := errors.As(err, &unsupported); refused != tt.refused {
				t.Fatalf("error = %v", err)
			}
			if tt.refused {
				if unsupported.Symbol != "running_key" || !strings.Contains(unsupported.Reason, "read-only once the kernel has booted") {
					t.Errorf("error = %v", err)
				}
				return
			}
			if got := read(t, m.Data).Section(tt.section) != nil; got != tt.kept {
				t.Errorf("the module has section %s: %v, want %v", tt.section, got, tt.kept)
			}
		})
	}
}
