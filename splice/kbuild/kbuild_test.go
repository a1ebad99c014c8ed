// SPDX-License-Identifier: Apache-2.0

package kbuild

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A compile line as `make -n` prints it, shortened, with the mark of Query.
const builtin = `set -e;  echo '  CC      fs/ext4/mballoc.o';    trap 'rm -f fs/ext4/mballoc.o; trap - HUP; kill -s HUP $$' HUP; ` +
	`gcc-12 -Wp,-MMD,fs/ext4/.mballoc.o.d -I./include -O2 -DKBUILD_MODFILE='"fs/ext4/ext4"' -DNAME="\"a b\"" -c -o fs/ext4/mballoc.o /src/fs/ext4/mballoc.c ` +
	` ; : upsplice-unit objtool=y in=obj modfile=fs/ext4/ext4 ;; scripts/basic/fixdep fs/ext4/.mballoc.o.d fs/ext4/mballoc.o ` +
	`'gcc-12 -O2 -DKBUILD_MODFILE='\''"fs/ext4/ext4"'\'' -c -o fs/ext4/mballoc.o /src/fs/ext4/mballoc.c  ; : upsplice-unit objtool=y in=obj modfile=fs/ext4/ext4 ;' > fs/ext4/.mballoc.o.cmd`

func TestParse(t *testing.T) {
	line := func(object, source, mark string) string {
		return "set -e;   trap 'rm -f x; kill $$' HUP; gcc-12 -O2 -c -o " + object + " " + source + "  ; : upsplice-unit " + mark + " ;; scripts/basic/fixdep x"
	}
	text := strings.Join([]string{
		"make[1]: Entering directory '/o'",
		builtin,
		line("drivers/block/virtio_blk.o", "/src/drivers/block/virtio_blk.c", "objtool=y in=module modfile=drivers/block/virtio_blk"),
		line("lib/string.o", "/src/lib/string.c", "objtool= in=lib modfile=lib/string"),
		line("lib/raid6/int1.o", "lib/raid6/int1.c", "objtool=y in=module modfile=lib/raid6/raid6_pq"),
		line("arch/x86/kvm/../../../virt/kvm/eventfd.o", "/src/arch/x86/kvm/../../../virt/kvm/eventfd.c", "objtool=y in=module modfile=arch/x86/kvm/kvm"),
		line("arch/x86/realmode/rm/wakemain.o", "/src/arch/x86/realmode/rm/wakemain.c", "objtool=  modfile=arch/x86/realmode/rm/wakemain"),
		"gcc -O2 -c -o scripts/mod/modpost.o /src/scripts/mod/modpost.c; scripts/basic/fixdep y",
		"set -e; ld -m elf_x86_64 -r -o fs/btrfs/btrfs.o @fs/btrfs/btrfs.mod  ; : upsplice-unit objtool=y in=module modfile=fs/btrfs/btrfs ;",
		":",
	}, "\n")
	got, err := parse(strings.NewReader(text), "/src")
	if err != nil {
		t.Fatal(err)
	}
	want := []Unit{
		{Object: "arch/x86/realmode/rm/wakemain.o", Source: "arch/x86/realmode/rm/wakemain.c", Target: Elsewhere},
		{Object: "drivers/block/virtio_blk.o", Source: "drivers/block/virtio_blk.c", Target: "drivers/block/virtio_blk", Objtool: true},
		{Object: "fs/ext4/mballoc.o", Source: "fs/ext4/mballoc.c", Target: Vmlinux, Objtool: true},
		{Object: "lib/raid6/int1.o", Source: "O:lib/raid6/int1.c", Target: "lib/raid6/raid6_pq", Objtool: true},
		{Object: "lib/string.o", Source: "lib/string.c", Target: Vmlinux},
		{Object: "virt/kvm/eventfd.o", Source: "virt/kvm/eventfd.c", Target: "arch/x86/kvm/kvm", Objtool: true},
	}
	args := got[2].Args
	for i := range got {
		got[i].Args = nil
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("units (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{
		"gcc-12", "-Wp,-MMD,fs/ext4/.mballoc.o.d", "-I./include", "-O2", `-DKBUILD_MODFILE="fs/ext4/ext4"`, `-DNAME="a b"`,
		"-c", "-o", "fs/ext4/mballoc.o", "/src/fs/ext4/mballoc.c",
	}, args); diff != "" {
		t.Errorf("arguments (-want +got):\n%s", diff)
	}
}

