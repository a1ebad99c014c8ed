// SPDX-License-Identifier: Apache-2.0

package kernels

import (
	"archive/tar"
	"context"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/upsplice/upsplice/distro/archive"
	"github.com/upsplice/upsplice/plugins/backend"
	"github.com/upsplice/upsplice/plugins/debian/internal/unpack"
)

// image is the kernel image and one module: those of the system if the kernel is
// installed in this very version, else taken from the package.
func (f *fetch) image(ctx context.Context, m *backend.Materials) (bool, error) {
	if image, module := f.installed(ctx); image != "" {
		m.Image, m.Module = image, module
		return true, nil
	}
	part := "image"
	if f.dir.has("modules", f.name()) {
		part = "modules" // has the image too
	} else if !f.dir.has("image", f.name()) {
		if f.debs[f.k.Package] == "" {
			return false, nil
		}
		if err := f.unpackImage(ctx, part, false); err != nil {
			return false, err
		}
	}
	root := f.dir.path(part, f.name())
	image, err := filepath.Glob(filepath.Join(root, "boot", "vmlinu?-"+f.k.Release))
	module := anyModule(root, false, ".ko")
	if err != nil || len(image) == 0 || module == "" {
		return false, &backend.Error{Kind: backend.Corrupt, What: root, Detail: "it lacks the image or modules", Remedy: "remove it and try again"}
	}
	m.Image, m.Module = image[0], module
	return true, nil
}

// modules is the directory of all modules: that of the system if the kernel is
// installed in this very version, else unpacked from the package. They stay
// compressed if they are: the build reads few of them.
func (f *fetch) modules(ctx context.Context, m *backend.Materials) (bool, error) {
	dir := f.b.path("lib/modules", f.k.Release)
	if f.isInstalled(ctx) && anyModule(filepath.Join(dir, "kernel"), true, moduleExts...) != "" {
		m.Modules = dir
		return true, nil
	}
	if !f.dir.has("modules", f.name()) {
		if f.debs[f.k.Package] == "" {
			return false, nil
		}
		if err := f.unpackImage(ctx, "modules", true); err != nil {
			return false, err
		}
	}
	m.Modules = f.dir.path("modules", f.name(), "lib/modules", f.k.Release)
	if _, err := os.Stat(filepath.Join(m.Modules, "kernel")); err != nil {
		return false, &backend.Error{Kind: backend.Corrupt, What: m.Modules, Detail: err.Error(), Remedy: "remove it and try again"}
	}
	return true, nil
}

// installed returns paths of the running system, "" if it has another version or
// they cannot be read: some systems keep the image from everybody but root.
func (f *fetch) installed(ctx context.Context) (image, module string) {
	if !f.isInstalled(ctx) {
		return "", ""
	}
	image = f.b.path("boot", "vmlinuz-"+f.k.Release)
	module = anyModule(f.b.path("lib/modules", f.k.Release, "kernel"), true, ".ko")
	if module == "" || !readable(image) {
		return "", ""
	}
	return image, module
}

func (f *fetch) isInstalled(ctx context.Context) bool {
	k, err := f.b.Installed(ctx, f.k.Release)
	return err == nil && k.Version == f.k.Version
}

func readable(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	f.Close()
	return true
}

// anyModule returns the first module below dir with one of these endings.
func anyModule(dir string, check bool, exts ...string) string {
	found := ""
	filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		ends := func(ext string) bool { return strings.HasSuffix(p, ext) }
		if err != nil || !d.Type().IsRegular() || !slices.ContainsFunc(exts, ends) || check && !readable(p) {
			return nil
		}
		found = p
		return fs.SkipAll
	})
	return found
}

// unpackImage takes the image and one module, which is written decompressed, or all
// of them as they are.
func (f *fetch) unpackImage(ctx context.Context, part string, all bool) error {
	p, c, err := unpack.Open(ctx, f.debs[f.k.Package])
	if err != nil {
		return err
	}
	defer c.Close()
	f.say("unpacking %s", f.k.Package)
	haveImage, haveModule, n := false, false, 0
	err = f.dir.makeDir(func(root *os.Root) error {
		err := p.Walk(func(h *tar.Header, r io.Reader) error {
			name, ok := moduleName(h.Name, f.k.Release)
			switch {
			case h.Typeflag != tar.TypeReg:
				return nil
			case h.Name == "boot/vmlinuz-"+f.k.Release, h.Name == "boot/vmlinux-"+f.k.Release:
				haveImage = true
				return copyFile(root, h.Name, r)
			case ok && all:
				if n++; n%200 == 0 {
					f.say("unpacking %s", f.k.Package)
				}
				if err := copyFile(root, name, r); err != nil || haveModule || path.Ext(name) == ".ko" {
					haveModule = haveModule || err == nil
					return err
				}
				haveModule = true
				// Beside them one that can be read as it is, as in the other case.
				again, err := root.Open(name)
				if err != nil {
					return err
				}
				defer again.Close()
				return copyModule(root, path.Join("module", path.Base(name)), again)
			case ok && !haveModule:
				haveModule = true
				return copyModule(root, name, r)
			}
			return nil
		})
		if err == nil && !(haveImage && haveModule) {
			err = &backend.Error{Kind: backend.Corrupt, What: f.k.Package, Detail: "it lacks the image or modules"}
		}
		return err
	}, part, f.name())
	return err
}

// moduleExts are the endings of modules, by what they are compressed with.
var moduleExts = []string{".ko", ".ko.xz", ".ko.zst", ".ko.gz"}

// moduleName returns where a module of the package is put: below lib/modules,
// whether or not the package has it below /usr.
func moduleName(name, release string) (string, bool) {
	name = strings.TrimPrefix(name, "usr/")
	if !strings.HasPrefix(name, "lib/modules/"+release+"/kernel/") {
		return "", false
	}
	for _, ext := range moduleExts {
		if strings.HasSuffix(name, ext) {
			return name, true
		}
	}
	return "", false
}

// maxModule limits a decompressed module, in bytes.
const maxModule = 1 << 30

// copyModule writes a module decompressed.
func copyModule(root *os.Root, name string, r io.Reader) error {
	a, err := archive.NewReader(r, archive.Options{MaxBytes: maxModule})
	if err != nil {
		return err
	}
	defer a.Close()
	stem, _, _ := strings.Cut(path.Base(name), ".ko")
	return copyFile(root, path.Join(path.Dir(name), stem+".ko"), a)
}

func copyFile(root *os.Root, name string, r io.Reader) error {
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
