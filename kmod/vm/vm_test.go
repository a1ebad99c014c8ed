// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/upsplice/upsplice/kmod/lab"
)

func TestTimeout(t *testing.T) {
	k := lab.NeedNewest(t, lab.Image)
	m := Machine{Kernel: k.Vmlinuz, Timeout: 300 * time.Millisecond, Append: "panic=0"}
	start := time.Now()
	_, err := m.run(t.Context(), "tcg", nil)
	var timeout *TimeoutError
	if !errors.As(err, &timeout) {
		t.Errorf("error = %v, want a timeout", err)
	}
	if d := time.Since(start); d > 10*time.Second {
		t.Errorf("stopping took %v", d)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.run(ctx, "tcg", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v, want canceled", err)
	}
}

func TestBrokenKernelFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "vmlinuz")
	if err := os.WriteFile(file, []byte("this is no kernel"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := Machine{Kernel: file, Timeout: 20 * time.Second}.run(t.Context(), "tcg", nil)
	if err == nil || !strings.Contains(err.Error(), qemu) {
		t.Errorf("error = %v", err)
	}
}

func TestTrouble(t *testing.T) {
	console := `[    1.0] Run /sbin/init as init process
[    2.000000] WARNING: CPU: 0 PID: 1 at kernel/x.c:1 f+0x1/0x2
[    2.000001][  T1] BUG: kernel NULL pointer dereference, address: 0000000000000000
[    2.0] Oops: 0000 [#1] PREEMPT SMP PTI
[    2.0] Call Trace:
the script says WARNING: nothing
[    0.1] RETBleed: WARNING: Spectre v2 mitigation leaves CPU vulnerable
[    3.0] Kernel panic - not syncing: x
DEBUG: fine
vmtest: exit 3
`
	got := trouble(console)
	want := []string{
		"[    2.000000] WARNING: CPU: 0 PID: 1 at kernel/x.c:1 f+0x1/0x2",
		"[    2.000001][  T1] BUG: kernel NULL pointer dereference, address: 0000000000000000",
		"[    2.0] Oops: 0000 [#1] PREEMPT SMP PTI",
		"[    2.0] Call Trace:",
		"[    3.0] Kernel panic - not syncing: x",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("trouble (-want +got):\n%s", d)
	}
	if exited, code := exitMark(console); !exited || code != 3 {
		t.Errorf("exitMark = %v, %d", exited, code)
	}
	if exited, _ := exitMark("echo vmtest: exit 0\n"); exited {
		t.Error("a mark inside a line was taken for one")
	}
}

func TestMissingTool(t *testing.T) {
	err := Need("no-such-program-here", "some-package")
	var missing *MissingToolError
	if !errors.As(err, &missing) || !strings.Contains(err.Error(), "apt-get install some-package") {
		t.Errorf("error = %v", err)
	}
}

// TestInitramfs lets busybox read what Initramfs wrote.
func TestInitramfs(t *testing.T) {
	var b bytes.Buffer
	files := []File{
		{Name: "init", Mode: 0o755, Data: []byte("#!")},
		{Name: "a/b/c", Mode: 0o600, Data: []byte("12345")},
		{Name: "a/b/d", Mode: 0o644},
		{Name: "a/link", Mode: fs.ModeSymlink, Data: []byte("b/c")},
	}
	if err := Initramfs(&b, files); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cmd := exec.Command("busybox", "cpio", "-idm")
	cmd.Dir, cmd.Stdin = dir, &b
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, f := range files {
		path := filepath.Join(dir, f.Name)
		if f.Mode&fs.ModeSymlink != 0 {
			if to, err := os.Readlink(path); err != nil || to != string(f.Data) {
				t.Errorf("%s: %q, %v", f.Name, to, err)
			}
			continue
		}
		data, err := os.ReadFile(path)
		info, err2 := os.Stat(path)
		if err != nil || err2 != nil || !bytes.Equal(data, f.Data) || info.Mode() != f.Mode {
			t.Errorf("%s: %q, %v, %v, %v", f.Name, data, info.Mode(), err, err2)
		}
	}
	for _, name := range []string{"", ".", "/x", "../x", "a//b", "a\x00b"} {
		if err := Initramfs(&b, []File{{Name: name}}); err == nil {
			t.Errorf("the name %q was taken", name)
		}
	}
}

// TestTrialBoot: the trial of an accelerator works with the one that always does, and
// says no where nothing boots.
func TestTrialBoot(t *testing.T) {
	k := lab.NeedNewest(t, lab.Image)
	if !reachesUserSpace(t.Context(), k.Vmlinuz, "tcg", time.Minute) {
		t.Error("the trial does not reach user space without KVM")
	}
	if reachesUserSpace(t.Context(), k.Vmlinuz, "tcg", time.Second) {
		t.Error("a boot that was cut short counts as a success")
	}
}

// TestThreads: one thread for all processors where QEMU runs breakpoints that are
// gone.
func TestThreads(t *testing.T) {
	for version, want := range map[string]string{
		"QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)\nCopyright": "single",
		"QEMU emulator version 8.0.50":                                           "single",
		"QEMU emulator version 8.1.0":                                            "multi",
		"QEMU emulator version 10.0.8 (Debian 1:10.0.8+ds-0+deb13u1)":            "multi",
		"something else": "single",
	} {
		if got := threadsOf(version); got != want {
			t.Errorf("%.40s: %s, want %s", version, got, want)
		}
	}
}