func TestParseRefuses(t *testing.T) {
	for name, line := range map[string]string{
		"expansion":      "gcc-12 -O2 $FLAGS -c -o a.o /src/a.c",
		"substitution":   "gcc-12 -O2 \"`id`\" -c -o a.o /src/a.c",
		"quote":          "gcc-12 -O2 '-DX -c -o a.o /src/a.c",
		"more words":     "gcc-12 -O2 -c -o a.o /src/a.c extra",
		"elsewhere":      "gcc-12 -O2 -c -o a.o /other/a.c",
		"above":          "gcc-12 -O2 -c -o ../../etc/a.o /src/a.c",
		"absolute":       "gcc-12 -O2 -c -o /etc/a.o /src/a.c",
		"no module name": "gcc-12 -O2 -c -o a.o /src/a.c",
	} {
		in := "in=obj modfile=a"
		if name == "no module name" {
			in = "in=module modfile="
		}
		got, err := parse(strings.NewReader(line+"  ; : upsplice-unit objtool=y "+in+" ;"), "/src")
		if err == nil {
			t.Errorf("%s: no error, got %+v", name, got)
		}
	}
	if _, err := parse(strings.NewReader(strings.Repeat("x", maxLine+1)), "/src"); err == nil {
		t.Error("a line without end: no error")
	}
}

func TestMissing(t *testing.T) {
	files, messages := missing(strings.NewReader(`make[4]: *** No rule to make target 'crypto/x.asn1.c', needed by 'crypto/x.asn1.o'.
make[4]: *** No rule to make target 'crypto/x.asn1.c', needed by 'crypto/y.o'.
make[3]: *** [/src/scripts/Makefile.build:508: crypto] Error 2
a warning
`))
	if diff := cmp.Diff([]string{"crypto/x.asn1.c"}, files); diff != "" {
		t.Error(diff)
	}
	if len(messages) != 3 {
		t.Errorf("messages: %q", messages)
	}
}

