// SPDX-License-Identifier: Apache-2.0

package build

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/upsplice/upsplice/splice/kbuild"
	"github.com/upsplice/upsplice/splice/splicefile"
	"github.com/upsplice/upsplice/splice/tree"
)

func TestSortChanges(t *testing.T) {
	d := &tree.Delta{}
	for _, p := range []string{
		"Makefile", "fs/Kbuild", "fs/ext4/Makefile", "scripts/Makefile.lib", "scripts/Kbuild.include",
		"fs/ext4/mballoc.c", "arch/x86/entry/entry_64.S", "include/linux/fs.h", "fs/Kconfig",
		"scripts/mod/modpost.c", "scripts/gcc-plugins/x.c", "crypto/x.asn1", "arch/x86/entry/syscalls/syscall_64.tbl",
		"security/selinux/include/classmap.h", "scripts/asn1_compiler.c",
		"MAINTAINERS", ".gitignore", "arch/x86/boot/dts/x.dts", "rust/kernel/lib.rs", "fs/README.rst",
	} {
		d.Files = append(d.Files, tree.File{Path: p, Kind: "changed", Kept: true})
	}
	d.Files = append(d.Files, tree.File{Path: "arch/arm/mm/fault.c", Kind: "changed"})
	got := sortChanges(d)
	want := changes{
		sources: []string{"fs/ext4/mballoc.c", "arch/x86/entry/entry_64.S"},
		headers: []string{"include/linux/fs.h"},
		build:   []string{"Makefile", "fs/Kbuild", "fs/ext4/Makefile", "scripts/Makefile.lib", "scripts/Kbuild.include"},
		other:   []string{"scripts/gcc-plugins/x.c", "crypto/x.asn1", "arch/x86/entry/syscalls/syscall_64.tbl", "security/selinux/include/classmap.h", "scripts/asn1_compiler.c"},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(changes{})); diff != "" {
		t.Error(diff)
	}
}

func TestQueryTargets(t *testing.T) {
	for _, tc := range []struct {
		build []string
		want  []string
		all   bool
	}{
		{[]string{"fs/ext4/Makefile", "net/Makefile", "fs/ext4/Kbuild"}, []string{"fs/ext4/", "net/"}, false},
		{[]string{"fs/ext4/Makefile", "Makefile"}, nil, true},
		{[]string{"scripts/Makefile.build"}, nil, true},
		{[]string{"arch/x86/Makefile"}, nil, true},
		{[]string{"arch/x86/kernel/Makefile"}, []string{"arch/x86/kernel/"}, false},
	} {
		got, all := queryTargets(tc.build)
		if all != tc.all || cmp.Diff(tc.want, got) != "" {
			t.Errorf("%q: %q, %v", tc.build, got, all)
		}
	}
}

func unitOf(object string, args ...string) kbuild.Unit {
	return kbuild.Unit{Object: object, Source: strings.TrimSuffix(object, ".o") + ".c", Target: kbuild.Vmlinux, Args: args}
}

