// SPDX-License-Identifier: Apache-2.0

// Package report makes the one account of what an update or a patch does: what is
// live, what waits and why, what is not in this build. Text, JSON and HTML are
// views of it; nothing else counts.
package report

import (
	"time"

	"github.com/upsplice/upsplice/hook/outcome"
	"github.com/upsplice/upsplice/splice/build"
	"github.com/upsplice/upsplice/splice/splicefile"
	"github.com/upsplice/upsplice/splice/touch"
)

// Version is that of the JSON form of a Report, its field "report". It changes when
// a field goes or changes its meaning; new fields do not change it.
const Version = 1

// State of a group, a file or a CVE.
type State string

const (
	Live     State = "live"
	Partly   State = "partly" // some of its groups are live
	Deferred State = "deferred"
	// AtBoot: only what has done its work when the kernel has booted differs. Nothing
	// waits.
	AtBoot State = "boot"
	// NoEffect, of a CVE: its file is part of this build, and comes out as it was.
	NoEffect State = "no effect"
	// NotBuilt, of a CVE: its file is not part of this build.
	NotBuilt State = "not in this build"
	// NotExamined, of a CVE: its file belongs to modules that are not examined.
	NotExamined State = "not examined"
	// Unknown, of a CVE: it is not known which code is its.
	Unknown State = "unknown"
)

// Input is what is known of an update or a patch.
type Input struct {
	Outcome     outcome.Outcome
	From, To    splicefile.Kernel
	ID          string // of the splice, "" if there is none
	Patches     []string
	Description string
	Policy      Policy

	Groups []splicefile.Group
	// Functions are those of the splice; nil if there is none.
	Functions []splicefile.Function
	Sources   []touch.File // nil: not known
	Changes   []Change     // of the changelog; nil: not known

	Files, Hunks, Units int
	Fuzz, Notes         []string
	Stages              []build.Timing
}

// Change is one line of a changelog.
type Change struct {
	Text string
	CVEs []string
}

// Policy is the configuration that the report was made under.
type Policy struct {
	Policy  string   `json:"policy"`
	Allow   []string `json:"allow"`
	Deny    []string `json:"deny"`
	Modules string   `json:"modules"`
	// Loaded are the modules that were examined, with modules = "loaded".
	Loaded []string `json:"loaded,omitempty"`
}

// Report is the account. Its JSON form is what --json prints.
type Report struct {
	Version     int               `json:"report"`
	Outcome     outcome.Outcome   `json:"outcome"`
	From        splicefile.Kernel `json:"from"`
	To          splicefile.Kernel `json:"to"`
	ID          string            `json:"id,omitempty"`
	Patches     []string          `json:"patches,omitempty"` // file names
	Description string            `json:"description,omitempty"`
	Policy      *Policy           `json:"policy,omitempty"` // of an update

	Files int      `json:"files"` // changed files of the delta
	Hunks int      `json:"hunks"`
	Units int      `json:"units"`           // changed units of this configuration
	Fuzz  []string `json:"fuzz,omitempty"`  // hunks that did not fit exactly
	Notes []string `json:"notes,omitempty"` // what behaves in another way than after a boot

	Sums       Sums        `json:"sums"`
	Deferred   []Deferral  `json:"deferred"`   // by the first reason of each group, most frequent first
	Subsystems []Subsystem `json:"subsystems"` // by name
	Groups     []Group     `json:"groups"`     // as the engine gives them
	// NotBuilt are changed sources that are not part of this build, NotExamined those
	// of modules that the configuration leaves out. Headers are in neither.
	NotBuilt    []string           `json:"not_built"`
	NotExamined []string           `json:"not_examined"`
	CVEs        []CVE              `json:"cves"` // by id
	Seconds     map[string]float64 `json:"seconds"`
}

// Sums are the counts of a report.
type Sums struct {
	Groups    Tally   `json:"groups"`
	Functions Tally   `json:"functions"`
	Files     Tally   `json:"files"`
	CVEs      CVESums `json:"cves"`
	// SourcesKnown says whether it is known which files are not in this build, and
	// ChangesKnown whether there was a changelog.
	SourcesKnown bool `json:"sources_known"`
	ChangesKnown bool `json:"changes_known"`
}

// Tally counts by state. Total is without AtBoot: that reaches no running code.
type Tally struct {
	Live     int `json:"live"`
	Partly   int `json:"partly"` // of files
	Deferred int `json:"deferred"`
	AtBoot   int `json:"boot"`
	Total    int `json:"total"`
}

// CVESums count the CVE ids that the changelog names, by state.
type CVESums struct {
	Live        int `json:"live"`
	Partly      int `json:"partly"`
	Deferred    int `json:"deferred"`
	NoEffect    int `json:"no_effect"`
	NotBuilt    int `json:"not_built"`
	NotExamined int `json:"not_examined"`
	Unknown     int `json:"unknown"`
	Total       int `json:"total"`
	// Reach is Live, Partly and Deferred together; Strong how many of those are
	// strongly laid to their code.
	Reach  int `json:"reach"`
	Strong int `json:"reach_strong"`
}

// Deferral is one kind of reason with the groups that wait for it. A group with
// reasons of several kinds is counted under the first in the order of Kinds.
type Deferral struct {
	Code      string `json:"code"`
	Text      string `json:"text"` // "need new struct members"
	Groups    int    `json:"groups"`
	Functions int    `json:"functions"`
	// Also counts the groups that have such a reason behind another one.
	Also  int    `json:"also"`
	Names []Name `json:"names"` // what stands in the way, most frequent first
}

// Name is what a reason names, with the number of groups.
type Name struct {
	Name   string `json:"name"`
	Groups int    `json:"groups"`
}

// Subsystem is a directory of the source with its changed files.
type Subsystem struct {
	Name      string       `json:"name"` // "fs/ext4"
	Groups    Tally        `json:"groups"`
	Functions Tally        `json:"functions"`
	Files     []FileReport `json:"files"`
}

// FileReport is one file and the groups that change it.
type FileReport struct {
	Path   string `json:"path"`
	State  State  `json:"state"`
	Groups []int  `json:"groups"` // numbers
}

// Group is a group of the engine with its number from 1.
type Group struct {
	Number int   `json:"number"`
	State  State `json:"state"`
	splicefile.Group
	CVEs []string `json:"cves,omitempty"`
}

// Certainty says how a CVE id was laid to code. Of 130 lines of the changelog of a
// large update, read by hand, 97 of 100 strong ones had the right file, and 8 of 10
// weak ones; which group of that file is theirs is a little less sure.
type Certainty string

const (
	// Strong: a name in the changelog's line is a function or a word of the lines that
	// differ, or no other file comes near.
	Strong Certainty = "strong"
	// Weak: the words of the line fit this file better than others.
	Weak Certainty = "weak"
)

// Certain says for people how far the states of CVEs can be trusted.
const Certain = "laid to code by the words of the changelog: of those called strong about 19 in 20 are right, of the weak 4 in 5"

// CVE is one id that the changelog names. Its files and groups are guessed from
// words; nothing is selected by them.
type CVE struct {
	ID        string    `json:"id"`
	State     State     `json:"state"`
	Certainty Certainty `json:"certainty,omitempty"`
	Subject   string    `json:"subject"`
	Files     []string  `json:"files,omitempty"`
	Groups    []int     `json:"groups,omitempty"`
}

// Summary is what a hook says at the end, a line each. took is the time of the run.
func (r *Report) Summary(took time.Duration) []string { return r.summary(took) }