func TestCodec(t *testing.T) {
	units := []Unit{
		{Object: "a.o", Source: "a.c", Target: Vmlinux, Args: []string{"gcc", "-O2", "a.c"}, Objtool: true},
		{Object: "b.o", Source: "b.S", Target: "m", Args: []string{"gcc", "-O2", "b.S"}},
	}
	var b bytes.Buffer
	if err := EncodeUnits(&b, units); err != nil {
		t.Fatal(err)
	}
	got, err := DecodeUnits(bytes.NewReader(b.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(units, got); diff != "" {
		t.Error(diff)
	}
	for _, bad := range []string{"", "{}", `{"format":9}`, `{"format":1,"strings":["a"],"units":[{"o":0,"s":1,"t":0}]}`, b.String()[:b.Len()/2]} {
		if _, err := DecodeUnits(strings.NewReader(bad)); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

// small makes the least that Seed accepts, with a Makefile of the test's own.
func small(t *testing.T, makefile string) Materials {
	t.Helper()
	dir := t.TempDir()
	m := Materials{
		Release: "6.1.0-test", Arch: "x86", CC: "cc",
		Source: filepath.Join(dir, "src"), Headers: filepath.Join(dir, "headers"), Kbuild: filepath.Join(dir, "kbuild"),
	}
	for name, text := range map[string]string{
		"src/Makefile":                           makefile,
		"headers/.config":                        "A=y\nCONFIG_MODULE_SIG_KEY=\"out/key.pem\"\n",
		"headers/include/config/auto.conf":       "",
		"headers/include/generated/autoconf.h":   "",
		"headers/include/generated/utsversion.h": "#define UTS_VERSION \"#1\"\n",
		"headers/include/generated/utsrelease.h": `#define UTS_RELEASE "6.1.0-test"
`,
		"headers/arch/x86/include/generated/asm/a.h": "",
		"headers/include/config/kernel.release":      "6.1\n",
		"kbuild/scripts/basic/fixdep":                "#!/bin/sh\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

func TestSeed(t *testing.T) {
	m := small(t, "")
	dir := filepath.Join(t.TempDir(), "x", "out")
	o, err := Seed(t.Context(), dir, m)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{".config", "include/generated/autoconf.h", "arch/x86/include/generated/asm/a.h", "scripts/basic/fixdep", "scripts/asn1_compiler", "include/config/auto.conf.cmd", "init/utsversion-tmp.h", "out/key.pem"} {
		if _, err := os.Stat(filepath.Join(o.Dir, name)); err != nil {
			t.Error(err)
		}
	}
	config, _ := os.Stat(filepath.Join(dir, ".config"))
	auto, _ := os.Stat(filepath.Join(dir, "include/config/auto.conf"))
	if !config.ModTime().Before(auto.ModTime()) {
		t.Error(".config is newer than what is made from it")
	}
	if _, err := Seed(t.Context(), dir, m); err == nil {
		t.Error("seeding an existing directory: no error")
	}
}

func TestSeedRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*Materials)
		want   string
	}{
		"another release": {func(m *Materials) { m.Release = "6.1.0-other" }, "of another release"},
		"no headers":      {func(m *Materials) { m.Headers = "/nowhere" }, "needing the headers package"},
		"no kbuild":       {func(m *Materials) { m.Kbuild = "/nowhere" }, "needing the kbuild package"},
		"no source":       {func(m *Materials) { m.Source = "/nowhere" }, "needing the prepared source tree"},
		"no arch":         {func(m *Materials) { m.Arch = "../x" }, "no architecture"},
	} {
		m := small(t, "")
		tc.change(&m)
		tmp := t.TempDir()
		_, err := Seed(t.Context(), filepath.Join(tmp, "out"), m)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", name, err, tc.want)
		}
		if left, _ := os.ReadDir(tmp); len(left) != 0 {
			t.Errorf("%s: left behind %v", name, left)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	tmp := t.TempDir()
	if _, err := Seed(ctx, filepath.Join(tmp, "out"), small(t, "")); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if left, _ := os.ReadDir(tmp); len(left) != 0 {
		t.Errorf("cancelled: left behind %v", left)
	}
}

// A file that make does not know how to make gets a placeholder and a second try.
func TestQueryPlaceholder(t *testing.T) {
	m := small(t, "obj-list := a.o b.o\n"+
		"real-obj-y := a.o b.o\n"+
		"./: $(real-obj-y)\n"+
		"a.o:\n\t@$(CC) -O2 -c -o $@ $(CURDIR)/a.c $(cmd_objtool) x\n"+
		"b.o: $(O)/gen.h\n\t@$(CC) -O2 -c -o $@ $(CURDIR)/b.c $(cmd_objtool) x\n"+
		"$(O)/gen.h: gen-tool-that-is-not-here\n")
	o, err := Seed(t.Context(), filepath.Join(t.TempDir(), "out"), m)
	if err != nil {
		t.Fatal(err)
	}
	// make runs in the source tree here, where placeholders do not help.
	units, err := o.Query(t.Context())
	var incomplete *IncompleteError
	if !errors.As(err, &incomplete) || !strings.Contains(err.Error(), "gen-tool-that-is-not-here") {
		t.Errorf("got %v, want an IncompleteError that names the tool", err)
	}
	if len(units) != 1 || units[0].Object != "a.o" || units[0].Source != "a.c" {
		t.Errorf("units: %+v", units)
	}
	if _, err := os.Stat(filepath.Join(o.Dir, "gen-tool-that-is-not-here")); err != nil {
		t.Errorf("no placeholder: %v", err)
	}
}

func TestQueryErrors(t *testing.T) {
	o, err := Seed(t.Context(), filepath.Join(t.TempDir(), "out"), small(t, "$(error no such thing)\n"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := o.Query(t.Context()); err == nil || !strings.Contains(err.Error(), "no such thing") {
		t.Errorf("a failing make: %v", err)
	}
	for _, target := range []string{"", "-j", "A=b", "../x.o", "/x.o"} {
		if _, err := o.Query(t.Context(), target); err == nil || !strings.Contains(err.Error(), "not a target") {
			t.Errorf("target %q: %v", target, err)
		}
	}
	t.Setenv("PATH", t.TempDir())
	if _, err := o.Query(t.Context()); err == nil || !strings.Contains(err.Error(), "install the package make") {
		t.Errorf("without make: %v", err)
	}
}

func TestQueryCancel(t *testing.T) {
	o, err := Seed(t.Context(), filepath.Join(t.TempDir(), "out"), small(t, ".PHONY: ./\n./:\n\t+sleep 60\n"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	start := time.Now()
	if _, err := o.Query(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if d := time.Since(start); d > 20*time.Second {
		t.Errorf("took %v: the child of make was not killed", d)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(builtin)
	f.Add("gcc -c -o 'a' \"b\" \\ ; : upsplice-unit in=obj modfile=x ;")
	f.Fuzz(func(t *testing.T, text string) {
		units, err := parse(strings.NewReader(text), "/src")
		if err != nil {
			return
		}
		for _, u := range units {
			if u.Object == "" || u.Target == "" || filepath.IsAbs(u.Object) || len(u.Args) < 5 {
				t.Errorf("%+v", u)
			}
		}
	})
}

func FuzzDecodeUnits(f *testing.F) {
	f.Add(`{"format":1,"strings":["a"],"units":[{"o":0,"s":0,"t":0,"a":[0]}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		DecodeUnits(strings.NewReader(text))
	})
}
