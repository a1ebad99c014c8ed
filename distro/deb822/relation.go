// SPDX-License-Identifier: Apache-2.0

package deb822

import "strings"

// Relation is one package of a relationship field such as Depends or Built-Using.
type Relation struct {
	Name    string
	Op      string // "=", ">=", ">>", "<=", "<<", "" without a version
	Version string
}

// Relations parses a relationship field into groups of alternatives ("a | b, c"
// has two groups). Architecture qualifiers, lists and build profiles are dropped.
// Parts that are no relation are skipped: what is asked for is then just not found.
func Relations(field string) [][]Relation {
	var groups [][]Relation
	for g := range strings.SplitSeq(field, ",") {
		var alternatives []Relation
		for a := range strings.SplitSeq(g, "|") {
			if r, ok := relation(a); ok {
				alternatives = append(alternatives, r)
			}
		}
		if len(alternatives) > 0 {
			groups = append(groups, alternatives)
		}
	}
	return groups
}

func relation(s string) (Relation, bool) {
	s = strings.TrimSpace(s)
	end := strings.IndexAny(s, " \t\n([<")
	name, rest := s, ""
	if end >= 0 {
		name, rest = s[:end], s[end:]
	}
	name, _, _ = strings.Cut(name, ":")
	if name == "" {
		return Relation{}, false
	}
	r := Relation{Name: name}
	if _, in, ok := strings.Cut(rest, "("); ok {
		in, _, ok = strings.Cut(in, ")")
		if !ok {
			return Relation{}, false
		}
		in = strings.TrimSpace(in)
		n := 0
		for n < len(in) && strings.IndexByte("<>=", in[n]) >= 0 {
			n++
		}
		r.Op, r.Version = in[:n], strings.TrimSpace(in[n:])
		if r.Op == "" || r.Version == "" {
			return Relation{}, false
		}
	}
	return r, true
}
