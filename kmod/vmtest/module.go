// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/upsplice/upsplice/kmod/lab"
)

// BuildModule compiles the C file source to a module of the given name for
// kernel, whose lab.Headers must have been fetched, and returns the path of the
// .ko. The headers are used where they lie: nothing is installed.
func BuildModule(t testing.TB, kernel lab.Kernel, source, name string, defines ...string) string {
	t.Helper()
	dir := t.TempDir()
	if err := copyFile(source, filepath.Join(dir, name+".c")); err != nil {
		t.Fatal(err)
	}
	kbuild := "obj-m := " + name + ".o\n"
	for _, d := range defines {
		kbuild += "ccflags-y += -D" + d + "\n"
	}
	if err := os.WriteFile(filepath.Join(dir, "Kbuild"), []byte(kbuild), 0o644); err != nil {
		t.Fatal(err)
	}
	// The Makefile of the headers includes the common one by its installed path.
	cmd := exec.CommandContext(t.Context(), "make", "-s", "-C", kernel.HeadersDir,
		"-f", filepath.Join(kernel.CommonDir, "Makefile"), "M="+dir, "modules")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building the module %s: %v\n%s", name, err, out)
	}
	return filepath.Join(dir, name+".ko")
}
