// SPDX-License-Identifier: Apache-2.0

package pipeline

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"

	"golang.org/x/sync/errgroup"

	"github.com/upsplice/upsplice/hook/outcome"
	"github.com/upsplice/upsplice/hook/progress"
	"github.com/upsplice/upsplice/hook/report"
	"github.com/upsplice/upsplice/hook/words"
	"github.com/upsplice/upsplice/plugins/backend"
	"github.com/upsplice/upsplice/splice/build"
	"github.com/upsplice/upsplice/splice/splicefile"
)

// Step is the pair of kernels that a splice leads between. With Patches, To is From.
type Step struct {
	From, To    backend.Kernel
	Patches     []string         // files with patches of From's source
	Description string           // of the patches
	Changes     []backend.Change // of the changelog, if the backend knows
	Policy      report.Policy    // of an update, known once it is built
}

// Patch is the step from a kernel to the same one with patches. An empty release is
// that of the running kernel; it need not be installed.
func (p *Pipeline) Patch(ctx context.Context, release string, patches []string, description string) (Step, error) {
	b, err := p.Open(ctx)
	if err != nil {
		return Step{}, err
	}
	defer b.Close()
	if release == "" {
		release = p.Kernel.Release()
	}
	k, err := find(ctx, b, release, "")
	return Step{From: k, To: k, Patches: patches, Description: description}, err
}

// Find completes a step from releases: an empty from is the running kernel, an
// empty to the newest one of its flavour that is installed or offered.
func (p *Pipeline) Find(ctx context.Context, from, to string) (Step, error) {
	b, err := p.Open(ctx)
	if err != nil {
		return Step{}, err
	}
	defer b.Close()
	if from == "" {
		from = p.Kernel.Release()
	}
	var s Step
	if s.From, err = find(ctx, b, from, ""); err != nil {
		return Step{}, err
	}
	if to != "" {
		if s.To, err = find(ctx, b, to, s.From.Flavour); err != nil {
			return Step{}, err
		}
		return s, nil
	}
	offered, err := b.Available(ctx, s.From.Flavour)
	if err != nil {
		return Step{}, failed("listing the kernels of flavour "+s.From.Flavour, err)
	}
	next, ok, err := newest(ctx, b, s.From, offered)
	if err != nil {
		return Step{}, err
	}
	if !ok {
		return Step{}, &outcome.Error{Outcome: outcome.NothingToDo,
			What: "looking for a kernel newer than " + s.From.Release, Err: errors.New("there is none")}
	}
	s.To = next
	return s, nil
}

// find looks for a kernel that is installed or, of a flavour (empty: any), offered.
func find(ctx context.Context, b Backend, release, flavour string) (backend.Kernel, error) {
	k, err := b.Installed(ctx, release)
	if err == nil || !errors.Is(err, &backend.Error{Kind: backend.NotFound}) {
		return k, err
	}
	offered, listErr := b.Available(ctx, flavour)
	if listErr != nil {
		return k, failed("looking for kernel "+release, listErr)
	}
	// Of several builds the last one, which is the newest.
	for _, k := range slices.Backward(offered) {
		if k.Release == release {
			return k, nil
		}
	}
	return k, failed("looking for kernel "+release, err)
}

// Image fetches the image and the modules of a kernel, which need not be installed.
func (p *Pipeline) Image(ctx context.Context, release string) (build.Kernel, error) {
	b, err := p.Open(ctx)
	if err != nil {
		return build.Kernel{}, err
	}
	defer b.Close()
	k, err := find(ctx, b, release, "")
	if err != nil {
		return build.Kernel{}, err
	}
	return p.materials(ctx, b, k, backend.WantImage, backend.WantModules)
}

// Make fetches what the step needs and builds its splice. It touches neither the
// journal nor the kernel.
func (p *Pipeline) Make(ctx context.Context, s *Step) (Built, error) {
	b, err := p.Open(ctx)
	if err != nil {
		return Built{}, err
	}
	defer b.Close()
	return p.make(ctx, b, s)
}

func (p *Pipeline) make(ctx context.Context, b Backend, s *Step) (Built, error) {
	if len(s.Patches) > 0 {
		return p.patched(ctx, b, s)
	}
	policy, said, err := p.policy()
	if err != nil {
		return Built{}, err
	}
	s.Policy = said
	from, to, err := p.fetch(ctx, b, s)
	if err != nil {
		return Built{}, err
	}
	p.stage("build", "building the splice from %s to %s", s.From.SourceVersion, s.To.SourceVersion)
	return p.Builder.Build(ctx, build.Request{
		From: from, To: to, Policy: policy, Cache: p.Config.Cache, Jobs: p.Config.Jobs,
	}, p.Sink)
}

