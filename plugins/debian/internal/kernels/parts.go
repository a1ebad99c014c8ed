// SPDX-License-Identifier: Apache-2.0

package kernels

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/upsplice/upsplice/distro/archive"
	"github.com/upsplice/upsplice/distro/debian"
	"github.com/upsplice/upsplice/plugins/backend"
	"github.com/upsplice/upsplice/plugins/debian/internal/unpack"
)

// Each part fills its fields of m from what is there: made earlier, or in a
// package that f.debs has now. It is false if it needs a download.

// source is the archive with the patched source, and the changelog beside it.
func (f *fetch) source(ctx context.Context, m *backend.Materials) (bool, error) {
	version := escape(f.k.SourceVersion)
	base := "linux-source-" + f.release.Series() + "_" + version + ".tar"
	found, err := f.sourceFile(base)
	if err != nil {
		return false, err
	}
	file, have := f.debs[debian.SourcePackage(f.release)]
	if found == "" && !have {
		return false, nil
	}
	log := f.dir.path("doc", "changelog_"+version+".gz")
	if found == "" {
		if err := f.unpackSource(ctx, file, base, log); err != nil {
			return false, err
		}
		if found, err = f.sourceFile(base); err != nil {
			return false, err
		}
	}
	if _, err := os.Stat(log); err == nil {
		f.b.mu.Lock()
		f.b.changelogs[f.k.SourceVersion] = log
		f.b.mu.Unlock()
	}
	m.SourceArchive = found
	return found != "", nil
}

// sourceFile finds the archive whatever it is compressed with.
func (f *fetch) sourceFile(base string) (string, error) {
	entries, err := os.ReadDir(f.dir.path("source"))
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		if ext, ok := strings.CutPrefix(e.Name(), base); ok && (ext == "" || ext[0] == '.') {
			return f.dir.path("source", e.Name()), nil
		}
	}
	return "", nil
}

func (f *fetch) unpackSource(ctx context.Context, file, base, log string) error {
	p, c, err := unpack.Open(ctx, file)
	if err != nil {
		return err
	}
	defer c.Close()
	pkg := debian.SourcePackage(f.release)
	found := ""
	// The archive gets its name only after the whole package was read: its
	// checksum stands at the end.
	err = p.Walk(func(h *tar.Header, r io.Reader) error {
		ext, ok := strings.CutPrefix(h.Name, debian.SourceArchive(f.release))
		switch {
		case h.Typeflag != tar.TypeReg:
			return nil
		case h.Name == "usr/share/doc/"+pkg+"/"+changelogNames[0]:
			return unpack.File(log, r)
		case ok && (ext == "" || ext[0] == '.' && !strings.Contains(ext, "/")):
			found = base + ext
			return unpack.File(f.dir.path("source", tmpPrefix+found), f.watch(r, "unpacking "+pkg))
		}
		return nil
	})
	if err != nil {
		return err
	}
	if found == "" {
		return &backend.Error{Kind: backend.Corrupt, What: filepath.Base(file), Detail: "it has no " + debian.SourceArchive(f.release)}
	}
	return os.Rename(f.dir.path("source", tmpPrefix+found), f.dir.path("source", found))
}

