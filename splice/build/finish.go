// SPDX-License-Identifier: Apache-2.0

package build

import (
	"context"
	"slices"

	"github.com/upsplice/upsplice/splice/compile"
	"github.com/upsplice/upsplice/splice/kbuild"
	"github.com/upsplice/upsplice/splice/livepatch"
	"github.com/upsplice/upsplice/splice/splicefile"
)

// finish groups the units and writes the module of what goes live.
func (b *builder) finish(ctx context.Context, res *Result, list []*candidate, vermagic string) (*Result, error) {
	stop := b.report.time("module")
	b.report.event("module", "", 0, 0)
	groups := makeGroups(list, b.set != nil)
	if b.set != nil {
		deferAll(groups, res.Groups)
	} else if err := b.restrict(ctx, groups); err != nil {
		return nil, err
	}
	var name string
	var module livepatch.Module
	if slices.ContainsFunc(groups, (*group).live) {
		var err error
		if name, module, err = b.module(ctx, groups, vermagic); err != nil {
			return nil, err
		}
	}
	var reports []splicefile.Group
	for _, g := range groups {
		reports = append(reports, g.report())
	}
	res.Groups = append(reports, res.Groups...)
	res.Notes = module.Notes
	if module.Data != nil {
		f, err := b.file(ctx, res, groups, name, module)
		if err != nil {
			return nil, err
		}
		res.File = f
	}
	stop()
	res.Stages = b.report.timings
	return res, nil
}

// deferAll keeps a patch from going live by halves: what is not examined of it
// holds up the rest.
func deferAll(groups []*group, others []splicefile.Group) {
	for _, o := range others {
		for _, g := range groups {
			g.reasons = append(g.reasons, o.Reasons...)
		}
	}
}

// file puts the splice together.
func (b *builder) file(ctx context.Context, res *Result, groups []*group, name string, module livepatch.Module) (*splicefile.File, error) {
	cc := &compile.Compiler{Output: b.output}
	version, err := cc.Version(ctx)
	if err != nil {
		return nil, err
	}
	from, to, err := b.identities()
	if err != nil {
		return nil, err
	}
	f := &splicefile.File{
		Manifest: splicefile.Manifest{
			Format: splicefile.Format, Compiler: version, From: from, To: to,
			Modules: []splicefile.Module{{Name: name, File: name + ".ko", Pinned: module.Pinned}},
			Groups:  res.Groups, Files: res.Files, Hunks: res.Hunks, Notes: res.Notes,
		},
		Payload: map[string][]byte{name: module.Data},
	}
	if b.set != nil {
		f.Manifest.Description = b.Description
		f.Manifest.Patches = b.set.listed
	}
	if err := b.fill(&f.Manifest, groups); err != nil {
		return nil, err
	}
	if err := f.Manifest.Seal(f.Payload); err != nil {
		return nil, err
	}
	return f, nil
}

// identities are both kernels with the build ids of their images.
func (b *builder) identities() (from, to splicefile.Kernel, err error) {
	for _, k := range []struct {
		images *images
		id     *splicefile.Kernel
	}{{b.images.from, &from}, {b.images.to, &to}} {
		*k.id = k.images.side.Kernel.Kernel
		if !k.images.known() {
			continue
		}
		img, err := k.images.vmlinux()
		if err != nil {
			return from, to, err
		}
		k.id.BuildID = img.BuildID
	}
	if b.set != nil {
		to = from
	}
	return from, to, nil
}

// targets are what the live groups patch.
func (b *builder) targets(groups []*group) ([]splicefile.Target, error) {
	names := make(map[string]bool)
	for _, g := range groups {
		for _, c := range g.members {
			if g.live() && c.diff != nil && len(c.diff.Functions) > 0 {
				names[c.pair.pre.Target] = true
			}
		}
	}
	var list []splicefile.Target
	for _, t := range targetNames(names) {
		img, err := b.images.from.target(t)
		if err != nil {
			return nil, err
		}
		name := t
		if t != kbuild.Vmlinux {
			name = moduleName(t)
		}
		list = append(list, splicefile.Target{Name: name, BuildID: img.BuildID})
	}
	return list, nil
}
