// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/upsplice/upsplice/kmod/lab"
)

func TestBoot(t *testing.T) {
	k := lab.NeedNewest(t, lab.Image)
	note := filepath.Join(t.TempDir(), "note")
	if err := os.WriteFile(note, []byte("from the host\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	r := RunInVM(t, k, "uname -r; cat /etc/note; nproc; cat /sys/kernel/security/lockdown; exit 7",
		map[string]string{"etc/note": note}, func(m *Machine) { m.CPUs = 2 })
	t.Logf("%v", r.Duration)
	if !r.Exited || r.ExitCode != 7 || len(r.Trouble) != 0 {
		t.Errorf("exited %v, code %d, trouble %q", r.Exited, r.ExitCode, r.Trouble)
	}
	if !strings.Contains(r.Console, k.Release+"\nfrom the host\n2\n[none]") {
		t.Errorf("console:\n%s", tail(r.Console, 20))
	}
	if r.Err() == nil || !strings.Contains(r.Err().Error(), "exited with 7") {
		t.Errorf("Err() = %v", r.Err())
	}
}

// TestPanicAndSecondDisk: a panic ends the machine and is seen, and so are further disks.
func TestPanicAndSecondDisk(t *testing.T) {
	k := lab.NeedNewest(t, lab.Image)
	disk := filepath.Join(t.TempDir(), "second")
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "here"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Ext4FromDir(t.Context(), dir, disk, 64, "-O", "^has_journal"); err != nil {
		t.Fatal(err)
	}
	r := RunInVM(t, k, "mount /dev/nvme1n1 /mnt && ls /mnt; cat /sys/block/nvme1n1/device/serial; echo c >/proc/sysrq-trigger", nil,
		func(m *Machine) { m.Disks = append(m.Disks, Disk{Path: disk, Serial: "extra", Snapshot: true}) })
	if r.Exited || len(r.Trouble) == 0 || r.Err() == nil {
		t.Errorf("exited %v, trouble %q", r.Exited, r.Trouble)
	}
	for _, want := range []string{"here", "extra", "sysrq triggered crash"} {
		if !strings.Contains(r.Console, want) {
			t.Errorf("no %q on the console:\n%s", want, tail(r.Console, 30))
		}
	}
}

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
	err := need("no-such-program-here", "some-package")
	var missing *MissingToolError
	if !errors.As(err, &missing) || !strings.Contains(err.Error(), "apt-get install some-package") {
		t.Errorf("error = %v", err)
	}
}
