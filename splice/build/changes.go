// SPDX-License-Identifier: Apache-2.0

package build

import (
	"path"
	"slices"
	"strings"

	"github.com/upsplice/upsplice/splice/kbuild"
	"github.com/upsplice/upsplice/splice/tree"
)

// changes is a delta sorted by what the changed files are to the build.
type changes struct {
	sources []string // .c and .S
	headers []string
	build   []string // files that decide which units there are and how they are compiled
	other   []string // takes part in the build in a way that is not examined
}

// sortChanges leaves out what no object is made from. Kconfig files decide about
// nothing here: the configuration is given.
func sortChanges(d *tree.Delta) changes {
	var c changes
	for _, f := range d.Files {
		if !f.Kept {
			continue
		}
		base, ext := path.Base(f.Path), path.Ext(f.Path)
		host := strings.HasPrefix(f.Path, "scripts/") || strings.HasPrefix(f.Path, "arch/x86/tools/")
		switch {
		case base == "Kbuild" || strings.HasPrefix(base, "Makefile") || base == "Kbuild.include":
			c.build = append(c.build, f.Path)
		case strings.HasPrefix(f.Path, "scripts/gcc-plugins/") || generating(f.Path):
			c.other = append(c.other, f.Path)
		case host || strings.HasPrefix(base, "Kconfig") || documentation(f.Path):
		case ext == ".c" || ext == ".S":
			c.sources = append(c.sources, f.Path)
		case ext == ".h":
			c.headers = append(c.headers, f.Path)
		default:
			c.other = append(c.other, f.Path)
		}
	}
	return c
}

// generating says that headers are made from the file, which both sides share.
func generating(name string) bool {
	switch name {
	case "scripts/asn1_compiler.c", "security/selinux/include/classmap.h", "security/selinux/include/initial_sid_to_string.h":
		return true
	}
	return strings.Contains(name, "selinux/genheaders")
}

func documentation(name string) bool {
	base := path.Base(name)
	switch path.Ext(name) {
	case ".rst", ".txt", ".md", ".yaml", ".dts", ".dtsi":
		return true
	}
	switch base {
	case "MAINTAINERS", "CREDITS", "COPYING", "README", "TODO":
		return true
	}
	return strings.HasPrefix(base, ".") || strings.HasPrefix(name, "rust/")
}

// queryTargets are the directories whose units may have changed lines; none
// stands for the whole kernel.
func queryTargets(build []string) (targets []string, all bool) {
	for _, f := range build {
		dir := path.Dir(f)
		if dir == "." || strings.HasPrefix(f, "scripts/") || strings.HasPrefix(dir, "arch/") && strings.Count(dir, "/") == 1 {
			return nil, true
		}
		targets = append(targets, dir+"/")
	}
	slices.Sort(targets)
	return slices.Compact(targets), false
}

// mergeUnits replaces the units below the directories by those that a query of
// these directories gave.
func mergeUnits(units, queried []kbuild.Unit, dirs []string) []kbuild.Unit {
	var merged []kbuild.Unit
	for _, u := range units {
		if !slices.ContainsFunc(dirs, func(d string) bool { return strings.HasPrefix(u.Object, d) }) {
			merged = append(merged, u)
		}
	}
	merged = append(merged, queried...)
	slices.SortFunc(merged, func(a, b kbuild.Unit) int { return strings.Compare(a.Object, b.Object) })
	return slices.CompactFunc(merged, func(a, b kbuild.Unit) bool { return a.Object == b.Object })
}

// moved are units with the path of one source tree replaced by that of another.
func moved(units []kbuild.Unit, from, to string) []kbuild.Unit {
	if from == to {
		return units
	}
	known := make(map[string]string)
	out := make([]kbuild.Unit, len(units))
	for i, u := range units {
		args := make([]string, len(u.Args))
		for j, a := range u.Args {
			m, ok := known[a]
			if !ok {
				m = strings.ReplaceAll(a, from, to)
				known[a] = m
			}
			args[j] = m
		}
		u.Args = args
		out[i] = u
	}
	return out
}

// pair is a unit whose sources differ, or whose compile line does.
type pair struct {
	object    string
	pre, post *kbuild.Unit // nil on the side that does not have it
}

// line says how the compile lines of a pair differ, "" if they do not. Both must
// be of the same tree.
func (p *pair) line() string {
	switch {
	case p.pre == nil:
		return "the running kernel was built without this unit"
	case p.post == nil:
		return "the new kernel is built without this unit"
	case p.pre.Source != p.post.Source:
		return "compiled from " + p.post.Source + " instead of " + p.pre.Source
	case p.pre.Target != p.post.Target:
		return "part of " + p.post.Target + " instead of " + p.pre.Target
	case p.pre.Objtool != p.post.Objtool:
		return "objtool treats it in another way"
	case !slices.Equal(p.pre.Args, p.post.Args):
		for i, a := range p.post.Args {
			if i >= len(p.pre.Args) || p.pre.Args[i] != a {
				return "compiled with other options, the first is " + a
			}
		}
		return "compiled with fewer options"
	}
	return ""
}

// changed says that the unit's own source is among those that changed.
func (p *pair) changed(sources []string) bool {
	return p.pre != nil && slices.Contains(sources, p.pre.Source) || p.post != nil && slices.Contains(sources, p.post.Source)
}

// pairs lists the units that changed: their own source, what they include, or how
// they are built. post must be in terms of pre's tree.
func pairs(pre, post []kbuild.Unit, sources []string, reached map[string]bool) []*pair {
	changed := make(map[string]bool)
	for _, s := range sources {
		changed[s] = true
	}
	byObject := make(map[string]*pair)
	for i := range pre {
		byObject[pre[i].Object] = &pair{object: pre[i].Object, pre: &pre[i]}
	}
	for i := range post {
		p := byObject[post[i].Object]
		if p == nil {
			p = &pair{object: post[i].Object}
			byObject[p.object] = p
		}
		p.post = &post[i]
	}
	var list []*pair
	for _, p := range byObject {
		if p.pre != nil && changed[p.pre.Source] || p.post != nil && changed[p.post.Source] || p.line() != "" || reached[p.object] {
			list = append(list, p)
		}
	}
	slices.SortFunc(list, func(a, b *pair) int { return strings.Compare(a.object, b.object) })
	return list
}

// unclaimed are changed sources that are no unit: most are not built at all, but
// some are included by a unit.
func unclaimed(sources []string, lists ...[]kbuild.Unit) []string {
	units := make(map[string]bool)
	for _, l := range lists {
		for _, u := range l {
			units[u.Source] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(sources), func(s string) bool { return units[s] })
}
