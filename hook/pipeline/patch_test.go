// SPDX-License-Identifier: Apache-2.0

package pipeline

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/upsplice/upsplice/hook/outcome"
	"github.com/upsplice/upsplice/hook/progress"
	"github.com/upsplice/upsplice/plugins/backend"
	"github.com/upsplice/upsplice/splice/build"
	"github.com/upsplice/upsplice/splice/splicefile"
)

// archiveOnly is a backend of a machine on which only the running kernel is
// installed.
type archiveOnly struct {
	fakeBackend
	fetched *[]backend.FetchRequest
}

func (b archiveOnly) Installed(ctx context.Context, release string) (backend.Kernel, error) {
	if release != "1.0-1-cloud" {
		return backend.Kernel{}, &backend.Error{Kind: backend.NotFound, What: "kernel " + release}
	}
	return b.fakeBackend.Installed(ctx, release)
}

func (b archiveOnly) Available(_ context.Context, flavour string) ([]backend.Kernel, error) {
	old := kernelOf("1.0-2-rt")
	old.Flavour, old.Version = "rt", "old build"
	other := kernelOf("1.0-2-rt")
	other.Flavour = "rt"
	all := append([]backend.Kernel{old, other}, kernelOf("1.0-1-cloud"))
	return slices.DeleteFunc(all, func(k backend.Kernel) bool { return flavour != "" && k.Flavour != flavour }), nil
}

// fetching: both kernels of an update are fetched at once.
var fetching sync.Mutex

func (b archiveOnly) Fetch(_ context.Context, req backend.FetchRequest, _ func(backend.Progress)) (backend.Materials, error) {
	fetching.Lock()
	defer fetching.Unlock()
	*b.fetched = append(*b.fetched, req)
	return backend.Materials{SourceArchive: "/s", Modules: "/m"}, nil
}

type recordingBuilder struct {
	fakeBuilder
	got *build.Request
}

func (b recordingBuilder) Build(_ context.Context, req build.Request, _ progress.Sink) (Built, error) {
	*b.got = req
	return Built{Files: 1}, nil
}

// A splice of patches needs the one kernel, which need be neither the running one
// nor installed.
func TestPatch(t *testing.T) {
	w := newWorld(t)
	p := w.pipeline(t, "boot")
	var fetched []backend.FetchRequest
	var req build.Request
	p.Open = func(context.Context) (Backend, error) { return archiveOnly{fakeBackend{w}, &fetched}, nil }
	p.Builder = recordingBuilder{got: &req}
	for _, c := range []struct{ release, want string }{{"", "1.0-1-cloud"}, {"1.0-2-rt", "1.0-2-rt"}} {
		fetched = nil
		step, err := p.Patch(context.Background(), c.release, []string{"/a.patch"}, "why")
		if err != nil {
			t.Fatal(err)
		}
		if step.From.Release != c.want || step.From.Version != c.want {
			t.Errorf("Patch(%q) found %+v", c.release, step.From)
		}
		built, err := p.Make(context.Background(), &step)
		if err != nil {
			t.Fatal(err)
		}
		if len(fetched) != 1 || fetched[0].Kernel.Release != c.want || !slices.Contains(fetched[0].Want, backend.WantModules) {
			t.Errorf("fetched %+v", fetched)
		}
		if !slices.Equal(req.Patches, []string{"/a.patch"}) || req.Description != "why" || req.To != (build.Kernel{}) || req.From.Modules != "/m" {
			t.Errorf("request %+v", req)
		}
		if end := BuildError(step, built); outcome.Of(end) != outcome.NothingToDo || !strings.Contains(end.Error(), "of 1 patch") {
			t.Errorf("BuildError() = %v", end)
		}
	}
	_, err := p.Patch(context.Background(), "9.9-rt", nil, "")
	if outcome.Of(err) != outcome.Failed || !errors.Is(err, &backend.Error{Kind: backend.NotFound}) {
		t.Errorf("a kernel that is nowhere: %v", err)
	}
}

// An update wants the modules of both kernels.
func TestUpdateWantsModules(t *testing.T) {
	w := newWorld(t)
	p := w.pipeline(t, "boot")
	var fetched []backend.FetchRequest
	var req build.Request
	p.Open = func(context.Context) (Backend, error) { return archiveOnly{fakeBackend{w}, &fetched}, nil }
	p.Builder = recordingBuilder{got: &req}
	step := Step{From: kernelOf("1.0-1-cloud"), To: kernelOf("1.0-2-cloud")}
	if _, err := p.Make(context.Background(), &step); err != nil {
		t.Fatal(err)
	}
	if req.From.Modules == "" || req.To.Modules == "" || req.To.Kernel == (splicefile.Kernel{}) {
		t.Errorf("request %+v", req)
	}
}

// A splice takes over from the one before it. With patches something may be lost, which
// is said; an update has all of the update before it.
func TestReplacingPatchesIsSaid(t *testing.T) {
	w := newWorld(t)
	p := w.pipeline(t, "boot1")
	lock, err := p.Journal.TryLock()
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Unlock()
	apply := func(to string, patches ...string) (notes []string) {
		t.Helper()
		name := "upsplice_" + strings.Join(append(patches, to[:3]), "_")
		f := &splicefile.File{
			Manifest: splicefile.Manifest{From: splicefile.Kernel{Release: "1.0-1-cloud"}, To: splicefile.Kernel{Release: to},
				Modules: []splicefile.Module{{Name: name, File: name + ".ko"}}},
			Payload: map[string][]byte{name: []byte("module")},
		}
		for _, n := range patches {
			f.Manifest.Patches = append(f.Manifest.Patches, splicefile.Patch{Name: n})
		}
		if err := f.Manifest.Seal(f.Payload); err != nil {
			t.Fatal(err)
		}
		p.Sink = progress.SinkFunc(func(e progress.Event) {
			if e.Kind == progress.Note {
				notes = append(notes, e.Text)
			}
		})
		if _, err := p.ApplySplice(t.Context(), lock, f); err != nil {
			t.Fatal(err)
		}
		return notes
	}
	for _, c := range []struct {
		to      string
		patches []string
		notes   int
	}{
		{"1.1-1-cloud", nil, 0}, {"1.2-1-cloud", nil, 0},
		{"1.0-1-cloud", []string{"a"}, 1}, {"1.0-1-cloud", []string{"a", "b"}, 1},
		{"1.0-1-cloud", []string{"a", "b"}, 0}, // the same again
		{"1.3-1-cloud", nil, 1},
	} {
		if notes := apply(c.to, c.patches...); len(notes) != c.notes || len(notes) == 1 && !strings.Contains(notes[0], "takes the place of") {
			t.Errorf("applying %s with the patches %q: %q", c.to, c.patches, notes)
		}
	}
}
