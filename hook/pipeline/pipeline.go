// SPDX-License-Identifier: Apache-2.0

// Package pipeline joins the layers: it takes an update from the package
// manager's hook through the backend and the engine into the running kernel, and
// writes down what happened. The layers are reached through the small interfaces
// below.
package pipeline

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/upsplice/upsplice/hook/config"
	"github.com/upsplice/upsplice/hook/journal"
	"github.com/upsplice/upsplice/hook/outcome"
	"github.com/upsplice/upsplice/hook/progress"
	"github.com/upsplice/upsplice/plugins/backend"
	"github.com/upsplice/upsplice/splice/build"
	"github.com/upsplice/upsplice/splice/splicefile"
	"github.com/upsplice/upsplice/splice/touch"
)

// Kernel is the running kernel.
type Kernel interface {
	// Release is what uname -r prints.
	Release() string
	// Modules are the names of the modules that are loaded, sorted, without ours.
	Modules() ([]string, error)
	// Ready says with an *outcome.Error why no splice could be applied, before any
	// work is done for one.
	Ready() error
	// Check compares the running kernel with what the splice expects, without
	// changing anything. Refusals are *outcome.Error.
	Check(f *splicefile.File) error
	// Apply loads the splice, waits until every task runs the new code and verifies
	// that it does. On error nothing of it is live.
	Apply(ctx context.Context, f *splicefile.File, sink progress.Sink) error
	// Undo takes the splice's modules out; those that are not there are skipped.
	Undo(ctx context.Context, f *splicefile.File, sink progress.Sink) error
	// IsLive tells whether the kernel has the splice in force.
	IsLive(f *splicefile.File) (bool, error)
	// Holds tells whether the kernel has any of it: in force, or on its way in or out.
	Holds(f *splicefile.File) (bool, error)
	// Reap removes the modules of splices that another has replaced.
	Reap() error
}

// Backend is an opened distribution backend.
type Backend interface {
	backend.Backend
	Close() error
}

// Builder runs the engine, in a process of its own and as the build user.
type Builder interface {
	// Build makes a splice; file is "" if nothing goes live. Errors that a safety
	// check raised are *outcome.Error with Refused.
	Build(ctx context.Context, req build.Request, sink progress.Sink) (Built, error)
	// Prepare does in advance what needs only the running kernel.
	Prepare(ctx context.Context, k build.Kernel, cache string, sink progress.Sink) error
}

// Built is what the engine made.
type Built struct {
	File    string             `json:"file"` // path of the .splice, "" if nothing goes live
	Groups  []splicefile.Group `json:"groups"`
	Sources []touch.File       `json:"sources,omitempty"`
	Files   int                `json:"files"` // changed files of the delta
	Hunks   int                `json:"hunks"`
	Units   int                `json:"units"`           // changed units of this configuration
	Notes   []string           `json:"notes,omitempty"` // what behaves in another way than in a kernel that booted with the change
	Fuzz    []string           `json:"fuzz,omitempty"`  // hunks of patches that did not fit exactly
	Stages  []build.Timing     `json:"stages"`
}

// Pipeline is the joined layers.
type Pipeline struct {
	Config  config.Config
	Journal *journal.Journal
	Kernel  Kernel
	Builder Builder
	Open    func(ctx context.Context) (Backend, error) // the backend of this system
	Sink    progress.Sink
	Now     func() time.Time // nil: time.Now
}

func (p *Pipeline) now() time.Time {
	if p.Now != nil {
		return p.Now()
	}
	return time.Now()
}

func (p *Pipeline) stage(name, format string, arg ...any) {
	p.Sink.Emit(progress.Event{Kind: progress.Stage, Stage: name, Text: fmt.Sprintf(format, arg...)})
}

func (p *Pipeline) note(format string, arg ...any) {
	p.Sink.Emit(progress.Event{Kind: progress.Note, Text: fmt.Sprintf(format, arg...)})
}

// Packages is the part of the cache with a directory for each kernel version, in
// which the backend keeps its packages.
const Packages = "packages"

func (p *Pipeline) downloads(k backend.Kernel) string {
	return filepath.Join(p.Config.Cache, Packages, k.SourceVersion, k.Release)
}

// failed wraps a fault of a tool, the disk or the network, unless err already
// says how the command ends.
func failed(what string, err error) error {
	if outcome.Of(err) == outcome.Refused || outcome.Of(err) == outcome.Usage {
		return err
	}
	return &outcome.Error{Outcome: outcome.Failed, What: what, Err: err}
}
