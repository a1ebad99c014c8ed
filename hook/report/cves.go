// SPDX-License-Identifier: Apache-2.0

package report

import (
	"slices"
	"strings"
)

// cves lays the ids of the changelog to files and groups.
func (r *Report) cves(in Input) {
	if in.Changes == nil {
		return
	}
	known := in.Sources != nil
	var ix *index
	if known {
		ix = newIndex(in.Sources)
	}
	byID := map[string]*CVE{}
	var ids []string
	for _, ch := range in.Changes {
		if len(ch.CVEs) == 0 {
			continue
		}
		found := CVE{State: Unknown, Subject: ch.Text}
		if known {
			found = r.locate(ix, ch.Text, in.Policy)
		}
		for _, id := range ch.CVEs {
			if c := byID[id]; c != nil {
				c.join(found)
				continue
			}
			c := found
			c.ID = id
			byID[id] = &c
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	for _, id := range ids {
		c := *byID[id]
		r.CVEs = append(r.CVEs, c)
		r.Sums.CVEs.add(c)
		for _, n := range c.Groups {
			r.Groups[n-1].CVEs = append(r.Groups[n-1].CVEs, id)
		}
	}
}

func (s *CVESums) add(c CVE) {
	s.Total++
	switch c.State {
	case Live:
		s.Live++
	case Partly:
		s.Partly++
	case Deferred:
		s.Deferred++
	case NotBuilt:
		s.NotBuilt++
	case NotExamined:
		s.NotExamined++
	case Unknown:
		s.Unknown++
	default:
		s.NoEffect++
	}
	if c.reaches() {
		s.Reach++
		if c.Certainty == Strong {
			s.Strong++
		}
	}
}

// reaches: code of this kernel that runs has to do with it.
func (c CVE) reaches() bool { return c.State == Live || c.State == Partly || c.State == Deferred }

// join takes in another line of the changelog about the same id. A line whose code is
// known says more than one whose code is not.
func (c *CVE) join(o CVE) {
	c.Subject += "; " + o.Subject
	switch {
	case !o.reaches() && (c.reaches() || o.State == Unknown):
		return
	case !c.reaches():
		c.State, c.Certainty = o.State, o.Certainty
	default:
		c.State = both(c.State, o.State)
		if o.Certainty == Weak {
			c.Certainty = Weak
		}
	}
	for _, f := range o.Files {
		if !slices.Contains(c.Files, f) {
			c.Files = append(c.Files, f)
		}
	}
	for _, g := range o.Groups {
		if !slices.Contains(c.Groups, g) {
			c.Groups = append(c.Groups, g)
		}
	}
	slices.Sort(c.Groups)
}

// locate finds the code that one line of the changelog is about.
func (r *Report) locate(ix *index, subject string, p Policy) CVE {
	c := CVE{Subject: subject, State: Unknown}
	best, ok := ix.find(subject)
	if !ok {
		return c
	}
	c.Certainty = best.certainty
	c.Files = []string{best.file.Path}
	var here, named []int
	for _, g := range r.Groups {
		if !touches(g, best.file.Path) {
			continue
		}
		here = append(here, g.Number)
		if slices.ContainsFunc(g.Functions, func(f string) bool { return best.parts[plain(f)] }) {
			named = append(named, g.Number)
		}
	}
	switch {
	case len(named) > 0:
		c.Groups = named
	case len(here) > 0:
		c.Groups = here
		if len(here) > 1 {
			// Which of them is not told.
			c.Certainty = Weak
		}
	case !best.file.Source():
		// Who includes it is not known here.
		c.Certainty = ""
		return c
	default:
		if c.State = place(best.file.Targets, p); c.State == "" {
			c.State = NoEffect
		}
		return c
	}
	c.State = r.Groups[c.Groups[0]-1].State
	for _, n := range c.Groups[1:] {
		c.State = both(c.State, r.Groups[n-1].State)
	}
	if c.State == AtBoot {
		c.State = NoEffect
	}
	return c
}

func touches(g Group, file string) bool {
	if len(g.Files) > 0 {
		return slices.Contains(g.Files, file)
	}
	stem := strings.TrimSuffix(strings.TrimSuffix(file, ".c"), ".S")
	return slices.Contains(g.Units, stem+".o") || len(g.Units) == 0 && slices.Contains(files(g.Group), file)
}

// plain is the name of a function in the source: compilers add .isra.0 and the like.
func plain(function string) string {
	name, _, _ := strings.Cut(function, ".")
	return name
}
