// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/upsplice/upsplice/plugins/backend"
)

// answers is a backend that answers with its fields.
type answers struct {
	testBackend
	description backend.Description
	kernels     []backend.Kernel
	materials   backend.Materials
	changes     []backend.Change
	prebuilt    []backend.Prebuilt
}

func (a *answers) Describe(context.Context) (backend.Description, error) { return a.description, nil }

func (a *answers) Kernels(context.Context, []backend.Package) ([]backend.Kernel, error) {
	return a.kernels, nil
}

func (a *answers) Installed(context.Context, string) (backend.Kernel, error) {
	return a.kernels[0], nil
}

func (a *answers) Available(context.Context, string) ([]backend.Kernel, error) { return a.kernels, nil }

func (a *answers) Fetch(context.Context, backend.FetchRequest, func(backend.Progress)) (backend.Materials, error) {
	return a.materials, nil
}

func (a *answers) Changes(context.Context, backend.Kernel, backend.Kernel) ([]backend.Change, error) {
	return a.changes, nil
}

func (a *answers) Prebuilt(context.Context, backend.Kernel, backend.Kernel, string) ([]backend.Prebuilt, error) {
	return a.prebuilt, nil
}

var goodKernel = backend.Kernel{Release: "6.1.0-56-cloud-amd64", Flavour: "cloud-amd64", Arch: "amd64",
	Package: "linux-image-6.1.0-56-cloud-amd64", Version: "1:6.1.192-2~deb12u1+b1", Source: "linux", SourceVersion: "6.1.192-2"}

func refused(t *testing.T, what string, err error) {
	t.Helper()
	var be *backend.Error
	if !errors.As(err, &be) || be.Kind != backend.Internal || !strings.HasPrefix(be.What, "answer to ") {
		t.Errorf("%s: error %v, want a refusal", what, err)
	}
}

func TestValidateKernels(t *testing.T) {
	packages := []backend.Package{{Path: "/a.deb"}, {Path: "/b.deb"}}
	with := func(change func(*backend.Kernel)) []backend.Kernel {
		k := goodKernel
		change(&k)
		return []backend.Kernel{k}
	}
	good := &answers{kernels: with(func(k *backend.Kernel) { k.Path = "/b.deb" })}
	if _, err := Validate(good).Kernels(t.Context(), packages); err != nil {
		t.Error(err)
	}
	refusedAll := map[string][]backend.Kernel{
		"release with a slash": with(func(k *backend.Kernel) { k.Release = "../../etc" }),
		"long release":         with(func(k *backend.Kernel) { k.Release = strings.Repeat("6", 65) }),
		"empty version":        with(func(k *backend.Kernel) { k.Version = "" }),
		"escape in a name":     with(func(k *backend.Kernel) { k.Package = "linux\x1b[0m" }),
		"option as a name":     with(func(k *backend.Kernel) { k.Source = "--help" }),
		"foreign path":         with(func(k *backend.Kernel) { k.Path = "/etc/shadow" }),
		"too many":             {goodKernel, goodKernel, goodKernel},
	}
	for name, ks := range refusedAll {
		_, err := Validate(&answers{kernels: ks}).Kernels(t.Context(), packages)
		refused(t, name, err)
	}
	_, err := Validate(&answers{kernels: []backend.Kernel{goodKernel}}).Installed(t.Context(), "other")
	refused(t, "another release", err)
	_, err = Validate(&answers{kernels: refusedAll["foreign path"]}).Available(t.Context(), "cloud-amd64")
	refused(t, "path in available", err)
}

