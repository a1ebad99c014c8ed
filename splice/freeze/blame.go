// SPDX-License-Identifier: Apache-2.0

package freeze

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Blame says which entities, new in the tree, have to be old for the errors to go
// away, with those that can only be old together with them. It looks for the entity
// that an error stands in, then for those of the macros that it came through, then,
// where it stands in text that both trees have or that is old, for what defines
// the name that is missing or wrong, or what the line mentions. left are the needs for which there is nothing
// to be put back.
func (m *Made) Blame(needs []Need) (back []*Entity, left []Need) {
	seen := make(map[*Entity]bool)
	var add func(e *Entity)
	add = func(e *Entity) {
		if seen[e] || m.old[e] {
			return
		}
		seen[e] = true
		back = append(back, e)
		for _, w := range e.With {
			add(w)
		}
	}
	for _, n := range needs {
		list := m.blame(n)
		if len(list) == 0 {
			left = append(left, n)
		}
		for _, e := range list {
			add(e)
		}
	}
	return back, left
}

func (m *Made) blame(n Need) []*Entity {
	places := append([]Place{n.Place}, n.Via...)
	if n.Kind == Redefinition {
		if list := m.defining(n.Name, places, func(e *Entity) bool { return e.new }); len(list) > 0 {
			return list
		}
	}
	for _, p := range places {
		if e, ok := m.At(p.File, p.Line); ok && !m.old[e] {
			return []*Entity{e}
		}
	}
	// What is old needs what is as it was.
	name := n.Name
	if n.Kind == Member {
		name = typeName(n.Detail)
	}
	if list := m.defining(name, places, func(e *Entity) bool { return e.old }); len(list) > 0 {
		return list
	}
	if list := m.through(n); len(list) > 0 {
		return list
	}
	// The compiler does not always name what does not fit: it is on the line.
	for _, around := range []int{0, 3} {
		if list := m.onLine(n.Place, around); len(list) > 0 {
			return list
		}
	}
	return nil
}

// onLine are the new declarations, functions and data that both trees have in
// different form and that are mentioned on a line or so many lines around it.
func (m *Made) onLine(p Place, around int) (list []*Entity) {
	text, err := os.ReadFile(filepath.Join(m.dir, filepath.FromSlash(m.path(p.File))))
	if err != nil {
		return nil // not of the tree
	}
	lines := strings.SplitAfter(string(text), "\n")
	from, to := max(0, p.Line-1-around), min(len(lines), p.Line+around)
	if from >= to {
		return nil
	}
	for _, name := range mentions(strings.Join(lines[from:to], ""), nil) {
		list = append(list, m.defining(name, []Place{p}, func(e *Entity) bool {
			return e.Both() && (e.headed || e.Kind == Data || e.Kind == Macro)
		})...)
	}
	return list
}

// defining are the new entities of a kind that define a name for one of the places.
func (m *Made) defining(name string, places []Place, which func(*Entity) bool) (list []*Entity) {
	for _, e := range m.source.Named(name) {
		here := slices.ContainsFunc(places, func(p Place) bool { return m.path(p.File) == e.File })
		if !m.old[e] && which(e) && e.Kind != Invocation && (here || !e.Local) {
			list = append(list, e)
		}
	}
	return list
}

// through are the new macros that mention a missing name, if the text that is wrong
// is none of ours: what they stand for is there.
func (m *Made) through(n Need) (list []*Entity) {
	for _, e := range m.source.Entities {
		if e.Kind != Macro || m.old[e] || n.Name == "" {
			continue
		}
		if _, is := slices.BinarySearch(e.PostRefs, n.Name); !is {
			continue
		}
		if _, was := slices.BinarySearch(e.PreRefs, n.Name); !was {
			list = append(list, e)
		}
	}
	return list
}

// typeName is the name of a type without what stands in front of it.
func typeName(name string) string {
	return name[strings.LastIndexByte(name, ' ')+1:]
}
