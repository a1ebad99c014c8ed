// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"archive/tar"
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const packagesText = `Package: linux-image-9.1.0-2-cloud-amd64
Source: linux-signed-amd64 (9.1.7+2)
Version: 9.1.7-2
Depends: kmod, initramfs-tools (>= 0.120+deb8u2) | linux-initramfs-tool
Description: something
 Version: of a continuation line
Built-Using: linux (= 9.1.7-2)

Package: linux-image-9.1.0-1-cloud-amd64
Version: 9.1.7-1
Depends: kmod
Built-Using: linux (= 9.1.7-1)

Package: linux-image-9.9-cloud-amd64
Version: 9.9.1-1
Depends: linux-image-9.9.1+deb1-cloud-amd64 (= 9.9.1-1)

Package: linux-image-cloud-amd64
Version: 9.1.7-2
Depends: linux-image-9.1.0-2-cloud-amd64 (= 9.1.7-2)

Package: linux-headers-9.1.0-1-cloud-amd64
Version: 9.1.7-1
Depends: linux-headers-9.1.0-1-common (= 9.1.7-1), linux-kbuild-9.1 (>= 9.1.7-1), linux-compiler-gcc-12-x86

Package: linux-kbuild-9.1
Version: 9.1.7-2

Package: linux-kbuild-9.1
Version: 9.1.3-1

Package: linux-source-9.1
Version: 9.1.7-2
`

func TestKernels(t *testing.T) {
	stanzas, err := parseStanzas(strings.NewReader(packagesText))
	if err != nil {
		t.Fatal(err)
	}
	got, series := kernels(stanzas)
	if series != "9.1" {
		t.Errorf("series = %q", series)
	}
	want := []Kernel{
		{Release: "9.1.0-2-cloud-amd64", Flavour: "cloud-amd64", Series: "9.1", Version: "9.1.7-2", HasSource: true},
		{
			Release: "9.1.0-1-cloud-amd64", Flavour: "cloud-amd64", Series: "9.1", Version: "9.1.7-1", HasHeaders: true,
			pkg: packages{
				common: pkgVersion{"linux-headers-9.1.0-1-common", "9.1.7-1"},
				kbuild: pkgVersion{"linux-kbuild-9.1", "9.1.7-2"},
			},
		},
	}
	for i := range want {
		want[i].pkg.image = pkgVersion{"linux-image-" + want[i].Release, want[i].Version}
		want[i].pkg.headers = pkgVersion{"linux-headers-" + want[i].Release, want[i].Version}
		want[i].pkg.source = pkgVersion{"linux-source-9.1", want[i].Version}
	}
	opt := cmp.AllowUnexported(Kernel{}, packages{}, pkgVersion{})
	if d := cmp.Diff(want, got, opt); d != "" {
		t.Errorf("kernels (-want +got):\n%s", d)
	}
}

func TestCandidatesPreferOneUpstreamVersion(t *testing.T) {
	k := func(v string, source bool) Kernel { return Kernel{Version: v, HasSource: source, HasHeaders: true} }
	got := candidates([]Kernel{k("6.1.1-1", true), k("6.1.1-2", true), k("6.1.3-1", true), k("6.1.5-1", true), k("6.1.5-2", false)})
	var names []string
	for _, p := range got {
		names = append(names, p[0].Version+" "+p[1].Version)
	}
	want := []string{"6.1.1-1 6.1.1-2", "6.1.3-1 6.1.5-1", "6.1.1-2 6.1.3-1"}
	if d := cmp.Diff(want, names); d != "" {
		t.Errorf("candidates (-want +got):\n%s", d)
	}
}

func TestCountDifferent(t *testing.T) {
	archive := func(files map[string]string) []byte {
		var buf bytes.Buffer
		tw := tar.NewWriter(&buf)
		for name, text := range files {
			tw.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text)), Typeflag: tar.TypeReg})
			tw.Write([]byte(text))
		}
		tw.Close()
		return buf.Bytes()
	}
	a, err := tarDigests(bytes.NewReader(archive(map[string]string{"x-1/same": "s", "x-1/changed": "a", "x-1/gone": "g"})))
	if err != nil {
		t.Fatal(err)
	}
	b, err := tarDigests(bytes.NewReader(archive(map[string]string{"./x-2/same": "s", "./x-2/changed": "b", "./x-2/new/1": "", "./x-2/new/2": ""})))
	if err != nil {
		t.Fatal(err)
	}
	if n := countDifferent(a, b); n != 4 {
		t.Errorf("%d files differ, want 4", n)
	}
	whole := archive(map[string]string{"x/a": strings.Repeat("a", 4096)})
	if _, err := tarDigests(bytes.NewReader(whole[:2000])); err == nil {
		t.Error("a truncated archive was accepted")
	}
}

