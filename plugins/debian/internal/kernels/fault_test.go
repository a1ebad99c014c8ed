// SPDX-License-Identifier: Apache-2.0

package kernels

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/upsplice/upsplice/plugins/backend"
	"github.com/upsplice/upsplice/plugins/debian/internal/testarchive"
)

type (
	httpWriter  = http.ResponseWriter
	httpRequest = http.Request
)

func wantKind(t *testing.T, err error, kind backend.Kind) {
	t.Helper()
	if !errors.Is(err, &backend.Error{Kind: kind}) {
		t.Fatalf("error %v, want kind %q", err, kind)
	}
}

// The mirror goes away in the middle of the source. When it is back, only what is
// not complete is downloaded.
func TestMirrorGoesAway(t *testing.T) {
	b, a := setup(t)
	a.Handle(func(w httpWriter, r *httpRequest) {
		if !strings.Contains(r.URL.Path, "linux-source") {
			a.Serve(w, r)
			return
		}
		data, err := os.ReadFile(filepath.Join(a.Pool, filepath.Base(r.URL.Path)))
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		w.Write(data[:len(data)/2])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	req := backend.FetchRequest{Kernel: old(), Dir: t.TempDir()}
	_, err := b.Fetch(t.Context(), req, nil)
	wantKind(t, err, backend.Unavailable)
	a.Handle(func(w httpWriter, r *httpRequest) {
		if !strings.Contains(r.URL.Path, "linux-source") {
			t.Errorf("%s is downloaded again", r.URL.Path)
		}
		a.Serve(w, r)
	})
	if _, err := b.Fetch(t.Context(), req, nil); err != nil {
		t.Fatal(err)
	}
}

func TestMirrorServesGarbage(t *testing.T) {
	b, a := setup(t)
	a.Handle(func(w httpWriter, r *httpRequest) {
		data, err := os.ReadFile(filepath.Join(a.Pool, filepath.Base(r.URL.Path)))
		if err != nil {
			t.Error(err)
		}
		data[len(data)/2] ^= 1
		w.Write(data)
	})
	req := backend.FetchRequest{Kernel: old(), Dir: t.TempDir(), Want: []backend.Want{backend.WantSource}}
	_, err := b.Fetch(t.Context(), req, nil)
	wantKind(t, err, backend.Corrupt)
	a.Handle(nil)
	if _, err := b.Fetch(t.Context(), req, nil); err != nil {
		t.Errorf("after the mirror was repaired: %v", err)
	}
}

// The index promises what the mirror has dropped meanwhile.
func TestStaleIndex(t *testing.T) {
	b, a := setup(t)
	a.Handle(http.NotFound)
	_, err := b.Fetch(t.Context(), backend.FetchRequest{Kernel: old(), Dir: t.TempDir()}, nil)
	wantKind(t, err, backend.NotFound)
	if !strings.Contains(err.Error(), "apt-get update") {
		t.Errorf("error %v does not say what to do", err)
	}
}

// A package whose checksum is right, but whose content is not.
func TestCorruptPackages(t *testing.T) {
	b, a := setup(t)
	deb := a.Deb("linux-source-6.1", testarchive.OldVersion, "all")
	work := t.TempDir()
	data := filepath.Join(work, "data.tar.xz")
	run := func(name string, args ...string) {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Dir = work
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
	}
	run("ar", "x", deb)
	whole, err := os.ReadFile(data)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		"truncated": whole[:len(whole)/2],
		"flipped":   append(append(bytes.Clone(whole[:len(whole)/2]), ^whole[len(whole)/2]), whole[len(whole)/2+1:]...),
		"no xz":     []byte("something else"),
	} {
		if err := os.WriteFile(data, content, 0o644); err != nil {
			t.Fatal(err)
		}
		run("ar", "r", deb, "data.tar.xz")
		a.Update(t)
		dir := t.TempDir()
		_, err := b.Fetch(t.Context(), backend.FetchRequest{Kernel: old(), Dir: dir, Want: []backend.Want{backend.WantSource}}, nil)
		if !errors.Is(err, &backend.Error{Kind: backend.Corrupt}) {
			t.Errorf("%s: error %v, want kind corrupt", name, err)
		}
		if left, _ := os.ReadDir(filepath.Join(dir, "source")); len(left) > 0 && !strings.HasPrefix(left[0].Name(), tmpPrefix) {
			t.Errorf("%s: %v stands there as if it were whole", name, left[0])
		}
	}
}

// Sizes at which the disk fills up in the download and in each unpacking.
func TestFullDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("only root can mount a small file system")
	}
	b, _ := setup(t)
	dir := t.TempDir()
	mounted := 0
	for _, size := range []string{"64k", "300k", "700k", "1000k"} {
		if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size+",mode=0755"); err != nil {
			t.Fatalf("mounting: %v", err)
		}
		mounted++
		_, err := b.Fetch(t.Context(), backend.FetchRequest{Kernel: old(), Dir: dir}, nil)
		if err != nil {
			var be *backend.Error
			if !errors.As(err, &be) || be.Kind != backend.NoSpace || be.Remedy == "" {
				t.Errorf("%s: error %v, want kind no space", size, err)
			}
		} else if size == "64k" {
			t.Error("the disk was not full")
		}
		// With room it goes on in the same directory.
		if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=8m"); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Fetch(t.Context(), backend.FetchRequest{Kernel: old(), Dir: dir}, nil); err != nil {
			t.Errorf("%s: after space was freed: %v", size, err)
		}
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Fatal(err)
		}
	}
}

// A fetch that was killed leaves temporary files; they are removed, and not taken
// for materials.
func TestLeftovers(t *testing.T) {
	b, _ := setup(t)
	dir := t.TempDir()
	for _, p := range []string{"source/" + tmpPrefix + "linux-source-6.1_6.1.901-1.tar.xz", "headers/" + tmpPrefix + "1/usr/x", "image/" + tmpPrefix + "2/boot/x"} {
		os.MkdirAll(filepath.Dir(filepath.Join(dir, p)), 0o755)
		if err := os.WriteFile(filepath.Join(dir, p), []byte("half"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.Fetch(t.Context(), backend.FetchRequest{Kernel: old(), Dir: dir}, nil); err != nil {
		t.Fatal(err)
	}
	filepath.WalkDir(dir, func(p string, _ os.DirEntry, _ error) error {
		if strings.Contains(p, tmpPrefix) {
			t.Errorf("%s is left", p)
		}
		return nil
	})
	if left, _ := os.ReadDir(filepath.Join(dir, "download")); len(left) != 0 {
		t.Errorf("downloads are left: %v", left)
	}
}

func TestStrangeKernels(t *testing.T) {
	b, _ := setup(t)
	for name, change := range map[string]func(*backend.Kernel){
		"release":        func(k *backend.Kernel) { k.Release = "5.15.0-1-generic/../x" },
		"version":        func(k *backend.Kernel) { k.Version = "-o Dir=/" },
		"source version": func(k *backend.Kernel) { k.SourceVersion = "" },
		"package":        func(k *backend.Kernel) { k.Package = "--help" },
	} {
		k := old()
		change(&k)
		_, err := b.Fetch(context.Background(), backend.FetchRequest{Kernel: k, Dir: t.TempDir()}, nil)
		if !errors.Is(err, &backend.Error{Kind: backend.Unsupported}) {
			t.Errorf("%s: error %v, want kind unsupported", name, err)
		}
	}
}
