// SPDX-License-Identifier: Apache-2.0

package patch

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	text := `Description: what quilt keeps
 - fix of --- a thing
--- not a header

Index: linux/fs/a.c
===================================================================
--- linux.orig/fs/a.c	2026-01-01 00:00:00.000000000 +0000
+++ linux/fs/a.c	2026-01-02 00:00:00.000000000 +0000
@@ -1,3 +1,3 @@ int f(void)
 a

-b
+-- c
diff --git "a/q\"\t\303\274.c" "b/q\"\t\303\274.c"
index 123..456 100755
--- "a/q\"\t\303\274.c"
+++ "b/q\"\t\303\274.c"
@@ -1 +1 @@
-a
+b
\ No newline at end of file
diff --git a/m b/m
old mode 100644
new mode 100755
diff --git a/e b/e
new file mode 100644
index 0000..0000
-- 
2.39.5
`
	got := mustParse(t, "p", text)
	want := &Patch{Name: "p", Files: []File{
		{Old: "linux.orig/fs/a.c", New: "linux/fs/a.c", Line: 7, Hunks: []Hunk{{Line: 9, OldStart: 1, OldLines: 3, NewStart: 1, NewLines: 3, Section: "int f(void)",
			Lines: []Line{{' ', "a\n"}, {' ', "\n"}, {'-', "b\n"}, {'+', "-- c\n"}}}}},
		{Old: "a/q\"\tü.c", New: "b/q\"\tü.c", Line: 14, Git: true, OldMode: 0o100755, Hunks: []Hunk{{Line: 18, OldStart: 1, OldLines: 1, NewStart: 1, NewLines: 1,
			Lines: []Line{{'-', "a\n"}, {'+', "b"}}}}},
		{Old: "a/m", New: "b/m", Line: 22, Git: true, OldMode: 0o100644, NewMode: 0o100755},
		{New: "b/e", Line: 25, Git: true, Created: true, NewMode: 0o100644},
	}}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(File{})); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

