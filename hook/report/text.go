// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/upsplice/upsplice/hook/words"
)

// fewGroups is how many groups are shown one by one; of more, those that are live
// are told by file.
const fewGroups = 20

// mostNames is how many names a line of reasons gives.
const mostNames = 6

// Text writes the whole report for a terminal. would is "would be " if the splice is
// not applied and "" if it is.
func (r *Report) Text(w io.Writer, would string) error {
	t := &text{w: w}
	if len(r.Patches) > 0 {
		t.line("kernel", "%s   %s", r.From.Release, r.From.Version)
		t.line("patch", "%s", strings.Join(r.Patches, ", "))
	} else {
		t.line("from", "%s   %s", r.From.Release, r.From.Version)
		t.line("to", "%s   %s", r.To.Release, r.To.Version)
	}
	t.line("delta", "%s, %s, %s of this kernel", words.Count(r.Files, "file"), words.Count(r.Hunks, "hunk"), words.Count(r.Units, "unit"))
	if t.err != nil {
		return t.err
	}
	return r.Body(w, would)
}

// Body is Text without its first lines, which name the kernels and the size of the
// difference.
func (r *Report) Body(w io.Writer, would string) error {
	t := &text{w: w}
	for _, f := range r.Fuzz {
		t.line("inexact", "%s", f)
	}
	r.policyText(t)
	r.sumText(t, would)
	r.cveText(t)
	if len(r.Groups) <= fewGroups {
		r.groupText(t)
	} else {
		r.whyText(t)
		r.whereText(t, would)
	}
	for _, n := range r.Notes {
		t.line("note", "%s", n)
	}
	return t.err
}

type text struct {
	w   io.Writer
	err error
}

// line has a word in front, "" under the line before.
func (t *text) line(head, format string, arg ...any) {
	if t.err == nil {
		_, t.err = fmt.Fprintf(t.w, "%-11s "+format+"\n", append([]any{head}, arg...)...)
	}
}

func (r *Report) policyText(t *text) {
	p := r.Policy
	if p == nil {
		return
	}
	parts := []string{p.Policy}
	if len(p.Allow) > 0 {
		parts = append(parts, "allow "+strings.Join(p.Allow, " "))
	}
	if len(p.Deny) > 0 {
		parts = append(parts, "deny "+strings.Join(p.Deny, " "))
	}
	if p.Modules == "loaded" {
		parts = append(parts, "modules loaded now ("+words.Count(len(p.Loaded), "module")+")")
	}
	if len(parts) > 1 || p.Policy != "all" {
		t.line("policy", "%s", strings.Join(parts, ", "))
	}
}

func (r *Report) sumText(t *text, would string) {
	s := r.Sums
	if s.Groups.Total > 0 {
		t.line("live", "%s%s, %s, %d of %s", would, share(s.Groups), words.Count(s.Functions.Live, "function"), s.Files.Live, words.Count(s.Files.Total, "file"))
	}
	if n := s.Groups.Deferred; n > 0 {
		t.line("deferred", "%s: %s", words.Count(n, "fix"), r.Why())
	}
	if n := s.Groups.AtBoot; n > 0 {
		t.line("at boot", "%s %s only what has done its work once the kernel has booted: nothing waits", words.Count(n, "fix"), words.Verb(n, "change"))
	}
	if n := len(r.NotBuilt); n > 0 {
		t.line("not built", "%s %s not in this build: %s", words.Count(n, "source"), words.Verb(n, "are"), topDirs(r.NotBuilt))
	}
	if n := len(r.NotExamined); n > 0 {
		t.line("not loaded", "%s %s of modules that are not loaded: %s", words.Count(n, "source"), words.Verb(n, "are"), topDirs(r.NotExamined))
	}
}

// topDirs counts files by their first directory.
func topDirs(files []string) string {
	n := map[string]int{}
	for _, f := range files {
		dir, _, _ := strings.Cut(f, "/")
		n[dir]++
	}
	var parts []string
	for _, d := range ranked(n) {
		parts = append(parts, fmt.Sprintf("%s %d", d.Name, d.Groups))
	}
	return cut(parts)
}

