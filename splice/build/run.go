// SPDX-License-Identifier: Apache-2.0

package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/upsplice/upsplice/splice/compile"
	"github.com/upsplice/upsplice/splice/kbuild"
	"github.com/upsplice/upsplice/splice/kimage"
	"github.com/upsplice/upsplice/splice/layout"
	"github.com/upsplice/upsplice/splice/livepatch"
	"github.com/upsplice/upsplice/splice/splicefile"
	"github.com/upsplice/upsplice/splice/tree"
)

func run(ctx context.Context, req Request) (*Result, error) {
	s, err := openStore(ctx, req.Cache)
	if err != nil {
		return nil, named(req.Cache, err)
	}
	defer s.close()
	b := &builder{Request: req, store: s, report: newReporter(req.Progress)}
	res, err := b.build(ctx)
	if err != nil {
		return nil, named(req.Cache, err)
	}
	return res, nil
}

// builder is one run.
type builder struct {
	Request
	store    *store
	report   *reporter
	from, to *side
	output   *kbuild.Output // of from
	units    []kbuild.Unit  // of from
	moved    []kbuild.Unit  // of to, in terms of from's tree
	images   struct{ from, to *kimage.Image }
}

func (b *builder) build(ctx context.Context) (*Result, error) {
	var err error
	if b.from, err = b.store.side(b.Request.From); err != nil {
		return nil, err
	}
	if b.to, err = b.store.side(b.Request.To); err != nil {
		return nil, err
	}
	if b.from.imageID == "" {
		return nil, errors.New("building a splice: the image of the running kernel is needed")
	}
	vermagic, err := vermagicOf(b.Request.From.Module)
	if err != nil {
		return nil, err
	}

	stop := b.report.time("prepare")
	if err := b.store.ready(ctx, b.from, b.report); err != nil {
		return nil, err
	}
	stop()
	b.store.prune(b.from.treeID, b.from.outID, b.from.imageID, b.to.treeID, b.to.imageID)

	stop = b.report.time("delta")
	delta, err := b.store.delta(ctx, b.from, b.to, b.report)
	if err != nil {
		return nil, err
	}
	stop()
	res := &Result{Files: len(delta.Files), Groups: []splicefile.Group{}}
	for _, f := range delta.Files {
		res.Hunks += f.Hunks
	}
	b.report.event("delta", fmt.Sprintf("%d files differ in %d places", res.Files, res.Hunks), int64(res.Files), int64(res.Files))

	stop = b.report.time("units")
	list, groups, err := b.selectUnits(ctx, delta)
	if err != nil {
		return nil, err
	}
	stop()
	res.Units, res.Groups = len(list), groups

	list, err = b.examine(ctx, list, delta)
	if err != nil {
		return nil, err
	}
	return b.finish(ctx, res, list, vermagic)
}

// selectUnits finds the changed units, and what of the delta is not examined.
func (b *builder) selectUnits(ctx context.Context, delta *tree.Delta) ([]*candidate, []splicefile.Group, error) {
	stored, err := b.store.units(b.from)
	if err != nil {
		// Torn or of another version: made again.
		if err := os.Remove(b.store.path("units", b.from.outID)); err != nil {
			return nil, nil, err
		}
		if err := b.store.ready(ctx, b.from, b.report); err != nil {
			return nil, nil, err
		}
		if stored, err = b.store.units(b.from); err != nil {
			return nil, nil, err
		}
	}
	b.units = stored.Units
	if b.output, err = b.store.output(b.from); err != nil {
		return nil, nil, err
	}
	c := sortChanges(delta)
	var groups []splicefile.Group
	missing := stored.Missing
	if len(c.build) > 0 {
		var more []string
		if b.moved, more, err = b.queryTo(ctx, c.build); err != nil {
			return nil, nil, err
		}
		missing = append(missing, more...)
	} else {
		b.moved = b.units
	}
	includes, err := included(ctx, b.from.tree, b.units, unclaimed(c.sources, b.units, b.moved))
	if err != nil {
		return nil, nil, err
	}
	sources := c.sources
	for _, u := range b.units {
		if includes[u.Object] != "" && !slices.Contains(sources, u.Source) {
			sources = append(sources, u.Source)
		}
	}
	var list []*candidate
	for _, p := range pairs(b.units, b.moved, sources) {
		cand := &candidate{pair: *p}
		cand.screen(includes)
		list = append(list, cand)
	}

	if len(c.headers) > 0 {
		groups = append(groups, deferredFiles("header", "units that did not change themselves may be compiled from it; that is not examined yet", c.headers))
	}
	if len(c.other) > 0 {
		groups = append(groups, deferredFiles("flags", "takes part in the build in a way that is not examined", c.other))
	}
	if len(missing) > 0 {
		groups = append(groups, deferredFiles("flags", "kbuild could not list all units", missing))
	}
	options, err := configChanges(b.from.Headers, b.to.Headers)
	if err != nil {
		return nil, nil, err
	}
	if len(options) > 0 {
		groups = append(groups, deferredFiles("flags", "the new kernel is configured in another way", options))
	}
	b.report.event("units", fmt.Sprintf("%d units changed", len(list)), int64(len(list)), int64(len(list)))
	return list, groups, nil
}

