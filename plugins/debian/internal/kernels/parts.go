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
	"path/filepath"
	"strings"

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
