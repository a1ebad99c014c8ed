// SPDX-License-Identifier: Apache-2.0

package livepatch

import (
	"bytes"
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/upsplice/upsplice/kmod/lab"
	"github.com/upsplice/upsplice/kmod/vmtest"
	"github.com/upsplice/upsplice/splice/kimage"
	"github.com/upsplice/upsplice/splice/object"
)

// shippedModule returns the path of an unpacked copy of a module of the kernel.
func shippedModule(t *testing.T, k lab.Kernel, name string) (path string, ok bool) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(k.Root, "lib/modules/*/kernel/drivers/*/"+name+".ko*"))
	if err != nil || len(found) != 1 {
		return "", false
	}
	raw, err := os.ReadFile(found[0])
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasSuffix(found[0], ".xz") {
		if raw, err = exec.CommandContext(t.Context(), "xz", "-dc", found[0]).Output(); err != nil {
			t.Fatal(err)
		}
	}
	path = filepath.Join(t.TempDir(), name+".ko")
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, true
}

// otherBuild returns the path of a copy of a module with one byte of a function
// changed that nothing rewrites, and without its signature, which would not fit.
func otherBuild(t *testing.T, path, function string, img *kimage.Image) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	raw = bytes.TrimSuffix(raw, []byte("~Module signature appended~\n"))
	f, err := elf.NewFile(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	code := symbol(t, read(t, raw), function)
	taken := newSymbols("", img)
	off := uint64(0)
	for _, h := range taken.holes(img.Lookup(function)[0].Addr, code.Size) {
		if h.start > off {
			break
		}
		off = max(off, h.end)
	}
	if off >= code.Size {
		t.Fatalf("%s has no byte that could be changed", function)
	}
	for _, s := range f.Sections {
		if s.Name == code.Section.Name {
			raw[s.Offset+code.Value+off] ^= 1
		}
	}
	out := filepath.Join(t.TempDir(), "other.ko")
	if err := os.WriteFile(out, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return out
}

// lackingBuild returns the path of a copy of a module in which a function that the
// new code refers to has another name.
func lackingBuild(t *testing.T, path, function string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	name := []byte("\x00" + function + "\x00")
	at := bytes.LastIndex(raw, name)
	if at < 0 {
		t.Fatalf("%s has no symbol %s", path, function)
	}
	raw[at+1] = 'w'
	out := filepath.Join(t.TempDir(), "lacking.ko")
	if err := os.WriteFile(out, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return out
}

// moduleScript: what is said of the disk tells which code runs. The disk is named by
// the module's own counter.
const moduleScript = `
p=/sys/kernel/livepatch/upsplice_blk
serial() { echo "$1: $(cat /sys/block/vd*/serial)"; }
settle() { while [ -e $p/transition ] && [ "$(cat $p/transition)" != 0 ]; do sleep 0.1; done; }
undo() { echo 0 > $p/enabled; while [ -e $p ]; do sleep 0.1; done; }
[ -e /sys/kernel/debug/dynamic_debug ] || mount -t debugfs debugfs /sys/kernel/debug
for m in virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci; do
	[ ! -e /$m.ko ] || insmod /$m.ko || exit 1
done
insmod /upsplice_blk.ko || exit 2
settle
echo "vmlinux: $(head -n 1 /proc/cmdline)"
insmod /other.ko && exit 3
insmod /lacking.ko && exit 15
insmod /virtio_blk.ko || exit 4
echo "major: $(grep virtblk /proc/devices)"
serial later
for i in 1 2 3; do
	rmmod virtio_blk || exit 5
	insmod /other.ko && exit 6
	insmod /virtio_blk.ko || exit 7
	serial again$i
done
grep -c upsplice_blk /sys/kernel/debug/dynamic_debug/control
undo
serial undone
rmmod upsplice_blk || exit 8
insmod /upsplice_blk.ko || exit 9
settle
serial now
rmmod virtio_blk || exit 10
insmod /virtio_blk.ko || exit 11
serial reloaded
undo
serial undone2
rmmod upsplice_blk || exit 12
rmmod virtio_blk || exit 13

settle() { while [ "$(cat /sys/kernel/livepatch/$1/transition)" != 0 ]; do sleep 0.1; done; }
undo() { echo 0 > /sys/kernel/livepatch/$1/enabled; while [ -e /sys/kernel/livepatch/$1 ]; do sleep 0.1; done; }
for m in upsplice_old upsplice_new; do
	insmod /$m.ko || exit 14
	settle $m
	head -n 1 /proc/cmdline
	sleep 1
	undo $m
	echo "$m is undone" > /dev/kmsg
	rmmod $m && echo "$m is gone"
	sleep 16
done
dmesg | grep -E 'upsplice|Emergency Sync|virtio_blk|invalid' | sed 's/^/log: /'
`

// TestLiveModule has a splice of vmlinux and a module in a real kernel: the module
// comes before and after it, goes and comes back, and is one of another build. Then
// two splices whose new code arms work that runs when they have been undone.
func TestLiveModule(t *testing.T) {
	kernels := map[string]func(*testing.T) lab.Kernel{
		"newest":   func(t *testing.T) lab.Kernel { return lab.NeedNewest(t, lab.Image, lab.Headers) },
		"backport": func(t *testing.T) lab.Kernel { return lab.NeedBackport(t, lab.Cloud, lab.Image, lab.Headers) },
	}
	for name, kernel := range kernels {
		t.Run(name, func(t *testing.T) { liveModule(t, kernel(t)) })
	}
}

func liveModule(t *testing.T, k lab.Kernel) {
	img := openImage(t, k)
	files := map[string]string{}
	for _, name := range []string{"virtio", "virtio_ring", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_blk"} {
		if path, ok := shippedModule(t, k, name); ok {
			files[name+".ko"] = path
		}
	}
	blk, err := kimage.OpenModuleFile(files["virtio_blk.ko"], img, nil)
	if err != nil {
		t.Fatal(err)
	}
	files["other.ko"] = otherBuild(t, files["virtio_blk.ko"], "serial_show", blk)
	files["lacking.ko"] = lackingBuild(t, files["other.ko"], "virtblk_get_cache_mode")
	support := compile(t, k, "", "../../kmod/cfiles/support/target.c", "../../kmod/cfiles/support/target.h")

	in := Input{Vermagic: moduleVermagic(t, k), Image: img, Modules: map[string]*kimage.Image{"virtio_blk": blk}, Support: support, Replace: true}
	write := func(name string, pinned bool, units ...Unit) {
		t.Helper()
		in.Name, in.Units = name, units
		m, err := Write(in)
		if err != nil {
			t.Fatal(err)
		}
		if again := mustWrite(t, in); !bytes.Equal(m.Data, again) {
			t.Errorf("%s: a second write gives other bytes", name)
		}
		if m.Pinned != pinned {
			t.Errorf("%s: pinned is %v, notes %q", name, m.Pinned, m.Notes)
		}
		checkModule(t, m.Data)
		files[name+".ko"] = filepath.Join(t.TempDir(), name+".ko")
		if err := os.WriteFile(files[name+".ko"], m.Data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	live := liveUnit(compile(t, k, "", "testdata/live.c"), img)
	write("upsplice_blk", false, blkUnit(t, compile(t, k, "", "testdata/blk.c"), img, blk), live)
	write("upsplice_old", false, liveUnit(compile(t, k, "", "testdata/pin.c"), img))
	write("upsplice_new", true, liveUnit(compile(t, k, "-DWITH_NEW_FUNCTION", "testdata/pin.c"), img))

	disk := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(disk, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	r := vmtest.RunInVM(t, k, moduleScript, files, func(m *vmtest.Machine) {
		m.CPUs = 2
		m.Timeout = 8 * time.Minute
		m.Extra = []string{"-drive", "if=none,id=vd,format=raw,file=" + disk, "-device", "virtio-blk-pci,drive=vd,serial=SER123"}
	})
	console := strings.ReplaceAll(r.Console, "\r", "")
	if !r.Exited || r.ExitCode != 0 {
		t.Errorf("the guest: exited %v with %d", r.Exited, r.ExitCode)
	}
	patched := `: patched major=(\d+),\d+ ring=1 cache=1 key=1 cmdline=1$`
	for _, want := range []string{
		`(?m)^vmlinux: upsplice cpu=1`, `(?m)^later` + patched, `(?m)^again1` + patched, `(?m)^again2` + patched, `(?m)^again3` + patched,
		`(?m)^undone: SER123$`, `(?m)^now` + patched, `(?m)^reloaded` + patched, `(?m)^undone2: SER123$`,
		`module of another build: virtio_blk: the function serial_show`,
		`(?m)^[1-9]\d*$`, // messages in the list of dynamic debug
	} {
		if !regexp.MustCompile(want).MatchString(console) {
			t.Errorf("the console does not show %s", want)
		}
	}
	checkMajor(t, console)
	checkCallbacks(t, console)
	checkWork(t, console)
	if strings.Contains(console, "invalid relocation") || strings.Contains(console, "Invalid relocation") {
		t.Error("the kernel could not fill or clear a relocation")
	}
	for _, line := range r.Trouble {
		t.Errorf("the kernel complained: %s", line)
	}
	if t.Failed() {
		t.Log(console)
	}
}

// blkUnit is the unit of testdata/blk.c.
func blkUnit(t *testing.T, post *object.Object, img, blk *kimage.Image) Unit {
	t.Helper()
	unit := liveUnit(post, img)
	unit.Name, unit.Target = "drivers/block/virtio_blk.o", "virtio_blk"
	inKernel := unit.Resolve
	unit.Resolve = func(s *object.Symbol) (Resolution, error) {
		found := blk.Lookup(s.Name)
		_, exported := img.Exports[s.Name]
		switch {
		case len(found) == 1:
			return Resolution{Source: Running, Object: "virtio_blk", Name: s.Name}, nil
		case !exported && strings.HasPrefix(s.Name, "virtqueue_"):
			return Resolution{Source: Running, Object: "virtio_ring", Name: s.Name}, nil
		}
		return inKernel(s)
	}
	for when, name := range map[string]string{
		PrePatch: "upsplice_before_patch", PostPatch: "upsplice_after_patch",
		PreUnpatch: "upsplice_before_unpatch", PostUnpatch: "upsplice_after_unpatch",
	} {
		unit.Callbacks = append(unit.Callbacks, Callback{When: when, Function: symbol(t, post, name)})
	}
	slices.SortFunc(unit.Callbacks, func(a, b Callback) int { return strings.Compare(a.When, b.When) })
	return unit
}

// checkMajor: what the new code and the old data of the module say is the same.
func checkMajor(t *testing.T, console string) {
	t.Helper()
	want := regexp.MustCompile(`(?m)^major: +(\d+) virtblk`).FindStringSubmatch(console)
	got := regexp.MustCompile(`(?m)^later: patched major=(\d+),(\d+)`).FindStringSubmatch(console)
	if want == nil || got == nil || got[1] != want[1] || got[2] != want[1] {
		t.Errorf("the new code sees %q as the number of the driver, the kernel has %q", got, want)
	}
}

// checkCallbacks: each load and unload of the module, and each apply and undo, calls
// them in order.
func checkCallbacks(t *testing.T, console string) {
	t.Helper()
	var got []string
	for _, m := range regexp.MustCompile(`(?m)^log: .*upsplice callback (\w+) of virtio_blk`).FindAllStringSubmatch(console, -1) {
		got = append(got, m[1])
	}
	on, off := []string{PrePatch, PostPatch}, []string{PreUnpatch, PostUnpatch}
	want := slices.Concat(on, off, on, off, on, off, on, off, on, off, on, off)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("callbacks (-want +got):\n%s", d)
	}
}

// checkWork: a stored address of a replaced function is that of the old one, which
// leads to the new one as long as the splice is there; a stored address of a new one
// keeps the module.
func checkWork(t *testing.T, console string) {
	t.Helper()
	log := strings.Join(regexp.MustCompile(`(?m)^log: .*`).FindAllString(console, -1), "\n")
	order := func(wants ...string) {
		t.Helper()
		rest := log
		for _, w := range wants {
			_, after, ok := strings.Cut(rest, w)
			if !ok {
				t.Errorf("the log does not show %q in the order %q", w, wants)
				return
			}
			rest = after
		}
	}
	order("the new do_sync_work ran", "upsplice_old is undone", "Emergency Sync complete",
		"the new do_sync_work ran", "upsplice_new is undone", "the new function ran")
	order("upsplice_new is undone", "Emergency Sync complete")
	if gone := strings.Count(console, "upsplice_old is gone"); gone != 1 {
		t.Errorf("the module without a new function's address was unloaded %d times", gone)
	}
	if strings.Contains(console, "upsplice_new is gone") {
		t.Error("the module whose function work knows was unloaded")
	}
}