func TestParseRefuses(t *testing.T) {
	const head = "--- a/f\n+++ b/f\n"
	for _, tt := range []struct{ name, text, want string }{
		{"empty", "", "no unified diff"},
		{"text only", "hello\n", "no unified diff"},
		{"hunk alone", "@@ -1 +1 @@\n-a\n+b\n", "line 1: a hunk without a file header"},
		{"header alone", head + "x\n", "line 3: a file header without a hunk"},
		{"ends early", head + "@@ -1,3 +1,3 @@\n a\n-b\n", "line 6: the patch ends within a hunk: 1 old and 2 new lines are missing"},
		{"cut by the next file", head + "@@ -1,3 +1,3 @@\n a\n-b\n+c\ndiff --git a/x b/x\n", `line 7: "diff --git a/x b/x" within a hunk: 1 old and 1 new lines are missing`},
		{"too long", head + "@@ -1 +1 @@\n-a\n+b\n+c\n", "line 6: the hunk is longer than its header says"},
		{"too long, context", head + "@@ -1 +1 @@\n-a\n+b\n c\n", "line 6: the hunk is longer than its header says"},
		{"too many old", head + "@@ -1 +1,2 @@\n-a\n-b\n+c\n", "the hunk has other lines than its header says"},
		{"damaged header", head + "@@ -1 +1 @@\n-a\n+b\n@@ -9 x @@\n-a\n+b\n", "line 6: not a hunk header"},
		{"no change", head + "@@ -1 +1 @@\n a\n", "the hunk changes nothing"},
		{"order", head + "@@ -9 +9 @@\n-a\n+b\n@@ -1 +1 @@\n-a\n+b\n", "line 6: the hunk comes before the end of the last one"},
		{"number", head + "@@ -99999999999 +1 @@\n-a\n+b\n", "out of range"},
		{"line 0", head + "@@ -0 +1 @@\n-a\n+b\n", "line 0 with lines in it"},
		{"absolute", "--- /etc/passwd\n+++ /etc/passwd\n@@ -1 +1 @@\n-a\n+b\n", `line 1: "/etc/passwd" is an absolute path`},
		{"leads out", "--- a/../../x\n+++ b/../../x\n@@ -1 +1 @@\n-a\n+b\n", "leads out of the tree"},
		{"leads out, quoted", "--- \"a/\\056\\056/x\"\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n", "leads out of the tree"},
		{"leads out, renamed", "diff --git a/x b/y\nsimilarity index 100%\nrename from x\nrename to ../y\n", "leads out of the tree"},
		{"bad quotes", "--- \"a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n", "not quoted as git does"},
		{"nothing to nothing", "--- /dev/null\n+++ /dev/null\n@@ -0,0 +1 @@\n+b\n", "neither before nor after"},
		{"new with old lines", "--- /dev/null\n+++ b/f\n@@ -1 +1 @@\n-a\n+b\n", "a new file with old lines"},
		{"deleted with new lines", "--- a/f\n+++ /dev/null\n@@ -1 +1 @@\n-a\n+b\n", "a deleted file with new lines"},
		{"git says new, names do not", "diff --git a/f b/f\nnew file mode 100644\n--- a/f\n+++ b/f\n@@ -0,0 +1 @@\n+b\n", "differs from the git header"},
		{"rename of other names", "diff --git a/f b/g\nrename from f\nrename to g\n--- a/x\n+++ b/g\n@@ -1 +1 @@\n-a\n+b\n", "the names differ"},
		{"half a rename", "diff --git a/f b/g\nrename from f\n", "without both names"},
		{"git header alone", "diff --git a/f b/f\nindex 1..2 100644\n", "a file header without a change"},
		{"git names", "diff --git a/f b/g\nnew file mode 100644\n", "cannot be told apart"},
		{"mode", "diff --git a/f b/f\nold mode 9\nnew mode 8\n", "not an octal number"},
		{"combined", "diff --cc fs/a.c\nindex 1,2..3\n--- a/fs/a.c\n+++ b/fs/a.c\n@@@ -1,1 -1,1 +1,1 @@@\n", "combined diff of a merge"},
		{"context diff", "*** a/f\n--- b/f\n***************\n*** 1 ****\n", "a context diff"},
		{"only in", "diff -ru a/fs b/fs\nOnly in b/fs: new.c\n", "the diff lacks a file (Only in b/fs: new.c)"},
		{"newline mark first", head + "@@ -1 +1 @@\n\\ No newline at end of file\n-a\n+b\n", "no line that the missing newline could belong to"},
		{"newline mark in the middle", head + "@@ -1,2 +1,2 @@\n-a\n\\ No newline at end of file\n-b\n+a\n+c\n", "a line in the middle of a file has no newline"},
		{"some CRs", "--- a/f\n+++ b/f\n@@ -1 +1 @@\r\n-a\n+b\n", "carriage return"},
		{"long line", head + "@@ -1 +1 @@\n-" + strings.Repeat("x", maxLine) + "\n+b\n", "longer than"},
		{"binary data cut", "diff --git a/f b/f\nindex 1..2\nGIT binary patch\nliteral 3\nKcmZ\n", "ends within binary data"},
	} {
		if _, err := Parse("p", strings.NewReader(tt.text)); err == nil || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "reading p: ") {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(hunkA)
	f.Add("diff --git a/a b/b\nsimilarity index 90%\nrename from a\nrename to b\n--- a/a\n+++ b/b\n@@ -1 +1 @@\n-a\n+b\n\\ No newline at end of file\n")
	f.Add("diff --git a/x b/x\nnew file mode 100644\nindex 0..1\nGIT binary patch\nliteral 3\nKcmZQzU|?i`U|?nd000mN00aO4\n\n")
	f.Add("Binary files a/x and b/y differ\nOnly in a: x\n--- \"a/\\303\" \n+++ b/x\n@@ -0,0 +1,2 @@\n+x\n+y\n")
	dir := base(f, source())
	f.Fuzz(func(t *testing.T, text string) {
		p, err := Parse("p", strings.NewReader(text))
		if err != nil {
			return
		}
		for _, file := range p.Files {
			for _, n := range []string{file.Old, file.New} {
				if filepath.IsAbs(n) || n != "" && !filepath.IsLocal(n) {
					t.Errorf("name %q", n)
				}
			}
		}
		new := filepath.Join(t.TempDir(), "new")
		delta, _, err := Apply(context.Background(), dir, new, []*Patch{p})
		if err == nil && delta == nil {
			t.Error("neither a delta nor an error")
		}
		if left, _ := filepath.Glob(new + "*"); err != nil && len(left) > 0 {
			t.Errorf("%v, and left %v", err, left)
		}
	})
}

var said = regexp.MustCompile(`^Hunk #(\d+) succeeded at (\d+)(?: with fuzz (\d+))?(?: \(offset (-?\d+) lines?\))?\.$`)

// TestAsGNUPatch applies random patches to files that are not quite those they were
// made for, and compares with GNU patch. Where this package refuses what GNU patch
// applies, it must be for one of its known reasons.
func TestAsGNUPatch(t *testing.T) {
	applied, inexact, refused, both := 0, 0, 0, 0
	for range 200 {
		old := randomLines(20 + rand.IntN(40))
		new := edited(old, 1+rand.IntN(4))
		have := edited(old, rand.IntN(4))
		text := unified(t, old, new)
		if text == "" {
			continue
		}
		p := mustParse(t, "p", text)
		f := newText(have)
		placed, hunkErr := f.apply(p.Files[0].Hunks)
		want, hunks, ok := gnuPatch(t, have, text)
		switch {
		case hunkErr == nil && !ok:
			t.Fatalf("applied what GNU patch refuses:\n%s\nto\n%s", text, have)
		case hunkErr != nil && !ok:
			both++
		case hunkErr != nil:
			refused++
			reason := hunkErr.Error()
			if !strings.Contains(reason, "alike") && !strings.Contains(reason, "without any context") && !stricter(have, p) {
				t.Fatalf("refused what GNU patch applies: %v\n%s\nto\n%s", hunkErr, text, have)
			}
		default:
			applied++
			if got := f.String(); got != want {
				t.Fatalf("another result than GNU patch:\n%s\nto\n%s\ngives\n%s\nnot\n%s", text, have, got, want)
			}
			for _, p := range placed {
				h := hunks[p.Hunk]
				if p.Fuzz != 0 || p.Offset != 0 {
					inexact++
				}
				if h[0] != p.Fuzz || h[1] != p.Offset {
					t.Fatalf("hunk %d: fuzz %d, offset %d; GNU patch: %v\n%s\nto\n%s", p.Hunk, p.Fuzz, p.Offset, h, text, have)
				}
			}
		}
	}
	t.Logf("%d applied (%d hunks inexact), %d refused by both, %d by this package alone", applied, inexact, both, refused)
	if applied < 50 || inexact < 15 || both < 3 {
		t.Error("too few cases of a kind")
	}
}

// stricter says whether the text may be refused where GNU patch is content: a hunk
// whose new lines are there already, or one that lost all its context.
func stricter(have string, p *Patch) bool {
	for i := range p.Files[0].Hunks {
		h := &p.Files[0].Hunks[i]
		if s := shapeOf(h); max(s.prefix, s.suffix) <= maxFuzz || s.noNewline {
			return true
		}
	}
	return len(applied(have, p.Files[0].Hunks)) > 0
}

func randomLines(n int) string {
	var b strings.Builder
	for i := range n {
		if rand.IntN(4) == 0 {
			b.WriteString([]string{"\n", "}\n", "\treturn 0;\n"}[rand.IntN(3)])
		} else {
			fmt.Fprintf(&b, "line %d\n", i)
		}
	}
	return b.String()
}

func edited(text string, changes int) string {
	lines := strings.SplitAfter(text, "\n")
	lines = lines[:len(lines)-1]
	for range changes {
		at := rand.IntN(len(lines))
		switch rand.IntN(3) {
		case 0:
			lines[at] = fmt.Sprintf("changed %d\n", rand.IntN(1000))
		case 1:
			lines = append(lines[:at], append([]string{fmt.Sprintf("inserted %d\n", rand.IntN(1000))}, lines[at:]...)...)
		default:
			lines = append(lines[:at], lines[at+1:]...)
		}
	}
	return strings.Join(lines, "")
}

func unified(t *testing.T, old, new string) string {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, map[string]string{"a/f": old, "b/f": new})
	cmd := exec.Command("diff", "-u", "a/f", "b/f")
	cmd.Dir = dir
	out, err := cmd.Output()
	if cmd.ProcessState.ExitCode() > 1 {
		t.Fatalf("running diff: %v", err)
	}
	return string(out)
}

// gnuPatch returns the result, and fuzz and offset by hunk.
func gnuPatch(t *testing.T, have, text string) (string, map[int][2]int, bool) {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, map[string]string{"f": have})
	cmd := exec.Command("patch", "-p1", "--forward", "--verbose", "--no-backup-if-mismatch", "--reject-file=-")
	cmd.Dir = dir
	cmd.Stdin = strings.NewReader(text)
	out, err := cmd.Output()
	if err != nil {
		if cmd.ProcessState.ExitCode() != 1 {
			t.Fatalf("running patch: %v", err)
		}
		return "", nil, false
	}
	hunks := make(map[int][2]int)
	for _, l := range strings.Split(string(out), "\n") {
		if m := said.FindStringSubmatch(l); m != nil {
			n, _ := strconv.Atoi(m[1])
			fuzz, _ := strconv.Atoi(m[3])
			offset, _ := strconv.Atoi(m[4])
			hunks[n] = [2]int{fuzz, offset}
		}
	}
	got, err := os.ReadFile(filepath.Join(dir, "f"))
	if err != nil {
		t.Fatal(err)
	}
	return string(got), hunks, true
}
