// SPDX-License-Identifier: Apache-2.0

// Package splicefile reads and writes .splice files: a POSIX tar with
// manifest.json first, then the kernel modules it names, each with its digest.
// The same contents give the same bytes.
package splicefile

import (
	"io"

	"github.com/upsplice/upsplice/splice/match"
)

// Format is the version of the manifest.
const Format = 2

// Kernel identifies one kernel.
type Kernel struct {
	Release string `json:"release"` // uname -r
	Version string `json:"version"` // of the source package
	Arch    string `json:"arch"`    // GOARCH form: amd64, arm64
	BuildID string `json:"build_id,omitempty"`
}

// Manifest says what a splice is, for which kernel, and what it does not contain.
type Manifest struct {
	Format int    `json:"format"`
	ID     string `json:"id"` // hex digest of the manifest without id and of the modules
	// Description and Patches are of splices that are made from patches; To is then
	// From.
	Description string  `json:"description,omitempty"`
	Patches     []Patch `json:"patches,omitempty"`

	From      Kernel              `json:"from"`
	To        Kernel              `json:"to"`
	Compiler  string              `json:"compiler"`
	Modules   []Module            `json:"modules"`
	Targets   []Target            `json:"targets"` // what is patched, vmlinux first
	Functions []Function          `json:"functions"`
	Groups    []Group             `json:"groups"`
	Notes     []string            `json:"notes,omitempty"` // what behaves in another way than in a kernel that booted with the change
	Text      uint64              `json:"text"`            // link address of _text, which Expect counts from
	Expect    []match.Expectation `json:"expect"`          // live memory must look like this before anything is loaded
	Files     int                 `json:"files"`           // changed files of the delta
	Hunks     int                 `json:"hunks"`
	PostMatch Check               `json:"post_match"` // post objects against the new kernel's image
}

// Module is one kernel module in the file.
type Module struct {
	Name   string `json:"name"`
	File   string `json:"file"`             // name in the archive
	Pinned bool   `json:"pinned,omitempty"` // stays loaded when undone: something may still call a new function
	SHA256 string `json:"sha256"`
	Size   int64  `json:"size"`
}

// Target is vmlinux or a module of the kernel.
type Target struct {
	Name    string `json:"name"` // "vmlinux", "virtio_blk"
	BuildID string `json:"build_id"`
}

// Patch is a source patch that a splice was made from.
type Patch struct {
	Name   string `json:"name"`
	SHA256 string `json:"sha256"`
	Fuzz   int    `json:"fuzz,omitempty"` // hunks that did not apply exactly
}

// Function is one function that goes live.
type Function struct {
	Name   string `json:"name"`
	Object string `json:"object"` // "vmlinux" or a module
	Sympos int    `json:"sympos"`
	Unit   string `json:"unit"`
	Kind   string `json:"kind"` // "changed", "new"
}

// Group is the smallest set of changes that go live together or not at all.
type Group struct {
	Files     []string `json:"files,omitempty"` // of the source that it changes
	Units     []string `json:"units"`
	Functions []string `json:"functions"`
	Live      bool     `json:"live"`
	// Boot: only what has done its work when the kernel has booted, or a module is
	// loaded, differs. There is nothing to put live, and nothing waits.
	Boot    bool     `json:"boot,omitempty"`
	Reasons []Reason `json:"reasons,omitempty"` // why it is deferred
}

// Waits says that the group has to wait for the next boot.
func (g Group) Waits() bool { return !g.Live && !g.Boot }

// Reason is a named cause of a deferral.
type Reason struct {
	// Code is stable: "module", "header", "layout", "no-fentry", "data",
	// "pre-mismatch", "post-mismatch", "compile", "section", "init", "flags", "weak",
	// "custom"; of changes that need what the running kernel has not got: "member",
	// "type", "constant", "prototype", "symbol"; of those that no machine can judge:
	// "balance" (taken here, given back there), "locks", "always-running", "merge"
	// (the two versions of a file cannot be joined); and "policy".
	Code   string `json:"code"`
	What   string `json:"what"`   // the unit, function, type or file
	Detail string `json:"detail"` // one sentence
}

// Check counts what was compared.
type Check struct {
	Matched int `json:"matched"`
	Total   int `json:"total"`
}

// File is an opened splice.
type File struct {
	Manifest Manifest
	Payload  map[string][]byte // module name to bytes
}

// Write writes f, filling Manifest.Format, ID, and the modules' digests and sizes.
func Write(w io.Writer, f *File) error { return write(w, f) }

// Seal fills what Write fills, for those who want to know a splice's ID before it
// is written.
func (m *Manifest) Seal(payload map[string][]byte) error { return m.seal(payload) }

// Read reads and verifies a splice: format, digests, ID, limits. Errors name what is wrong.
func Read(r io.Reader) (*File, error) { return read(r) }