// queryTo asks kbuild for the units of the new tree where files that decide about
// them changed, with the configuration and the generated headers of the running
// kernel. The result is in terms of the old tree.
func (b *builder) queryTo(ctx context.Context, build []string) (units []kbuild.Unit, missing []string, err error) {
	b.report.event("units", "listing the units of "+b.to.Version, 0, 0)
	post := *b.from
	post.treeID, post.tree = b.to.treeID, b.to.tree
	o, err := b.store.output(&post)
	if err != nil {
		return nil, nil, err
	}
	if !b.store.has("out", post.outID) {
		if _, err := kbuild.Seed(ctx, o.Dir, o.Materials); err != nil {
			return nil, nil, err
		}
	}
	dirs, all := queryTargets(build)
	if !all {
		dirs = slices.DeleteFunc(dirs, func(d string) bool {
			_, err := os.Stat(filepath.Join(b.to.tree, d))
			return err != nil
		})
	}
	var queried []kbuild.Unit
	if all || len(dirs) > 0 {
		queried, err = o.Query(ctx, dirs...)
		var incomplete *kbuild.IncompleteError
		if errors.As(err, &incomplete) {
			missing = incomplete.Messages
		} else if err != nil {
			return nil, nil, err
		}
	}
	queried = moved(queried, b.to.tree, b.from.tree)
	if all {
		return queried, missing, nil
	}
	dirs, _ = queryTargets(build)
	return mergeUnits(b.units, queried, dirs), missing, nil
}

// examine compiles what was not refused so far, and finds reasons to refuse more
// of it. Units without any difference are dropped.
func (b *builder) examine(ctx context.Context, list []*candidate, delta *tree.Delta) ([]*candidate, error) {
	stop := b.report.time("compile")
	if err := b.compile(ctx, list); err != nil {
		return nil, err
	}
	stop()
	if err := ctx.Err(); err != nil {
		return nil, err
	}

	stop = b.report.time("diff")
	changed := make(map[string]bool)
	for _, f := range delta.Files {
		if strings.HasSuffix(f.Path, ".h") {
			changed[f.Path] = true
		}
	}
	var running *layout.Types
	kept := list[:0]
	for i, c := range list {
		b.report.event("diff", c.object, int64(i), int64(len(list)))
		if c.preObject == nil || c.postObject == nil {
			kept = append(kept, c)
			continue
		}
		c.headers(changed)
		differs, err := c.compare()
		if err != nil {
			return nil, err
		}
		if !differs {
			continue
		}
		kept = append(kept, c)
		if running == nil {
			if err := b.openImages(); err != nil {
				return nil, err
			}
			if btf := b.images.from.BTF(); btf != nil {
				if running, err = layout.FromBTF(btf); err != nil {
					return nil, fmt.Errorf("reading the types of %s: %w", b.from.Release, err)
				}
			}
		}
		if err := c.layouts(running); err != nil {
			return nil, err
		}
	}
	stop()

	stop = b.report.time("match")
	for i, c := range kept {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		b.report.event("match", c.object, int64(i), int64(len(kept)))
		if len(c.reasons) > 0 {
			continue
		}
		if err := c.matchPre(b.images.from); err != nil {
			return nil, err
		}
		if b.images.to != nil {
			if err := c.matchPost(b.images.to); err != nil {
				return nil, err
			}
		}
	}
	stop()
	return kept, nil
}