// cut keeps a line short.
func cut(parts []string) string {
	if len(parts) > mostNames+1 {
		rest := len(parts) - mostNames
		parts = append(parts[:mostNames:mostNames], fmt.Sprintf("%d more", rest))
	}
	return strings.Join(parts, ", ")
}

func (r *Report) cveText(t *text) {
	c := r.Sums.CVEs
	if c.Total == 0 {
		return
	}
	t.line("CVEs", "%s named in the changelog; %d %s this kernel: %d live, %d partly, %d deferred",
		words.Count(c.Total, "id"), c.Reach, words.Verb(c.Reach, "reach"), c.Live, c.Partly, c.Deferred)
	var rest []string
	for _, s := range []struct {
		n    int
		what string
	}{{c.NotBuilt, "not in this build"}, {c.NotExamined, "of modules that are not loaded"}, {c.NoEffect, "without effect on running code"}, {c.Unknown, "not known"}} {
		if s.n > 0 {
			rest = append(rest, fmt.Sprintf("%d %s", s.n, s.what))
		}
	}
	if len(rest) > 0 {
		t.line("", "%s", strings.Join(rest, ", "))
	}
	if c.Reach > 0 {
		t.line("", "%s (%d strong, %d weak)", Certain, c.Strong, c.Reach-c.Strong)
	}
	for _, v := range r.CVEs {
		if v.State == Partly || v.State == Deferred {
			t.line("", "%s %s, %s: %s: %s", v.ID, v.State, v.Certainty, strings.Join(v.Files, ", "), v.Subject)
		}
	}
}

// groupText shows each group with its units, as the engine calls them.
func (r *Report) groupText(t *text) {
	for _, g := range r.Groups {
		state := map[State]string{Live: "live", Deferred: "deferred", AtBoot: "at boot"}[g.State]
		where := g.Units
		if len(where) == 0 {
			where = files(g.Group)
		}
		for _, u := range where {
			t.line(state, "%s", u)
		}
		for _, f := range g.Functions {
			t.line("", "  %s", f)
		}
		for _, why := range g.Reasons {
			t.line("", "  %s: %s: %s", why.Code, why.What, why.Detail)
		}
	}
}

// whyText lists what waits, by kind.
func (r *Report) whyText(t *text) {
	for _, d := range r.Deferred {
		var names []string
		for _, n := range d.Names {
			if n.Groups > 1 {
				names = append(names, fmt.Sprintf("%s (%d)", n.Name, n.Groups))
			} else {
				names = append(names, n.Name)
			}
		}
		if d.Groups == 0 {
			t.line("", "and %d that wait for something else also %s", d.Also, phrase(d.Code, d.Also))
			continue
		}
		t.line("deferred", "%d %s: %s", d.Groups, phrase(d.Code, d.Groups), cut(names))
		for _, g := range r.Groups {
			if g.State == Deferred && first(g.Group) == d.Code {
				t.line("", "  %s", briefly(g))
			}
		}
	}
}

// briefly is a group on one line: its files, then its functions.
func briefly(g Group) string {
	line := cut(files(g.Group))
	if len(g.Functions) > 0 {
		line += ": " + cut(g.Functions)
	}
	return line
}

// whereText lists the live groups by subsystem and file.
func (r *Report) whereText(t *text, would string) {
	for _, s := range r.Subsystems {
		if s.Groups.Live == 0 {
			continue
		}
		t.line("live", "%s: %s%s, %s", s.Name, would, share(s.Groups), words.Count(s.Functions.Live, "function"))
		for _, f := range s.Files {
			for _, n := range f.Groups {
				if g := r.Groups[n-1]; g.State == Live && files(g.Group)[0] == f.Path {
					t.line("", "  %s", withFiles(g))
				}
			}
		}
	}
}

func withFiles(g Group) string {
	list := files(g.Group)
	line := path.Base(list[0])
	if len(list) > 1 {
		line += " with " + cut(list[1:])
	}
	if len(g.Functions) > 0 {
		line += ": " + cut(g.Functions)
	}
	return line
}
