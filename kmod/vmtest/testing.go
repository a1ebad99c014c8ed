// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/upsplice/upsplice/kmod/lab"
)

// RunInVM boots kernel with a tiny system, runs script in it (see Minimal) and
// returns what happened. Only a machine that cannot be run fails the test; what
// the guest did is for the caller to judge, often by Result.Err.
func RunInVM(t testing.TB, kernel lab.Kernel, script string, files map[string]string, change ...func(*Machine)) Result {
	t.Helper()
	dir := t.TempDir()
	root, image := filepath.Join(dir, "root"), filepath.Join(dir, "root.ext4")
	if err := Minimal(root, files, script); err != nil {
		t.Fatal(err)
	}
	if err := Ext4FromDir(t.Context(), root, image, 0); err != nil {
		t.Fatal(err)
	}
	m := Machine{Kernel: kernel.Vmlinuz, Disks: []Disk{{Path: image, Unsafe: true}}}
	for _, c := range change {
		c(&m)
	}
	r, err := m.Run(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// BuildStatic compiles a Go package, or with test set its test binary, so that it
// runs in the guest, and returns the path of the program.
func BuildStatic(t testing.TB, pkg string, test bool) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "program")
	args := []string{"build"}
	if test {
		args = []string{"test", "-c"}
	}
	cmd := exec.CommandContext(t.Context(), "go", append(args, "-o", out, pkg)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH=amd64", "GOOS=linux")
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building %s: %v\n%s", pkg, err, msg)
	}
	return out
}
