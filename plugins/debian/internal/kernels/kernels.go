// SPDX-License-Identifier: Apache-2.0

// Package kernels is the backend of Debian: what its packages say about kernels,
// and how to get what a build needs from its archives.
package kernels

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/upsplice/upsplice/distro/deb822"
	"github.com/upsplice/upsplice/distro/debian"
	"github.com/upsplice/upsplice/distro/debversion"
	"github.com/upsplice/upsplice/plugins/backend"
	"github.com/upsplice/upsplice/plugins/debian/internal/apt"
	"github.com/upsplice/upsplice/plugins/debian/internal/snapshot"
	"github.com/upsplice/upsplice/plugins/debian/internal/unpack"
)

// SnapshotVar is the environment variable with the address of a snapshot archive.
const SnapshotVar = "UPSPLICE_SNAPSHOT"

// Config of New.
type Config struct {
	Version  string           // of this program
	Root     string           // of the system, "": "/"
	Snapshot *snapshot.Client // nil: none
}

// FromEnvironment is the configuration of a backend process.
func FromEnvironment(version string) Config {
	c := Config{Version: version}
	if base := os.Getenv(SnapshotVar); base != "" {
		c.Snapshot = &snapshot.Client{Base: strings.TrimRight(base, "/")}
	}
	return c
}

// Backend implements backend.Backend.
type Backend struct {
	config Config

	mu         sync.Mutex
	changelogs map[string]string // paths of fetched changelogs by source version
}

var _ backend.Backend = (*Backend)(nil)

// New makes the backend.
func New(c Config) *Backend {
	if c.Root == "" {
		c.Root = "/"
	}
	return &Backend{config: c, changelogs: map[string]string{}}
}

func (b *Backend) path(elem ...string) string {
	return filepath.Join(append([]string{b.config.Root}, elem...)...)
}

// Describe implements backend.Backend.
func (b *Backend) Describe(context.Context) (backend.Description, error) {
	return backend.Description{Name: "debian", Version: b.config.Version, Systems: []string{"debian"}}, nil
}

// Flavour is what two kernels must share for one to replace the other: also the
// series, because stable releases offer kernels of more than one.
func Flavour(r debian.Release) string { return r.Series() + "-" + r.Flavour }

// kernel makes a Kernel of a package's control fields.
func kernel(p deb822.Paragraph) (backend.Kernel, error) {
	name := p.Get("Package")
	r, ok := debian.KernelPackage(name)
	if !ok {
		return backend.Kernel{}, &backend.Error{Kind: backend.NotFound, What: name, Detail: "it is no kernel"}
	}
	src, err := debian.SourceOf(p)
	if err != nil {
		return backend.Kernel{}, &backend.Error{Kind: backend.Unsupported, What: name, Detail: err.Error()}
	}
	arch := debian.GOARCH(p.Get("Architecture"))
	if arch == "" {
		return backend.Kernel{}, &backend.Error{Kind: backend.Unsupported, What: name,
			Detail: fmt.Sprintf("architecture %q", p.Get("Architecture"))}
	}
	if _, err := debversion.Parse(p.Get("Version")); err != nil {
		return backend.Kernel{}, &backend.Error{Kind: backend.Corrupt, What: name, Detail: err.Error()}
	}
	return backend.Kernel{Release: r.String(), Flavour: Flavour(r), Arch: arch, Package: name,
		Version: p.Get("Version"), Source: src.Name, SourceVersion: src.Version}, nil
}

// Kernels implements backend.Backend. What a package was built from stands in the
// package itself, else in the archive's index, else it follows from its version.
func (b *Backend) Kernels(ctx context.Context, packages []backend.Package) ([]backend.Kernel, error) {
	var out []backend.Kernel
	for _, p := range packages {
		if _, ok := debian.KernelPackage(p.Name); !ok || p.NewVersion == "" {
			continue
		}
		k, err := b.inPackage(ctx, p)
		if errors.Is(err, &backend.Error{Kind: backend.Unsupported}) {
			continue // named like a kernel of Debian, but built from something else
		}
		if err != nil {
			return nil, err
		}
		out = append(out, k)
	}
	return out, nil
}

func (b *Backend) inPackage(ctx context.Context, p backend.Package) (backend.Kernel, error) {
	par, err := control(ctx, p.Path)
	if err == nil && par.Get("Package") == p.Name && par.Get("Version") == p.NewVersion {
		k, err := kernel(par)
		k.Path = p.Path
		return k, err
	}
	if ctx.Err() != nil {
		return backend.Kernel{}, context.Cause(ctx)
	}
	offers, err := apt.Offers(ctx, p.Name+"="+p.NewVersion)
	if err != nil {
		return backend.Kernel{}, err
	}
	if len(offers) > 0 {
		return kernel(offers[0].Control)
	}
	par, err = deb822.Parse(strings.NewReader(fmt.Sprintf(
		"Package: %s\nSource: linux\nVersion: %s\nArchitecture: %s\n", p.Name, p.NewVersion, p.Arch)))
	if err != nil {
		return backend.Kernel{}, &backend.Error{Kind: backend.Corrupt, What: p.Name, Detail: err.Error()}
	}
	return kernel(par)
}

