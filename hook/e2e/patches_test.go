// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"debug/elf"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/upsplice/upsplice/hook/rig"
	"github.com/upsplice/upsplice/kmod/cfiles"
	"github.com/upsplice/upsplice/kmod/lab"
	"github.com/upsplice/upsplice/kmod/vmtest"
	"github.com/upsplice/upsplice/splice/build"
	"github.com/upsplice/upsplice/splice/splicefile"
)

// patched builds a splice of patches of testdata. The cache is not that of splice,
// which needs two other trees.
func patched(t *testing.T, k lab.Kernel, names ...string) *splicefile.File {
	t.Helper()
	cache := filepath.Join(lab.Dir(), "cache-patches")
	files, err := cfiles.Write(filepath.Join(cache, "cfiles"))
	if err != nil {
		t.Fatal(err)
	}
	req := build.Request{From: rig.Side(k), Cache: cache, CFiles: files}
	for _, n := range names {
		req.Patches = append(req.Patches, filepath.Join("testdata", n+".patch"))
	}
	start := time.Now()
	res, err := build.Run(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if res.File == nil {
		t.Fatalf("%v: nothing goes live: %+v", names, res.Groups)
	}
	t.Logf("%v: built in %.1f s, notes %q", names, time.Since(start).Seconds(), res.Notes)
	return res.File
}

// moduleFile is where a module of a kernel lies, unpacked.
func moduleFile(t *testing.T, k lab.Kernel, name string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(k.Root, "lib/modules", k.Release, "kernel/drivers/*", name+".ko"))
	if err != nil || len(found) != 1 {
		t.Fatalf("%s has %d modules %s: %v", k.Release, len(found), name, err)
	}
	return found[0]
}

// otherBuilds writes two copies of a module in which a function differs by a byte:
// one with a build id of its own, and one that hides it. They are not signed.
func otherBuilds(t *testing.T, path, function string) (other, hidden string) {
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
	symbols, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(symbols, func(s elf.Symbol) bool { return s.Name == function })
	if i < 0 {
		t.Fatalf("%s has no %s", path, function)
	}
	// After the call of a traced function begins what nothing rewrites.
	const traced = 5
	raw[f.Sections[symbols[i].Section].Offset+symbols[i].Value+traced] ^= 1
	write := func(name string) string {
		name = filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(name, raw, 0o644); err != nil {
			t.Fatal(err)
		}
		return name
	}
	hidden = write("hidden.ko")
	id := f.Section(".note.gnu.build-id")
	raw[id.Offset+id.Size-1] ^= 1
	return write("other.ko"), hidden
}

const patchesScript = expect + `
say() { [ "$2" = "$3" ] && echo "as expected: $1: $2" || echo "UNEXPECTED: $1: '$2' instead of '$3'"; }
serial() { say "$1" "$(cat /sys/block/vd*/serial)" "$2"; }
cmdline() { say "/proc/cmdline" "$(grep -o 'upsplice-[a-z]*' /proc/cmdline)" "$1"; }
modules() { say "modules of ours" "$(grep -c ^upsplice_ /proc/modules)" $1; }
for m in virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci; do insmod /m/$m.ko || echo "UNEXPECTED: $m does not load"; done

echo "== another build is loaded"
insmod /m/other.ko
expect 4 "of the module virtio_blk" upsplice apply /s/both.splice
rmmod virtio_blk
insmod /m/hidden.ko
expect 4 "serial_show" upsplice apply /s/both.splice
rmmod virtio_blk
patches 0; modules 0

echo "== the module is loaded, goes and comes"
insmod /m/virtio_blk.ko
serial before SER123
expect 0 "is live: 2 functions" upsplice apply /s/both.splice
patches 1
serial now "SER123 upsplice-first"
cmdline upsplice-cmdline
rmmod virtio_blk
insmod /m/other.ko && echo "UNEXPECTED: a module of another build was loaded"
dmesg | grep "module of another build: virtio_blk: the function serial_show" || echo "UNEXPECTED: the log does not say why"
expect 0 "" upsplice status --live
insmod /m/virtio_blk.ko
serial again "SER123 upsplice-first"

echo "== another splice replaces it"
expect 0 "is live: 1 function" upsplice apply /s/second.splice
patches 1; modules 1
serial replaced "SER123 upsplice-second"
cmdline ""
rmmod virtio_blk
insmod /m/virtio_blk.ko
serial "replaced and loaded again" "SER123 upsplice-second"
expect 0 "is undone" upsplice undo
patches 0; modules 0
serial undone SER123
rmmod virtio_blk

echo "== the module is loaded later"
expect 0 "is live" upsplice apply /s/both.splice
cmdline upsplice-cmdline
insmod /m/virtio_blk.ko
serial later "SER123 upsplice-first"
expect 0 "is live" upsplice apply /s/both.splice
expect 0 "is undone" upsplice undo
serial "undone again" SER123
cmdline ""
rmmod virtio_blk
patches 0; modules 0

echo "== custom code"
pipes() { for i in 1 2 3 4 5; do echo | cat >/dev/null; done; }
size() { say "pipe-max-size" $(cat /proc/sys/fs/pipe-max-size) $1; }
size 1048576
expect 0 "is live" upsplice apply /s/pipes.splice
size 2097152
pipes
expect 0 "is live" upsplice apply /s/more-pipes.splice
patches 1; modules 1
size 2097152
cmdline upsplice-cmdline
pipes
expect 0 "is undone" upsplice undo
size 1048576
cmdline ""
patches 0; modules 0
dmesg | grep -o "upsplice-pipes: .*"

echo "== a module that stays"
expect 0 "is live" upsplice apply /s/pinned.splice
cmdline upsplice-pinned
expect 0 "is undone" upsplice undo
patches 0; modules 1
cmdline ""
expect 0 "is live" upsplice apply /s/pinned.splice
patches 1; modules 2
cmdline upsplice-pinned
expect 0 "is undone" upsplice undo
cmdline ""
patches 0; modules 2
for i in $(seq 60); do [ $(dmesg | grep -c "upsplice-pinned: it was read") = 2 ] && break; sleep 1; done
say "runs of the work" $(dmesg | grep -c "upsplice-pinned: it was read") 2
`

