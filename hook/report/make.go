// SPDX-License-Identifier: Apache-2.0

package report

import (
	"path"
	"slices"
	"strings"

	"github.com/upsplice/upsplice/hook/outcome"
	"github.com/upsplice/upsplice/splice/kbuild"
	"github.com/upsplice/upsplice/splice/splicefile"
)

// Count counts groups.
func Count(groups []splicefile.Group) Tally {
	var t Tally
	for _, g := range groups {
		t.add(stateOf(g), 1)
	}
	return t
}

// Ends is the outcome of a splice of these groups once it is applied.
func Ends(groups []splicefile.Group) outcome.Outcome {
	if Count(groups).Deferred > 0 {
		return outcome.PartlyLive
	}
	return outcome.Live
}

// OfSplice is the report of a splice of which nothing but its manifest is at hand.
func OfSplice(m splicefile.Manifest) *Report {
	in := Input{Outcome: Ends(m.Groups), From: m.From, To: m.To, ID: m.ID, Description: m.Description,
		Groups: m.Groups, Functions: m.Functions, Files: m.Files, Hunks: m.Hunks, Notes: m.Notes}
	for _, p := range m.Patches {
		in.Patches = append(in.Patches, p.Name)
	}
	return Make(in)
}

// Make makes the report.
func Make(in Input) *Report {
	r := &Report{
		Version: Version, Outcome: in.Outcome, From: in.From, To: in.To, ID: in.ID, Patches: in.Patches, Description: in.Description,
		Files: in.Files, Hunks: in.Hunks, Units: in.Units, Fuzz: in.Fuzz, Notes: in.Notes,
		Deferred: deferrals(in.Groups), Groups: []Group{}, NotBuilt: []string{}, NotExamined: []string{}, CVEs: []CVE{},
		Seconds: map[string]float64{},
	}
	if in.Policy.Policy != "" {
		r.Policy = &in.Policy
	}
	for i, g := range in.Groups {
		if g.Units == nil {
			g.Units = []string{}
		}
		if g.Functions == nil {
			g.Functions = []string{}
		}
		r.Groups = append(r.Groups, Group{Number: i + 1, State: stateOf(g), Group: g})
	}
	for _, s := range in.Stages {
		r.Seconds[s.Stage] = s.Seconds
	}
	r.subsystems()
	r.sources(in)
	r.sum(in)
	r.cves(in)
	return r
}

func stateOf(g splicefile.Group) State {
	switch {
	case g.Live:
		return Live
	case g.Waits():
		return Deferred
	}
	return AtBoot
}

func (t *Tally) add(s State, n int) {
	switch s {
	case Live:
		t.Live += n
	case Partly:
		t.Partly += n
	case Deferred:
		t.Deferred += n
	case AtBoot:
		t.AtBoot += n
		return
	}
	t.Total += n
}

// sum counts the whole. What a splice has in it is counted there: beside what the
// groups name, it may replace callers.
func (r *Report) sum(in Input) {
	r.Sums.Groups = Count(in.Groups)
	for _, s := range r.Subsystems {
		f := s.Functions
		r.Sums.Functions.Live += f.Live
		r.Sums.Functions.Deferred += f.Deferred
		r.Sums.Functions.AtBoot += f.AtBoot
		for _, f := range s.Files {
			r.Sums.Files.add(f.State, 1)
		}
	}
	if in.ID != "" {
		r.Sums.Functions.Live = len(in.Functions)
	}
	r.Sums.Functions.Total = r.Sums.Functions.Live + r.Sums.Functions.Deferred
	r.Sums.SourcesKnown, r.Sums.ChangesKnown = in.Sources != nil, in.Changes != nil
}

// files of a group: those of the source, or what is known instead.
func files(g splicefile.Group) []string {
	if len(g.Files) > 0 {
		return g.Files
	}
	if len(g.Units) > 0 {
		return g.Units
	}
	var list []string
	for _, r := range g.Reasons {
		if !slices.Contains(list, r.What) {
			list = append(list, r.What)
		}
	}
	return list
}

// subsystem is the part of a path that people call by name.
func subsystem(file string) string {
	dir := path.Dir(file)
	if dir == "." {
		return file
	}
	deep := 2
	if strings.HasPrefix(dir, "arch/") || strings.HasPrefix(dir, "drivers/net/") || strings.HasPrefix(dir, "drivers/gpu/") || strings.HasPrefix(dir, "include/") {
		deep = 3
	}
	parts := strings.Split(dir, "/")
	return strings.Join(parts[:min(deep, len(parts))], "/")
}

// subsystems sorts groups by the files that they change. A group and its functions
// are counted in the subsystem of its first file only, so that the sums are right.
func (r *Report) subsystems() {
	byName := map[string]*Subsystem{}
	get := func(name string) *Subsystem {
		if byName[name] == nil {
			byName[name] = &Subsystem{Name: name, Files: []FileReport{}}
		}
		return byName[name]
	}
	byPath := map[string]*FileReport{}
	var paths []string
	for _, g := range r.Groups {
		list := files(g.Group)
		home := "other"
		if len(list) > 0 {
			home = subsystem(list[0])
		}
		s := get(home)
		s.Groups.add(g.State, 1)
		s.Functions.add(g.State, len(g.Functions))
		for _, p := range list {
			f := byPath[p]
			if f == nil {
				f = &FileReport{Path: p, State: g.State}
				byPath[p] = f
				paths = append(paths, p)
			}
			f.State = both(f.State, g.State)
			if !slices.Contains(f.Groups, g.Number) {
				f.Groups = append(f.Groups, g.Number)
			}
		}
	}
	slices.Sort(paths)
	for _, p := range paths {
		s := get(subsystem(p))
		s.Files = append(s.Files, *byPath[p])
	}
	r.Subsystems = []Subsystem{}
	for _, s := range byName {
		r.Subsystems = append(r.Subsystems, *s)
	}
	slices.SortFunc(r.Subsystems, func(a, b Subsystem) int { return strings.Compare(a.Name, b.Name) })
}

// both is the state of what two groups change.
func both(a, b State) State {
	switch {
	case a == b || b == AtBoot:
		return a
	case a == AtBoot:
		return b
	}
	return Partly
}

// sources finds the changed files that no group can name.
func (r *Report) sources(in Input) {
	for _, f := range in.Sources {
		if !f.Source() {
			continue
		}
		switch place(f.Targets, in.Policy) {
		case NotBuilt:
			r.NotBuilt = append(r.NotBuilt, f.Path)
		case NotExamined:
			r.NotExamined = append(r.NotExamined, f.Path)
		}
	}
}

// place says whether code of these targets is examined: NotBuilt, NotExamined, or "".
func place(targets []string, p Policy) State {
	if len(targets) == 0 {
		return NotBuilt
	}
	if p.Modules != "loaded" {
		return ""
	}
	for _, t := range targets {
		if t == kbuild.Vmlinux || t == kbuild.Elsewhere || slices.Contains(p.Loaded, t) {
			return ""
		}
	}
	return NotExamined
}