// control reads the control fields of a package file.
func control(ctx context.Context, path string) (deb822.Paragraph, error) {
	p, c, err := unpack.Open(ctx, path)
	if err != nil {
		return deb822.Paragraph{}, err
	}
	defer c.Close()
	return p.Control()
}

// Installed implements backend.Backend.
func (b *Backend) Installed(ctx context.Context, release string) (backend.Kernel, error) {
	notFound := &backend.Error{Kind: backend.NotFound, What: "kernel " + release, Detail: "no installed package of Debian has it"}
	r, err := debian.ParseRelease(release)
	if err != nil {
		notFound.Detail = err.Error()
		return backend.Kernel{}, notFound
	}
	names := debian.ImagePackages(r)
	for p, err := range b.unpacked(ctx) {
		if err != nil {
			return backend.Kernel{}, err
		}
		if slices.Contains(names, p.Get("Package")) {
			return kernel(p)
		}
	}
	return backend.Kernel{}, notFound
}

// present are the states of dpkg in which all files of a package are there.
var present = []string{"installed", "unpacked", "half-configured", "triggers-awaited", "triggers-pending"}

// unpacked yields the packages whose files are on the system.
func (b *Backend) unpacked(ctx context.Context) func(yield func(deb822.Paragraph, error) bool) {
	return func(yield func(deb822.Paragraph, error) bool) {
		path := b.path("var/lib/dpkg/status")
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			return
		}
		if err != nil {
			yield(deb822.Paragraph{}, err)
			return
		}
		defer f.Close()
		r := deb822.NewReader(f)
		for {
			p, err := r.Next()
			if err == io.EOF {
				return
			}
			if err == nil && ctx.Err() != nil {
				err = context.Cause(ctx)
			} else if err != nil {
				err = &backend.Error{Kind: backend.Corrupt, What: path, Detail: err.Error()}
			}
			if err != nil {
				yield(deb822.Paragraph{}, err)
				return
			}
			state := strings.Fields(p.Get("Status"))
			if len(state) == 3 && slices.Contains(present, state[2]) && !yield(p, nil) {
				return
			}
		}
	}
}

// Available implements backend.Backend.
func (b *Backend) Available(ctx context.Context, flavour string) ([]backend.Kernel, error) {
	var out []backend.Kernel
	wanted := func(r debian.Release) bool { return flavour == "" || Flavour(r) == flavour }
	add := func(p deb822.Paragraph) {
		// A signed kernel and its unsigned twin are one kernel.
		if r, ok := debian.KernelPackage(p.Get("Package")); !ok || !wanted(r) || p.Get("Package") != debian.ImagePackages(r)[0] {
			return
		}
		k, err := kernel(p)
		if err == nil && !slices.ContainsFunc(out, func(o backend.Kernel) bool {
			return o.Release == k.Release && o.Version == k.Version
		}) {
			out = append(out, k)
		}
	}
	for p, err := range b.unpacked(ctx) {
		if err != nil {
			return nil, err
		}
		add(p)
	}
	names, err := apt.Names(ctx, "linux-image-")
	if err != nil {
		return nil, err
	}
	offers, err := apt.Offers(ctx, slices.DeleteFunc(names, func(name string) bool {
		r, ok := debian.KernelPackage(name)
		return !ok || !wanted(r)
	})...)
	if err != nil {
		return nil, err
	}
	for _, o := range offers {
		add(o.Control)
	}
	slices.SortFunc(out, func(x, y backend.Kernel) int {
		d, _ := debversion.Compare(x.Version, y.Version) // kernel has checked them
		return cmp.Or(d, strings.Compare(x.Release, y.Release))
	})
	return out, nil
}

// Compare implements backend.Backend.
func (b *Backend) Compare(_ context.Context, x, y backend.Kernel) (int, error) {
	d, err := debversion.Compare(x.Version, y.Version)
	if err != nil {
		return 0, &backend.Error{Kind: backend.Unsupported, What: "comparing kernels", Detail: err.Error()}
	}
	return d, nil
}

// Prebuilt implements backend.Backend: Debian publishes none.
func (b *Backend) Prebuilt(context.Context, backend.Kernel, backend.Kernel, string) ([]backend.Prebuilt, error) {
	return nil, nil
}