func TestPairs(t *testing.T) {
	other := unitOf("fs/source.o", "-O2")
	other.Source = "fs/elsewhere.c"
	module := unitOf("fs/target.o", "-O2")
	module.Target = "fs/target"
	pre := []kbuild.Unit{
		unitOf("fs/changed.o", "-O2", "-I/pre"), unitOf("fs/same.o", "-O2"), unitOf("fs/gone.o", "-O2"), unitOf("fs/flags.o", "-O2"),
		unitOf("fs/fewer.o", "-O2", "-g"), unitOf("fs/reached.o"), unitOf("fs/source.o", "-O2"), unitOf("fs/target.o", "-O2"),
	}
	post := []kbuild.Unit{
		unitOf("fs/changed.o", "-O2", "-I/pre"), unitOf("fs/same.o", "-O2"), unitOf("fs/new.o", "-O2"), unitOf("fs/flags.o", "-O3"),
		unitOf("fs/fewer.o", "-O2"), unitOf("fs/reached.o"), other, module,
	}
	got := make(map[string]string)
	for _, p := range pairs(pre, post, []string{"fs/changed.c", "fs/not-built.c"}, map[string]bool{"fs/reached.o": true}) {
		got[p.object] = p.line()
	}
	want := map[string]string{
		"fs/changed.o": "",
		"fs/reached.o": "",
		"fs/gone.o":    "the new kernel is built without this unit",
		"fs/new.o":     "the running kernel was built without this unit",
		"fs/flags.o":   "compiled with other options, the first is -O3",
		"fs/fewer.o":   "compiled with fewer options",
		"fs/source.o":  "compiled from fs/elsewhere.c instead of fs/source.c",
		"fs/target.o":  "part of fs/target instead of vmlinux",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got := unclaimed([]string{"fs/changed.c", "fs/included.c"}, pre, post); len(got) != 1 || got[0] != "fs/included.c" {
		t.Errorf("unclaimed: %q", got)
	}
}

func TestMovedAndMerged(t *testing.T) {
	units := []kbuild.Unit{unitOf("fs/a.o", "-I/t/1/include", "-O2", "/t/1/fs/a.c"), unitOf("net/b.o", "/t/1/net/b.c")}
	got := moved(units, "/t/1", "/t/22")
	if got[0].Args[0] != "-I/t/22/include" || got[1].Args[0] != "/t/22/net/b.c" || units[0].Args[0] != "-I/t/1/include" {
		t.Errorf("%+v from %+v", got, units)
	}
	merged := mergeUnits(units, []kbuild.Unit{unitOf("fs/new.o")}, []string{"fs/"})
	if len(merged) != 2 || merged[0].Object != "fs/new.o" || merged[1].Object != "net/b.o" {
		t.Errorf("%+v", merged)
	}
}

func TestConfigChanges(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		d := filepath.Join(dir, name)
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(d, ".config"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return d
	}
	a := write("a", "# comment\nCONFIG_A=y\nCONFIG_B=m\nCONFIG_BUILD_SALT=\"1\"\nCONFIG_C=1\n# CONFIG_D is not set\n")
	b := write("b", "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_BUILD_SALT=\"2\"\nCONFIG_C=2\nCONFIG_D=y\n")
	got, err := configChanges(a, b)
	if diff := cmp.Diff([]string{"CONFIG_B", "CONFIG_C", "CONFIG_D"}, got); diff != "" || err != nil {
		t.Error(diff, err)
	}
	if got, err := configChanges(a, ""); got != nil || err != nil {
		t.Errorf("without the new headers: %v, %v", got, err)
	}
	if _, err := configChanges(a, dir); err == nil {
		t.Error("no .config: no error")
	}
}

func TestScreen(t *testing.T) {
	u := unitOf("fs/a.o")
	codes := func(target string) (codes []string) {
		u := u
		u.Target = target
		c := &candidate{pair: pair{object: u.Object, pre: &u, post: &u}}
		c.screen()
		for _, r := range c.reasons {
			codes = append(codes, r.Code)
		}
		return codes
	}
	for target, want := range map[string][]string{kbuild.Vmlinux: nil, kbuild.Elsewhere: {"init"}, "fs/a": nil} {
		if diff := cmp.Diff(want, codes(target)); diff != "" {
			t.Errorf("%s: %s", target, diff)
		}
	}
	c := &candidate{pair: pair{object: u.Object, post: &u}}
	if c.screen(); len(c.reasons) != 1 || c.reasons[0].Code != "flags" {
		t.Errorf("a new unit: %+v", c.reasons)
	}
}

func TestRefusalCode(t *testing.T) {
	for reason, want := range map[string]string{
		"init: runs only at boot": "init", "no fentry: x": "no-fentry", "existing data changed: x": "data", "weak: x": "weak", "custom code: x": "custom", "anything else": "section",
	} {
		if got := refusalCode(reason); got != want {
			t.Errorf("%q: %s", reason, got)
		}
	}
}

func TestDeferredFiles(t *testing.T) {
	g := deferredFiles("header", "why", []string{"a.h", "b.h"})
	want := []splicefile.Reason{{Code: "header", What: "a.h", Detail: "why"}, {Code: "header", What: "b.h", Detail: "why"}}
	if diff := cmp.Diff(want, g.Reasons); diff != "" || g.Live || g.Units == nil {
		t.Error(diff)
	}
}