func TestLockExcludes(t *testing.T) {
	name := filepath.Join(t.TempDir(), "lock")
	unlock, err := lock(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := lock(ctx, name); err == nil {
		t.Fatal("the lock was given twice")
	}
	unlock()
	again, err := lock(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	again()
}

// TestArchive works on the real archive: it also fetches what other tests need.
func TestArchive(t *testing.T) {
	all, err := List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	newest := NeedNewest(t, Image)
	if _, err := os.Stat(newest.Vmlinuz); err != nil {
		t.Error(err)
	}
	if !strings.HasSuffix(newest.AnyModule, ".ko") {
		t.Errorf("AnyModule = %q", newest.AnyModule)
	}
	for _, flavour := range []string{Cloud, Generic} {
		k := NeedBackport(t, flavour, Image)
		if k.Series == newest.Series || k.Flavour != flavour || !strings.HasSuffix(k.AnyModule, ".ko") {
			t.Errorf("backport %s: %+v", flavour, k)
		}
		if _, err := os.Stat(k.AnyModule); err != nil {
			t.Error(err)
		}
	}
	from, to := NeedPair(t)
	if from.Release == to.Release || from.Series != to.Series {
		t.Errorf("pair %s, %s", from, to)
	}
	if c, err := compareVersions(t.Context(), from.Version, to.Version); err != nil || c >= 0 {
		t.Errorf("pair %s, %s is not in order: %v", from, to, err)
	}
	for _, k := range []Kernel{from, to} {
		for _, p := range []string{k.Vmlinuz, k.AnyModule, k.SourceArchive, k.HeadersDir + "/.config", k.CommonDir + "/Makefile", k.KbuildDir + "/tools/objtool/objtool", k.HeadersDir + "/scripts/basic/fixdep"} {
			if st, err := os.Stat(p); err != nil || st.Size() == 0 {
				t.Errorf("%s: %q: %v", k, p, err)
			}
		}
		listed := false
		for _, l := range all {
			listed = listed || l.Release == k.Release
		}
		if !listed {
			t.Errorf("%s is not in the list", k)
		}
	}
	// A second call must find everything in place.
	stamp := filepath.Join(from.Root, ".complete-image")
	before, err := os.Stat(stamp)
	if err != nil {
		t.Fatal(err)
	}
	again := from
	if err := Fetch(t.Context(), &again); err != nil {
		t.Fatal(err)
	}
	after, err := os.Stat(stamp)
	if err != nil || !before.ModTime().Equal(after.ModTime()) {
		t.Errorf("unpacked again: %v", err)
	}
	if d := cmp.Diff(from, again, cmp.AllowUnexported(Kernel{}, packages{}, pkgVersion{})); d != "" {
		t.Errorf("the second Fetch differed: %s", d)
	}
}

func TestFetchOfMissingPackage(t *testing.T) {
	k := NeedNewest(t, Image)
	k.pkg.image.version = "0.0.0-0"
	err := Fetch(t.Context(), &k, Image)
	if err == nil || !strings.Contains(err.Error(), k.pkg.image.name) {
		t.Errorf("error = %v", err)
	}
	left, _ := filepath.Glob(filepath.Join(Dir(), "download-*"))
	if len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func FuzzParseStanzas(f *testing.F) {
	f.Add(packagesText)
	f.Add("Package: linux-headers-1.2-cloud-amd64\nDepends: linux-headers-( (= \n\n\n : \n")
	f.Fuzz(func(t *testing.T, in string) {
		stanzas, err := parseStanzas(strings.NewReader(in))
		if err != nil {
			return
		}
		all, _ := kernels(stanzas)
		for _, k := range all {
			if k.Release == "" || k.Series == "" {
				t.Errorf("kernel without a name: %+v", k)
			}
		}
	})
}
