// SPDX-License-Identifier: Apache-2.0

//go:build update

package freeze

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/upsplice/upsplice/kmod/lab"
	"github.com/upsplice/upsplice/splice/compile"
	"github.com/upsplice/upsplice/splice/kbuild"
	"github.com/upsplice/upsplice/splice/tree"
)

// sampled is how many of the changed units are compiled, and rounds how often what
// does not compile may be put back.
const (
	sampled = 8
	rounds  = 10
)

// update is a stable update: the newest kernel and the one of the version before.
func update(t *testing.T) (from, to lab.Kernel) {
	t.Helper()
	all, err := lab.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	upstream := func(k lab.Kernel) string { return k.Version[:strings.LastIndexByte(k.Version, '-')] }
	newest, err := lab.Newest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range slices.Backward(all) {
		if k.Series == newest.Series && upstream(k) != upstream(newest) && k.HasSource && k.HasHeaders {
			if err := lab.Fetch(t.Context(), &k, lab.Headers, lab.Source); err != nil {
				t.Fatal(err)
			}
			if err := lab.Fetch(t.Context(), &newest, lab.Source); err != nil {
				t.Fatal(err)
			}
			return k, newest
		}
	}
	t.Fatalf("the archive has no version before %s with its source and headers", newest)
	return from, to
}

func extract(t *testing.T, k lab.Kernel, dir, base string) *tree.Delta {
	t.Helper()
	r, err := tree.OpenTar(t.Context(), k.SourceArchive)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	d, err := tree.Extract(t.Context(), r, dir, tree.Options{Arch: "x86", Base: base})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestUpdate merges every changed file of an update, and compiles some units with
// nothing but the types old.
func TestUpdate(t *testing.T) {
	from, to := update(t)
	// Links do not cross file systems, and a tree is too large for most /tmp.
	dir, err := os.MkdirTemp(lab.Dir(), "freeze-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	pre, post, mid := filepath.Join(dir, "pre"), filepath.Join(dir, "post"), filepath.Join(dir, "mid")
	extract(t, from, pre, "")
	var files []string
	for _, f := range extract(t, to, post, pre).Files {
		if f.Kept {
			files = append(files, f.Path)
		}
	}
	start := time.Now()
	s, err := Read(t.Context(), pre, post, files)
	if err != nil {
		t.Fatal(err)
	}
	read := time.Since(start)
	cut, whole := 0, 0
	for _, m := range s.files {
		switch {
		case m.whole == nil:
			cut++
			check(t, m)
		case m.whole.Both():
			whole++
			t.Logf("%s is not cut up", m.file)
		}
	}
	t.Logf("%s to %s: %d files with %d entities, read in %v; %d files cut up, %d not", from, to, len(files), len(s.Entities), read, cut, whole)
	if cut == 0 || whole > cut/100 {
		t.Errorf("%d files cannot be cut up, %d can", whole, cut)
	}

	start = time.Now()
	m, err := s.Make(t.Context(), mid, (*Entity).Frozen)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("made in %v, %d files differ", time.Since(start), len(m.Delta.Files))
	o, err := kbuild.Seed(t.Context(), filepath.Join(dir, "out"), kbuild.Materials{
		Release: from.Release, Arch: "x86", Source: pre, Headers: from.HeadersDir, Kbuild: from.KbuildDir, CC: "gcc-12",
	})
	if err != nil {
		t.Fatal(err)
	}
	units, err := o.Query(t.Context())
	var incomplete *kbuild.IncompleteError
	if err != nil && !errors.As(err, &incomplete) {
		t.Fatal(err)
	}
	converge(t, m, o, sample(units, m, pre, mid))
}

// sample are changed units of the kernel image, to be compiled from the tree.
func sample(units []kbuild.Unit, m *Made, pre, mid string) []kbuild.Unit {
	changed := make(map[string]bool)
	for _, f := range m.Delta.Files {
		changed[f.Path] = true
	}
	var list []kbuild.Unit
	for _, u := range units {
		if u.Target != kbuild.Vmlinux || !changed[u.Source] || filepath.Ext(u.Source) != ".c" {
			continue
		}
		u.Args = slices.Clone(u.Args)
		for i := range u.Args {
			u.Args[i] = strings.ReplaceAll(u.Args[i], pre, mid)
		}
		list = append(list, u)
	}
	rng := rand.New(rand.NewPCG(4, 2))
	rng.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list[:min(sampled, len(list))]
}

// converge compiles units and puts back what the errors name until all compile.
func converge(t *testing.T, m *Made, o *kbuild.Output, todo []kbuild.Unit) {
	t.Helper()
	out := *o
	out.Source = m.dir
	c := &compile.Compiler{Output: &out, NoDebug: true, Frozen: true}
	back := make(map[*Entity]bool)
	for round := range rounds {
		_, err := c.Units(t.Context(), todo, nil)
		if err == nil {
			t.Logf("all compile after round %d, with %d entities put back", round, len(back))
			return
		}
		joined, ok := err.(interface{ Unwrap() []error })
		if !ok {
			t.Fatal(err)
		}
		var needs []Need
		var failed []kbuild.Unit
		for _, err := range joined.Unwrap() {
			var e *compile.Error
			if !errors.As(err, &e) || e.Stage != "compiler" {
				t.Fatal(err)
			}
			needs = append(needs, Needs(e.Output)...)
			failed = append(failed, todo[slices.IndexFunc(todo, func(u kbuild.Unit) bool { return u.Object == e.Unit })])
		}
		list, left := m.Blame(needs)
		t.Logf("round %d: %d of %d units compile, %d entities to be put back", round, len(todo)-len(failed), len(todo), len(list))
		if len(list) == 0 {
			t.Fatalf("nothing to put back for %v: %v", left, err)
		}
		for _, e := range list {
			back[e] = true
		}
		if err := m.Again(t.Context(), func(e *Entity) bool { return e.Frozen() || back[e] }); err != nil {
			t.Fatal(err)
		}
		todo = failed
	}
	t.Errorf("%d units do not compile after %d rounds", len(todo), rounds)
}
