// SPDX-License-Identifier: Apache-2.0

package kernels

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/upsplice/upsplice/plugins/backend"
	"github.com/upsplice/upsplice/plugins/conformance"
	"github.com/upsplice/upsplice/plugins/debian/internal/snapshot"
	"github.com/upsplice/upsplice/plugins/debian/internal/testarchive"
)

// setup returns a backend that sees only the test's archive, on a system without
// packages.
func setup(t *testing.T) (*Backend, *testarchive.Archive) {
	t.Helper()
	a := testarchive.New(t)
	t.Setenv("APT_CONFIG", a.Conf)
	return New(Config{Version: "test", Root: t.TempDir()}), a
}

func TestConforms(t *testing.T) {
	b, a := setup(t)
	conformance.Run(t, b, a.Fixtures())
}

func old() backend.Kernel { return testarchive.Kernel(testarchive.OldRelease, testarchive.OldVersion) }

func install(t *testing.T, b *Backend, status string, files ...string) {
	t.Helper()
	for _, f := range append(files, "var/lib/dpkg/status") {
		path := b.path(f)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(status), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func status(release, version, state string) string {
	return fmt.Sprintf("Package: linux-image-%s\nStatus: install ok %s\nArchitecture: amd64\nSource: linux-signed-amd64 (1)\nVersion: %s\nBuilt-Using: linux (= %s)\n\n",
		release, state, version, version)
}

func TestInstalled(t *testing.T) {
	b, _ := setup(t)
	install(t, b, status("6.1.0-899-cloud-amd64", "6.1.899-1", "config-files")+status(testarchive.OldRelease, testarchive.OldVersion, "installed"))
	k, err := b.Installed(t.Context(), testarchive.OldRelease)
	if d := cmp.Diff(old(), k); d != "" || err != nil {
		t.Errorf("Installed: %v %s", err, d)
	}
	// A package that was removed has no kernel.
	if _, err := b.Installed(t.Context(), "6.1.0-899-cloud-amd64"); !errors.Is(err, &backend.Error{Kind: backend.NotFound}) {
		t.Errorf("Installed of a removed package: %v", err)
	}
	install(t, b, "this is no status file\n")
	if _, err := b.Installed(t.Context(), testarchive.OldRelease); !errors.Is(err, &backend.Error{Kind: backend.Corrupt}) {
		t.Errorf("Installed with a damaged status file: %v", err)
	}
}

// The image of an installed kernel is used where it is, but only in the version
// that was asked for.
func TestInstalledImageIsUsed(t *testing.T) {
	b, a := setup(t)
	module := "lib/modules/" + testarchive.OldRelease + "/kernel/fs/x.ko"
	install(t, b, status(testarchive.OldRelease, testarchive.OldVersion, "installed"), "boot/vmlinuz-"+testarchive.OldRelease, module)
	a.Handle(func(w httpWriter, r *httpRequest) { t.Errorf("%s was downloaded", r.URL.Path); a.Serve(w, r) })
	req := backend.FetchRequest{Kernel: old(), Dir: t.TempDir(), Want: []backend.Want{backend.WantImage, backend.WantModules}}
	m, err := b.Fetch(t.Context(), req, nil)
	want := backend.Materials{Image: b.path("boot/vmlinuz-" + testarchive.OldRelease), Module: b.path(module), Modules: b.path("lib/modules/" + testarchive.OldRelease)}
	if d := cmp.Diff(want, m); d != "" || err != nil {
		t.Errorf("Fetch: %v %s", err, d)
	}
	a.Handle(nil)
	install(t, b, status(testarchive.OldRelease, testarchive.OldVersion+"+b1", "installed"))
	if m, err = b.Fetch(t.Context(), req, nil); err != nil || !strings.HasPrefix(m.Image, req.Dir) || !strings.HasPrefix(m.Modules, req.Dir) {
		t.Errorf("Fetch with another version installed: %+v, %v", m, err)
	}
}

// Modules come as the package has them, all of them, and one that is not compressed
// comes with the image.
func TestModules(t *testing.T) {
	b, _ := setup(t)
	for _, k := range []backend.Kernel{old(), testarchive.Kernel(testarchive.OtherRelease, testarchive.OtherVersion)} {
		dir := t.TempDir()
		for _, want := range [][]backend.Want{{backend.WantImage}, {backend.WantModules}, {backend.WantImage, backend.WantModules}} {
			m, err := b.Fetch(t.Context(), backend.FetchRequest{Kernel: k, Dir: dir, Want: want}, nil)
			if err != nil {
				t.Fatal(err)
			}
			if slices.Contains(want, backend.WantImage) {
				if text, err := os.ReadFile(m.Module); err != nil || string(text) != "module" {
					t.Errorf("%s, %v: module %q, %v", k.Release, want, text, err)
				}
			}
			if !slices.Contains(want, backend.WantModules) {
				continue
			}
			ext := ""
			if k.Release == testarchive.OtherRelease {
				ext = ".xz"
			}
			for _, name := range []string{"a", "b"} {
				if _, err := os.Stat(filepath.Join(m.Modules, "kernel/fs", name+".ko"+ext)); err != nil {
					t.Error(err)
				}
			}
		}
	}
}

// The package of the transaction is used where apt has put it.
func TestPackageFileIsUsed(t *testing.T) {
	b, a := setup(t)
	a.Handle(func(w httpWriter, r *httpRequest) { t.Errorf("%s was downloaded", r.URL.Path); a.Serve(w, r) })
	k := old()
	k.Path = a.Deb(k.Package, k.Version, "amd64")
	req := backend.FetchRequest{Kernel: k, Dir: t.TempDir(), Want: []backend.Want{backend.WantImage}}
	if _, err := b.Fetch(t.Context(), req, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(k.Path); err != nil {
		t.Errorf("the package of the transaction is no longer there: %v", err)
	}
	// Its changelog too: the kernel's own, not the signing package's.
	cs, err := b.Changes(t.Context(), testarchive.Kernel(testarchive.GoneRelease, testarchive.GoneVersion), k)
	want := []backend.Change{
		{Version: k.Version, Text: "New upstream stable update:"},
		{Version: k.Version, Text: "fix of 6.1.901+1 that takes two lines (CVE-2026-1234)", CVEs: []string{"CVE-2026-1234"}},
	}
	if d := cmp.Diff(want, cs); d != "" || err != nil {
		t.Errorf("Changes: %v %s", err, d)
	}
}

// What was prepared needs neither apt nor the network.
func TestPreparedNeedsNothing(t *testing.T) {
	b, _ := setup(t)
	req := backend.FetchRequest{Kernel: old(), Dir: t.TempDir()}
	first, err := b.Fetch(t.Context(), req, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", "/nonexistent")
	again, err := b.Fetch(t.Context(), req, nil)
	if d := cmp.Diff(first, again); d != "" || err != nil {
		t.Errorf("without any program: %v %s", err, d)
	}
	req.Dir = t.TempDir()
	if _, err := b.Fetch(t.Context(), req, nil); !errors.Is(err, &backend.Error{Kind: backend.Internal}) || !strings.Contains(err.Error(), "apt-cache") {
		t.Errorf("without apt: %v", err)
	}
}

func TestKernelOfAnotherSeries(t *testing.T) {
	b, _ := setup(t)
	k := testarchive.Kernel(testarchive.OtherRelease, testarchive.OtherVersion)
	m, err := b.Fetch(t.Context(), backend.FetchRequest{Kernel: k, Dir: t.TempDir()}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(m.Kbuild, "usr/lib/linux-kbuild-6.12.101+deb12") || m.Compiler != "gcc-12" {
		t.Errorf("materials %+v", m)
	}
	ks, err := b.Available(t.Context(), "6.1-cloud-amd64")
	if err != nil || len(ks) != 2 {
		t.Errorf("Available = %v, %v; want the two of series 6.1", ks, err)
	}
}

// The headers tree must be usable from where it stands.
func TestHeadersTree(t *testing.T) {
	b, _ := setup(t)
	m, err := b.Fetch(t.Context(), backend.FetchRequest{Kernel: old(), Dir: t.TempDir(), Want: []backend.Want{backend.WantHeaders}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"scripts/basic/fixdep", "include/generated/autoconf.h", "../linux-headers-6.1.0-901-common/include/linux/x.h"} {
		if _, err := os.Stat(filepath.Join(m.Headers, p)); err != nil {
			t.Error(err)
		}
	}
}

func TestSnapshot(t *testing.T) {
	b, a := setup(t)
	gone := testarchive.Kernel(testarchive.GoneRelease, testarchive.GoneVersion)
	req := backend.FetchRequest{Kernel: gone, Dir: t.TempDir()}
	b.config.Snapshot = &snapshot.Client{Base: a.URL}
	m, err := b.Fetch(t.Context(), req, nil)
	if err != nil {
		t.Fatal(err)
	}
	if m.SourceArchive == "" || m.Headers == "" || m.Image == "" || m.Compiler != "gcc-12" {
		t.Errorf("materials %+v", m)
	}
	b.config.Snapshot = &snapshot.Client{Base: "http://127.0.0.1:1"}
	req.Dir = t.TempDir()
	if _, err := b.Fetch(t.Context(), req, nil); !errors.Is(err, &backend.Error{Kind: backend.Unavailable}) {
		t.Errorf("with a snapshot archive that is down: %v", err)
	}
	none := testarchive.Kernel("6.1.0-800-cloud-amd64", "6.1.800-1")
	b.config.Snapshot = &snapshot.Client{Base: a.URL}
	_, err = b.Fetch(t.Context(), backend.FetchRequest{Kernel: none, Dir: t.TempDir()}, nil)
	if !errors.Is(err, &backend.Error{Kind: backend.NotFound}) {
		t.Errorf("what nobody has: %v", err)
	}
}
