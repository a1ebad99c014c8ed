// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/upsplice/upsplice/hook/rig"
	"github.com/upsplice/upsplice/kmod/lab"
	"github.com/upsplice/upsplice/splice/splicefile"
)

// archive is a Debian system with the package installed, in which the packages of a
// kernel can be had, but are not installed.
func archive(t *testing.T, k lab.Kernel) rig.Chroot {
	t.Helper()
	c := debian(t)
	pool := filepath.Join(c.Dir, "srv/kernel")
	if err := os.MkdirAll(pool, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, deb := range []string{k.ImageDeb, k.HeadersDeb, k.CommonDeb, k.KbuildDeb, k.SourceDeb} {
		copyInto(t, deb, pool)
	}
	// Suggested by the package; nothing of it is needed but the program.
	copyInto(t, "/usr/bin/git", filepath.Join(c.Dir, "usr/bin"))
	sh(t, c, `cd /srv/kernel && apt-ftparchive packages . >Packages
echo "deb [trusted=yes] file:/srv/kernel ./" >/etc/apt/sources.list
apt-get -q update && apt-get -q -y install /root/upsplice.deb`)
	return c
}

func copyInto(t *testing.T, path, dir string) {
	t.Helper()
	to := filepath.Join(dir, filepath.Base(path))
	if os.Link(path, to) == nil {
		return
	}
	if out, err := exec.Command("cp", path, to).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// status runs a command and returns what it prints and its exit code.
func status(t *testing.T, c rig.Chroot, command string) (out string, code int) {
	t.Helper()
	start := time.Now()
	defer func() { t.Logf("%.1f s: %s", time.Since(start).Seconds(), command) }()
	out = sh(t, c, "cd /root; set +e; { "+command+"; } 2>&1; code=$?; echo; echo \"status $code\"")
	at := strings.LastIndex(out, "\nstatus ")
	if _, err := fmt.Sscanf(out[at:], "\nstatus %d", &code); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(out[:at], "\n"), code
}

// TestCreate makes splices of patches as a user does it: from the packages of a kernel
// that is not installed, with the real backend, and the engine as the build user.
func TestCreate(t *testing.T) {
	k, _ := lab.NeedPair(t)
	c := archive(t, k)
	patches := filepath.Join(c.Dir, "root/p")
	// The build user cannot look into this directory.
	if err := os.Mkdir(patches, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"cmdline", "serial-first"} {
		copyInto(t, filepath.Join("testdata", name+".patch"), patches)
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(patches, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("astray.patch", "--- a/fs/proc/cmdline.c\n+++ b/fs/proc/cmdline.c\n@@ -8,2 +8,2 @@\n-\tnot_in_this_kernel(m);\n+\tnor_this(m);\n \treturn 0;\n")
	write("present.patch", "--- a/fs/proc/cmdline.c\n+++ b/fs/proc/cmdline.c\n@@ -8,4 +8,4 @@\n {\n \tseq_puts(m, saved_command_line);\n-\tseq_puts(m, \"old\\n\");\n+\tseq_putc(m, '\\n');\n \treturn 0;\n")
	create := "upsplice create --kernel " + k.Release + " "

	out, code := status(t, c, create+"--patch p/cmdline.patch --patch p/serial-first.patch --description 'two greetings' -o x.splice")
	if code != 0 {
		t.Fatalf("create ended with %d:\n%s", code, out)
	}
	wants(t, out, "patch +cmdline.patch, serial-first.patch\n", "live +drivers/block/virtio_blk.o\n", "live +fs/proc/cmdline.o\n", "written +x.splice")
	out, code = status(t, c, "upsplice show x.splice")
	wants(t, out, "kernel +"+k.Release, "description two greetings\n", "patch +serial-first.patch", "target +vmlinux ", "target +virtio_blk ")
	if code != 0 {
		t.Errorf("show ended with %d", code)
	}
	if owners := sh(t, c, "find /var/cache/upsplice -mindepth 1 ! -user _upsplice; find /var/cache/upsplice/tmp -mindepth 1"); owners != "" {
		t.Errorf("not of the build user, or left behind in the cache:\n%s", owners)
	}
	first := manifest(t, c, "x.splice")
	// What is in the splice does not depend on where and by whom it is made.
	if d := cmp.Diff(patched(t, k, "cmdline", "serial-first").Manifest.Modules, first.Modules); d != "" {
		t.Errorf("the modules of the same patches made elsewhere (-elsewhere +here):\n%s", d)
	}

	// The same change as a commit, and as two directories that hold the two files. A
	// branch changes what this kernel does not have.
	sh(t, c, `cd /root
tree=$(dirname "$(grep -L upsplice /var/cache/upsplice/trees/*/fs/proc/cmdline.c)")/../..
other=drivers/net/ethernet/broadcom/b44.c
for d in a b; do for f in fs/proc/cmdline.c drivers/block/virtio_blk.c $other; do install -D $tree/$f $d/$f; done; done
export HOME=/root
g() { git -C b -c user.name=a -c user.email=a@example.org "$@"; }
g init -q -b main && g add . && g commit -qm base
g checkout -q -b side && echo "int upsplice_side;" >>b/$other && g commit -qam side && g checkout -q main
g apply /root/p/cmdline.patch /root/p/serial-first.patch && g commit -qam change && g tag change
g merge -q -m merge side`)
	for name, form := range map[string]string{"commit": "--git b change", "directories": "--from a --to b"} {
		t.Run(name, func(t *testing.T) {
			if name == "directories" {
				sh(t, c, "mv /root/b/.git /root/repository; cp -r /root/a/drivers/net /root/b/drivers/")
				defer sh(t, c, "mv /root/repository /root/b/.git")
			}
			out, code := status(t, c, create+form+" -o y.splice")
			if code != 0 {
				t.Fatalf("create %s ended with %d:\n%s", form, code, out)
			}
			m := manifest(t, c, "y.splice")
			if d := cmp.Diff(first.Functions, m.Functions); d != "" || len(m.Patches) != 1 {
				t.Errorf("the functions (-patches +%s):\n%s%d patches", name, d, len(m.Patches))
			}
		})
	}

	for _, tt := range []struct {
		name, form string
		code       int
		says       []string
	}{
		{"does not apply", "--patch p/cmdline.patch --patch p/astray.patch", 4, []string{"refused.*patch", "astray.patch", "fs/proc/cmdline.c", "hunk 1"}},
		{"applied already", "--patch p/present.patch", 4, []string{"refused.*patch", "already"}},
		{"not of this kernel", "--git b side", 3, []string{"0 units of this kernel", "none of the .* is part of this kernel"}},
		{"merge", "--git b main", 1, []string{"merge of 2 commits", "use --patch"}},
		{"no such commit", "--git b nowhere", 1, []string{"no such commit"}},
		{"no such kernel", "--kernel 9.9-none --patch p/cmdline.patch", 1, []string{"9.9-none"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, code := status(t, c, create+tt.form+" -o z.splice")
			if code != tt.code || exists(c, "/root/z.splice") {
				t.Errorf("exit code %d, want %d, and no file", code, tt.code)
			}
			wants(t, out, tt.says...)
		})
	}
}

// wants demands expressions of what a command has printed.
func wants(t *testing.T, out string, expressions ...string) {
	t.Helper()
	for _, e := range expressions {
		if !regexp.MustCompile(e).MatchString(out) {
			t.Errorf("it does not say %q:\n%s", e, out)
		}
	}
}

func manifest(t *testing.T, c rig.Chroot, file string) (m splicefile.Manifest) {
	t.Helper()
	out, err := c.Run(context.Background(), "upsplice show --json /root/"+file)
	if err == nil {
		err = json.Unmarshal([]byte(out), &m)
	}
	if err != nil {
		t.Fatal(err)
	}
	return m
}
