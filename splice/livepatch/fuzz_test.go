// SPDX-License-Identifier: Apache-2.0

package livepatch

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/upsplice/upsplice/splice/kimage"
	"github.com/upsplice/upsplice/splice/object"
)

func TestVermagic(t *testing.T) {
	const want = "9.8.7-test SMP mod_unload modversions "
	b := mustWrite(t, testInput(t))
	if got, err := Vermagic(bytes.NewReader(b), int64(len(b))); err != nil || got != want {
		t.Errorf("vermagic is %q, %v, want %q", got, err, want)
	}
	plain := objectFile(t, ".section .modinfo, \"a\"\n.string \"license=GPL\"\n.string \"xvermagic=1\"")
	if _, err := Vermagic(bytes.NewReader(plain), int64(len(plain))); !errors.Is(err, ErrNoVermagic) {
		t.Errorf("error is %v, want ErrNoVermagic", err)
	}
	plain = objectFile(t, ".text\nnop")
	if _, err := Vermagic(bytes.NewReader(plain), int64(len(plain))); !errors.Is(err, ErrNoVermagic) {
		t.Errorf("error is %v, want ErrNoVermagic", err)
	}
	if _, err := Vermagic(bytes.NewReader(b[:100]), 100); !errors.Is(err, object.ErrFormat) {
		t.Errorf("error is %v, want object.ErrFormat", err)
	}
}

func objectFile(t testing.TB, text string) []byte {
	t.Helper()
	dir := t.TempDir()
	in, out := filepath.Join(dir, "a.s"), filepath.Join(dir, "a.o")
	if err := os.WriteFile(in, []byte(text+"\n"), 0o600); err != nil {
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

func FuzzVermagic(f *testing.F) {
	f.Add(objectFile(f, ".section .modinfo, \"a\"\n.string \"vermagic=1 SMP \""))
	f.Add([]byte("\x7fELF"))
	f.Fuzz(func(t *testing.T, b []byte) {
		magic, err := Vermagic(bytes.NewReader(b), int64(len(b)))
		if err == nil && !bytes.Contains(b, []byte("vermagic="+magic)) {
			t.Errorf("vermagic %q is not in the file", magic)
		}
	})
}

// FuzzWrite takes all functions of a damaged object: an error is right, and a
// module that object.Read accepts, but never a panic.
func FuzzWrite(f *testing.F) {
	text, err := os.ReadFile("testdata/unit.s")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(objectFile(f, string(text)))
	f.Add(objectFile(f, function("call changed\nmov $changed, %rdi", "")))
	f.Add(objectFile(f, function("call close_file\n1: jmp changed\nmov $lib_data, %rdi", ".section __jump_table, \"aw\"\n.long 1b - ., 1b - .\n.quad fs_key - .")))
	img := testImage(f)
	support := read(f, objectFile(f, supportText))
	modules := map[string]*kimage.Image{"testfs": testModule()}
	copied := []string{"new_data", "new_bss", "", "once_a", "word_a"}
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := object.Read(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		for _, target := range []string{vmlinux, "testfs"} {
			resolve := resolver(img, copied...)
			if target != vmlinux {
				resolve = inModule(img, copied...)
			}
			u := Unit{Name: "fuzz.o", Target: target, Post: o, Resolve: resolve}
			for _, s := range o.Functions() {
				old := ""
				switch {
				case target == vmlinux && (s.Name == "changed" || s.Name == "static_changed"):
					old = s.Name
				case target != vmlinux && s.Name == "changed":
					old = "open_file"
				}
				if s.Name != "boot_only" {
					u.Functions = append(u.Functions, Function{Post: s, OldName: old})
				}
			}
			out, err := Write(Input{Name: "fuzz", Vermagic: "9.8.7-test ", Image: img, Modules: modules, Support: support, Units: []Unit{u}})
			if err != nil {
				continue
			}
			if _, err := object.Read(bytes.NewReader(out.Data), int64(len(out.Data))); err != nil {
				t.Errorf("the module cannot be read: %v", err)
			}
		}
	})
}
