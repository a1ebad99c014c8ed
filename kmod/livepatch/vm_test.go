// SPDX-License-Identifier: Apache-2.0

package livepatch

import (
	"testing"

	"github.com/upsplice/upsplice/kmod/lab"
	"github.com/upsplice/upsplice/kmod/vmtest"
)

// TestRealKernel takes real livepatches through load, replacement, stall, refusal
// and undo, with tasks that sleep in them, modules that stay and shadow variables;
// the checks are in testdata/vmprog.
func TestRealKernel(t *testing.T) {
	k := lab.NeedNewest(t, lab.Image, lab.Headers)
	files := map[string]string{"bin/vmprog": vmtest.BuildStatic(t, "./testdata/vmprog", false)}
	for name, defines := range map[string][]string{
		"first": {"TEXT=one"}, "second": {"TEXT=two"}, "stall": {"STALL"}, "sleep": {"SLEEP"},
		"pinned": {"PINNED", "TEXT=pinned"}, "shadow": {"SHADOW", "TEXT=shadow"}, "heir": {"SHADOW", "TEXT=heir"},
	} {
		name = "upsplice_test_" + name
		files["lib/"+name+".ko"] = vmtest.BuildModule(t, k, "testdata/cmdline.c", name, defines...)
	}
	r := vmtest.RunInVM(t, k, "/bin/vmprog", files, func(m *vmtest.Machine) { m.CPUs = 2 })
	if err := r.Err(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%v", r.Duration)
}
