// SPDX-License-Identifier: Apache-2.0

package rig

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"github.com/upsplice/upsplice/kmod/lab"
)

// Packages of the guest, beyond Debian's essential ones. The compiler and its
// companions are what the upsplice package depends on.
var packages = []string{
	"adduser", "apt-utils", "binutils", "ca-certificates", "dbus", "gcc-12", "initramfs-tools",
	"kmod", "libelf1", "linux-base", "make", "procps", "systemd", "systemd-sysv", "unattended-upgrades", "xz-utils", "zstd",
}

// Unpack makes dir a minimal Debian. The bootstrap is kept for a week: it costs
// most of a minute and its contents hardly change.
func Unpack(ctx context.Context, dir string) error {
	key := sha256.Sum256([]byte(strings.Join(packages, " ")))
	tar := filepath.Join(lab.Dir(), "debian-"+hex.EncodeToString(key[:6])+".tar")
	if st, err := os.Stat(tar); err != nil || time.Since(st.ModTime()) > 7*24*time.Hour {
		if err := os.MkdirAll(lab.Dir(), 0o755); err != nil {
			return err
		}
		tmp := fmt.Sprintf("%s.%d.tar", tar, os.Getpid())
		defer os.Remove(tmp)
		err := run(ctx, "mmdebstrap", "--variant=minbase", "--mode=root",
			"--include="+strings.Join(packages, ","), "bookworm", tmp)
		if err != nil {
			return err
		}
		if err := os.Rename(tmp, tar); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return run(ctx, "tar", "-C", dir, "--numeric-owner", "-xf", tar)
}

// Chroot is an unpacked system in which commands are run at native speed, under
// the kernel of this machine.
type Chroot struct {
	Dir   string
	Binds map[string]string // path on the host to path in the system
}

// Run runs a shell script as root and returns its output. The mounts live in a
// mount namespace of their own and go with it. An error contains the output.
func (c Chroot) Run(ctx context.Context, script string) (string, error) {
	mounts := []string{"mount --make-rprivate /"}
	for _, host := range sortedKeys(c.Binds) {
		target := filepath.Join(c.Dir, c.Binds[host])
		if err := os.MkdirAll(target, 0o755); err != nil {
			return "", err
		}
		mounts = append(mounts, fmt.Sprintf("mount --bind '%s' '%s'", host, target))
	}
	mounts = append(mounts,
		fmt.Sprintf("mount -t proc proc '%s/proc'", c.Dir),
		fmt.Sprintf("mount -t sysfs sys '%s/sys'", c.Dir),
		fmt.Sprintf("mount --rbind /dev '%s/dev'", c.Dir),
		`exec chroot "$1" /bin/sh -ec "$2"`)
	return output(ctx, "unshare", "-m", "sh", "-ec", strings.Join(mounts, " && "), "sh", c.Dir, script)
}

func run(ctx context.Context, name string, arg ...string) error {
	_, err := output(ctx, name, arg...)
	return err
}

func output(ctx context.Context, name string, arg ...string) (string, error) {
	var out strings.Builder
	cmd := exec.CommandContext(ctx, name, arg...)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8", "PATH=/usr/sbin:/usr/bin:/sbin:/bin")
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("running %s: %w\n%s", name, err, tail(out.String(), 4000))
	}
	return out.String(), nil
}

func tail(s string, n int) string {
	if len(s) > n {
		return "…" + s[len(s)-n:]
	}
	return s
}

func writeFile(path, text string, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		return err
	}
	return os.Chmod(path, mode)
}

// linkOrCopy makes dst the same file as src, or a copy on another file system.
func linkOrCopy(src, dst string) error {
	if os.Link(src, dst) == nil {
		return nil
	}
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(dst)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
