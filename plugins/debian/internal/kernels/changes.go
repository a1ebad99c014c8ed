// SPDX-License-Identifier: Apache-2.0

package kernels

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"

	"github.com/upsplice/upsplice/distro/archive"
	"github.com/upsplice/upsplice/distro/changelog"
	"github.com/upsplice/upsplice/distro/debian"
	"github.com/upsplice/upsplice/plugins/backend"
	"github.com/upsplice/upsplice/plugins/debian/internal/unpack"
)

// maxChangelog limits an unpacked changelog, in bytes; the kernel's has 4 MB.
const maxChangelog = 64 << 20

// changelogNames are how a package calls its changelog: the second is that of
// packages without a Debian revision, such as the signed images.
var changelogNames = []string{"changelog.Debian.gz", "changelog.gz"}

// Changes implements backend.Backend. It reads the changelog of the newer kernel
// where one is at hand: fetched before, in the package file, or installed.
func (b *Backend) Changes(ctx context.Context, from, to backend.Kernel) ([]backend.Change, error) {
	var last error
	for _, open := range []func(context.Context, backend.Kernel) (io.ReadCloser, error){
		b.fetchedChangelog, packageChangelog, b.installedChangelog,
	} {
		r, err := open(ctx, to)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			var cs []backend.Change
			cs, err = changes(r, from.SourceVersion, to.SourceVersion)
			r.Close()
			if err == nil {
				return cs, nil
			}
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		last = err
	}
	e := &backend.Error{Kind: backend.NotFound, What: "changelog of " + to.Package + " " + to.Version,
		Detail: "it is neither fetched nor installed"}
	if last != nil {
		e.Detail = last.Error()
	}
	return nil, e
}

func changes(r io.Reader, from, to string) ([]backend.Change, error) {
	a, err := archive.NewReader(r, archive.Options{MaxBytes: maxChangelog})
	if err != nil {
		return nil, err
	}
	defer a.Close()
	entries, err := changelog.Between(func(yield func(changelog.Entry, error) bool) {
		for e, err := range changelog.Entries(a) {
			if !yield(debian.SourceEntry(e), err) {
				return
			}
		}
	}, from, to)
	if err != nil {
		return nil, err
	}
	var cs []backend.Change
	for _, e := range entries {
		for _, it := range e.Items {
			cs = append(cs, backend.Change{Version: e.Version, Text: it.Text, CVEs: it.CVEs})
		}
	}
	return cs, nil
}

func (b *Backend) fetchedChangelog(_ context.Context, k backend.Kernel) (io.ReadCloser, error) {
	b.mu.Lock()
	path, ok := b.changelogs[k.SourceVersion]
	b.mu.Unlock()
	if !ok {
		return nil, fs.ErrNotExist
	}
	return os.Open(path)
}

func packageChangelog(ctx context.Context, k backend.Kernel) (io.ReadCloser, error) {
	if k.Path == "" {
		return nil, fs.ErrNotExist
	}
	p, c, err := unpack.Open(ctx, k.Path)
	if err != nil {
		return nil, err
	}
	for _, name := range changelogNames {
		r, _, err := p.Open("usr/share/doc/" + k.Package + "/" + name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			c.Close()
			return nil, err
		}
		return both{r, c}, nil
	}
	c.Close()
	return nil, fs.ErrNotExist
}

// both closes what it reads from and the file below.
type both struct {
	io.ReadCloser
	file io.Closer
}

func (b both) Close() error { return errors.Join(b.ReadCloser.Close(), b.file.Close()) }

// installedChangelog is only right if the installed package is the one asked for.
func (b *Backend) installedChangelog(ctx context.Context, k backend.Kernel) (io.ReadCloser, error) {
	have, err := b.Installed(ctx, k.Release)
	if errors.Is(err, &backend.Error{Kind: backend.NotFound}) || err == nil && have.Version != k.Version {
		return nil, fs.ErrNotExist
	}
	if err != nil {
		return nil, err
	}
	for _, name := range changelogNames {
		f, err := os.Open(b.path("usr/share/doc", have.Package, name))
		if !errors.Is(err, fs.ErrNotExist) {
			return f, err
		}
	}
	return nil, fs.ErrNotExist
}
