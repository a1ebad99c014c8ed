// SPDX-License-Identifier: Apache-2.0

package groups

import (
	"path"
	"strings"

	"github.com/upsplice/upsplice/splice/freeze"
)

// scope finds the changed entities that a name can mean.
type scope struct {
	byName map[string][]*node
	byFile map[string][]*node
}

func newScope(nodes []*node) *scope {
	s := &scope{byName: make(map[string][]*node), byFile: make(map[string][]*node)}
	for _, n := range nodes {
		s.byFile[n.e.File] = append(s.byFile[n.e.File], n)
		if n.e.Kind == freeze.Include {
			continue
		}
		for _, name := range n.defs {
			s.byName[name] = append(s.byName[name], n)
		}
	}
	return s
}

// resolve returns what a mention in a file means in one of the trees.
func (s *scope) resolve(file string, r ref, post bool) []*node {
	var here, near, far []*node
	for _, n := range s.byName[r.name] {
		if n.side(post) == nil || !fits(n, r) {
			continue
		}
		switch {
		case n.e.File == file:
			here = append(here, n)
		case n.e.Local || !visible(n, file):
		case samePlace(n.e.File, file):
			near = append(near, n)
		default:
			far = append(far, n)
		}
	}
	// A definition of the same file hides others; a prototype does not.
	for _, n := range here {
		if n.e.Kind != freeze.Declaration && n.e.Kind != freeze.Invocation {
			return here
		}
	}
	// Drivers define the same names again and again, each for its directory.
	if len(near) > 0 && len(far) > 0 {
		for _, n := range near {
			if n.e.Kind != freeze.Declaration && n.e.Kind != freeze.Invocation {
				return append(here, near...)
			}
		}
	}
	return append(append(here, near...), far...)
}

// fits says whether an entity is of the name space of a mention.
func fits(n *node, r ref) bool {
	switch r.class {
	case tagged:
		return n.e.Kind == freeze.Type || n.e.Kind == freeze.Whole || n.typ != nil
	case membered:
		// A macro can stand for a member.
		if n.e.Kind != freeze.Macro {
			return false
		}
		s := n.post
		if s == nil {
			s = n.pre
		}
		_, params, _ := macroHead(s.toks)
		return params == nil
	}
	return true
}

// visible says whether code of a file can mean an entity of another file.
func visible(n *node, file string) bool {
	from := n.e.File
	if a, b := archOf(from), archOf(file); a != "" && b != "" && a != b {
		return false
	}
	if strings.HasPrefix(from, "tools/") != strings.HasPrefix(file, "tools/") {
		return false
	}
	switch n.e.Kind {
	case freeze.Function, freeze.Data, freeze.Invocation:
		if strings.HasSuffix(from, ".c") {
			return true // by a prototype
		}
	}
	// A header that is not for all is included by what is near it.
	return includish(from) || samePlace(from, file) || near(from, file)
}

// near says whether two files lie in one subsystem: drivers/nvme, or net. The parts
// of some are beside each other and include each other's headers.
func near(a, b string) bool {
	x, y := strings.Split(a, "/"), strings.Split(b, "/")
	if len(x) < 2 || len(y) < 2 || x[0] != y[0] {
		return false
	}
	switch x[0] {
	case "fs", "drivers", "sound", "arch", "crypto":
		return len(x) > 2 && len(y) > 2 && x[1] == y[1]
	}
	return true
}

func archOf(file string) string {
	if rest, ok := strings.CutPrefix(file, "arch/"); ok {
		name, _, _ := strings.Cut(rest, "/")
		return name
	}
	return ""
}

// samePlace says whether one of two files lies in the directory of the other, or
// below it.
func samePlace(a, b string) bool {
	x, y := path.Dir(a)+"/", path.Dir(b)+"/"
	return strings.HasPrefix(x, y) || strings.HasPrefix(y, x)
}
