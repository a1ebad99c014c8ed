// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"encoding/json"
	"time"

	"github.com/upsplice/upsplice/hook/outcome"
)

// Trigger is what started an update's splice.
type Trigger string

const (
	// TriggerApt: the package manager's hook.
	TriggerApt Trigger = "apt"
	// TriggerWatch: a kernel landed past the package manager.
	TriggerWatch Trigger = "watch"
	// TriggerManual: a person ran a verb.
	TriggerManual Trigger = "manual"
	// TriggerBoot: the splice is applied again after a reboot.
	TriggerBoot Trigger = "boot"
)

// Kernel is one kernel package as the system knows it.
type Kernel struct {
	// Release is what uname -r prints: "6.1.0-56-cloud-amd64".
	Release string `json:"release"`
	// Version is the package's: "6.1.192-2".
	Version string `json:"version"`
	// Package is its name.
	Package string `json:"package,omitempty"`
	// Path is the package file, if it is on the disk.
	Path string `json:"path,omitempty"`
}

// Update is one step from the kernel that runs to a newer one.
type Update struct {
	From Kernel `json:"from"`
	To   Kernel `json:"to"`
	// Flavour is the part of the release that stays: "cloud-amd64".
	Flavour string  `json:"flavour"`
	Arch    string  `json:"arch"`
	Trigger Trigger `json:"trigger"`
	// DryRun: the splice is built and nothing is loaded.
	DryRun bool `json:"dry_run,omitempty"`
}

// State is where a splice is in its life.
type State string

const (
	// Building: being made; nothing of it is worth keeping after a crash.
	Building State = "building"
	// Built: the file is complete; the kernel has not seen it.
	Built State = "built"
	// Applying: from here until Live only the kernel knows.
	Applying State = "applying"
	// Live: the kernel runs it, in the boot that BootID names.
	Live State = "live"
	// Undone: taken back by a person.
	Undone State = "undone"
	// Retired: a newer splice or a reboot into the new kernel took its place.
	Retired State = "retired"
	// Failed: it could not be built or applied.
	Failed State = "failed"
)

func (s State) valid() bool {
	switch s {
	case Building, Built, Applying, Live, Undone, Retired, Failed:
		return true
	}
	return false
}

// Record is what is known of one splice.
type Record struct {
	// ID is unique; letters, digits, '.', '_' and '-'. A digest, usually.
	ID string `json:"id"`
	// ShortID is the beginning of ID that people use.
	ShortID string `json:"short_id"`
	// File is the path of the .splice.
	File  string `json:"file"`
	From  Kernel `json:"from"`
	To    Kernel `json:"to"`
	State State  `json:"state"`
	// BootID names the boot in which it was applied.
	BootID    string          `json:"boot_id,omitempty"`
	AppliedAt time.Time       `json:"applied_at,omitzero"`
	Outcome   outcome.Outcome `json:"outcome,omitempty"`
	// Targets are vmlinux and the modules that it changes.
	Targets []string `json:"targets,omitempty"`
	// LiveFunctions, LiveGroups and DeferredGroups count.
	LiveFunctions  int `json:"live_functions"`
	LiveGroups     int `json:"live_groups"`
	DeferredGroups int `json:"deferred_groups"`
	// Groups is the engine's account of each group, kept as it is.
	Groups json.RawMessage `json:"groups,omitempty"`
}

// Result is how a run ended, for the person who comes later.
type Result struct {
	// Run is the ticket of the run.
	Run     string          `json:"run"`
	Outcome outcome.Outcome `json:"outcome"`
	// Message is what was said at the end, a line each.
	Message []string `json:"message,omitempty"`
	// Reasons says why, at more length.
	Reasons    []string  `json:"reasons,omitempty"`
	Update     *Update   `json:"update,omitempty"`
	StartedAt  time.Time `json:"started_at,omitzero"`
	FinishedAt time.Time `json:"finished_at,omitzero"`
}

// Request is an update that waits for a worker.
type Request struct {
	// Ticket names the request, and later its run and its result.
	Ticket string    `json:"ticket"`
	At     time.Time `json:"at"`
	Update Update    `json:"update"`
}

// Run is what a worker is doing.
type Run struct {
	Ticket string `json:"ticket"`
	PID    int    `json:"pid"`
	// PIDStart is the start time of PID in clock ticks after the boot (field 22
	// of /proc/PID/stat): a PID alone may by now belong to another process.
	PIDStart  uint64    `json:"pid_start"`
	BootID    string    `json:"boot_id"`
	Stage     string    `json:"stage"`
	StartedAt time.Time `json:"started_at"`
	Update    Update    `json:"update"`
}
