// SPDX-License-Identifier: Apache-2.0

package deb

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

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/gzip"
	"github.com/ulikunitz/xz"

	"github.com/upsplice/upsplice/distro/archive"
)

type entry struct {
	name, content, link string
}

func tarball(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Mode: 0o644, Size: int64(len(e.content)), Typeflag: tar.TypeReg}
		switch {
		case strings.HasSuffix(e.name, "/"):
			h.Typeflag = tar.TypeDir
		case e.link != "":
			h.Typeflag, h.Linkname = tar.TypeSymlink, e.link
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, e.content)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func packed(t testing.TB, f archive.Format, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser = gzip.NewWriter(&b)
	if f == archive.Xz {
		var err error
		if w, err = xz.NewWriter(&b); err != nil {
			t.Fatal(err)
		}
	}
	w.Write(data)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

type member struct {
	name string
	data []byte
}

func ar(members ...member) []byte {
	b := bytes.NewBufferString(arMagic)
	for _, m := range members {
		fmt.Fprintf(b, "%-16s%-12d%-6d%-6d%-8s%-10d%s", m.name, 0, 0, 0, "100644", len(m.data), arEnd)
		b.Write(m.data)
		if len(m.data)%2 == 1 {
			b.WriteByte('\n')
		}
	}
	return b.Bytes()
}

const control = "Package: linux-image-6.1.0-56-cloud-amd64\nVersion: 6.1.192-2\nBuilt-Using: linux (= 6.1.192-2)\n"

var files = []entry{
	{name: "./"}, {name: "./boot/"},
	{name: "./boot/vmlinuz", content: strings.Repeat("kernel", 2000)},
	{name: "./usr/src/build", link: "../x"},
}

func good(t testing.TB) []byte {
	return ar(
		member{"debian-binary", []byte("2.0\n")},
		member{"control.tar.gz", packed(t, archive.Gzip, tarball(t, entry{name: "./"}, entry{name: "./md5sums", content: "x"}, entry{name: "./control", content: control}))},
		member{"data.tar.xz", packed(t, archive.Xz, tarball(t, files...))},
	)
}

func open(data []byte, opt Options) (*Package, error) {
	return Open(bytes.NewReader(data), int64(len(data)), opt)
}

// readAll does everything that can be done with a package.
func readAll(data []byte, opt Options) (names []string, err error) {
	p, err := open(data, opt)
	if err != nil {
		return nil, err
	}
	if _, err := p.Control(); err != nil {
		return nil, err
	}
	err = p.Walk(func(h *tar.Header, r io.Reader) error {
		names = append(names, h.Name)
		_, err := io.Copy(io.Discard, r)
		return err
	})
	return names, err
}

func TestRead(t *testing.T) {
	names, err := readAll(good(t), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{".", "boot", "boot/vmlinuz", "usr/src/build"}, names); d != "" {
		t.Error(d)
	}
	p, err := open(good(t), Options{})
	if err != nil {
		t.Fatal(err)
	}
	c, err := p.Control()
	if err != nil || c.Get("Version") != "6.1.192-2" {
		t.Errorf("Control() = %v, %v", c, err)
	}
	r, h, err := p.Open("boot/vmlinuz")
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if err != nil || string(got) != files[2].content || h.Size != int64(len(got)) {
		t.Errorf("Open(boot/vmlinuz) = %d bytes, %v", len(got), err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if _, _, err := p.Open("boot/nothing"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open(boot/nothing): %v, want fs.ErrNotExist", err)
	}
	n := 0
	err = p.Walk(func(*tar.Header, io.Reader) error { n++; return fs.SkipAll })
	if err != nil || n != 1 {
		t.Errorf("Walk with SkipAll: %d calls, %v", n, err)
	}
}

func TestTruncated(t *testing.T) {
	whole := good(t)
	for n := range whole {
		_, err := readAll(whole[:n], Options{})
		var fe *FormatError
		if !errors.As(err, &fe) {
			t.Fatalf("first %d of %d bytes: error %v, want a FormatError", n, len(whole), err)
		}
	}
}

func TestBadFiles(t *testing.T) {
	bin := member{"debian-binary", []byte("2.0\n")}
	ctl := member{"control.tar", tarball(t, entry{name: "control", content: control})}
	dat := member{"data.tar", tarball(t, files...)}
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"no ar":        {[]byte("PK\x03\x04 and more"), `archive at offset 0: starts with "PK`},
		"no version":   {ar(ctl, dat), "debian-binary at offset 0: is not the first member"},
		"version":      {ar(member{"debian-binary", []byte("3.0\n")}, ctl, dat), `format "3.0\n" is not 2.x`},
		"no data":      {ar(bin, ctl), "data.tar at offset"},
		"no control":   {ar(bin, member{"control.tar", tarball(t, entry{name: "x"})}, dat), "has no control file"},
		"bad control":  {ar(bin, member{"control.tar", tarball(t, entry{name: "control", content: "xxx"})}, dat), "line 1: is no field"},
		"name":         {ar(bin, ctl, member{"data.tar", tarball(t, entry{name: "../../etc/passwd"})}), "leads out of the package"},
		"empty data":   {ar(bin, ctl, member{"data.tar", nil}), "unexpected EOF"},
		"not tar":      {ar(bin, ctl, member{"data.tar", bytes.Repeat([]byte("x"), 1024)}), "data.tar at offset"},
		"many members": {ar(append([]member{bin}, make([]member, maxArMembers)...)...), "more than 16 members"},
	} {
		if _, err := readAll(c.data, Options{}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q in it", name, err, c.want)
		}
	}
}

func TestLimits(t *testing.T) {
	var le *archive.LimitError
	if _, err := readAll(good(t), Options{MaxData: 5000}); !errors.As(err, &le) {
		t.Errorf("data above the limit: %v, want a LimitError", err)
	}
	if _, err := readAll(good(t), Options{MaxControl: 600}); !errors.As(err, &le) {
		t.Errorf("control above the limit: %v, want a LimitError", err)
	}
	if _, err := readAll(good(t), Options{MaxFiles: 3}); err == nil || !strings.Contains(err.Error(), "more than 3 files") {
		t.Errorf("too many files: %v", err)
	}
}

// dpkg-deb writes the packages that this package has to read.
func TestAgainstDpkgDeb(t *testing.T) {
	if _, err := exec.LookPath("dpkg-deb"); err != nil {
		t.Fatal("no dpkg-deb on this system to compare with")
	}
	dir := t.TempDir()
	root := filepath.Join(dir, "root")
	os.MkdirAll(filepath.Join(root, "DEBIAN"), 0o755)
	os.MkdirAll(filepath.Join(root, "usr/src"), 0o755)
	os.WriteFile(filepath.Join(root, "DEBIAN/control"), []byte("Package: x\nVersion: 1\nArchitecture: all\nMaintainer: a <a@example.org>\nDescription: d\n long\n"), 0o644)
	os.WriteFile(filepath.Join(root, "usr/src/file"), bytes.Repeat([]byte("data "), 10000), 0o644)
	os.Symlink("file", filepath.Join(root, "usr/src/link"))
	for _, z := range []string{"none", "gzip", "xz", "zstd"} {
		out := filepath.Join(dir, z+".deb")
		if b, err := exec.Command("dpkg-deb", "--root-owner-group", "-Z"+z, "-b", root, out).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, b)
		}
		data, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		names, err := readAll(data, Options{})
		if err != nil {
			t.Errorf("%s: %v", z, err)
		}
		if d := cmp.Diff([]string{".", "usr", "usr/src", "usr/src/file", "usr/src/link"}, names); d != "" {
			t.Errorf("%s: %s", z, d)
		}
	}
}

func FuzzPackage(f *testing.F) {
	f.Add(good(f))
	bin := member{"debian-binary", []byte("2.0\n")}
	f.Add(ar(bin, member{"control.tar", tarball(f, entry{name: "control", content: control})}, member{"data.tar", tarball(f, files...)}))
	f.Add(good(f)[:300])
	f.Fuzz(func(t *testing.T, data []byte) {
		names, err := readAll(data, Options{MaxControl: 1 << 16, MaxData: 1 << 16, MaxFiles: 100})
		for _, n := range names {
			if n == ".." || strings.HasPrefix(n, "../") || strings.HasPrefix(n, "/") {
				t.Errorf("name %q leads out of the package (%v)", n, err)
			}
		}
	})
}
