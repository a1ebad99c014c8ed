// SPDX-License-Identifier: Apache-2.0

package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/upsplice/upsplice/splice/kbuild"
	"github.com/upsplice/upsplice/splice/patch"
	"github.com/upsplice/upsplice/splice/splicefile"
	"github.com/upsplice/upsplice/splice/touch"
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
	images   struct{ from, to *images }
	set      *patchSet     // nil for an update of the distribution's
	fuzz     *patch.Report // how the patches applied
	// plainLines: the patched source as it is, without its lines laid out
	plainLines bool
	deferred   []string // changed headers of which not all users are examined
}

func (b *builder) build(ctx context.Context) (*Result, error) {
	var err error
	if b.from, err = b.store.side(b.Request.From); err != nil {
		return nil, err
	}
	if b.from.imageID == "" {
		return nil, errors.New("building a splice: the image of the running kernel is needed")
	}
	if len(b.Patches) > 0 {
		if b.set, err = readPatches(b.Patches); err != nil {
			return nil, err
		}
	} else if b.to, err = b.store.side(b.Request.To); err != nil {
		return nil, err
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

	res, list, err := b.candidates(ctx)
	if err == nil && b.set != nil && slices.ContainsFunc(list, (*candidate).postFailed) {
		// A line was laid out where the compiler does not bear it.
		b.plainLines = true
		res, list, err = b.candidates(ctx)
	}
	if err != nil {
		return nil, err
	}
	if b.fuzz != nil {
		for _, h := range b.fuzz.Inexact() {
			res.Fuzz = append(res.Fuzz, h.String())
			for i := range b.set.listed {
				if h.Fuzz > 0 && b.set.listed[i].Name == h.Patch {
					b.set.listed[i].Fuzz++
				}
			}
		}
	}
	return b.finish(ctx, res, list, vermagic)
}

// candidates are the changed units, each with all that stands in its way.
func (b *builder) candidates(ctx context.Context) (*Result, []*candidate, error) {
	stop := b.report.time("delta")
	delta, err := b.delta(ctx)
	if err != nil {
		return nil, nil, err
	}
	stop()
	b.store.prune(b.from.treeID, b.from.outID, b.from.imageID, b.to.treeID, b.to.imageID)
	b.images.from, b.images.to = b.store.images(b.from), b.store.images(b.to)
	res := &Result{Files: len(delta.Files), Groups: []splicefile.Group{}}
	for _, f := range delta.Files {
		res.Hunks += f.Hunks
	}
	b.report.event("delta", fmt.Sprintf("%d files differ in %d places", res.Files, res.Hunks), int64(res.Files), int64(res.Files))

	stop = b.report.time("units")
	list, groups, err := b.selectUnits(ctx, delta)
	if err != nil {
		return nil, nil, err
	}
	stop()
	if b.set == nil {
		if res.Sources, err = touch.Files(ctx, b.from.tree, b.to.tree, delta, slices.Concat(b.units, b.moved)); err != nil {
			return nil, nil, err
		}
	}
	res.Units, res.Groups = len(list), groups
	list, err = b.examine(ctx, list)
	return res, list, err
}

// delta is what the source of both sides differs in; it makes the new side.
func (b *builder) delta(ctx context.Context) (*tree.Delta, error) {
	if b.set == nil {
		return b.store.delta(ctx, b.from, b.to, b.report)
	}
	b.report.event("delta", "applying the patches", 0, 0)
	to, a, err := b.store.patched(ctx, b.from, b.set, !b.plainLines)
	if err != nil {
		return nil, err
	}
	b.to, b.fuzz = to, a.Report
	return a.Delta, nil
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
	reached, err := b.reached(ctx, c)
	if err != nil {
		return nil, nil, err
	}
	var list []*candidate
	for _, p := range pairs(b.units, b.moved, c.sources, reached.units) {
		cand := &candidate{pair: *p, reached: reached.units[p.object] && !p.changed(c.sources)}
		cand.screen()
		list = append(list, cand)
	}
	if len(reached.deferred) > 0 {
		groups = append(groups, deferredFiles("header", "too many units may be compiled from what it changes to examine them all", reached.deferred))
	}
	b.deferred = reached.deferred
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
