// SPDX-License-Identifier: Apache-2.0

// Package patch reads unified diffs and applies them to an extracted source tree,
// with the fuzz that GNU patch allows, whole or not at all.
//
// It has its own reader because the libraries that exist skip in silence what they
// do not understand (a hunk that is longer than it says, a header without hunks),
// take the first component off names without saying so, and know nothing of fuzz:
// a patch of which a part is skipped is the half of a fix. It has its own applier
// because the machine need not have GNU patch, and because what GNU patch did is
// told by prose only; the tests compare the two.
//
// Formats: POSIX (unified format of diff), GNU diffutils manual ("Detailed
// Description of Unified Format", "Inexact matches"), git-diff(1) ("Generating
// patch text with -p").
package patch

import (
	"context"
	"fmt"
	"io"

	"github.com/upsplice/upsplice/splice/tree"
)

// Limits of Parse.
const (
	MaxBytes = 64 << 20 // of one patch
	maxFiles = 20_000
	maxHunks = 500_000
	maxLine  = 1 << 20
)

// maxFuzz is GNU patch's default.
const maxFuzz = 2

// Patch is what one file of unified diffs says.
type Patch struct {
	Name  string // for messages
	Files []File
}

// File is what a patch does to one file.
type File struct {
	// Old and New are the names as they stand in the patch, "" for /dev/null. Only
	// those of renames and copies never have a leading component (a/).
	Old, New string
	Line     int // of the patch, where its header stands

	Git bool // has a header of git

	Renamed bool
	Copied  bool
	Created bool
	Deleted bool
	Binary  bool   // the change itself is not read
	OldMode uint32 // 0 if the patch does not say; like 0o100644
	NewMode uint32
	Hunks   []Hunk

	commit int // of a series in one file, counted
}

// Hunk is one region of changed lines.
type Hunk struct {
	Line               int // of the patch, where its header stands
	OldStart, OldLines int
	NewStart, NewLines int
	Section            string // what follows the second @@
	Lines              []Line
}

// Line of a hunk.
type Line struct {
	Op   byte   // ' ', '-' or '+'
	Text string // with its newline, if it has one
}

// Report says how patches were applied.
type Report struct {
	Hunks   []Placed `json:"hunks"`             // those of files that the tree keeps, in order
	Ignored []string `json:"ignored,omitempty"` // paths that no object of this architecture is made from
}

// Inexact returns the hunks that did not fit exactly where the patch says.
func (r *Report) Inexact() []Placed {
	var list []Placed
	for _, h := range r.Hunks {
		if h.Offset != 0 || h.Fuzz != 0 {
			list = append(list, h)
		}
	}
	return list
}

// Placed is a hunk and where it fitted.
type Placed struct {
	Patch  string `json:"patch"`
	File   string `json:"file"`
	Hunk   int    `json:"hunk"`             // of the file, from 1
	Line   int    `json:"line"`             // of the file before the patch, where it was applied
	Offset int    `json:"offset,omitempty"` // lines from where the patch says
	Fuzz   int    `json:"fuzz,omitempty"`   // lines of context that were disregarded at either end
	Also   []int  `json:"also,omitempty"`   // further lines where it would have fitted as well, the nearest ones
}

func (p Placed) String() string {
	s := fmt.Sprintf("%s: %s: hunk %d applied at line %d", p.Patch, p.File, p.Hunk, p.Line)
	if p.Offset != 0 {
		s += fmt.Sprintf(", offset %+d", p.Offset)
	}
	if p.Fuzz != 0 {
		s += fmt.Sprintf(", fuzz %d", p.Fuzz)
	}
	if len(p.Also) > 0 {
		s += fmt.Sprintf(" (it would fit at line %d too)", p.Also[0])
	}
	return s
}

// Parse reads a patch: unified diffs, plain or as git writes them, with any text
// before and between them (mail headers, descriptions, quilt's series joined). name
// is for messages. Errors name the line of the patch.
func Parse(name string, r io.Reader) (*Patch, error) { return parse(name, r) }

// Apply makes dir, which must not exist, a copy of the extracted tree base with the
// patches applied in order, and returns its delta to base. Files that do not change
// are shared by hard links. If one hunk does not fit, nothing is made: the error is
// then a *HunkError, an *AppliedError or an *UnsupportedError.
//
// Leading components of the names (a/, b/, linux-6.1/) are taken off if the files
// are then found in the tree, and left if they are found so (git's --no-prefix).
// Changes to files that the tree does not keep are listed in the report and have no
// other effect.
func Apply(ctx context.Context, base, dir string, patches []*Patch) (*tree.Delta, *Report, error) {
	return apply(ctx, base, dir, patches)
}

// HunkError says that a hunk does not fit.
type HunkError struct {
	Patch, File string
	Hunk        int    // of the file, from 1
	PatchLine   int    // of the patch, where the hunk starts
	Line        int    // of the file, where the first difference is
	Want, Have  string // that line: as the patch expects it, as it is
	Reason      string // instead of Want and Have, where no line is wrong
}

func (e *HunkError) Error() string {
	s := fmt.Sprintf("applying %s: %s: hunk %d (line %d of the patch) does not fit: ", e.Patch, e.File, e.Hunk, e.PatchLine)
	if e.Reason != "" {
		return s + e.Reason
	}
	return s + fmt.Sprintf("at line %d it expects %q, the file has %q, and no other place fits with a fuzz of up to %d; make the patch for the source of this kernel",
		e.Line, e.Want, e.Have, maxFuzz)
}

// AppliedError says that the tree already has what the patch does.
type AppliedError struct {
	Patch, File string
	Hunk        int // 0: all that the patch does to the file
}

func (e *AppliedError) Error() string {
	if e.Hunk != 0 {
		return fmt.Sprintf("applying %s: %s: hunk %d is already applied, others of this file are not: this kernel's source has a part of the patch; make the patch for the source of this kernel",
			e.Patch, e.File, e.Hunk)
	}
	return fmt.Sprintf("applying %s: %s: already applied: this kernel's source has what the patch does", e.Patch, e.File)
}

// UnsupportedError says that a patch does something that cannot be part of a splice.
type UnsupportedError struct {
	Patch, File string
	PatchLine   int
	Reason      string
}

func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("applying %s: %s (line %d of the patch): %s", e.Patch, e.File, e.PatchLine, e.Reason)
}
