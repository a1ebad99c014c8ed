// SPDX-License-Identifier: Apache-2.0

package tree

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func file(name, text string) tar.Header {
	return tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(text)), Uname: text}
}

func link(name, target string) tar.Header {
	return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}
}

// archiveOf makes a tar; the contents of a file stand in Uname.
func archiveOf(t testing.TB, entries ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		text := h.Uname
		h.Uname = ""
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, text); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func mustExtract(t *testing.T, archive []byte, dir string, opt Options) *Delta {
	t.Helper()
	d, err := Extract(t.Context(), bytes.NewReader(archive), dir, opt)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestDelta(t *testing.T) {
	tmp := t.TempDir()
	pre, post := filepath.Join(tmp, "pre"), filepath.Join(tmp, "post")
	text := "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\nk\nl\nm\nn\no\n"
	exec := file("l/scripts/check", "#!/bin/sh\n")
	exec.Mode = 0o755
	if d := mustExtract(t, archiveOf(t,
		tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"comment": "0123"}},
		tar.Header{Typeflag: tar.TypeDir, Name: "l/", Mode: 0o755},
		file("l/Makefile", "all:\n"),
		file("l/fs/same.c", "int same;\n"),
		file("l/fs/changed.c", text),
		file("l/fs/gone.c", "1\n2\n"),
		file("l/fs/binary", "\x00a"),
		file("l/arch/Kconfig", "config A\n"),
		file("l/arch/x86/entry.S", "nop\n"),
		file("l/arch/arm/entry.S", "mov\n"),
		file("l/arch/arm/same.S", "mov\n"),
		file("l/Documentation/gone.rst", "words\n"),
		file("l/tools/lib/bpf/relo_core.c", "int x;\n"),
		exec,
		link("l/include/dt/a.h", "../../fs/same.c"),
		link("l/include/dt/b.h", ".././../fs/same.c"),
	), pre, Options{Arch: "x86"}); d != nil {
		t.Errorf("a delta without a base: %v", d)
	}
	var told int64
	d := mustExtract(t, archiveOf(t,
		file("m/Makefile", "all:\n"),
		file("m/fs/same.c", "int same;\n"),
		file("m/fs/changed.c", "a\nB\nc\nd\ne\nf\ng\nh\ni\nj\nk\nl\nm\nN\nN2\no\n"),
		file("m/fs/new.c", "1\n2\n3"),
		file("m/fs/binary", "\x00b"),
		file("m/arch/Kconfig", "config A\n"),
		file("m/arch/x86/entry.S", "nop\n"),
		file("m/arch/arm/entry.S", "add\n"),
		file("m/arch/arm/same.S", "mov\n"),
		file("m/samples/new.c", "x\n"),
		file("m/tools/lib/bpf/relo_core.c", "int y;\n"),
		exec2(exec, "m/scripts/check"),
		link("m/include/dt/a.h", "../../fs/changed.c"),
		link("m/include/dt/b.h", ".././../fs/same.c"),
	), post, Options{Arch: "x86", Base: pre, Progress: func(n int64) { told = n }})

	want := []File{
		{Path: "Documentation/gone.rst", Kind: "removed"},
		{Path: "arch/arm/entry.S", Kind: "changed"},
		{Path: "fs/binary", Kind: "changed", Hunks: 1, Kept: true},
		{Path: "fs/changed.c", Kind: "changed", Hunks: 2, Added: 3, Removed: 2, Kept: true},
		{Path: "fs/gone.c", Kind: "removed", Hunks: 1, Removed: 2, Kept: true},
		{Path: "fs/new.c", Kind: "new", Hunks: 1, Added: 3, Kept: true},
		{Path: "include/dt/a.h", Kind: "changed", Kept: true},
		{Path: "samples/new.c", Kind: "new"},
		{Path: "tools/lib/bpf/relo_core.c", Kind: "changed", Hunks: 1, Added: 1, Removed: 1, Kept: true},
	}
	if diff := cmp.Diff(want, d.Files); diff != "" {
		t.Errorf("delta (-want +got):\n%s", diff)
	}
	if told == 0 {
		t.Error("no progress was reported")
	}

	for _, name := range []string{"fs/same.c", "arch/x86/entry.S", "scripts/check"} {
		a, b := stat(t, filepath.Join(pre, name)), stat(t, filepath.Join(post, name))
		if !os.SameFile(a, b) {
			t.Errorf("%s is equal in both but not a hard link", name)
		}
		if !b.ModTime().Equal(fixedTime) {
			t.Errorf("%s has the time %v", name, b.ModTime())
		}
	}
	if stat(t, filepath.Join(post, "scripts/check")).Mode()&0o111 == 0 {
		t.Error("the script lost its executable bits")
	}
	if got, _ := os.ReadFile(filepath.Join(post, "include/dt/a.h")); !strings.HasPrefix(string(got), "a\nB\n") {
		t.Errorf("through the link: %q", got)
	}
	for _, name := range []string{"arch/arm", "samples", "fs/gone.c"} {
		if _, err := os.Lstat(filepath.Join(post, name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is in the tree (%v)", name, err)
		}
	}
}

