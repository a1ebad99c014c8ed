// SPDX-License-Identifier: Apache-2.0

//go:build update

package groups

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/upsplice/upsplice/kmod/lab"
	"github.com/upsplice/upsplice/splice/freeze"
	"github.com/upsplice/upsplice/splice/tree"
)

// TestRealUpdate groups a whole update of the distribution: the newest kernel and
// the one before it that is of another upstream version.
func TestRealUpdate(t *testing.T) {
	pre, post := trees(t)
	files := differing(t, pre, post)
	start := time.Now()
	s, err := freeze.Read(t.Context(), pre, post, files)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d files, %d entities, read in %v", len(files), len(s.Entities), time.Since(start).Round(time.Millisecond))

	var scanning time.Duration
	read := func(file string, isPost bool) string {
		dir := pre
		if isPost {
			dir = post
		}
		text, _ := os.ReadFile(filepath.Join(dir, file)) // "" if it is not there
		return string(text)
	}
	start = time.Now()
	g := New(s.Entities, Options{Text: read, Mentions: func(tags []string) map[string][]string {
		begin := time.Now()
		defer func() { scanning = time.Since(begin) }()
		return mentions(t, pre, post, files, tags)
	}})
	list := g.Groups()
	t.Logf("%d edges, %d groups in %v, and %v for the files that mention types", len(g.Edges()), len(list), (time.Since(start) - scanning).Round(time.Millisecond), scanning.Round(time.Millisecond))
	check(t, g, s.Entities)
	report(t, list)
}

// check holds what is true of any graph.
func check(t *testing.T, g *Graph, list []*freeze.Entity) {
	seen := make(map[*freeze.Entity]*Group)
	for _, gr := range g.Groups() {
		for _, e := range gr.Entities {
			if seen[e] != nil {
				t.Errorf("%v is in two groups", e.Names)
			}
			seen[e] = gr
		}
	}
	for _, e := range list {
		if seen[e] == nil || g.Group(e) != seen[e] {
			t.Errorf("%s: %v is in no group", e.File, e.Names)
		}
	}
	for _, e := range g.Edges() {
		if seen[e.From] != seen[e.To] {
			t.Errorf("%v and %v are joined, and in two groups", e.From.Names, e.To.Names)
		}
	}
}

func report(t *testing.T, list []*Group) {
	functions := func(gr *Group) int {
		n := 0
		for _, e := range gr.Entities {
			if e.Kind == freeze.Function {
				n++
			}
		}
		return n
	}
	sizes := make(map[string]int)
	reasons := make(map[string]int)
	var largest []int
	groups, free, boot, types, all, live := 0, 0, 0, 0, 0, 0
	for _, gr := range list {
		n := functions(gr)
		if n == 0 {
			continue
		}
		groups++
		all += n
		largest = append(largest, n)
		for _, s := range []struct {
			most int
			name string
		}{{1, "1"}, {2, "2"}, {5, "3-5"}, {10, "6-10"}, {50, "11-50"}, {1 << 30, ">50"}} {
			if n <= s.most {
				sizes[s.name]++
				break
			}
		}
		codes := make(map[string]bool)
		for _, r := range gr.Reasons {
			codes[r.Code] = true
		}
		for code := range codes {
			reasons[code]++
		}
		types += len(gr.Types)
		switch {
		case gr.Boot:
			boot++
		case len(gr.Reasons) == 0:
			free++
			live += n
		}
	}
	slices.Sort(largest)
	slices.Reverse(largest)
	t.Logf("%d groups with functions by size %v, the largest %v", groups, sizes, largest[:min(10, len(largest))])
	t.Logf("%d without a reason (%d of %d functions), %d of the boot, %d types in new form, by reason %v", free, live, all, boot, types, reasons)
	if groups == 0 {
		t.Fatal("no groups")
	}
	// Measured: three groups of four are single functions, one in fifty functions is in
	// the largest group. Far from it, the rules join what is independent.
	if 100*sizes["1"] < 60*groups || 100*(free+boot) < 70*groups || largest[0] > max(all/20, 40) {
		t.Error("groups are too large")
	}
	for code, n := range reasons {
		if code != CodeMember && 10*n > groups {
			t.Errorf("%d of %d groups are deferred by %s", n, groups, code)
		}
	}
}

// trees are two prepared source trees, which other tests may have left.
func trees(t *testing.T) (pre, post string) {
	t.Helper()
	list, err := lab.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	to := lab.NeedNewest(t, lab.Source)
	upstream := func(k lab.Kernel) string {
		v, _, _ := strings.Cut(k.Version, "-")
		return v
	}
	series := func(k lab.Kernel) string { return k.Version[:strings.LastIndexByte(upstream(k), '.')+1] }
	var from lab.Kernel
	for _, k := range list {
		if upstream(k) != upstream(to) && series(k) == series(to) && k.Version != to.Version && (from.Version == "" || older(from.Version, k.Version)) {
			from = k
		}
	}
	if from.Version == "" {
		t.Fatalf("the archive has no kernel before %s", to.Version)
	}
	if err := lab.Fetch(t.Context(), &from, lab.Source); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s to %s", from.Version, to.Version)
	post = extract(t, to, "")
	return extract(t, from, post), post
}

// older compares versions of one series by the numbers in them.
func older(a, b string) bool {
	if len(a) != len(b) {
		return len(a) < len(b)
	}
	return a < b
}

func extract(t *testing.T, k lab.Kernel, base string) string {
	t.Helper()
	dir := filepath.Join(lab.Dir(), "tree-"+k.Version)
	if _, err := os.Stat(dir); err == nil {
		return dir
	}
	r, err := tree.OpenTar(t.Context(), k.SourceArchive)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := tree.Extract(t.Context(), r, dir, tree.Options{Arch: "x86", Base: base}); err != nil {
		if _, there := os.Stat(dir); there != nil { // another test may have been faster
			t.Fatal(err)
		}
	}
	return dir
}

// sources are the files of a tree that are C.
func sources(t *testing.T, dir string) map[string]fs.FileInfo {
	out := make(map[string]fs.FileInfo)
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || !strings.HasSuffix(p, ".c") && !strings.HasSuffix(p, ".h") {
			return err
		}
		info, err := d.Info()
		out[strings.TrimPrefix(p, dir+"/")] = info
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func differing(t *testing.T, pre, post string) []string {
	a, b := sources(t, pre), sources(t, post)
	var list []string
	for f, info := range a {
		if b[f] == nil || !os.SameFile(info, b[f]) && (info.Size() != b[f].Size() || !equal(t, filepath.Join(pre, f), filepath.Join(post, f))) {
			list = append(list, f)
		}
	}
	for f := range b {
		if a[f] == nil {
			list = append(list, f)
		}
	}
	slices.Sort(list)
	return list
}

func equal(t *testing.T, a, b string) bool {
	x, err := os.ReadFile(a)
	if err != nil {
		t.Fatal(err)
	}
	y, err := os.ReadFile(b)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Equal(x, y)
}

// mentions looks through both trees; what did not change is read once.
func mentions(t *testing.T, pre, post string, changed, tags []string) map[string][]string {
	names := set(tags...)
	out := make(map[string][]string)
	look := func(dir, f string) {
		text, err := os.ReadFile(filepath.Join(dir, f))
		if err != nil {
			return // of the other tree only
		}
		for _, tag := range Mentioned(string(text), names) {
			out[tag] = append(out[tag], f)
		}
	}
	for f := range sources(t, pre) {
		look(pre, f)
	}
	for _, f := range changed {
		look(post, f)
	}
	return out
}
