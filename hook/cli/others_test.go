// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/upsplice/upsplice/hook/live"
	"github.com/upsplice/upsplice/kmod/livepatch"
)

func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// TestStatusOfOthers: livepatches that are not ours, and what a transition waits for.
func TestStatusOfOthers(t *testing.T) {
	const dir = "sys/kernel/livepatch/"
	root := tree(t, map[string]string{
		dir + "kpatch_x/enabled":              "1\n",
		dir + "kpatch_x/transition":           "0\n",
		dir + "kpatch_x/vmlinux/f,1/x":        "",
		dir + "kpatch_x/vmlinux/patched":      "1\n",
		dir + "upsplice_1/enabled":            "1\n",
		dir + "upsplice_1/transition":         "1\n",
		"proc/42/task/42/patch_state":         "0\n",
		"proc/42/task/42/comm":                "sleeper\n",
		"proc/42/task/42/stack":               "[<0>] f+0x1/0x2\n",
		"proc/43/task/43/patch_state":         "1\n",
		"proc/43/task/43/comm":                "through\n",
		"proc/modules":                        "",
		"sys/kernel/livepatch/vendor/enabled": "0\n", "sys/kernel/livepatch/vendor/transition": "1\n",
	})
	others, tasks, err := kernelState(&live.Kernel{Patches: &livepatch.System{Root: root}})
	if err != nil {
		t.Fatal(err)
	}
	wantOthers := []other{{Name: "kpatch_x", Enabled: true, Functions: 1}, {Name: "vendor", Transition: true}}
	if d := cmp.Diff(wantOthers, others); d != "" {
		t.Errorf("others (-want +got):\n%s", d)
	}
	wantTasks := []waiting{
		{"upsplice_1", 42, "sleeper", []string{"f+0x1/0x2"}},
		{"vendor", 43, "through", nil},
	}
	if d := cmp.Diff(wantTasks, tasks); d != "" {
		t.Errorf("tasks (-want +got):\n%s", d)
	}
	var b bytes.Buffer
	printKernelState(&b, others, tasks)
	const want = "livepatch\tkpatch_x\tin force, not of upsplice: 1 function\n" +
		"livepatch\tvendor\tbeing disabled, not of upsplice: 0 functions\n" +
		"switching\tupsplice_1\twaits for sleeper (42) in f+0x1/0x2\n" +
		"switching\tvendor\twaits for through (43)\n"
	if d := cmp.Diff(want, b.String()); d != "" {
		t.Errorf("text (-want +got):\n%s", d)
	}
	others, tasks, err = kernelState(&live.Kernel{Patches: &livepatch.System{Root: t.TempDir()}})
	if err != nil || others != nil || tasks != nil {
		t.Errorf("a kernel without livepatch: %v, %v, %v", others, tasks, err)
	}
}
