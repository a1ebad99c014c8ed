// SPDX-License-Identifier: Apache-2.0

package report

import (
	"cmp"
	"slices"

	"github.com/upsplice/upsplice/splice/splicefile"
)

// Kind is a kind of reason in words: of one group, and of several.
type Kind struct{ Code, One, Many string }

// Kinds returns all kinds. A group that has several reasons is counted under the
// kind that comes first: what decides for the whole comes before what decides for
// a function.
func Kinds() []Kind {
	return []Kind{
		{"policy", "is left out by the configuration", "are left out by the configuration"},
		{"flags", "changes how the kernel is built", "change how the kernel is built"},
		{"header", "changes a header with too many users", "change headers with too many users"},
		{"merge", "cannot be joined with the old types", "cannot be joined with the old types"},
		{"compile", "does not compile against the running kernel", "do not compile against the running kernel"},
		{"member", "needs a new struct member", "need new struct members"},
		{"type", "needs a new type", "need new types"},
		{"constant", "needs a new constant", "need new constants"},
		{"prototype", "needs another prototype", "need other prototypes"},
		{"symbol", "needs a symbol that is not there", "need symbols that are not there"},
		{"layout", "sees a changed data layout", "see changed data layouts"},
		{"data", "changes existing data", "change existing data"},
		{"balance", "takes here what it gives back there", "take here what they give back there"},
		{"locks", "changes the order of locks", "change the order of locks"},
		{"always-running", "is code that never returns", "are code that never returns"},
		{"init", "runs only at boot", "run only at boot"},
		{"no-fentry", "cannot be redirected", "cannot be redirected"},
		{"weak", "has several definitions", "have several definitions"},
		{"custom", "has custom code that cannot be used", "have custom code that cannot be used"},
		{"module", "is of a module that is not at hand", "are of modules that are not at hand"},
		{"section", "has what a live patch cannot carry", "have what a live patch cannot carry"},
		{"pre-mismatch", "is not found in the running kernel", "are not found in the running kernel"},
		{"post-mismatch", "is not what the vendor ships", "are not what the vendor ships"},
	}
}

// phrase says of n groups what they wait for.
func phrase(code string, n int) string {
	for _, k := range Kinds() {
		if k.Code == code {
			if n == 1 {
				return k.One
			}
			return k.Many
		}
	}
	// The engine is newer than this table.
	if n == 1 {
		return "waits because of " + code
	}
	return "wait because of " + code
}

// first is the code that a waiting group is counted under.
func first(g splicefile.Group) string {
	if len(g.Reasons) == 0 {
		return "unknown"
	}
	rank := func(r splicefile.Reason) int {
		i := slices.IndexFunc(Kinds(), func(k Kind) bool { return k.Code == r.Code })
		if i < 0 {
			return len(Kinds())
		}
		return i
	}
	return slices.MinFunc(g.Reasons, func(a, b splicefile.Reason) int { return cmp.Compare(rank(a), rank(b)) }).Code
}

// deferrals counts waiting groups by kind.
func deferrals(groups []splicefile.Group) []Deferral {
	kinds := map[string]*Deferral{}
	names := map[string]map[string]int{}
	get := func(code string) *Deferral {
		if kinds[code] == nil {
			kinds[code] = &Deferral{Code: code}
			names[code] = map[string]int{}
		}
		return kinds[code]
	}
	for _, g := range groups {
		if !g.Waits() {
			continue
		}
		code := first(g)
		d := get(code)
		d.Groups++
		d.Functions += len(g.Functions)
		seen := map[splicefile.Reason]bool{}
		for _, r := range g.Reasons {
			name := splicefile.Reason{Code: r.Code, What: r.What}
			if r.Code == code && !seen[name] {
				names[code][r.What]++
			}
			if kind := (splicefile.Reason{Code: r.Code}); r.Code != code && !seen[kind] {
				get(r.Code).Also++
				seen[kind] = true
			}
			seen[name] = true
		}
	}
	list := []Deferral{}
	for code, d := range kinds {
		d.Text = phrase(code, max(d.Groups, 2))
		d.Names = ranked(names[code])
		list = append(list, *d)
	}
	slices.SortFunc(list, func(a, b Deferral) int {
		return cmp.Or(cmp.Compare(b.Groups, a.Groups), cmp.Compare(b.Also, a.Also), cmp.Compare(a.Code, b.Code))
	})
	return list
}

// ranked puts the most frequent first.
func ranked(count map[string]int) []Name {
	list := []Name{}
	for name, n := range count {
		list = append(list, Name{name, n})
	}
	slices.SortFunc(list, func(a, b Name) int {
		return cmp.Or(cmp.Compare(b.Groups, a.Groups), cmp.Compare(a.Name, b.Name))
	})
	return list
}