// patched builds a splice from patches.
func (p *Pipeline) patched(ctx context.Context, b Backend, s *Step) (Built, error) {
	p.stage("fetch", "fetching the source of %s", s.From.SourceVersion)
	from, err := p.materials(ctx, b, s.From, backend.WantSource, backend.WantHeaders, backend.WantImage, backend.WantModules)
	if err != nil {
		return Built{}, err
	}
	p.stage("build", "building the splice of %s", words.Count(len(s.Patches), "patch"))
	return p.Builder.Build(ctx, build.Request{
		From: from, Patches: s.Patches, Description: s.Description, Cache: p.Config.Cache, Jobs: p.Config.Jobs,
	}, p.Sink)
}

// fetch gets the materials of both kernels, side by side.
func (p *Pipeline) fetch(ctx context.Context, b Backend, s *Step) (from, to build.Kernel, err error) {
	p.stage("fetch", "fetching the sources of %s and %s", s.From.SourceVersion, s.To.SourceVersion)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		from, err = p.materials(ctx, b, s.From, backend.WantSource, backend.WantHeaders, backend.WantImage, backend.WantModules)
		return err
	})
	g.Go(func() (err error) {
		to, err = p.materials(ctx, b, s.To, backend.WantSource, backend.WantImage, backend.WantModules)
		return err
	})
	g.Go(func() error {
		// A label for people: its absence stops nothing.
		s.Changes, _ = b.Changes(ctx, s.From, s.To)
		return nil
	})
	return from, to, g.Wait()
}

func (p *Pipeline) materials(ctx context.Context, b Backend, k backend.Kernel, want ...backend.Want) (build.Kernel, error) {
	req := backend.FetchRequest{Kernel: k, Dir: p.downloads(k), Want: want}
	m, err := b.Fetch(ctx, req, func(pr backend.Progress) {
		p.Sink.Emit(progress.Event{Kind: progress.Tick, Stage: "fetch", Text: pr.Text, Done: pr.Done, Total: pr.Total, Unit: progress.Bytes})
	})
	if err != nil {
		return build.Kernel{}, failed("fetching the packages of "+k.Release, err)
	}
	return build.Kernel{
		Kernel:        splicefile.Kernel{Release: k.Release, Version: k.SourceVersion, Arch: k.Arch},
		SourceArchive: m.SourceArchive, Headers: m.Headers, Kbuild: m.Kbuild, CC: m.Compiler,
		Image: m.Image, Module: m.Module, Modules: m.Modules,
	}, nil
}

// Prepare fetches and prepares what a splice of release (empty: the running
// kernel) will need, while the archive still has it.
func (p *Pipeline) Prepare(ctx context.Context, release string) error {
	b, err := p.Open(ctx)
	if err != nil {
		return err
	}
	defer b.Close()
	if release == "" {
		release = p.Kernel.Release()
	}
	k, err := b.Installed(ctx, release)
	if err != nil {
		return failed("looking for the package of the kernel "+release, err)
	}
	p.stage("fetch", "fetching the source of %s", k.SourceVersion)
	mat, err := p.materials(ctx, b, k, backend.WantSource, backend.WantHeaders, backend.WantImage, backend.WantModules)
	if err != nil {
		return err
	}
	p.stage("prepare", "preparing for updates of %s", k.Release)
	return p.Builder.Prepare(ctx, mat, p.Config.Cache, p.Sink)
}

// ReadSplice opens and verifies a .splice file.
func ReadSplice(path string) (*splicefile.File, error) {
	// Not blocking: what the build user left there may be a pipe.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, &outcome.Error{Outcome: outcome.Failed, What: "opening the splice", Err: err}
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && !st.Mode().IsRegular() {
		return nil, &outcome.Error{Outcome: outcome.Refused, Check: "file", What: "reading " + path, Err: fmt.Errorf("it is not a regular file")}
	}
	s, err := splicefile.Read(f)
	if err != nil {
		return nil, &outcome.Error{Outcome: outcome.Refused, Check: "splice file", What: "reading " + path, Err: err,
			Remedy: "build the splice again"}
	}
	return s, nil
}
