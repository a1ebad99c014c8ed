// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/upsplice/upsplice/kmod/vm"
)

// Ext4FromDir makes an ext4 image with the contents of dir. A sizeMB of 0 means
// the size of the contents and some room. More arguments go to mke2fs, for
// instance "-O", "^has_journal".
func Ext4FromDir(ctx context.Context, dir, image string, sizeMB int, args ...string) error {
	if err := vm.Need("mke2fs", "e2fsprogs"); err != nil {
		return err
	}
	if sizeMB == 0 {
		used, err := contentMB(dir)
		if err != nil {
			return fmt.Errorf("measuring %s: %w", dir, err)
		}
		sizeMB = used*5/4 + 32
	}
	args = append(append([]string{"-q", "-F", "-t", "ext4", "-d", dir}, args...), image, strconv.Itoa(sizeMB)+"M")
	if out, err := exec.CommandContext(ctx, "mke2fs", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("making %s: mke2fs: %w: %s", image, err, strings.TrimSpace(string(out)))
	}
	return nil
}

func contentMB(dir string) (int, error) {
	var total int64
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		total += (info.Size() + 4095) &^ 4095
		return nil
	})
	return int((total + 1<<20 - 1) >> 20), err
}

// initScript runs as PID 1. The kernel does not mount devtmpfs for it, and the
// image holds no device nodes, so that it can be made without root.
const initScript = `#!/bin/busybox sh
export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/root TERM=dumb
mount -t devtmpfs dev /dev
exec </dev/console >/dev/console 2>&1
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t securityfs security /sys/kernel/security
mount -t debugfs debug /sys/kernel/debug 2>/dev/null
mount -t tracefs trace /sys/kernel/tracing 2>/dev/null
mount -t tmpfs tmp /tmp
cd /root
sh /script
code=$?
echo
echo "vmtest: exit $code"
poweroff -f
sleep 60
`

// Minimal makes the tree of a tiny system in dir: busybox, the given files (path
// in the guest to path on the host, mode kept) and script, which runs in a shell
// as root with /proc, /sys and /dev mounted. After it the guest prints its exit
// mark and switches itself off.
func Minimal(dir string, files map[string]string, script string) error {
	const busybox = "/bin/busybox"
	if err := vm.Need(busybox, "busybox-static"); err != nil {
		return err
	}
	for _, d := range []string{"bin", "sbin", "usr/bin", "usr/sbin", "lib", "etc", "proc", "sys", "dev", "tmp", "root", "run", "mnt"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	if err := copyFile(busybox, filepath.Join(dir, "bin/busybox")); err != nil {
		return err
	}
	applets, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		return fmt.Errorf("listing the applets of busybox: %w", err)
	}
	for _, a := range strings.Fields(string(applets)) {
		if a == "busybox" {
			continue
		}
		if err := os.Symlink("busybox", filepath.Join(dir, "bin", a)); err != nil && !os.IsExist(err) {
			return err
		}
	}
	for guest, host := range files {
		if err := copyFile(host, filepath.Join(dir, guest)); err != nil {
			return fmt.Errorf("putting %s into the image: %w", guest, err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "script"), []byte(script), 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "sbin/init"), []byte(initScript), 0o755)
}

func copyFile(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, data, info.Mode().Perm())
}
