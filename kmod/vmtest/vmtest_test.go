// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

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
		t.Errorf("console:\n%s", r.Console)
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
			t.Errorf("no %q on the console:\n%s", want, r.Console)
		}
	}
}