// TestPatchesInARealKernel puts splices of patches live in a real kernel: of built-in
// code and a module that comes and goes, with custom code, and with work under way
// when they are undone.
func TestPatchesInARealKernel(t *testing.T) {
	k, _ := lab.NeedPair(t)
	dir := t.TempDir()
	files := map[string]string{
		"/bin/upsplice":        vmtest.BuildStatic(t, "github.com/upsplice/upsplice/hook/upsplice", false),
		"/s/both.splice":       put(t, dir, "both", patched(t, k, "cmdline", "serial-first")),
		"/s/second.splice":     put(t, dir, "second", patched(t, k, "serial-second")),
		"/s/pipes.splice":      put(t, dir, "pipes", patched(t, k, "pipes")),
		"/s/more-pipes.splice": put(t, dir, "more-pipes", patched(t, k, "pipes", "cmdline")),
		"/s/pinned.splice":     put(t, dir, "pinned", patched(t, k, "pinned")),
	}
	for _, name := range []string{"virtio", "virtio_ring", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_blk"} {
		files["/m/"+name+".ko"] = moduleFile(t, k, name)
	}
	files["/m/other.ko"], files["/m/hidden.ko"] = otherBuilds(t, files["/m/virtio_blk.ko"], "serial_show")
	disk := filepath.Join(dir, "disk")
	if err := os.WriteFile(disk, make([]byte, 1<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	res := vmtest.RunInVM(t, k, patchesScript, files, func(m *vmtest.Machine) {
		m.CPUs, m.MemoryMB, m.Timeout = 2, 1024, 6*time.Minute
		m.Extra = []string{"-drive", "if=none,id=vd,format=raw,file=" + disk, "-device", "virtio-blk-pci,drive=vd,serial=SER123"}
	})
	if err := res.Err(); err != nil || strings.Contains(res.Console, "UNEXPECTED") || !strings.Contains(res.Console, "as expected: runs of the work: 2") {
		t.Fatalf("%v\n%s", err, res.Console)
	}
	t.Logf("the machine ran for %v", res.Duration)
	var said []string
	for _, m := range regexp.MustCompile(`(?m)^upsplice-pipes: (.*?)\r?$`).FindAllStringSubmatch(res.Console, -1) {
		said = append(said, m[1])
	}
	counts := regexp.MustCompile(`\d+$`)
	if len(said) != 6 {
		t.Fatalf("the callbacks said %q", said)
	}
	first, second := counts.FindString(said[2]), counts.FindString(said[4])
	want := []string{"pre_patch 1048576 of -1", "post_patch 2097152", "pre_patch 2097152 of " + first, "post_patch 2097152",
		"pre_unpatch after " + second, "post_unpatch 1048576 of -1"}
	if d := cmp.Diff(want, said); d != "" || len(second) < len(first) || len(second) == len(first) && second <= first {
		t.Errorf("the callbacks (-want +got):\n%s", d)
	}
}
