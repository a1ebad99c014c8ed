// SPDX-License-Identifier: Apache-2.0

package tree

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestForkAndUpdate(t *testing.T) {
	dir := t.TempDir()
	base := filepath.Join(dir, "base")
	mustExtract(t, archiveOf(t, file("k/a.c", "a\n"), file("k/b.c", "b\n"), file("k/c.c", "c\n"), link("k/l", "a.c")), base, Options{})
	b, err := OpenBase(base)
	if err != nil {
		t.Fatal(err)
	}
	fork := filepath.Join(dir, "fork")
	delta, err := b.Fork(t.Context(), fork, map[string]Change{"a.c": {Text: []byte("A\n")}, "n/d.c": {Text: []byte("d\n")}, "c.c": {Removed: true}})
	if err != nil {
		t.Fatal(err)
	}
	kinds := func(d *Delta) (list []string) {
		for _, f := range d.Files {
			list = append(list, f.Path+" "+f.Kind)
		}
		return list
	}
	if diff := cmp.Diff([]string{"a.c changed", "c.c removed", "n/d.c new"}, kinds(delta)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	before, err := os.Stat(filepath.Join(fork, "b.c"))
	if err != nil {
		t.Fatal(err)
	}
	for round := range 2 {
		// To do it again changes nothing.
		delta, err = b.Update(t.Context(), fork, map[string]Change{
			"a.c": {Text: []byte("a\n")}, "n/d.c": {Removed: true}, "c.c": {Text: []byte("C\n")}, "n/e.c": {Text: []byte("e\n")},
		})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"c.c changed", "n/e.c new"}, kinds(delta)); diff != "" {
			t.Errorf("round %d (-want +got):\n%s", round, diff)
		}
	}
	for name, want := range map[string]string{"a.c": "a\n", "b.c": "b\n", "c.c": "C\n", "n/d.c": "", "n/e.c": "e\n", "l": "a\n"} {
		got, err := os.ReadFile(filepath.Join(fork, name))
		if string(got) != want || (err != nil) != (want == "") {
			t.Errorf("%s: %q, %v; want %q", name, got, err, want)
		}
	}
	if got, _ := os.ReadFile(filepath.Join(base, "a.c")); string(got) != "a\n" {
		t.Errorf("the base was changed: %q", got)
	}
	if after, err := os.Stat(filepath.Join(fork, "b.c")); err != nil || !os.SameFile(before, after) {
		t.Errorf("what did not change is another file: %v", err)
	}
	again, err := OpenBase(fork)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]Kind{"a.c": Kept, "c.c": Kept, "n/d.c": Absent, "n/e.c": Kept, "l": Link} {
		if got := again.Kind(name); got != want {
			t.Errorf("%s is of kind %d in the index, want %d", name, got, want)
		}
	}
	if _, err := b.Update(t.Context(), fork, map[string]Change{"../x.c": {}}); err == nil {
		t.Error("a path that leads out of the tree is accepted")
	}
}
