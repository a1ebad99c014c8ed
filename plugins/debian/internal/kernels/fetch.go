// SPDX-License-Identifier: Apache-2.0

package kernels

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/upsplice/upsplice/distro/archive"
	"github.com/upsplice/upsplice/distro/deb"
	"github.com/upsplice/upsplice/distro/debian"
	"github.com/upsplice/upsplice/distro/debversion"
	"github.com/upsplice/upsplice/plugins/backend"
)

// fetch is one call of Fetch.
type fetch struct {
	b        *Backend
	k        backend.Kernel
	release  debian.Release
	dir      *store
	progress func(backend.Progress)

	debs map[string]string // paths of the package files at hand, by package name
	done int64             // bytes downloaded
	all  int64             // bytes to download, so far as is known
}

// Fetch implements backend.Backend.
func (b *Backend) Fetch(ctx context.Context, req backend.FetchRequest, progress func(backend.Progress)) (backend.Materials, error) {
	if progress == nil {
		progress = func(backend.Progress) {}
	}
	m, err := b.fetch(ctx, req, progress)
	if err != nil {
		return backend.Materials{}, typed(ctx, err, req.Dir)
	}
	return m, nil
}

func (b *Backend) fetch(ctx context.Context, req backend.FetchRequest, progress func(backend.Progress)) (backend.Materials, error) {
	k := req.Kernel
	r, err := debian.ParseRelease(k.Release)
	if err != nil {
		return backend.Materials{}, &backend.Error{Kind: backend.Unsupported, What: "kernel " + k.Release, Detail: err.Error()}
	}
	for _, v := range []string{k.Version, k.SourceVersion} {
		if _, err := debversion.Parse(v); err != nil {
			return backend.Materials{}, &backend.Error{Kind: backend.Unsupported, What: "kernel " + k.Release, Detail: err.Error()}
		}
	}
	if !slices.Contains(debian.ImagePackages(r), k.Package) {
		return backend.Materials{}, &backend.Error{Kind: backend.Unsupported, What: "kernel " + k.Release,
			Detail: fmt.Sprintf("package %q does not hold it", k.Package)}
	}
	s, err := openStore(ctx, req.Dir, func() { progress(backend.Progress{Text: "waiting for another fetch into " + req.Dir}) })
	if err != nil {
		return backend.Materials{}, err
	}
	defer s.close()
	f := &fetch{b: b, k: k, release: r, dir: s, progress: progress, debs: map[string]string{}}
	return f.run(ctx, req.Want)
}

func (f *fetch) run(ctx context.Context, want []backend.Want) (backend.Materials, error) {
	wants := func(w backend.Want) bool { return len(want) == 0 || slices.Contains(want, w) }
	var m backend.Materials
	type part func(context.Context, *backend.Materials) (bool, error)
	var missing []part
	// First what is there already; then everything that is missing in one download.
	for _, p := range []struct {
		want backend.Want
		get  part
	}{{backend.WantSource, f.source}, {backend.WantHeaders, f.headers}, {backend.WantModules, f.modules}, {backend.WantImage, f.image}} {
		if !wants(p.want) {
			continue
		}
		ok, err := p.get(ctx, &m)
		if err != nil {
			return m, err
		}
		if !ok {
			missing = append(missing, p.get)
		}
	}
	if len(missing) == 0 {
		return m, nil
	}
	if err := f.download(ctx, m, wants); err != nil {
		return m, err
	}
	for _, get := range missing {
		if ok, err := get(ctx, &m); err != nil {
			return m, err
		} else if !ok {
			return m, &backend.Error{Kind: backend.Internal, What: "fetching " + f.k.Release, Detail: "a part is missing after its download"}
		}
	}
	f.dropDownloads()
	return m, nil
}

func (f *fetch) name() string { return f.k.Release + "_" + escape(f.k.Version) }

// escape makes a version fit for a file name, as apt does.
func escape(version string) string { return strings.ReplaceAll(version, ":", "%3a") }

func (f *fetch) say(format string, args ...any) {
	f.progress(backend.Progress{Text: fmt.Sprintf(format, args...), Done: f.done, Total: f.all})
}

// dropDownloads frees the space of packages that are unpacked now. Only ours: the
// file of a transaction belongs to apt.
func (f *fetch) dropDownloads() {
	for _, path := range f.debs {
		if filepath.Dir(path) == f.dir.downloads() {
			os.Remove(path)
		}
	}
}

// typed gives an error the kind that the contract asks for.
func typed(ctx context.Context, err error, dir string) error {
	var (
		be     *backend.Error
		format *deb.FormatError
		stream *archive.FormatError
		limit  *archive.LimitError
		path   *fs.PathError
		link   *os.LinkError
		call   *os.SyscallError
	)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.As(err, &be):
		return be
	case diskFull(err):
		return &backend.Error{Kind: backend.NoSpace, What: dir, Detail: err.Error(), Remedy: "free some space"}
	case errors.As(err, &path), errors.As(err, &link), errors.As(err, &call):
	case errors.As(err, &format), errors.As(err, &stream), errors.As(err, &limit):
		return &backend.Error{Kind: backend.Corrupt, What: "package", Detail: err.Error(), Remedy: "remove " + dir + " and try again"}
	}
	return &backend.Error{Kind: backend.Internal, What: "fetching into " + dir, Detail: err.Error()}
}
