// SPDX-License-Identifier: Apache-2.0

package rehearse

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/upsplice/upsplice/kmod/lab"
)

func TestTrouble(t *testing.T) {
	bad := []string{
		"WARNING: CPU: 0 PID: 1 at kernel/x.c:1 f+0x1/0x2",
		"BUG: kernel NULL pointer dereference, address: 0000000000000000",
		"Oops: 0000 [#1] PREEMPT SMP PTI",
		"watchdog: BUG: soft lockup - CPU#0 stuck for 22s!",
		"INFO: task x:1 blocked for more than 120 seconds.",
		"livepatch: patch 'x' failed for module 'y', refusing to load module 'y'",
		"rcu: INFO: rcu_preempt self-detected stall on CPU",
		"x86/modules: Skipping invalid relocation target, existing value is nonzero for type 4",
	}
	good := []string{
		"livepatch: enabling patch 'upsplice_1'", "livepatch: 'upsplice_1': starting patching transition",
		"upsplice_1: tainting kernel with TAINT_LIVEPATCH", "RETBleed: WARNING: Spectre v2 mitigation leaves CPU vulnerable",
		"signal: x triggered a fault", "DEBUG: fine",
	}
	if d := cmp.Diff(bad, Trouble(slices.Concat(good, bad, good))); d != "" {
		t.Errorf("trouble (-want +got):\n%s", d)
	}
}

func TestParseRecord(t *testing.T) {
	if m, ok := parseRecord("6,339,5140900,-;NET: Registered\n SUBSYSTEM=acpi\n"); !ok || m != "NET: Registered" {
		t.Errorf("%q, %v", m, ok)
	}
	if m, ok := parseRecord("6,339,5140900,-,caller=T1;a;b\n"); !ok || m != "a;b" {
		t.Errorf("%q, %v", m, ok)
	}
	for _, in := range []string{"", "x", "1,2;x"} {
		if m, ok := parseRecord(in); ok {
			t.Errorf("%q gave %q", in, m)
		}
	}
}

const slabinfo = `slabinfo - version: 2.1
# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : tunables
kmalloc-64          1000   1024     64   64    1 : tunables    0    0    0 : slabdata     16     16      0
dentry               500    504    192   21    1 : tunables    0    0    0 : slabdata     24     24      0
`

func TestSlabs(t *testing.T) {
	s, err := parseSlabs(strings.NewReader(slabinfo))
	if d := cmp.Diff(slabs{"kmalloc-64": {1000, 64}, "dentry": {500, 21}}, s, cmp.AllowUnexported(slab{})); err != nil || d != "" {
		t.Errorf("%v (-want +got):\n%s", err, d)
	}
	// A leak of one object a round; one that grows once; noise; a slab more
	// for each half; one that shrinks.
	before := slabs{"leak": {100, 32}, "once": {100, 32}, "noise": {100, 32}, "a slab": {340, 170}, "falls": {900, 32}, "same": {5, 32}}
	middle := slabs{"leak": {200, 32}, "once": {900, 32}, "noise": {150, 32}, "a slab": {510, 170}, "falls": {100, 32}, "same": {5, 32}}
	after := slabs{"leak": {300, 32}, "once": {901, 32}, "noise": {110, 32}, "a slab": {680, 170}, "falls": {500, 32}, "same": {5, 32}, "new": {4000, 32}}
	want := []Growth{{"leak", 100, 200, 300}}
	if d := cmp.Diff(want, growing(before, middle, after, 200)); d != "" {
		t.Errorf("growing (-want +got):\n%s", d)
	}
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		in   []float64
		want float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 2, 9}, 3}} {
		if got := median(c.in); got != c.want {
			t.Errorf("median(%v) = %v", c.in, got)
		}
	}
}

// TestModuleOrder uses the modules of a shipped kernel; depmod's own file, where it
// is, is not read.
func TestModuleOrder(t *testing.T) {
	k := lab.NeedNewest(t, lab.Image)
	set, err := findModules(filepath.Join(k.Root, "lib/modules", k.Release))
	if err != nil {
		t.Fatal(err)
	}
	order, err := set.order("virtio_blk")
	if err != nil {
		t.Fatal(err)
	}
	if len(order) < 2 || order[len(order)-1] != "virtio_blk" || !slices.Contains(order, "virtio") {
		t.Errorf("order %v", order)
	}
	for i, name := range order {
		needs, err := depends(set.data[name])
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range needs {
			if !slices.Contains(order[:i], n) {
				t.Errorf("%s comes before %s, which it needs: %v", name, n, order)
			}
		}
	}
	if d := cmp.Diff(slices.Sorted(slices.Values(order)), set.used()); d != "" {
		t.Errorf("used (-order +used):\n%s", d)
	}
	if _, err := set.order("no_such_module"); err == nil || !strings.Contains(err.Error(), "--modules") {
		t.Errorf("an unknown module: %v", err)
	}
}

func TestGuestOnlyInAGuest(t *testing.T) {
	if err := Guest(t.Context()); err == nil {
		t.Error("a process that is not init began a rehearsal")
	}
}

func TestExercise(t *testing.T) {
	dir := t.TempDir()
	if err := useFiles(filepath.Join(dir, "x"), 12); err != nil {
		t.Error(err)
	}
	if err := useNetwork(t.Context(), 3); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(slabinfo))
	f.Add([]byte("6,339,5140900,-;NET: Registered\n SUBSYSTEM=acpi\n"))
	f.Add([]byte("\x7fELF"))
	f.Fuzz(func(t *testing.T, in []byte) {
		if s, err := parseSlabs(strings.NewReader(string(in))); err == nil && s == nil {
			t.Error("no slabs and no error")
		}
		if m, ok := parseRecord(string(in)); !ok && m != "" {
			t.Error("a message that is none")
		}
		if d, err := depends(in); err != nil && d != nil {
			t.Error("dependencies and an error")
		}
	})
}
