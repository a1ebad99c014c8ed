// SPDX-License-Identifier: Apache-2.0

// Package rehearse tries a splice before it goes live: it boots the very kernel
// that the splice is for in QEMU, with our own program as its init, applies the
// splice there after all checks, uses the machine, undoes, applies again and looks
// at what the kernel says and keeps. Neither root nor a root file system is needed.
package rehearse

import (
	"time"

	"github.com/upsplice/upsplice/splice/splicefile"
)

// Options of a rehearsal.
type Options struct {
	Splice  *splicefile.File
	Image   string // the vmlinuz of Splice's From kernel
	Modules string // its /lib/modules/RELEASE; may be empty if no module is a target
	Program string // our own program, linked statically: it is the guest's init
	Exec    string // a program or a shell script to run while the splice is live; may be empty

	Rounds   int           // how often it is applied, used and undone under load after the first two times
	Deadline time.Duration // of a transition; a minute if 0
	CPUs     int           // 2 if 0
	MemoryMB int           // 1024 if 0
	Timeout  time.Duration // of the whole; 10 minutes and half a minute for each round if 0
	Append   string        // added to the kernel's command line

	Step func(Step) // called with each step as it ends; may be nil
}

// Step is one thing that was done in the guest.
type Step struct {
	Name    string   `json:"name"`
	OK      bool     `json:"ok"`
	Detail  string   `json:"detail,omitempty"`
	Output  []string `json:"output,omitempty"` // the last lines of what Exec printed
	Seconds float64  `json:"seconds"`
}

// Growth is a slab cache that grew all the way through the rounds.
type Growth struct {
	Cache  string `json:"cache"`
	Before int    `json:"before"` // objects
	Middle int    `json:"middle"`
	After  int    `json:"after"`
}

// Report of a rehearsal.
type Report struct {
	OK          bool     `json:"ok"`
	Splice      string   `json:"splice"`
	Kernel      string   `json:"kernel"` // uname -r
	Accelerator string   `json:"accelerator"`
	Steps       []Step   `json:"steps"`
	Log         []string `json:"log,omitempty"`   // lines of the kernel log that mean trouble
	Slabs       []Growth `json:"slabs,omitempty"` // caches that leak
	Rounds      int      `json:"rounds"`          // done
	Apply       float64  `json:"apply_seconds"`   // medians of the rounds
	Undo        float64  `json:"undo_seconds"`
	Seconds     float64  `json:"seconds"`
}

// ImageError: there is nothing to boot.
type ImageError struct {
	Path   string
	Remedy string
	Err    error
}

func (e *ImageError) Error() string {
	return "opening the kernel image " + e.Path + ": " + e.Err.Error() + " (" + e.Remedy + ")"
}

// Unwrap returns the cause.
func (e *ImageError) Unwrap() error { return e.Err }
