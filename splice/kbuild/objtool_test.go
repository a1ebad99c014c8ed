// SPDX-License-Identifier: Apache-2.0

package kbuild

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestObjtoolAtTheLink: kbuild runs objtool on vmlinux.o only, and the package has
// one for each architecture behind a wrapper.
func TestObjtoolAtTheLink(t *testing.T) {
	dir := t.TempDir()
	o := &Output{Dir: filepath.Join(dir, "out"), Materials: Materials{
		Arch: "x86", Source: filepath.Join(dir, "src"), Kbuild: filepath.Join(dir, "kbuild"),
	}}
	for path, text := range map[string]string{
		"src/scripts/Kbuild.include":        "",
		"src/scripts/Makefile.lib":          "objtool-args-y := --ibt --orc\ndelay-objtool := $(CONFIG_X86_KERNEL_IBT)\n",
		"out/include/config/auto.conf":      "CONFIG_OBJTOOL=y\n",
		"kbuild/tools/objtool/objtool":      "",
		"kbuild/tools/objtool/objtool.real": "",
	} {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	check := func(want ...string) {
		t.Helper()
		got, err := o.ObjtoolArgs(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		want[0] = filepath.Join(o.Kbuild, "tools/objtool", want[0])
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("command (-want +got):\n%s", d)
		}
	}
	check("objtool", "--ibt", "--orc")
	if err := os.WriteFile(filepath.Join(o.Dir, "include/config/auto.conf"), []byte("CONFIG_OBJTOOL=y\nCONFIG_X86_KERNEL_IBT=y\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(o.Kbuild, "tools/objtool/objtool.real-x86"), nil, 0o755); err != nil {
		t.Fatal(err)
	}
	check("objtool.real-x86", "--ibt", "--orc", "--link")
}
