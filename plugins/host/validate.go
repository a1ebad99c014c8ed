// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/upsplice/upsplice/plugins/backend"
)

// Limits on what a backend may answer.
const (
	maxKernels  = 4096
	maxChanges  = 100_000
	maxCVEs     = 100 // of one change
	maxPrebuilt = 64
	maxSystems  = 64
	maxName     = 256  // bytes of names and versions
	maxText     = 4096 // bytes of texts for people
)

var (
	releaseRE  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+~-]{0,63}$`)
	wordRE     = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+~:^-]{0,255}$`)
	compilerRE = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$`)
	cveRE      = regexp.MustCompile(`^CVE-[0-9]{4}-[0-9]{4,9}$`)
	sha256RE   = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// Validate wraps a backend so that only answers come through that keep to the
// contract: lengths, counts, characters, and paths, which must lie where the
// request allows. Texts for people lose their control characters. An answer that
// does not is an error of kind Internal.
func Validate(b backend.Backend) backend.Backend { return &validated{next: b} }

type validated struct{ next backend.Backend }

var _ backend.Backend = (*validated)(nil)

func refuse(call, format string, args ...any) error {
	return &backend.Error{Kind: backend.Internal, What: "answer to " + call,
		Detail: cleanText(fmt.Sprintf(format, args...), maxText)}
}

// clean makes an error of the backend fit for a terminal.
func clean(err error) error {
	var e *backend.Error
	if !errors.As(err, &e) {
		return err
	}
	return &backend.Error{Kind: e.Kind, What: cleanText(e.What, maxText),
		Detail: cleanText(e.Detail, maxText), Remedy: cleanText(e.Remedy, maxText)}
}

// cleanText replaces control characters and what is no UTF-8, and cuts to limit bytes.
func cleanText(s string, limit int) string {
	if len(s) > limit {
		for limit > 0 && !utf8.RuneStart(s[limit]) {
			limit--
		}
		s = s[:limit]
	}
	return strings.Map(func(r rune) rune {
		switch {
		case r == utf8.RuneError:
			return '?'
		case r == '\n', r == '\t':
			return ' '
		case unicode.IsPrint(r):
			return r
		}
		return '?'
	}, s)
}

func (v *validated) Describe(ctx context.Context) (backend.Description, error) {
	d, err := v.next.Describe(ctx)
	if err != nil {
		return backend.Description{}, clean(err)
	}
	if !wordRE.MatchString(d.Name) || len(d.Systems) == 0 || len(d.Systems) > maxSystems {
		return backend.Description{}, refuse("describe", "name %.50q, %d systems", d.Name, len(d.Systems))
	}
	for _, s := range d.Systems {
		if !wordRE.MatchString(s) {
			return backend.Description{}, refuse("describe", "%.50q is no system", s)
		}
	}
	d.Version = cleanText(d.Version, maxName)
	return d, nil
}

// kernel checks the fields that every answer must have; paths are those allowed.
func kernel(call string, k backend.Kernel, paths ...string) error {
	if !releaseRE.MatchString(k.Release) {
		return refuse(call, "release %.80q", k.Release)
	}
	for name, s := range map[string]string{"flavour": k.Flavour, "architecture": k.Arch, "package": k.Package,
		"version": k.Version, "source": k.Source, "source version": k.SourceVersion} {
		if !wordRE.MatchString(s) {
			return refuse(call, "%s %.80q of %s", name, s, k.Release)
		}
	}
	if k.Path != "" && !slices.Contains(paths, k.Path) {
		return refuse(call, "path %.80q of %s was not in the request", k.Path, k.Release)
	}
	return nil
}

func kernels(call string, ks []backend.Kernel, paths ...string) error {
	if len(ks) > maxKernels {
		return refuse(call, "%d kernels", len(ks))
	}
	for _, k := range ks {
		if err := kernel(call, k, paths...); err != nil {
			return err
		}
	}
	return nil
}

func (v *validated) Kernels(ctx context.Context, packages []backend.Package) ([]backend.Kernel, error) {
	ks, err := v.next.Kernels(ctx, packages)
	if err != nil {
		return nil, clean(err)
	}
	var paths []string
	for _, p := range packages {
		paths = append(paths, p.Path)
	}
	if len(ks) > len(packages) {
		return nil, refuse("kernels", "%d kernels in %d packages", len(ks), len(packages))
	}
	return ks, kernels("kernels", ks, paths...)
}

func (v *validated) Installed(ctx context.Context, release string) (backend.Kernel, error) {
	k, err := v.next.Installed(ctx, release)
	if err != nil {
		return backend.Kernel{}, clean(err)
	}
	if k.Release != release {
		return backend.Kernel{}, refuse("installed", "release %.80q instead of %s", k.Release, release)
	}
	return k, kernel("installed", k)
}

func (v *validated) Available(ctx context.Context, flavour string) ([]backend.Kernel, error) {
	ks, err := v.next.Available(ctx, flavour)
	if err != nil {
		return nil, clean(err)
	}
	return ks, kernels("available", ks)
}

func (v *validated) Compare(ctx context.Context, a, b backend.Kernel) (int, error) {
	d, err := v.next.Compare(ctx, a, b)
	return d, clean(err)
}

func (v *validated) Fetch(ctx context.Context, req backend.FetchRequest, progress func(backend.Progress)) (backend.Materials, error) {
	m, err := v.next.Fetch(ctx, req, func(p backend.Progress) {
		if progress != nil {
			progress(backend.Progress{Text: cleanText(p.Text, maxName), Done: max(p.Done, 0), Total: max(p.Total, 0)})
		}
	})
	if err != nil {
		return backend.Materials{}, clean(err)
	}
	if err := materials(req, m); err != nil {
		return backend.Materials{}, err
	}
	return m, nil
}

func materials(req backend.FetchRequest, m backend.Materials) error {
	wants := func(w backend.Want) bool { return len(req.Want) == 0 || slices.Contains(req.Want, w) }
	for _, c := range []struct {
		name      string
		path      string
		want      bool
		dir       bool
		installed bool
	}{
		{"source archive", m.SourceArchive, wants(backend.WantSource), false, false},
		{"headers", m.Headers, wants(backend.WantHeaders), true, false},
		{"kbuild", m.Kbuild, wants(backend.WantHeaders), true, false},
		{"config", m.Config, wants(backend.WantHeaders), false, false},
		{"image", m.Image, wants(backend.WantImage), false, true},
		{"module", m.Module, wants(backend.WantImage), false, true},
		{"modules", m.Modules, wants(backend.WantModules), true, true},
	} {
		if c.path == "" {
			if c.want {
				return refuse("fetch", "%s is missing", c.name)
			}
			continue
		}
		if c.installed && installedPath(c.path, req.Kernel.Release, c.dir) {
			continue
		}
		if err := below(req.Dir, c.path, c.dir); err != nil {
			return refuse("fetch", "%s: %v", c.name, err)
		}
	}
	if m.Compiler != "" && !compilerRE.MatchString(m.Compiler) {
		return refuse("fetch", "compiler %.80q", m.Compiler)
	}
	return nil
}

// installedPath tells whether path is the image, a module, or the directory of the
// modules of an installed kernel. Only root can write there.
func installedPath(path, release string, dir bool) bool {
	if filepath.Clean(path) != path || !releaseRE.MatchString(release) {
		return false
	}
	if dir {
		fi, err := os.Lstat(path)
		return (path == "/lib/modules/"+release || path == "/usr/lib/modules/"+release) && err == nil && fi.IsDir()
	}
	if path == "/boot/vmlinuz-"+release || path == "/boot/vmlinux-"+release {
		return regular(path)
	}
	for _, dir := range []string{"/lib/modules/", "/usr/lib/modules/"} {
		if strings.HasPrefix(path, dir+release+"/kernel/") {
			return regular(path)
		}
	}
	return false
}

func regular(path string) bool {
	fi, err := os.Lstat(path)
	return err == nil && fi.Mode().IsRegular()
}

// below checks that path, also behind all its symbolic links, lies below dir.
func below(dir, path string, wantDir bool) error {
	if !filepath.IsAbs(path) || filepath.Clean(path) != path {
		return fmt.Errorf("%.200q is no clean absolute path", path)
	}
	root, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return err
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	rel, err := filepath.Rel(root, real)
	if err != nil || rel == "." || rel == ".." || strings.HasPrefix(rel, "../") {
		return fmt.Errorf("%.200q is not below %s", path, dir)
	}
	fi, err := os.Lstat(real)
	if err != nil {
		return err
	}
	want := fs.FileMode(0)
	if wantDir {
		want = fs.ModeDir
	}
	if fi.Mode().Type() != want {
		return fmt.Errorf("%.200q is a %v", path, fi.Mode().Type())
	}
	return nil
}

func (v *validated) Changes(ctx context.Context, from, to backend.Kernel) ([]backend.Change, error) {
	cs, err := v.next.Changes(ctx, from, to)
	if err != nil {
		return nil, clean(err)
	}
	if len(cs) > maxChanges {
		return nil, refuse("changes", "%d changes", len(cs))
	}
	for i := range cs {
		if !wordRE.MatchString(cs[i].Version) || len(cs[i].CVEs) > maxCVEs {
			return nil, refuse("changes", "version %.80q, %d CVEs", cs[i].Version, len(cs[i].CVEs))
		}
		for _, c := range cs[i].CVEs {
			if !cveRE.MatchString(c) {
				return nil, refuse("changes", "%.50q is no CVE", c)
			}
		}
		cs[i].Text = cleanText(cs[i].Text, maxText)
	}
	return cs, nil
}

func (v *validated) Prebuilt(ctx context.Context, from, to backend.Kernel, buildID string) ([]backend.Prebuilt, error) {
	ps, err := v.next.Prebuilt(ctx, from, to, buildID)
	if err != nil {
		return nil, clean(err)
	}
	if len(ps) > maxPrebuilt {
		return nil, refuse("prebuilt", "%d splices", len(ps))
	}
	for _, p := range ps {
		u, err := url.Parse(p.URL)
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || len(p.URL) > maxText {
			return nil, refuse("prebuilt", "URL %.200q", p.URL)
		}
		if !sha256RE.MatchString(p.SHA256) {
			return nil, refuse("prebuilt", "SHA-256 %.80q", p.SHA256)
		}
	}
	return ps, nil
}