func exec2(h tar.Header, name string) tar.Header {
	h.Name = name
	return h
}

func stat(t *testing.T, name string) os.FileInfo {
	t.Helper()
	st, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func TestExtractRefuses(t *testing.T) {
	good := file("l/Makefile", "all:\n")
	whole := archiveOf(t, good, file("l/fs/a.c", strings.Repeat("x", 5000)))
	for _, tc := range []struct {
		name    string
		archive []byte
		opt     Options
		want    string
	}{
		{"parent", archiveOf(t, good, file("l/../../etc/cron.d/x", "x")), Options{}, "leads out of the tree"},
		{"parent at the start", archiveOf(t, file("../x", "x")), Options{}, "leads out of the tree"},
		{"absolute", archiveOf(t, good, file("/etc/passwd", "x")), Options{}, "leads out of the tree"},
		{"absolute link", archiveOf(t, good, link("l/a", "/etc")), Options{}, "leads out of the tree"},
		{"link out", archiveOf(t, good, link("l/fs/a", "../../x")), Options{}, "leads out of the tree"},
		{"link through a link", archiveOf(t, good, link("l/a/b/s", "../.."), link("l/a/b/t", "s/..")), Options{}, "leads out of the tree"},
		{"empty link", archiveOf(t, good, tar.Header{Typeflag: tar.TypeSymlink, Name: "l/a"}), Options{}, "leads out of the tree"},
		{"file through a link", archiveOf(t, good, link("l/d", "fs"), file("l/d/x", "x")), Options{}, "file exists"},
		{"file in the place of a directory", archiveOf(t, good, file("l/d", "x"), file("l/d/x", "x")), Options{}, "file exists"},
		{"device", archiveOf(t, good, tar.Header{Typeflag: tar.TypeBlock, Name: "l/sda", Devmajor: 8}), Options{}, "entry of type '4'"},
		{"fifo", archiveOf(t, good, tar.Header{Typeflag: tar.TypeFifo, Name: "l/p"}), Options{}, "entry of type '6'"},
		{"hard link", archiveOf(t, good, tar.Header{Typeflag: tar.TypeLink, Name: "l/p", Linkname: "/etc/shadow"}), Options{}, "entry of type '1'"},
		{"twice", archiveOf(t, good, good), Options{}, "twice in the archive"},
		{"two tops", archiveOf(t, good, file("m/x", "x")), Options{}, "not below l/"},
		{"new line", archiveOf(t, good, file("l/a\nb", "x")), Options{}, "no usable file name"},
		{"index", archiveOf(t, good, file("l/"+indexName, "x")), Options{}, "only an extracted tree has"},
		{"too large", whole, Options{MaxBytes: 4000}, "more than 4000 bytes"},
		{"empty", archiveOf(t), Options{}, "holds no files"},
		{"no archive", bytes.Repeat([]byte("no tar "), 500), Options{}, "invalid tar header"},
		{"nothing", nil, Options{}, "unexpected EOF"},
		{"cut in a header", whole[:300], Options{}, "unexpected EOF"},
		{"cut in a file", whole[:3000], Options{}, "unexpected EOF"},
		{"cut between files", whole[:1024], Options{}, "end mark of the archive is missing"},
		{"no base", whole, Options{Base: "nowhere"}, "reading the index of the base tree"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tmp := t.TempDir()
			_, err := Extract(t.Context(), bytes.NewReader(tc.archive), filepath.Join(tmp, "sub", "tree"), tc.opt)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got %v, want an error with %q", err, tc.want)
			}
			left, _ := filepath.Glob(filepath.Join(tmp, "sub", "*"))
			if len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

func TestExtractIntoExisting(t *testing.T) {
	dir := t.TempDir()
	_, err := Extract(t.Context(), bytes.NewReader(archiveOf(t, file("l/x", "x"))), dir, Options{})
	if err == nil || !strings.Contains(err.Error(), "exists already") {
		t.Fatal(err)
	}
}

// breaking is a stream that fails in its middle.
type breaking struct {
	io.Reader
	err error
}

func (b breaking) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err == io.EOF {
		err = b.err
	}
	return n, err
}

func TestExtractReadError(t *testing.T) {
	tmp := t.TempDir()
	whole := archiveOf(t, file("l/x", strings.Repeat("x", 4000)))
	_, err := Extract(t.Context(), breaking{bytes.NewReader(whole[:1000]), syscall.EIO}, filepath.Join(tmp, "tree"), Options{})
	if !errors.Is(err, syscall.EIO) {
		t.Errorf("got %v, want the error of the reader", err)
	}
}

func TestExtractCancel(t *testing.T) {
	tmp := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	whole := archiveOf(t, file("l/x", strings.Repeat("x", 5<<20)), file("l/y", "y"))
	_, err := Extract(ctx, bytes.NewReader(whole), filepath.Join(tmp, "tree"), Options{Progress: func(int64) { cancel() }})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	if left, _ := os.ReadDir(tmp); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// A base tree that somebody tidied up must not be mistaken for a difference.
func TestExtractDamagedBase(t *testing.T) {
	tmp := t.TempDir()
	pre := filepath.Join(tmp, "pre")
	mustExtract(t, archiveOf(t, file("l/fs/x", "x")), pre, Options{})
	if err := os.Remove(filepath.Join(pre, "fs", "x")); err != nil {
		t.Fatal(err)
	}
	_, err := Extract(t.Context(), bytes.NewReader(archiveOf(t, file("l/fs/x", "x"))), filepath.Join(tmp, "post"), Options{Base: pre})
	if err == nil || !strings.Contains(err.Error(), "reading the base tree") {
		t.Errorf("got %v, want an error of the base tree", err)
	}
	if left, _ := os.ReadDir(tmp); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}

func TestKeeps(t *testing.T) {
	for path, want := range map[string]bool{
		"Makefile": true, "Kbuild": true, "arch/Kconfig": true, "arch/x86/Makefile": true, "arch/arm/Makefile": false,
		"Documentation/x.rst": false, "tools/objtool/x.c": false, "tools/lib/bpf/relo_core.c": true,
		"samples/x.c": false, "drivers/tools/x.c": true, "scripts/Kbuild.include": true,
	} {
		if got := keeps(path, "x86"); got != want {
			t.Errorf("keeps(%q) = %v", path, got)
		}
	}
}

func TestCount(t *testing.T) {
	f := File{Kind: "changed"}
	count(&f, []byte("-- a\n"), []byte("++ b\n++ c\n"))
	if f.Hunks != 1 || f.Added != 2 || f.Removed != 1 {
		t.Errorf("lines that look like headers: %+v", f)
	}
	f = File{Kind: "changed"}
	count(&f, bytes.Repeat([]byte("x\n"), maxDiff), []byte("y\n"))
	if f.Hunks != 1 || f.Added != 1 || f.Removed != maxDiff {
		t.Errorf("large file: %+v", f)
	}
}

func FuzzExtract(f *testing.F) {
	f.Add(archiveOf(f, file("l/Makefile", "all:\n"), link("l/x/y", "../z"), file("l/tools/a", "b")))
	f.Add(archiveOf(f, file("../x", "x")))
	f.Add(archiveOf(f, file("l/a", "x"), link("l/b", "a"), file("l/b/c", "x")))
	f.Fuzz(func(t *testing.T, data []byte) {
		tmp := t.TempDir()
		dir := filepath.Join(tmp, "a", "tree")
		_, err := Extract(t.Context(), bytes.NewReader(data), dir, Options{Arch: "x86", MaxBytes: 1 << 20})
		outside, _ := os.ReadDir(tmp)
		if len(outside) > 1 {
			t.Errorf("written outside: %v", outside)
		}
		if err != nil {
			return
		}
		d, err := Extract(t.Context(), bytes.NewReader(data), filepath.Join(tmp, "b"), Options{Arch: "x86", Base: dir})
		if err != nil || len(d.Files) != 0 {
			t.Errorf("the same archive again: %+v, %v", d, err)
		}
	})
}

func FuzzIndex(f *testing.F) {
	f.Add(indexHeader + "\nk 0 0 fs/a.c\nd 12 ff tools/b c\n")
	f.Add(indexHeader + "\nk 0\n")
	f.Fuzz(func(t *testing.T, text string) {
		index, err := readIndex(strings.NewReader(text))
		if err != nil {
			return
		}
		dir := t.TempDir()
		if err := writeIndex(dir, index); err != nil {
			t.Fatal(err)
		}
		again, err := loadIndex(dir)
		if err != nil || len(again) != len(index) {
			t.Errorf("%d entries became %d: %v", len(index), len(again), err)
		}
	})
}
