// SPDX-License-Identifier: Apache-2.0

package kernels

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/upsplice/upsplice/distro/deb822"
	"github.com/upsplice/upsplice/distro/debian"
	"github.com/upsplice/upsplice/distro/debversion"
	"github.com/upsplice/upsplice/plugins/backend"
	"github.com/upsplice/upsplice/plugins/debian/internal/apt"
	"github.com/upsplice/upsplice/plugins/debian/internal/snapshot"
)

// need is a package that a fetch cannot do without.
type need struct {
	name     string
	versions []string // any of these, the first that is offered
	atLeast  string   // "" or: else the newest that is offered, from this one on
}

func (n need) String() string { return n.name + " " + n.versions[0] }

// download gets the package files that m lacks, from the archives where they
// offer them, else from the snapshot archive, and puts their paths into f.debs.
func (f *fetch) download(ctx context.Context, m backend.Materials, wants func(backend.Want) bool) error {
	f.say("asking the archives for %s %s", f.k.Release, f.k.Version)
	var needs []need
	if wants(backend.WantSource) && m.SourceArchive == "" {
		needs = append(needs, need{name: debian.SourcePackage(f.release), versions: []string{f.k.SourceVersion}})
	}
	if wants(backend.WantImage) && m.Image == "" || wants(backend.WantModules) && m.Modules == "" {
		if f.transactionFile(ctx) {
			f.debs[f.k.Package] = f.k.Path
		} else {
			needs = append(needs, need{name: f.k.Package, versions: []string{f.k.Version}})
		}
	}
	headers := wants(backend.WantHeaders) && m.Headers == ""
	if headers {
		// The headers come from the source itself, which an image that was rebuilt
		// or signed need not have the version of.
		needs = append(needs, need{name: debian.HeadersPackage(f.release), versions: versions(f.k.Version, f.k.SourceVersion)})
	}
	// Asking apt takes seconds: the names that the companions usually have go along.
	names := namesOf(needs)
	if headers {
		names = append(names, debian.UsualCompanions(f.release)...)
	}
	offers, err := apt.Offers(ctx, names...)
	if err != nil {
		return err
	}
	chosen, gone := choose(needs, offers)
	if headers {
		more, err := f.companions(ctx, chosen, gone)
		if err != nil {
			return err
		}
		c, g := choose(more, offers)
		if len(g) > 0 {
			if offers, err = apt.Offers(ctx, namesOf(more)...); err != nil {
				return err
			}
			c, g = choose(more, offers)
		}
		chosen, gone = append(chosen, c...), append(gone, g...)
	}
	for _, o := range chosen {
		f.all += o.Size
	}
	for _, n := range gone {
		if err := f.fromSnapshot(ctx, n, ""); err != nil {
			return err
		}
	}
	return f.fromArchives(ctx, chosen)
}

func versions(v ...string) []string { return slices.Compact(v) }

// transactionFile tells whether the kernel's Path is the package it should be.
// apt removes such files, and a later call may get the path of one that is gone.
func (f *fetch) transactionFile(ctx context.Context) bool {
	if f.k.Path == "" {
		return false
	}
	p, err := control(ctx, f.k.Path)
	return err == nil && p.Get("Package") == f.k.Package && p.Get("Version") == f.k.Version
}

func namesOf(needs []need) []string {
	var names []string
	for _, n := range needs {
		names = append(names, n.name)
	}
	return names
}

// choose finds an offer for each need; gone are those without.
func choose(needs []need, offers []apt.Offer) (chosen []apt.Offer, gone []need) {
	for _, n := range needs {
		if o, ok := n.pick(offers); ok {
			chosen = append(chosen, o)
		} else {
			gone = append(gone, n)
		}
	}
	return chosen, gone
}

func (n need) pick(offers []apt.Offer) (best apt.Offer, ok bool) {
	for _, v := range n.versions {
		for _, o := range offers {
			if o.Name == n.name && o.Version == v {
				return o, true
			}
		}
	}
	if n.atLeast == "" {
		return best, false
	}
	for _, o := range offers {
		if o.Name != n.name || newer(n.atLeast, o.Version) || ok && !newer(o.Version, best.Version) {
			continue
		}
		best, ok = o, true
	}
	return best, ok
}

// newer is false also if one of them is no version: such a package is not chosen.
func newer(a, b string) bool {
	d, err := debversion.Compare(a, b)
	return err == nil && d > 0
}