// watch reports while r is read.
func (f *fetch) watch(r io.Reader, text string) io.Reader {
	return readFunc(func(p []byte) (int, error) {
		f.say("%s", text)
		return r.Read(p[:min(len(p), 1<<20)])
	})
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

// compilerFile keeps what the headers package's dependencies said.
const compilerFile = "compiler"

// headers are the three packages that an external module is built with, in one tree.
func (f *fetch) headers(ctx context.Context, m *backend.Materials) (bool, error) {
	name := debian.HeadersPackage(f.release)
	if !f.dir.has("headers", f.name()) {
		if f.debs[name] == "" {
			return false, nil
		}
		if err := f.unpackHeaders(ctx, name); err != nil {
			return false, err
		}
	}
	root := f.dir.path("headers", f.name())
	kbuild, err := filepath.Glob(filepath.Join(root, "usr/lib/linux-kbuild-*"))
	if err != nil || len(kbuild) != 1 {
		return false, &backend.Error{Kind: backend.Corrupt, What: root, Detail: "it has no usr/lib/linux-kbuild-*", Remedy: "remove it and try again"}
	}
	m.Kbuild = kbuild[0]
	m.Headers = filepath.Join(root, "usr/src", "linux-headers-"+f.k.Release)
	m.Config = filepath.Join(m.Headers, ".config")
	if _, err := os.Stat(m.Config); err != nil {
		return false, &backend.Error{Kind: backend.Corrupt, What: m.Headers, Detail: err.Error(), Remedy: "remove it and try again"}
	}
	m.Compiler, err = compiler(root, m.Headers)
	return true, err
}

func (f *fetch) unpackHeaders(ctx context.Context, name string) error {
	par, err := control(ctx, f.debs[name])
	if err != nil {
		return err
	}
	c, err := debian.CompanionsOf(par)
	if err != nil {
		return &backend.Error{Kind: backend.Unsupported, What: name, Detail: err.Error()}
	}
	return f.dir.makeDir(func(root *os.Root) error {
		for _, pkg := range []string{name, c.Common.Name, c.Kbuild.Name} {
			f.say("unpacking %s", pkg)
			p, closer, err := unpack.Open(ctx, f.debs[pkg])
			if err != nil {
				return err
			}
			err = unpack.Tree(p, root, inHeaders, func(int) { f.say("unpacking %s", pkg) })
			closer.Close()
			if err != nil {
				return fmt.Errorf("%s: %w", pkg, err)
			}
		}
		return root.WriteFile(compilerFile, []byte(c.Compiler+"\n"), 0o644)
	}, "headers", f.name())
}

func inHeaders(name string) bool {
	return strings.HasPrefix(name, "usr/src/") || strings.HasPrefix(name, "usr/lib/linux-kbuild-")
}

// compiler is what the headers' own makefile names, else what they depend on.
func compiler(root, headers string) (string, error) {
	f, err := os.Open(filepath.Join(headers, ".kernelvariables"))
	if err == nil {
		defer f.Close()
		if cc, err := debian.Compiler(f); err != nil || cc != "" {
			return cc, err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	data, err := os.ReadFile(filepath.Join(root, compilerFile))
	return strings.TrimSpace(string(data)), err
}

// image is the kernel image and one module: those of the system if the kernel is
// installed in this very version, else taken from the package.
func (f *fetch) image(ctx context.Context, m *backend.Materials) (bool, error) {
	if image, module := f.installed(ctx); image != "" {
		m.Image, m.Module = image, module
		return true, nil
	}
	if !f.dir.has("image", f.name()) {
		if f.debs[f.k.Package] == "" {
			return false, nil
		}
		if err := f.unpackImage(ctx); err != nil {
			return false, err
		}
	}
	root := f.dir.path("image", f.name())
	image, err := filepath.Glob(filepath.Join(root, "boot", "vmlinu?-"+f.k.Release))
	module := anyModule(root, false)
	if err != nil || len(image) == 0 || module == "" {
		return false, &backend.Error{Kind: backend.Corrupt, What: root, Detail: "it lacks the image or modules", Remedy: "remove it and try again"}
	}
	m.Image, m.Module = image[0], module
	return true, nil
}

// installed returns paths of the running system, "" if it has another version or
// they cannot be read: some systems keep the image from everybody but root.
func (f *fetch) installed(ctx context.Context) (image, module string) {
	k, err := f.b.Installed(ctx, f.k.Release)
	if err != nil || k.Version != f.k.Version {
		return "", ""
	}
	image = f.b.path("boot", "vmlinuz-"+f.k.Release)
	module = anyModule(f.b.path("lib/modules", f.k.Release, "kernel"), true)
	if module == "" || !readable(image) {
		return "", ""
	}
	return image, module
}

func readable(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	f.Close()
	return true
}

// anyModule returns the first module below dir that is not compressed.
func anyModule(dir string, check bool) string {
	found := ""
	filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || filepath.Ext(p) != ".ko" || check && !readable(p) {
			return nil
		}
		found = p
		return fs.SkipAll
	})
	return found
}

// unpackImage takes the image, its config and the first module. A compressed
// module is written decompressed.
func (f *fetch) unpackImage(ctx context.Context) error {
	p, c, err := unpack.Open(ctx, f.debs[f.k.Package])
	if err != nil {
		return err
	}
	defer c.Close()
	f.say("unpacking %s", f.k.Package)
	haveImage, haveModule := false, false
	err = f.dir.makeDir(func(root *os.Root) error {
		err := p.Walk(func(h *tar.Header, r io.Reader) error {
			name, ok := moduleName(h.Name)
			switch {
			case h.Typeflag != tar.TypeReg:
				return nil
			case h.Name == "boot/vmlinuz-"+f.k.Release, h.Name == "boot/vmlinux-"+f.k.Release:
				haveImage = true
				return copyFile(root, h.Name, r)
			case ok && !haveModule:
				haveModule = true
				return copyFile(root, name, r)
			}
			return nil
		})
		if err == nil && !(haveImage && haveModule) {
			err = &backend.Error{Kind: backend.Corrupt, What: f.k.Package, Detail: "it lacks the image or modules"}
		}
		return err
	}, "image", f.name())
	return err
}

// moduleName is the name of a module without its compression's ending.
func moduleName(name string) (string, bool) {
	if !strings.HasPrefix(name, "lib/modules/") && !strings.HasPrefix(name, "usr/lib/modules/") {
		return "", false
	}
	for _, ext := range []string{"", ".xz", ".zst", ".gz"} {
		if base, ok := strings.CutSuffix(name, ".ko"+ext); ok {
			return base + ".ko", true
		}
	}
	return "", false
}

// maxImageFile limits an image or a module, in bytes.
const maxImageFile = 1 << 30

func copyFile(root *os.Root, name string, r io.Reader) error {
	if path.Ext(name) == ".ko" {
		a, err := archive.NewReader(r, archive.Options{MaxBytes: maxImageFile})
		if err != nil {
			return err
		}
		defer a.Close()
		r = a
	}
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	w, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	if _, err := io.Copy(w, r); err != nil {
		w.Close()
		return err
	}
	return w.Close()
}
