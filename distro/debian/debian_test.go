// SPDX-License-Identifier: Apache-2.0

package debian

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/upsplice/upsplice/distro/changelog"
	"github.com/upsplice/upsplice/distro/deb822"
	"github.com/upsplice/upsplice/distro/debversion"
)

func TestKernelPackage(t *testing.T) {
	for name, want := range map[string]Release{
		"linux-image-6.1.0-56-amd64":                      {"6.1.0", "-56", "", "amd64"},
		"linux-image-6.1.0-56-cloud-amd64":                {"6.1.0", "-56", "", "cloud-amd64"},
		"linux-image-6.1.0-56-cloud-amd64-unsigned":       {"6.1.0", "-56", "", "cloud-amd64"},
		"linux-image-6.1.0-56-rt-amd64":                   {"6.1.0", "-56", "rt", "rt-amd64"},
		"linux-image-6.1.0-56-686-pae":                    {"6.1.0", "-56", "", "686-pae"},
		"linux-image-6.1.0-56-686":                        {"6.1.0", "-56", "", "686"},
		"linux-image-6.1.0-56-4kc-malta":                  {"6.1.0", "-56", "", "4kc-malta"},
		"linux-image-6.1.0-0.deb11.5-cloud-amd64":         {"6.1.0", "-0.deb11.5", "", "cloud-amd64"},
		"linux-image-5.10.0-0.bpo.4-amd64":                {"5.10.0", "-0.bpo.4", "", "amd64"},
		"linux-image-6.12.12+bpo-amd64":                   {"6.12.12", "+bpo", "", "amd64"},
		"linux-image-6.12.107+deb12-cloud-amd64":          {"6.12.107", "+deb12", "", "cloud-amd64"},
		"linux-image-6.12.107+deb13-arm64-16k":            {"6.12.107", "+deb13", "", "arm64-16k"},
		"linux-image-6.12.9-amd64":                        {"6.12.9", "", "", "amd64"},
		"linux-image-6.12~rc6-amd64":                      {"6.12", "-rc6", "", "amd64"},
		"linux-image-6.1.0-trunk-amd64":                   {"6.1.0", "-trunk", "", "amd64"},
		"linux-image-amd64":                               {},
		"linux-image-cloud-amd64":                         {},
		"linux-image-rt-amd64":                            {},
		"linux-image-6.12-amd64":                          {},
		"linux-image-6.12-cloud-amd64":                    {},
		"linux-image-6.12-rt-amd64":                       {},
		"linux-image-6.1.0-56-amd64-dbg":                  {},
		"linux-image-6.1.0-56-amd64-dbgsym":               {},
		"linux-image-amd64-dbg":                           {},
		"linux-image-amd64-signed-template":               {},
		"linux-image-6.12-amd64-signed-template":          {},
		"linux-headers-6.1.0-56-amd64":                    {},
		"linux-image-":                                    {},
		"linux-image-6.1.0-56-":                           {},
		"linux-image-6.1.0-56-amd64/../../x":              {},
		"linux-image-6.1.0-56-" + strings.Repeat("a", 64): {},
	} {
		got, ok := KernelPackage(name)
		if ok != (want != Release{}) || got != want {
			t.Errorf("KernelPackage(%q) = %+v, %v; want %+v", name, got, ok, want)
		}
		if ok && !strings.HasPrefix(name, ImagePackages(got)[0]) {
			t.Errorf("ImagePackages(%v) = %v, not %q", got, ImagePackages(got), name)
		}
	}
}

