// SPDX-License-Identifier: Apache-2.0

package unpack

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/upsplice/upsplice/distro/deb"
)

var day = time.Date(2026, 11, 16, 10, 0, 0, 0, time.UTC)

// build writes a .deb that dpkg-deb would not: its members can be anything.
func build(t testing.TB, compress bool, headers ...tar.Header) string {
	t.Helper()
	tarball := func(hs ...tar.Header) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, h := range hs {
			h.ModTime = day
			content := h.Uname // carries the content to here
			h.Uname, h.Size = "", int64(len(content))
			if err := w.WriteHeader(&h); err != nil {
				t.Fatal(err)
			}
			io.WriteString(w, content)
		}
		w.Close()
		return b.Bytes()
	}
	data, name := tarball(headers...), "data.tar"
	if compress {
		cmd := exec.Command("xz", "-c")
		cmd.Stdin = bytes.NewReader(data)
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		data, name = out, "data.tar.xz"
	}
	out := bytes.NewBufferString("!<arch>\n")
	for _, m := range []struct {
		name string
		data []byte
	}{{"debian-binary", []byte("2.0\n")}, {"control.tar", tarball(tar.Header{Name: "control", Uname: "Package: x\n"})}, {name, data}} {
		fmt.Fprintf(out, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", m.name, 0, 0, 0, "100644", len(m.data))
		out.Write(m.data)
		if len(m.data)%2 == 1 {
			out.WriteByte('\n')
		}
	}
	path := filepath.Join(t.TempDir(), "x.deb")
	if err := os.WriteFile(path, out.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func file(name, content string) tar.Header {
	return tar.Header{Name: name, Mode: 0o4777, Uname: content, Typeflag: tar.TypeReg}
}

func link(name, target string) tar.Header {
	return tar.Header{Name: name, Linkname: target, Typeflag: tar.TypeSymlink}
}

func tree(t *testing.T, path string) (map[string]string, error) {
	t.Helper()
	p, c, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	dir := filepath.Join(t.TempDir(), "outer", "root")
	os.MkdirAll(dir, 0o755)
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	err = Tree(p, root, func(name string) bool { return strings.HasPrefix(name, "usr/") }, func(int) {})
	got := map[string]string{}
	outer := filepath.Dir(filepath.Dir(dir))
	filepath.WalkDir(outer, func(p string, d fs.DirEntry, _ error) error {
		rel, _ := filepath.Rel(dir, p)
		switch {
		case d.Type()&fs.ModeSymlink != 0:
			target, _ := os.Readlink(p)
			got[rel] = "-> " + target
		case d.Type().IsRegular():
			b, _ := os.ReadFile(p)
			got[rel] = string(b)
		}
		return nil
	})
	return got, err
}

func TestTree(t *testing.T) {
	got, err := tree(t, build(t, true,
		file("./usr/src/a", "A"), file("./etc/not-wanted", "x"),
		link("./usr/src/relative", "../lib/k"), link("./usr/src/absolute", "/usr/lib/k"),
		link("./usr/src/outside", "../../../../etc"),
		tar.Header{Name: "./usr/src/hard", Linkname: "./usr/src/a", Typeflag: tar.TypeLink},
		tar.Header{Name: "./usr/src/device", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3},
		file("./usr/src/a", "B"),
	))
	want := map[string]string{"usr/src/a": "B", "usr/src/relative": "-> ../lib/k", "usr/src/absolute": "-> ../lib/k", "usr/src/hard": "B"}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Errorf("%v %s", err, d)
	}
}

// The classic: a link that leads out, then a file through it.
func TestTreeStaysInside(t *testing.T) {
	for name, headers := range map[string][]tar.Header{
		"file through a link": {link("usr/d", "/etc"), link("usr/l", ".."), file("usr/l/../../escaped", "x")},
		"name with dots":      {file("usr/../../escaped", "x")},
		"hard link outside":   {{Name: "usr/passwd", Linkname: "../../../../../../../etc/passwd", Typeflag: tar.TypeLink}},
		"through usr":         {link("usr/x", "../.."), file("usr/x/escaped", "x")},
	} {
		got, err := tree(t, build(t, false, headers...))
		for p, content := range got {
			if strings.HasPrefix(p, "..") || strings.HasPrefix(content, "root:") {
				t.Errorf("%s: %s = %.20q was written (%v)", name, p, content, err)
			}
		}
	}
}

func TestModesAndTimes(t *testing.T) {
	p, c, err := Open(t.Context(), build(t, false, file("usr/x", "x")))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	dir := t.TempDir()
	root, _ := os.OpenRoot(dir)
	defer root.Close()
	if err := Tree(p, root, func(string) bool { return true }, func(int) {}); err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(filepath.Join(dir, "usr/x"))
	if err != nil || fi.Mode() != 0o755 || !fi.ModTime().Equal(day) {
		t.Errorf("mode %v, time %v, %v; want neither set-uid nor writable by others", fi.Mode(), fi.ModTime(), err)
	}
}

func TestDamagedXz(t *testing.T) {
	path := build(t, true, file("usr/x", strings.Repeat("content", 10_000)))
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)-60] ^= 0xff
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = tree(t, path)
	var fe *deb.FormatError
	if !errors.As(err, &fe) || !strings.Contains(err.Error(), "data.tar.xz") {
		t.Errorf("error %v, want a FormatError", err)
	}
}

func TestFile(t *testing.T) {
	dst := filepath.Join(t.TempDir(), "x")
	if err := File(dst, strings.NewReader("new")); err != nil {
		t.Fatal(err)
	}
	bad := errors.New("broken")
	err := File(dst, io.MultiReader(strings.NewReader("half"), errReader{bad}))
	got, _ := os.ReadFile(dst)
	left, _ := os.ReadDir(filepath.Dir(dst))
	if !errors.Is(err, bad) || string(got) != "new" || len(left) != 1 {
		t.Errorf("after an error: %v, %q, %v", err, got, left)
	}
}

type errReader struct{ err error }

func (e errReader) Read([]byte) (int, error) { return 0, e.err }