func TestValidateMaterials(t *testing.T) {
	dir := t.TempDir()
	outside := filepath.Join(t.TempDir(), "outside")
	os.WriteFile(outside, nil, 0o644)
	file := func(name string) string {
		p := filepath.Join(dir, name)
		os.WriteFile(p, nil, 0o644)
		return p
	}
	sub := filepath.Join(dir, "sub")
	os.Mkdir(sub, 0o755)
	os.Symlink(outside, filepath.Join(dir, "link"))
	os.Symlink("sub", filepath.Join(dir, "inner"))
	good := backend.Materials{SourceArchive: file("source"), Headers: sub, Kbuild: filepath.Join(dir, "inner"),
		Config: file("config"), Image: file("image"), Module: file("module"), Modules: sub, Compiler: "gcc-12"}
	fetch := func(m backend.Materials, want ...backend.Want) error {
		_, err := Validate(&answers{materials: m}).Fetch(t.Context(),
			backend.FetchRequest{Kernel: goodKernel, Dir: dir, Want: want}, nil)
		return err
	}
	if err := fetch(good); err != nil {
		t.Error(err)
	}
	if err := fetch(backend.Materials{SourceArchive: good.SourceArchive}, backend.WantSource); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*backend.Materials){
		"missing":             func(m *backend.Materials) { m.Config = "" },
		"outside":             func(m *backend.Materials) { m.Config = outside },
		"link to outside":     func(m *backend.Materials) { m.Config = filepath.Join(dir, "link") },
		"dots":                func(m *backend.Materials) { m.Config = dir + "/../" + filepath.Base(dir) + "/config" },
		"relative":            func(m *backend.Materials) { m.Config = "config" },
		"does not exist":      func(m *backend.Materials) { m.Config = filepath.Join(dir, "none") },
		"directory for file":  func(m *backend.Materials) { m.Config = sub },
		"file for directory":  func(m *backend.Materials) { m.Headers = m.Config },
		"dir itself":          func(m *backend.Materials) { m.Headers = dir },
		"installed, no image": func(m *backend.Materials) { m.Config = "/etc/os-release" },
		"other boot file":     func(m *backend.Materials) { m.Image = "/boot/vmlinuz-other" },
		"no modules":          func(m *backend.Materials) { m.Modules = "" },
		"other modules":       func(m *backend.Materials) { m.Modules = "/lib/modules/other" },
		"file for modules":    func(m *backend.Materials) { m.Modules = m.Image },
		"compiler":            func(m *backend.Materials) { m.Compiler = "/tmp/gcc" },
		"compiler option":     func(m *backend.Materials) { m.Compiler = "-B/tmp" },
	} {
		m := good
		change(&m)
		refused(t, name, fetch(m))
	}
}

func TestValidateOthers(t *testing.T) {
	for name, cs := range map[string][]backend.Change{
		"version": {{Version: "a b"}},
		"CVE":     {{Version: "1", CVEs: []string{"CVE-1"}}},
		"CVEs":    {{Version: "1", CVEs: make([]string, maxCVEs+1)}},
	} {
		_, err := Validate(&answers{changes: cs}).Changes(t.Context(), goodKernel, goodKernel)
		refused(t, name, err)
	}
	cs, err := Validate(&testBackend{}).Changes(t.Context(), goodKernel, goodKernel)
	if err != nil || len(cs[0].Text) != maxText || strings.Contains(cs[0].Text, "\a") {
		t.Errorf("%d bytes of text, %v", len(cs[0].Text), err)
	}
	sum := strings.Repeat("a", 64)
	for name, p := range map[string]backend.Prebuilt{
		"scheme":   {URL: "file:///etc/passwd", SHA256: sum},
		"no host":  {URL: "https:///x", SHA256: sum},
		"checksum": {URL: "https://example.org/x", SHA256: "abc"},
	} {
		_, err := Validate(&answers{prebuilt: []backend.Prebuilt{p}}).Prebuilt(t.Context(), goodKernel, goodKernel, "")
		refused(t, name, err)
	}
	for name, d := range map[string]backend.Description{
		"no name":    {Systems: []string{"a"}},
		"no systems": {Name: "a"},
		"bad system": {Name: "a", Systems: []string{"a b"}},
	} {
		_, err := Validate(&answers{description: d}).Describe(t.Context())
		refused(t, name, err)
	}
}

func FuzzChecksums(f *testing.F) {
	f.Add(strings.Repeat("0", 64) + "  debian\n" + strings.Repeat("f", 64) + " *./fedora\n")
	f.Add("x  y\n")
	f.Fuzz(func(t *testing.T, in string) {
		sums, err := parseChecksums(strings.NewReader(in))
		for name, sum := range sums {
			if err != nil || !nameRE.MatchString(name) || len(sum) != 32 {
				t.Errorf("%q: %x, %v", name, sum, err)
			}
		}
	})
}

func FuzzCleanText(f *testing.F) {
	f.Add("plain", 3)
	f.Add("\x1b[31m\xffäöü\n", 7)
	f.Fuzz(func(t *testing.T, s string, limit int) {
		limit = min(max(limit, 0), 100)
		out := cleanText(s, limit)
		if len(out) > limit {
			t.Errorf("cleanText(%q, %d) = %q", s, limit, out)
		}
		if strings.ContainsAny(out, "\x1b\n\r\x00\x07") {
			t.Errorf("cleanText(%q) = %q", s, out)
		}
	})
}