func TestReleaseParts(t *testing.T) {
	r, err := ParseRelease("6.12.107+deb12-rt-amd64")
	if err != nil {
		t.Fatal(err)
	}
	got := []string{r.String(), r.ABIName(), r.Series(), HeadersPackage(r), SourcePackage(r), SourceArchive(r)}
	want := []string{"6.12.107+deb12-rt-amd64", "6.12.107+deb12", "6.12", "linux-headers-6.12.107+deb12-rt-amd64",
		"linux-source-6.12", "usr/src/linux-source-6.12.tar"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	_, err = ParseRelease("5.15.0-1-generic!")
	var ie *InvalidReleaseError
	if !errors.As(err, &ie) {
		t.Errorf("error %v, want an InvalidReleaseError", err)
	}
}

func paragraph(t *testing.T, s string) deb822.Paragraph {
	t.Helper()
	p, err := deb822.Parse(strings.NewReader(s))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestCompanions(t *testing.T) {
	for name, c := range map[string]struct {
		depends string
		want    Companions
	}{
		"bookworm": {
			"linux-headers-6.1.0-55-common (= 6.1.192-1), linux-kbuild-6.1 (>= 6.1.192-1), linux-compiler-gcc-12-x86",
			Companions{"h", deb822.Relation{Name: "linux-headers-6.1.0-55-common", Op: "=", Version: "6.1.192-1"},
				deb822.Relation{Name: "linux-kbuild-6.1", Op: ">=", Version: "6.1.192-1"}, "gcc-12"},
		},
		"backport": {
			"linux-base (>= 4.12~), linux-headers-6.12.107+deb12-common-rt (= 6.12.107-1~deb12u1), linux-image-6.12.107+deb12-rt-amd64 (= 6.12.107-1~deb12u1) | x, linux-kbuild-6.12.107+deb12, gcc-12",
			Companions{"h", deb822.Relation{Name: "linux-headers-6.12.107+deb12-common-rt", Op: "=", Version: "6.12.107-1~deb12u1"},
				deb822.Relation{Name: "linux-kbuild-6.12.107+deb12"}, "gcc-12"},
		},
		"trixie": {
			"linux-headers-6.12.48+deb13-common (= 1), linux-kbuild-6.12.48+deb13, gcc-14-for-host",
			Companions{"h", deb822.Relation{Name: "linux-headers-6.12.48+deb13-common", Op: "=", Version: "1"},
				deb822.Relation{Name: "linux-kbuild-6.12.48+deb13"}, "gcc-14"},
		},
	} {
		got, err := CompanionsOf(paragraph(t, "Package: h\nDepends: "+c.depends+"\n"))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
	for _, depends := range []string{"linux-kbuild-6.1", "linux-headers-6.1.0-55-common", "linux-headers-../../x-common, linux-kbuild-6.1"} {
		if _, err := CompanionsOf(paragraph(t, "Package: h\nDepends: "+depends+"\n")); err == nil {
			t.Errorf("CompanionsOf(%s): no error", depends)
		}
	}
}

func TestUsualCompanions(t *testing.T) {
	for release, want := range map[string][]string{
		"6.1.0-56-cloud-amd64":    {"linux-headers-6.1.0-56-common", "linux-kbuild-6.1", "linux-kbuild-6.1.0-56"},
		"6.1.0-56-rt-amd64":       {"linux-headers-6.1.0-56-common-rt", "linux-kbuild-6.1", "linux-kbuild-6.1.0-56"},
		"6.12.107+deb12-rt-amd64": {"linux-headers-6.12.107+deb12-common-rt", "linux-kbuild-6.12", "linux-kbuild-6.12.107+deb12"},
	} {
		r, err := ParseRelease(release)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, UsualCompanions(r)); d != "" {
			t.Errorf("%s: %s", release, d)
		}
	}
}

func TestCompiler(t *testing.T) {
	for in, want := range map[string]string{
		"override ARCH = x86\nCCACHE = ccache\nCC = $(if $(DEBIAN_KERNEL_USE_CCACHE),$(CCACHE)) $(CROSS_COMPILE)gcc-12\nifneq ($(A),$(B))\n": "gcc-12",
		"override CC = gcc-10\n":        "",
		"CC := gcc-14 \n":               "gcc-14",
		"CC = /tmp/evil\n":              "",
		"CC = sh -c 'x' ; gcc-12 -B/\n": "",
		"":                              "",
	} {
		if got, err := Compiler(strings.NewReader(in)); got != want || err != nil {
			t.Errorf("Compiler(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
}

func TestSourceOf(t *testing.T) {
	for in, want := range map[string]Source{
		"Package: i\nSource: linux-signed-amd64 (6.1.192+1)\nVersion: 6.1.192-1\nBuilt-Using: linux (= 6.1.192-1)\n":                                                            {"linux", "6.1.192-1"},
		"Package: i\nSource: linux-signed-6.12-amd64 (6.12.107+1~deb12u1)\nVersion: 6.12.107-1~deb12u1\nBuilt-Using: gcc-12 (= 12.2.0-14), linux-6.12 (= 6.12.107-1~deb12u1)\n": {"linux-6.12", "6.12.107-1~deb12u1"},
		"Package: i\nSource: linux-signed-6.12-amd64 (6.12.107+1~deb12u1)\nVersion: 6.12.107-1~deb12u1\n":                                                                       {"linux-6.12", "6.12.107-1~deb12u1"},
		"Package: i\nSource: linux\nVersion: 6.1.192-2\n":                                                                                                                       {"linux", "6.1.192-2"},
		"Package: i\nSource: linux (6.1.192-2)\nVersion: 6.1.192-2+b1\n":                                                                                                        {"linux", "6.1.192-2"},
	} {
		got, err := SourceOf(paragraph(t, in))
		if err != nil || got != want {
			t.Errorf("SourceOf(%q) = %v, %v; want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"Package: bash\nVersion: 5\n", "Package: i\nSource: linux\nVersion: x y\n"} {
		if got, err := SourceOf(paragraph(t, in)); err == nil {
			t.Errorf("SourceOf(%q) = %v, want an error", in, got)
		}
	}
}

func TestSourceEntry(t *testing.T) {
	signed := changelog.Entry{Source: "linux-signed-6.12-amd64", Version: "6.12.107+1~bpo12+1",
		Items: []changelog.Item{{Text: "Sign kernel from linux-6.12 6.12.107-1~bpo12+1"}, {Text: "ext4: fix"}}}
	want := changelog.Entry{Source: "linux-6.12", Version: "6.12.107-1~bpo12+1", Items: []changelog.Item{{Text: "ext4: fix"}}}
	if d := cmp.Diff(want, SourceEntry(signed)); d != "" {
		t.Error(d)
	}
	if len(signed.Items) != 2 {
		t.Error("SourceEntry changed its argument")
	}
	if d := cmp.Diff(want, SourceEntry(want)); d != "" {
		t.Error(d)
	}
}

func TestCompare(t *testing.T) {
	for _, c := range []struct {
		release, version string
		want             Relation
	}{
		{"6.1.0-56-cloud-amd64", "6.1.192-2", Update},
		{"6.1.0-55-cloud-amd64", "6.1.192-1+b1", Update},
		{"6.1.0-55-cloud-amd64", "6.1.192-1", Same},
		{"6.1.0-54-cloud-amd64", "6.1.190-1", Older},
		{"6.1.0-56-amd64", "6.1.192-2", OtherFlavour},
		{"6.1.0-56-rt-amd64", "6.1.192-2", OtherFlavour},
		{"6.12.107+deb12-cloud-amd64", "6.12.107-1~deb12u1", OtherSeries},
	} {
		got, err := Compare("6.1.0-55-cloud-amd64", "6.1.192-1", c.release, c.version)
		if err != nil || got != c.want {
			t.Errorf("Compare(%s, %s) = %q, %v; want %q", c.release, c.version, got, err, c.want)
		}
	}
	_, err := Compare("6.1.0-55-cloud-amd64", "6.1.192-1", "6.1.0-55-cloud-amd64", "six")
	var ie *debversion.InvalidError
	if !errors.As(err, &ie) {
		t.Errorf("error %v, want an InvalidError", err)
	}
}

func FuzzRelease(f *testing.F) {
	f.Add("6.1.0-56-cloud-amd64")
	f.Add("6.12.107+deb12-rt-amd64")
	f.Add("6.12-rc6-amd64")
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseRelease(s)
		if err == nil && r.String() != s {
			t.Errorf("ParseRelease(%q).String() = %q", s, r)
		}
		KernelPackage("linux-image-" + s)
	})
}
