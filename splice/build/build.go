// SPDX-License-Identifier: Apache-2.0

// Package build makes a splice from two source archives: delta, units, compile
// pre and post, diff, group, match, module. It never touches the running system
// and needs no root.
package build

import (
	"context"

	"github.com/upsplice/upsplice/splice/splicefile"
	"github.com/upsplice/upsplice/splice/touch"
)

// Kernel is one side of the update with all that is at hand for it.
type Kernel struct {
	splicefile.Kernel
	SourceArchive string // linux-source-X.tar.xz
	Headers       string // unpacked, see kbuild.Materials
	Kbuild        string
	CC            string
	Image         string // vmlinuz
	Modules       string // lib/modules/RELEASE with its kernel directory, "" if not at hand
	Module        string // any .ko of this kernel, for its vermagic
}

// Event is one step of progress. Total 0 means unknown.
type Event struct {
	Stage string // "delta", "units", "compile", "diff", "match", "module"
	Text  string
	Done  int64
	Total int64
	Unit  string // Bytes, or "" for things that Text names
}

// Bytes is the Unit of byte counts.
const Bytes = "bytes"

// Request of Run: from one kernel to another, or, with Patches, from a kernel to
// the same one with its source patched; To is then not used.
type Request struct {
	From, To    Kernel
	Patches     []string // files with unified diffs, applied to From's source in order
	Policy      Policy   // of an update
	Description string   // of the patches, for people
	// CFiles is the directory with the C files of package kmod/cfiles: headers for
	// custom code in patches, and the support code of livepatch modules.
	CFiles   string
	Cache    string // directory owned by the building user
	Jobs     int
	Progress func(Event) // may be nil; never called concurrently
}

// Policy is what of an update the administrator wants live.
type Policy struct {
	// Allow and Deny are patterns as path.Match has them: of files and directories
	// ("fs/ext4", "drivers/*"), and behind a colon of functions ("fs/*:ext4_*",
	// ":do_exit"). Empty Allow allows all; Deny goes before Allow.
	Allow, Deny []string
	// Fixes leaves out groups that bring what the running kernel has not got yet, see
	// package policy.
	Fixes bool
	// Modules are the modules that are examined, beside the kernel itself; nil for
	// all that are installed.
	Modules []string
}

// Result of Run. File is nil if nothing goes live: Groups then says why.
type Result struct {
	File   *splicefile.File
	Groups []splicefile.Group
	Files  int // changed files of the delta
	Hunks  int
	Units  int // changed units that this configuration builds
	// Sources are the files of the delta, for people.
	Sources []touch.File
	Notes   []string // what behaves in another way than in a kernel that booted with the change
	Fuzz    []string // hunks of the patches that did not apply exactly
	Stages  []Timing
}

// Timing is the cost of one stage.
type Timing struct {
	Stage   string
	Seconds float64 // wall clock
	CPU     float64 // seconds of this process and of those that it ran
}

// RefusedError is the error of Run and Prepare when a safety check said no for the
// whole update: the image is not that of the kernel, no pre object matches it.
type RefusedError struct {
	Check string // name of the check, for people and programs
	Err   error
}

func (e *RefusedError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *RefusedError) Unwrap() error { return e.Err }

// Run builds the splice that makes From's running code that of To.
func Run(ctx context.Context, req Request) (*Result, error) { return run(ctx, req) }

// Prepare does everything that needs only the running kernel: tree, output
// directory, unit list, image. It is safe to interrupt and to repeat.
func Prepare(ctx context.Context, k Kernel, cache string, progress func(Event)) error {
	return prepare(ctx, k, cache, progress)
}