// compile compiles both sides of each unit at once. The new side uses the running
// kernel's configuration and generated headers.
func (b *builder) compile(ctx context.Context, list []*candidate) error {
	var pre, post []kbuild.Unit
	for _, c := range list {
		if len(c.reasons) == 0 {
			pre = append(pre, *c.pair.pre)
			post = append(post, *c.pair.post)
		}
	}
	if len(pre) == 0 {
		return nil
	}
	jobs := b.Jobs
	if jobs <= 0 {
		jobs = runtime.NumCPU()
	}
	output := *b.output
	output.Source = b.to.tree
	objects := b.store.path("objects", "")
	sides := [2]*compile.Compiler{
		{Output: b.output, Cache: objects, Jobs: max(1, jobs/2)},
		{Output: &output, Cache: objects, Jobs: max(1, jobs/2)},
	}
	units := [2][]kbuild.Unit{pre, moved(post, b.from.tree, b.to.tree)}
	var results [2][]compile.Object
	var failed [2]map[string]*compile.Error
	progress := make(chan string)
	counted := make(chan struct{})
	go func() {
		defer close(counted)
		n, total := int64(0), int64(len(pre)+len(post))
		b.report.event("compile", "", 0, total)
		for name := range progress {
			n++
			b.report.event("compile", name, n, total)
		}
	}()
	var g errgroup.Group
	for i := range sides {
		g.Go(func() error {
			var err error
			results[i], err = sides[i].Units(ctx, units[i], func(u kbuild.Unit) { progress <- u.Object })
			if ctxErr := ctx.Err(); ctxErr != nil {
				return ctxErr
			}
			failed[i], err = failures(err)
			return err
		})
	}
	err := g.Wait()
	close(progress)
	<-counted
	if err != nil {
		return err
	}
	byObject := [2]map[string]*compile.Object{{}, {}}
	for i := range results {
		for j, o := range results[i] {
			byObject[i][o.Unit.Object] = &results[i][j]
		}
	}
	for _, c := range list {
		if len(c.reasons) > 0 {
			continue
		}
		for i, side := range []string{"the running kernel's source", "the new source with the running kernel's configuration"} {
			if e := failed[i][c.object]; e != nil {
				c.refuse("compile", c.object, side+": "+e.Error())
			}
		}
		c.preObject, c.postObject = byObject[0][c.object], byObject[1][c.object]
	}
	return nil
}

func (b *builder) openImages() error {
	if b.images.from != nil {
		return nil
	}
	var g errgroup.Group
	g.Go(func() (err error) {
		b.images.from, err = b.store.image(b.from)
		return err
	})
	if b.to.imageID != "" {
		g.Go(func() (err error) {
			b.images.to, err = b.store.image(b.to)
			return err
		})
	}
	return g.Wait()
}

// finish groups the units and writes the module of what goes live.
func (b *builder) finish(ctx context.Context, res *Result, list []*candidate, vermagic string) (*Result, error) {
	stop := b.report.time("module")
	b.report.event("module", "", 0, 0)
	groups := makeGroups(list)
	var name string
	var data livepatch.Module
	if slices.ContainsFunc(groups, (*group).live) {
		if err := b.openImages(); err != nil {
			return nil, err
		}
		var err error
		name, data, err = module(groups, b.images.from, vermagic, b.identity(b.from, b.images.from), b.identity(b.to, b.images.to))
		if err != nil {
			return nil, err
		}
	}
	var reports []splicefile.Group
	for _, g := range groups {
		reports = append(reports, g.report())
	}
	res.Groups = append(reports, res.Groups...)
	if data.Data != nil {
		cc := &compile.Compiler{Output: b.output}
		version, err := cc.Version(ctx)
		if err != nil {
			return nil, err
		}
		f := &splicefile.File{
			Manifest: splicefile.Manifest{
				Format: splicefile.Format, Compiler: version,
				From: b.identity(b.from, b.images.from), To: b.identity(b.to, b.images.to),
				Modules: []splicefile.Module{{Name: name, File: name + ".ko", Pinned: data.Pinned}},
				Targets: []splicefile.Target{{Name: kbuild.Vmlinux, BuildID: b.images.from.BuildID}},
				Groups:  res.Groups, Files: res.Files, Hunks: res.Hunks,
			},
			Payload: map[string][]byte{name: data.Data},
		}
		if err := fill(&f.Manifest, groups, b.images.from); err != nil {
			return nil, err
		}
		if err := f.Manifest.Seal(f.Payload); err != nil {
			return nil, err
		}
		res.File = f
	}
	stop()
	res.Stages = b.report.timings
	return res, nil
}

func (b *builder) identity(sd *side, img *kimage.Image) splicefile.Kernel {
	k := sd.Kernel.Kernel
	if img != nil {
		k.BuildID = img.BuildID
	}
	return k
}
