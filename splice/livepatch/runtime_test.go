// SPDX-License-Identifier: Apache-2.0

package livepatch

import (
	"bytes"
	"debug/elf"
	"errors"
	"strings"
	"testing"

	"github.com/upsplice/upsplice/splice/kimage"
	"github.com/upsplice/upsplice/splice/object"
)

// constant is the code of vmlinux for a value that the boot code fills in.
func constant(variable, register string) string {
	return "movabs $0x0123456789abcdef, " + register + `
1:	.pushsection runtime_ptr_` + variable + `, "a"
	.long 1b - 8 - .
	.popsection
`
}

func TestRuntimeConstants(t *testing.T) {
	in := oneFunction(t, function(constant("running_key", "%rdx")+constant("exported_function", "%r9")+constant("running_key", "%rdi"), ""))
	o := read(t, mustWrite(t, in))
	code := o.Section(".text.changed")
	want := []byte{
		0x48, 0x8b, 0x15, 0, 0, 0, 0, 0x0f, 0x1f, 0x00,
		0x4c, 0x8b, 0x0d, 0, 0, 0, 0, 0x0f, 0x1f, 0x00,
		0x48, 0x8b, 0x3d, 0, 0, 0, 0, 0x0f, 0x1f, 0x00,
	}
	if !bytes.Equal(code.Data[5:35], want) {
		t.Errorf("code % x, want % x", code.Data[5:35], want)
	}
	to := map[uint64]string{8: ".klp.sym.vmlinux.running_key,0", 18: "exported_function", 28: ".klp.sym.vmlinux.running_key,0"}
	relocs := append([]object.Reloc(nil), code.Relocs...)
	for _, k := range code.KlpRelocs {
		relocs = append(relocs, k.Relocs...)
	}
	for _, r := range relocs {
		if name, ok := to[r.Offset]; ok {
			if r.Symbol.Name != name || r.Addend != -4 || elf.R_X86_64(r.Type) != elf.R_X86_64_PC32 {
				t.Errorf("the field at %d is %+v, want %s-4", r.Offset, r, name)
			}
			delete(to, r.Offset)
		}
	}
	if len(to) > 0 {
		t.Errorf("without a relocation: %v", to)
	}
	if s := o.Section("runtime_ptr_running_key"); s != nil {
		t.Error("the module has a table that no module has")
	}
}

func TestRuntimeConstantsRefused(t *testing.T) {
	for name, c := range map[string]struct{ body, reason string }{
		"shift":       {"shr $12, %eax\n1: .pushsection runtime_shift_running_key, \"a\"\n.long 1b - 1 - .\n.popsection", "no room to read it"},
		"other code":  {"nop\nnop\nnopw 0(%rax,%rax)\n1: .pushsection runtime_ptr_running_key, \"a\"\n.long 1b - 5 - .\n.popsection\nnop\nnop\nnop", "is not the move of a constant"},
		"outside":     {"1: .pushsection runtime_ptr_running_key, \"a\"\n.long 1b - 5 - .\n.popsection", "not within the function"},
		"no variable": {constant("nowhere", "%rax"), "no symbol nowhere"},
	} {
		_, err := Write(oneFunction(t, function(c.body, "")))
		var unsupported *UnsupportedError
		if !errors.As(err, &unsupported) || !strings.Contains(err.Error(), c.reason) {
			t.Errorf("%s: %v, want %q", name, err, c.reason)
		}
	}
}

// TestSealed: a pointer to a function that the kernel has none to is refused, a call
// is not.
func TestSealed(t *testing.T) {
	for body, bad := range map[string]bool{
		"mov $bystander, %rdi": true,
		"call bystander":       false,
		"mov $other, %rdi":     false,
	} {
		in := oneFunction(t, function(body, ""))
		at := in.Image.Lookup("bystander")
		if len(at) == 0 {
			at = []kimage.Symbol{in.Image.Symbols[0]}
		}
		in.Image.Sites = append([]kimage.Site{{Addr: at[0].Addr, Len: 4, Kind: kimage.SiteEndbr}}, in.Image.Sites...)
		_, err := Write(in)
		if (err != nil) != bad || bad && !strings.Contains(err.Error(), "no pointer") {
			t.Errorf("%s: %v", body, err)
		}
	}
}