// companions are the packages that the headers depend on. Where no archive offers
// the headers any more, they are downloaded first: their names stand only there.
func (f *fetch) companions(ctx context.Context, chosen []apt.Offer, gone []need) ([]need, error) {
	name := debian.HeadersPackage(f.release)
	var control822 deb822.Paragraph
	if i := slices.IndexFunc(chosen, func(o apt.Offer) bool { return o.Name == name }); i >= 0 {
		control822 = chosen[i].Control
	} else {
		i := slices.IndexFunc(gone, func(n need) bool { return n.name == name })
		if err := f.fromSnapshot(ctx, gone[i], ""); err != nil {
			return nil, err
		}
		var err error
		if control822, err = control(ctx, f.debs[name]); err != nil {
			return nil, err
		}
	}
	c, err := debian.CompanionsOf(control822)
	if err != nil {
		return nil, &backend.Error{Kind: backend.Unsupported, What: name, Detail: err.Error()}
	}
	version := control822.Get("Version")
	common := need{name: c.Common.Name, versions: []string{version}}
	if c.Common.Op == "=" {
		common.versions = []string{c.Common.Version}
	}
	// "linux-kbuild-6.1 (>= V)": archives keep only the newest, and it serves all.
	kbuild := need{name: c.Kbuild.Name, versions: []string{version}, atLeast: "0~"}
	if c.Kbuild.Op == ">=" {
		kbuild.atLeast = c.Kbuild.Version
	}
	return []need{common, kbuild}, nil
}

// fromArchives downloads by apt. An index that is older than its archive offers
// what is gone; the snapshot archive may have it.
func (f *fetch) fromArchives(ctx context.Context, offers []apt.Offer) error {
	if len(offers) == 0 {
		return nil
	}
	before := f.done
	text := "downloading " + offers[0].Name + " " + offers[0].Version
	if n := len(offers) - 1; n > 0 {
		text += fmt.Sprintf(" and %d more", n)
	}
	err := apt.Download(ctx, f.dir.downloads(), offers, func(done int64) {
		f.done = before + done
		f.say("%s", text)
	})
	if errors.Is(err, &backend.Error{Kind: backend.NotFound}) && f.b.config.Snapshot != nil {
		f.done = before
		for _, o := range offers {
			if err := f.fromSnapshot(ctx, need{name: o.Name, versions: []string{o.Version}}, o.SHA256); err != nil {
				return err
			}
		}
		return nil
	}
	if err != nil {
		return err
	}
	for _, o := range offers {
		f.debs[o.Name] = filepath.Join(f.dir.downloads(), o.FileName)
	}
	return nil
}

// fromSnapshot downloads what no archive offers. sum is its SHA-256 if it is known.
func (f *fetch) fromSnapshot(ctx context.Context, n need, sum string) error {
	if f.debs[n.name] != "" {
		return nil
	}
	gone := &backend.Error{Kind: backend.NotFound, What: n.String(), Detail: "no configured archive offers it",
		Remedy: "run upsplice prepare while a version is still in the archive, or configure a snapshot archive"}
	c := f.b.config.Snapshot
	if c == nil {
		return gone
	}
	arch := debArch(f.k.Arch)
	for _, v := range n.versions {
		file, err := c.Find(ctx, n.name, v, arch)
		if errors.Is(err, &backend.Error{Kind: backend.NotFound}) {
			continue
		}
		if err != nil {
			return err
		}
		path := filepath.Join(f.dir.downloads(), apt.FileName(n.name, v, file.Arch))
		if err := f.snapshotFile(ctx, c, file, n.name+" "+v, path, sum); err != nil {
			return err
		}
		f.debs[n.name] = path
		return nil
	}
	gone.Detail = "neither the configured archives nor the snapshot archive has it"
	gone.Remedy = ""
	return gone
}

func (f *fetch) snapshotFile(ctx context.Context, c *snapshot.Client, file snapshot.File, what, path, sum string) error {
	before := f.done
	f.all += file.Size
	err := c.Download(ctx, file, path, func(done int64) {
		f.done = before + done
		f.say("downloading %s from the snapshot archive", what)
	})
	if err != nil {
		return err
	}
	f.done = before + file.Size
	return apt.Verify(path, sum)
}

// debArch is Debian's name of an architecture of Go.
func debArch(goarch string) string {
	for _, a := range []string{"amd64", "arm64", "armhf", "i386", "loong64", "mips64el", "ppc64el", "riscv64", "s390x"} {
		if debian.GOARCH(a) == goarch {
			return a
		}
	}
	return goarch
}
