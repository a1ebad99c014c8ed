// SPDX-License-Identifier: Apache-2.0

package build

import (
	"cmp"
	"debug/elf"
	"errors"
	"slices"
	"strings"
	"syscall"

	"github.com/upsplice/upsplice/splice/objdiff"
	"github.com/upsplice/upsplice/splice/splicefile"
)

// fatal errors are about the machine, not about the unit.
func fatal(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.ENOMEM)
}

// group is a set of units that go live together or not at all.
type group struct {
	members []*candidate // in order of their objects
	reasons []splicefile.Reason
}

func (g *group) live() bool { return len(g.reasons) == 0 && !g.boot() }

// boot: nothing of the group is used again after boot.
func (g *group) boot() bool {
	return !slices.ContainsFunc(g.members, func(c *candidate) bool { return !c.bootOnly() })
}

// makeGroups joins units of which one refers to what is new, gone or changed in
// another: its new code may need the other's, its old code the other's old one.
// Those of a patch that somebody wrote are one change.
func makeGroups(list []*candidate, one bool) []*group {
	parent := make([]int, len(list))
	for i := range parent {
		parent[i] = i
	}
	root := func(i int) int {
		for parent[i] != i {
			i = parent[i]
		}
		return i
	}
	// Only what has a name beyond its unit can be referred to from another.
	changedBy := make(map[string]int)
	for i, c := range list {
		for _, name := range c.changedNames() {
			changedBy[name] = i
		}
	}
	for i, c := range list {
		for _, name := range c.outsideNames() {
			if j, ok := changedBy[name]; ok && j != i {
				a, b := root(i), root(j)
				parent[max(a, b)] = min(a, b)
			}
		}
	}
	index := make(map[*candidate]int)
	for i, c := range list {
		index[c] = i
	}
	for i, c := range list {
		if c.diff == nil {
			continue
		}
		for _, k := range c.kin() {
			a, b := root(i), root(index[k])
			parent[max(a, b)] = min(a, b)
		}
	}
	if one {
		clear(parent)
	}
	byRoot := make(map[int]*group)
	var groups []*group
	for i, c := range list {
		r := root(i)
		g := byRoot[r]
		if g == nil {
			g = &group{}
			byRoot[r] = g
			groups = append(groups, g)
		}
		g.members = append(g.members, c)
		for _, reason := range c.reasons {
			if !slices.Contains(g.reasons, reason) {
				g.reasons = append(g.reasons, reason)
			}
		}
	}
	for _, g := range groups {
		if g.boot() {
			continue
		}
		for _, c := range g.members {
			for _, reason := range c.boot {
				if !slices.Contains(g.reasons, reason) {
					g.reasons = append(g.reasons, reason)
				}
			}
		}
	}
	return groups
}

func (c *candidate) changedNames() []string {
	if c.diff == nil {
		return nil
	}
	var names []string
	for _, list := range [][]objdiff.Change{c.diff.Functions, c.diff.Data, c.diff.Boot} {
		for _, f := range list {
			if s := cmp.Or(f.Post, f.Pre); s != nil && s.Bind != elf.STB_LOCAL {
				names = append(names, s.Name)
			}
		}
	}
	return names
}

// outsideNames are the symbols of other units that changed code of this one
// refers to, before or after.
func (c *candidate) outsideNames() []string {
	if c.diff == nil {
		return nil
	}
	var names []string
	for _, f := range c.diff.Functions {
		if f.Pre != nil {
			for _, s := range references(c.pre, f.Pre) {
				if s.Section == nil {
					names = append(names, s.Name)
				}
			}
		}
		if f.Post != nil {
			for _, s := range references(c.post, f.Post) {
				if s.Section == nil {
					names = append(names, s.Name)
				}
			}
		}
	}
	return names
}

// report is the group as the manifest shows it.
func (g *group) report() splicefile.Group {
	r := splicefile.Group{Units: []string{}, Functions: []string{}, Live: g.live(), Boot: g.boot(), Reasons: slices.Clone(g.reasons)}
	for _, c := range g.members {
		r.Units = append(r.Units, c.object)
		if r.Boot {
			r.Reasons = append(r.Reasons, c.boot...)
		}
		if c.diff != nil {
			for _, f := range c.diff.Functions {
				r.Functions = append(r.Functions, f.Name)
			}
		}
	}
	slices.SortFunc(r.Reasons, func(a, b splicefile.Reason) int {
		return strings.Compare(a.Code+"\x00"+a.What+"\x00"+a.Detail, b.Code+"\x00"+b.What+"\x00"+b.Detail)
	})
	return r
}

// deferredFiles is a group without units: changed files whose effect is not examined.
func deferredFiles(code, detail string, files []string) splicefile.Group {
	g := splicefile.Group{Units: []string{}, Functions: []string{}}
	for _, f := range files {
		g.Reasons = append(g.Reasons, splicefile.Reason{Code: code, What: f, Detail: detail})
	}
	return g
}
