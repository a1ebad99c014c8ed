// SPDX-License-Identifier: Apache-2.0

package livepatch

import (
	"bytes"
	"debug/elf"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/upsplice/upsplice/kmod/lab"
	"github.com/upsplice/upsplice/kmod/vmtest"
	"github.com/upsplice/upsplice/splice/kimage"
	"github.com/upsplice/upsplice/splice/object"
)

// compile compiles the first of some C files as the kernel's own build does it with
// a unit of a module, from the headers packages alone.
func compile(t *testing.T, k lab.Kernel, flags string, files ...string) *object.Object {
	t.Helper()
	dir := t.TempDir()
	for _, f := range files {
		source, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(f)), source, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	unit := strings.TrimSuffix(filepath.Base(files[0]), ".c") + ".o"
	if err := os.WriteFile(filepath.Join(dir, "Kbuild"), []byte("obj-m := "+unit+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	// the Makefile of the flavour names /usr/src, where nothing is installed
	cmd := exec.CommandContext(t.Context(), "make", "-C", k.HeadersDir, "-f", filepath.Join(k.CommonDir, "Makefile"),
		"M="+dir, "KCFLAGS=-ffunction-sections -fdata-sections "+flags, unit)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("compiling: %v\n%s", err, out)
	}
	o, err := object.ReadFile(filepath.Join(dir, unit))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func openImage(t *testing.T, k lab.Kernel) *kimage.Image {
	t.Helper()
	img, err := kimage.OpenFile(k.Vmlinuz)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func moduleVermagic(t *testing.T, k lab.Kernel) string {
	t.Helper()
	f, err := os.Open(k.AnyModule)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	magic, err := Vermagic(f, st.Size())
	if err != nil {
		t.Fatal(err)
	}
	return magic
}

// liveScript shows /proc/cmdline before, with, and after the patch, and leaves a
// warning of the new code in the log.
const liveScript = `
show() { echo "$1: $(head -n 1 /proc/cmdline)"; }
settle() { while [ -e $p/transition ] && [ "$(cat $p/transition)" != "$1" ]; do sleep 0.1; done; }
p=/sys/kernel/livepatch/upsplice_live
show before
insmod /other.ko && exit 4
[ -e /sys/module/upsplice_live ] && exit 5
insmod /live.ko || exit 1
settle 0
show with
echo 1 > /proc/sys/kernel/sched_schedstats
show stats
echo 0 > $p/enabled
while [ -e $p ]; do sleep 0.1; done
show without
rmmod upsplice_live || exit 2
insmod /live.ko || exit 3
settle 0
show again
`

// liveUnit is the unit of a compiled C file of the test for vmlinux: what is called
// upsplice_ is new.
func liveUnit(post *object.Object, img *kimage.Image) Unit {
	inKernel := resolver(img)
	unit := Unit{
		Target: vmlinux,
		Name:   "live.o", Post: post,
		Resolve: func(s *object.Symbol) (Resolution, error) {
			if s.Section != nil && (strings.HasPrefix(s.Name, "upsplice_") || strings.HasPrefix(s.Name, "__already_done") || strings.HasPrefix(s.Name, "__UNIQUE_ID_ddebug")) {
				return Resolution{Source: Copied}, nil
			}
			return inKernel(s)
		},
	}
	for _, f := range post.Functions() {
		switch {
		case strings.Contains(f.Name, ".cold") || strings.HasPrefix(f.Name, prefixName):
		case strings.HasPrefix(f.Name, "upsplice_"):
			unit.Functions = append(unit.Functions, Function{Post: f})
		default:
			unit.Functions = append(unit.Functions, Function{Post: f, OldName: f.Name})
		}
	}
	return unit
}

// TestLive loads a module into a real kernel: each special section did its work
// if the new function says what it should.
func TestLive(t *testing.T) {
	live(t, lab.NeedNewest(t, lab.Image, lab.Headers), "")
}

// TestLiveBackport does the same with a kernel of a newer series.
func TestLiveBackport(t *testing.T) {
	live(t, lab.NeedBackport(t, lab.Cloud, lab.Image, lab.Headers), "-DUPSPLICE_RUNTIME_CONST",
		".call_sites", "runtime_ptr_USER_PTR_MAX", "__patchable_function_entries")
}

// live demands that the compiled unit has the usual sections and more.
func live(t *testing.T, k lab.Kernel, flags string, more ...string) {
	img := openImage(t, k)
	post := compile(t, k, flags, "testdata/live.c")
	for _, name := range append([]string{
		"__mcount_loc", "__bug_table", "__ex_table", "__jump_table", ".static_call_sites", ".altinstructions",
		".altinstr_aux", ".smp_locks", ".return_sites", ".orc_unwind_ip",
	}, more...) {
		if post.Section(name) == nil {
			t.Errorf("the compiled unit has no section %s, so the test does not show what it should", name)
		}
	}
	module, err := Write(Input{
		Name: "upsplice_live", Vermagic: moduleVermagic(t, k), Image: img, Units: []Unit{liveUnit(post, img)}, Replace: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	checkModule(t, module.Data)
	file := filepath.Join(t.TempDir(), "live.ko")
	if err := os.WriteFile(file, module.Data, 0o600); err != nil {
		t.Fatal(err)
	}

	other := otherKernel(t, module.Data, img)

	r := vmtest.RunInVM(t, k, liveScript, map[string]string{"live.ko": file, "other.ko": other}, func(m *vmtest.Machine) { m.CPUs = 2 })
	console := strings.ReplaceAll(r.Console, "\r", "")
	if !r.Exited || r.ExitCode != 0 {
		t.Fatalf("the guest: exited %v with %d, console:\n%s", r.Exited, r.ExitCode, console)
	}
	for _, want := range []string{
		`(?m)^before: [^u]`,
		`(?m)^insmod: .*/other\.ko.*: invalid module format$`,
		`(?m)^with: upsplice cpu=1 fault=1 sum=42 original=1 stats=0 calls=1 constant=1$`,
		`(?m)^stats: upsplice cpu=1 fault=1 sum=42 original=1 stats=1 calls=2 constant=1$`,
		`(?m)^without: [^u]`,
		`(?m)^again: upsplice .* calls=1 constant=1$`,
		// the bug entry has the place, and the stack is unwound through the new function
		`WARNING: .* at \S*live\.c:\d+ cmdline_proc_show\+\S+ \[upsplice_live\]`,
		`upsplice test warning in cmdline_proc_show`,
		`(?m)\]  seq_read_iter\+`,
	} {
		if !regexp.MustCompile(want).MatchString(console) {
			t.Errorf("the console does not show %s", want)
		}
	}
	// the warning above is wanted, and nothing else
	for _, line := range r.Trouble {
		if !strings.Contains(line, "cmdline_proc_show") && !strings.Contains(line, "Call Trace") {
			t.Errorf("the kernel complained: %s", line)
		}
	}
	if t.Failed() {
		t.Log(console)
	}
}

// otherKernel returns the path of a copy of a module that is for a kernel with another
// build id.
func otherKernel(t *testing.T, module []byte, img *kimage.Image) string {
	t.Helper()
	id, err := hex.DecodeString(img.BuildID)
	if err != nil || len(id) != 20 {
		t.Fatalf("the build id of the image is %q", img.BuildID)
	}
	last := id[16:] // the part that is compared last
	if bytes.Count(module, last) != 1 {
		t.Fatalf("the module has %x %d times", last, bytes.Count(module, last))
	}
	out := bytes.Clone(module)
	out[bytes.Index(out, last)+3] ^= 1
	file := filepath.Join(t.TempDir(), "other.ko")
	if err := os.WriteFile(file, out, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// The file that stands for the shipped kernel's modules reads back what every
// module must have.
func TestVermagicOfShippedModule(t *testing.T) {
	k := lab.NeedNewest(t, lab.Image)
	if magic := moduleVermagic(t, k); !strings.HasPrefix(magic, k.Release+" ") {
		t.Errorf("vermagic is %q, want one of %s", magic, k.Release)
	}
}

// The frame of our module agrees with the one that modpost gave to the shipped
// modules: size of struct module, and where the pointers to the functions are.
func TestFrameLikeShippedModule(t *testing.T) {
	k := lab.NeedNewest(t, lab.Image)
	b, err := os.ReadFile(k.AnyModule)
	if err != nil {
		t.Fatal(err)
	}
	shipped := read(t, b).Section(".gnu.linkonce.this_module")
	img := openImage(t, k)
	in := oneFunction(t, function("", ""))
	in.Image, in.Vermagic = img, moduleVermagic(t, k)
	// the unwind table of the synthetic object has the wrong entry size for a real kernel
	in.Units[0].Post = withORC(t, img, in.Units[0].Post)
	in.Units[0].Functions[0].OldName = "cmdline_proc_show"
	in.Units[0].Resolve = resolver(img)
	ours := read(t, mustWrite(t, in)).Section(".gnu.linkonce.this_module")
	if ours.Size != shipped.Size || ours.Flags != shipped.Flags {
		t.Errorf("struct module has %d bytes and flags %v, shipped modules have %d and %v", ours.Size, ours.Flags, shipped.Size, shipped.Flags)
	}
	at := bytes.Index(ours.Data, []byte("upsplice_test\x00"))
	name := strings.TrimSuffix(filepath.Base(k.AnyModule), ".ko")
	if !bytes.HasPrefix(shipped.Data[at:], []byte(strings.ReplaceAll(name, "-", "_")+"\x00")) {
		t.Errorf("the name is at %d, in the shipped module there is %q", at, shipped.Data[at:at+16])
	}
	for _, r := range shipped.Relocs {
		found := false
		for _, o := range ours.Relocs {
			found = found || o.Offset == r.Offset && o.Symbol.Name == r.Symbol.Name
		}
		if !found && (r.Symbol.Name == "init_module" || r.Symbol.Name == "cleanup_module") {
			t.Errorf("the shipped module has %s at %d, ours has not", r.Symbol.Name, r.Offset)
		}
	}
}

// withORC gives an object an unwind table with entries of the kernel's size.
func withORC(t *testing.T, img *kimage.Image, o *object.Object) *object.Object {
	t.Helper()
	k, err := newKernel(img)
	if err != nil {
		t.Fatal(err)
	}
	entry, err := k.structure("orc_entry")
	if err != nil {
		t.Fatal(err)
	}
	table := o.Section(".orc_unwind")
	table.Data, table.Size, table.Type = make([]byte, entry.size), entry.size, elf.SHT_PROGBITS
	return o
}
