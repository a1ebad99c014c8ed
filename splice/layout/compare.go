// SPDX-License-Identifier: Apache-2.0

package layout

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

func compareTypes(a, b *Types) []Difference {
	var diffs []Difference
	for _, name := range slices.Sorted(maps.Keys(a.byName)) {
		others := b.byName[name]
		if len(others) == 0 {
			continue
		}
		own := a.byName[name]
		i, j := stranger(own, others), stranger(others, own)
		if i >= 0 && j >= 0 {
			diffs = append(diffs, Difference{Type: name, Detail: detail(own[i], others[j])})
		}
	}
	return diffs
}

// constantKey is in front of the constants of enums without a name.
const constantKey = "constant "

// stranger returns the index of the first type that is not among the others, -1
// if there is none.
func stranger(list, others []Type) int {
	return slices.IndexFunc(list, func(t Type) bool { return !slices.ContainsFunc(others, t.same) })
}

// same compares enum values by their low 32 bits where one side has no more.
func (t Type) same(o Type) bool {
	if t.narrow || o.narrow {
		return t.Size == o.Size && t.low == o.low
	}
	return t.Size == o.Size && t.Members == o.Members
}

// detail names the first difference.
func detail(a, b Type) string {
	if a.Size != b.Size {
		return fmt.Sprintf("size %d became %d", a.Size, b.Size)
	}
	old, now := parse(a.Members), parse(b.Members)
	for _, m := range old {
		i := slices.IndexFunc(now, func(n entry) bool { return n.name == m.name })
		switch {
		case i < 0:
			return fmt.Sprintf("%s is gone", m)
		case now[i] == m:
		case m.value != "":
			return fmt.Sprintf("%s was %s and became %s", m.name, m.value, now[i].value)
		case now[i].place != m.place:
			return fmt.Sprintf("%s moved from bit %s to bit %s", m, m.place, now[i].place)
		default:
			return fmt.Sprintf("%s was %s and became %s", m, m.typ, now[i].typ)
		}
	}
	for _, n := range now {
		if !slices.ContainsFunc(old, func(m entry) bool { return n.name == m.name }) {
			return fmt.Sprintf("%s is new", n)
		}
	}
	return fmt.Sprintf("%.80q became %.80q", a.Members, b.Members)
}

// entry is one line of Type.Members.
type entry struct {
	name, place, typ, value string
}

func (e entry) String() string {
	if e.value != "" {
		return "value " + e.name
	}
	return "member " + e.name
}

func parse(text string) []entry {
	var list []entry
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if f := strings.SplitN(line, " ", 3); len(f) == 3 {
			list = append(list, entry{place: strings.TrimSuffix(f[0], ":0"), name: f[1], typ: f[2]})
		} else if name, val, ok := strings.Cut(line, "="); ok {
			list = append(list, entry{name: name, value: val})
		}
	}
	return list
}
