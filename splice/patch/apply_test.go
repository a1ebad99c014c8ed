// SPDX-License-Identifier: Apache-2.0

package patch

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/upsplice/upsplice/splice/tree"
)

// base extracts a tree with these files.
func base(t testing.TB, files map[string]string) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	names := make([]string, 0, len(files))
	for n := range files {
		names = append(names, n)
	}
	sort.Strings(names)
	for _, n := range names {
		h := tar.Header{Typeflag: tar.TypeReg, Name: "linux/" + n, Size: int64(len(files[n])), Mode: 0o644}
		if target, ok := strings.CutPrefix(files[n], "-> "); ok {
			h.Typeflag, h.Size, h.Linkname = tar.TypeSymlink, 0, target
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			w.Write([]byte(files[n]))
		}
	}
	w.Close()
	dir := filepath.Join(t.TempDir(), "base")
	if _, err := tree.Extract(context.Background(), &b, dir, tree.Options{Arch: "x86"}); err != nil {
		t.Fatal(err)
	}
	return dir
}

func mustParse(t testing.TB, name, text string) *Patch {
	t.Helper()
	p, err := Parse(name, strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// contents reads all files of a tree but its index.
func contents(t testing.TB, dir string) map[string]string {
	t.Helper()
	m := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasPrefix(d.Name(), ".upsplice") {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		if d.Type()&os.ModeSymlink != 0 {
			target, err := os.Readlink(path)
			m[rel] = "-> " + target
			return err
		}
		text, err := os.ReadFile(path)
		m[rel] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// numbered are lines from-to of a file in which each line is different.
func numbered(from, to int) string {
	var b strings.Builder
	for i := from; i <= to; i++ {
		fmt.Fprintf(&b, "line %d\n", i)
	}
	return b.String()
}

// source is a small tree.
func source() map[string]string {
	return map[string]string{
		"Makefile":                "all:\n",
		"fs/a.c":                  numbered(1, 30),
		"fs/b.c":                  "one\ntwo\n",
		"fs/last.c":               "one\ntwo",
		"fs/link.c":               "-> a.c",
		"arch/x86/k.c":            "x\n",
		"arch/arm/k.c":            "x\n",
		"Documentation/index.rst": "docs\n",
		"include/h.h":             "int h;\n",
	}
}

const hunkA = `--- a/fs/a.c
+++ b/fs/a.c
@@ -9,7 +9,8 @@ func
 line 9
 line 10
 line 11
-line 12
+new 12
+new 12b
 line 13
 line 14
 line 15
`

func TestApply(t *testing.T) {
	with := func(changes map[string]string) map[string]string {
		m := source()
		delete(m, "arch/arm/k.c")
		delete(m, "Documentation/index.rst")
		for n, c := range changes {
			if c == "gone" {
				delete(m, n)
			} else {
				m[n] = c
			}
		}
		return m
	}
	newA := numbered(1, 11) + "new 12\nnew 12b\n" + numbered(13, 30)
	for _, tt := range []struct {
		name    string
		patches []string
		want    map[string]string
		delta   []tree.File
		report  Report
	}{
		{"plain", []string{hunkA}, with(map[string]string{"fs/a.c": newA}),
			[]tree.File{{Path: "fs/a.c", Kind: "changed", Hunks: 1, Added: 2, Removed: 1, Kept: true}},
			Report{Hunks: []Placed{{Patch: "0", File: "fs/a.c", Hunk: 1, Line: 9}}}},
		{"no leading component", []string{strings.NewReplacer("a/fs", "fs", "b/fs", "fs").Replace(hunkA)}, with(map[string]string{"fs/a.c": newA}),
			[]tree.File{{Path: "fs/a.c", Kind: "changed", Hunks: 1, Added: 2, Removed: 1, Kept: true}},
			Report{Hunks: []Placed{{Patch: "0", File: "fs/a.c", Hunk: 1, Line: 9}}}},
		{"crlf", []string{strings.ReplaceAll(hunkA, "\n", "\r\n")}, with(map[string]string{"fs/a.c": newA}),
			[]tree.File{{Path: "fs/a.c", Kind: "changed", Hunks: 1, Added: 2, Removed: 1, Kept: true}},
			Report{Hunks: []Placed{{Patch: "0", File: "fs/a.c", Hunk: 1, Line: 9}}}},
		{"offset", []string{strings.Replace(hunkA, "@@ -9,7 +9,8", "@@ -6,7 +6,8", 1)}, with(map[string]string{"fs/a.c": newA}),
			[]tree.File{{Path: "fs/a.c", Kind: "changed", Hunks: 1, Added: 2, Removed: 1, Kept: true}},
			Report{Hunks: []Placed{{Patch: "0", File: "fs/a.c", Hunk: 1, Line: 9, Offset: 3}}}},
		{"fuzz", []string{strings.Replace(hunkA, " line 9\n", " other 9\n", 1)}, with(map[string]string{"fs/a.c": newA}),
			[]tree.File{{Path: "fs/a.c", Kind: "changed", Hunks: 1, Added: 2, Removed: 1, Kept: true}},
			Report{Hunks: []Placed{{Patch: "0", File: "fs/a.c", Hunk: 1, Line: 9, Fuzz: 1}}}},
		{"two in a row", []string{hunkA, "--- a/fs/a.c\n+++ b/fs/a.c\n@@ -12,3 +12,2 @@\n new 12\n-new 12b\n line 13\n"},
			with(map[string]string{"fs/a.c": numbered(1, 11) + "new 12\n" + numbered(13, 30)}),
			[]tree.File{{Path: "fs/a.c", Kind: "changed", Hunks: 1, Added: 1, Removed: 1, Kept: true}},
			Report{Hunks: []Placed{{Patch: "0", File: "fs/a.c", Hunk: 1, Line: 9}, {Patch: "1", File: "fs/a.c", Hunk: 1, Line: 12}}}},
		{"new, deleted, renamed, copied", []string{`From 0123456789012345678901234567890123456789 Mon Sep 17 00:00:00 2001
Subject: [PATCH] all kinds

---
 fs/new.c | 2 ++

diff --git a/fs/a.c b/fs/copy.c
similarity index 90%
copy from fs/a.c
copy to fs/copy.c
--- a/fs/a.c
+++ b/fs/copy.c
@@ -1,3 +1,3 @@
-line 1
+copy 1
 line 2
 line 3
diff --git a/fs/b.c b/fs/b.c
deleted file mode 100644
index 1234..0000
--- a/fs/b.c
+++ /dev/null
@@ -1,2 +0,0 @@
-one
-two
diff --git a/fs/new.c b/fs/new.c
new file mode 100644
index 0000..1234
--- /dev/null
+++ b/fs/new.c
@@ -0,0 +1,2 @@
+int n;
+int m;
\ No newline at end of file
diff --git a/fs/last.c b/fs/z.c
similarity index 100%
rename from fs/last.c
rename to fs/z.c
-- 
2.39.5

`}, with(map[string]string{"fs/copy.c": "copy 1\n" + numbered(2, 30), "fs/b.c": "gone", "fs/new.c": "int n;\nint m;", "fs/last.c": "gone", "fs/z.c": "one\ntwo"}),
			[]tree.File{
				{Path: "fs/b.c", Kind: "removed", Hunks: 1, Removed: 2, Kept: true},
				{Path: "fs/copy.c", Kind: "new", Hunks: 1, Added: 30, Kept: true},
				{Path: "fs/last.c", Kind: "removed", Hunks: 1, Removed: 2, Kept: true},
				{Path: "fs/new.c", Kind: "new", Hunks: 1, Added: 2, Kept: true},
				{Path: "fs/z.c", Kind: "new", Hunks: 1, Added: 2, Kept: true},
			},
			Report{Hunks: []Placed{{Patch: "0", File: "fs/copy.c", Hunk: 1, Line: 1}, {Patch: "0", File: "fs/b.c", Hunk: 1, Line: 1}, {Patch: "0", File: "fs/new.c", Hunk: 1, Line: 1}}}},
		{"swapped names", []string{"diff --git a/fs/a.c b/fs/b.c\nsimilarity index 100%\nrename from fs/a.c\nrename to fs/b.c\n" +
			"diff --git a/fs/b.c b/fs/a.c\nsimilarity index 100%\nrename from fs/b.c\nrename to fs/a.c\n"},
			with(map[string]string{"fs/a.c": "one\ntwo\n", "fs/b.c": numbered(1, 30)}),
			[]tree.File{{Path: "fs/a.c", Kind: "changed", Hunks: 1, Added: 2, Removed: 30, Kept: true}, {Path: "fs/b.c", Kind: "changed", Hunks: 1, Added: 30, Removed: 2, Kept: true}},
			Report{Hunks: []Placed{}}},
		{"plain new and deleted, by their times", []string{"diff -ruN a/fs/b.c b/fs/b.c\n--- a/fs/b.c\t2026-01-01 00:00:00.000000000 +0000\n+++ b/fs/b.c\t1970-01-01 00:00:00.000000000 +0000\n@@ -1,2 +0,0 @@\n-one\n-two\n" +
			"--- a/fs/n.c\t1970-01-01 01:00:00.000000000 +0100\n+++ b/fs/n.c\t2026-01-01 00:00:00.000000000 +0000\n@@ -0,0 +1 @@\n+n\n"},
			with(map[string]string{"fs/b.c": "gone", "fs/n.c": "n\n"}),
			[]tree.File{{Path: "fs/b.c", Kind: "removed", Hunks: 1, Removed: 2, Kept: true}, {Path: "fs/n.c", Kind: "new", Hunks: 1, Added: 1, Kept: true}},
			Report{Hunks: []Placed{{Patch: "0", File: "fs/b.c", Hunk: 1, Line: 1}, {Patch: "0", File: "fs/n.c", Hunk: 1, Line: 1}}}},
		{"not kept", []string{"--- a/Documentation/index.rst\n+++ b/Documentation/index.rst\n@@ -1 +1 @@\n-what\n+ever\n" +
			"--- a/Documentation/gone.rst\n+++ b/Documentation/gone.rst\n@@ -1 +1 @@\n-what\n+ever\n" +
			"Binary files a/Documentation/logo.gif and b/Documentation/logo.gif differ\n" +
			"--- a/arch/arm/k.c\n+++ b/arch/arm/k.c\n@@ -1 +1 @@\n-what\n+ever\n--- a/include/h.h\n+++ b/include/h.h\n@@ -1 +1 @@\n-int h;\n+long h;\n"},
			with(map[string]string{"include/h.h": "long h;\n"}),
			[]tree.File{
				{Path: "Documentation/gone.rst", Kind: "new"}, {Path: "Documentation/index.rst", Kind: "changed"}, {Path: "Documentation/logo.gif", Kind: "new"},
				{Path: "arch/arm/k.c", Kind: "changed"},
				{Path: "include/h.h", Kind: "changed", Hunks: 1, Added: 1, Removed: 1, Kept: true}},
			Report{Hunks: []Placed{{Patch: "0", File: "include/h.h", Hunk: 1, Line: 1}}, Ignored: []string{"Documentation/gone.rst", "Documentation/index.rst", "Documentation/logo.gif", "arch/arm/k.c"}}},
		{"no newline", []string{"--- a/fs/last.c\n+++ b/fs/last.c\n@@ -1,2 +1,3 @@\n one\n-two\n\\ No newline at end of file\n+two\n+three\n"},
			with(map[string]string{"fs/last.c": "one\ntwo\nthree\n"}),
			[]tree.File{{Path: "fs/last.c", Kind: "changed", Hunks: 1, Added: 2, Removed: 1, Kept: true}},
			Report{Hunks: []Placed{{Patch: "0", File: "fs/last.c", Hunk: 1, Line: 1}}}},
		{"mode only", []string{"diff --git a/fs/a.c b/fs/a.c\nold mode 100644\nnew mode 100755\n"}, with(nil), []tree.File{}, Report{Hunks: []Placed{}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			from := base(t, source())
			before := contents(t, from)
			var patches []*Patch
			for i, p := range tt.patches {
				patches = append(patches, mustParse(t, fmt.Sprint(i), p))
			}
			dir := filepath.Join(t.TempDir(), "new")
			delta, report, err := Apply(context.Background(), from, dir, patches)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, contents(t, dir)); d != "" {
				t.Errorf("tree (-want +got):\n%s", d)
			}
			if d := cmp.Diff(tt.delta, delta.Files); d != "" {
				t.Errorf("delta (-want +got):\n%s", d)
			}
			if d := cmp.Diff(&tt.report, report); d != "" {
				t.Errorf("report (-want +got):\n%s", d)
			}
			if d := cmp.Diff(before, contents(t, from)); d != "" {
				t.Errorf("the base changed:\n%s", d)
			}
		})
	}
}

func TestApplyShares(t *testing.T) {
	from := base(t, source())
	dir := filepath.Join(t.TempDir(), "new")
	if _, _, err := Apply(context.Background(), from, dir, []*Patch{mustParse(t, "p", hunkA)}); err != nil {
		t.Fatal(err)
	}
	for name, same := range map[string]bool{"fs/a.c": false, "fs/b.c": true, "Makefile": true} {
		a, _ := os.Stat(filepath.Join(from, name))
		b, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if os.SameFile(a, b) != same || !a.ModTime().Equal(b.ModTime()) {
			t.Errorf("%s: shared %t, times %v and %v", name, !same, a.ModTime(), b.ModTime())
		}
	}
	// The new tree is one that others can be made from.
	back := strings.NewReplacer("\n-line 12", "\n+line 12", "\n+new", "\n-new", "-9,7 +9,8", "-9,8 +9,7").Replace(hunkA)
	again := filepath.Join(t.TempDir(), "again")
	if _, _, err := Apply(context.Background(), dir, again, []*Patch{mustParse(t, "back", back)}); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(contents(t, from), contents(t, again)); d != "" {
		t.Error(d)
	}
}

func TestApplyRefuses(t *testing.T) {
	twice := map[string]string{"fs/a.c": "a\nb\nc\nx\nd\ne\nf\n" + numbered(1, 5) + "a\nb\nc\nx\nd\ne\nf\n"}
	tied := "--- a/fs/a.c\n+++ b/fs/a.c\n@@ -7,7 +7,7 @@\n a\n b\n c\n-x\n+y\n d\n e\n f\n"
	files := source()
	for n, c := range twice {
		files["tied/"+n] = c
	}
	done := source()
	done["fs/a.c"] = numbered(1, 11) + "new 12\nnew 12b\n" + numbered(13, 30)
	second := "@@ -20,3 +21,3 @@\n line 20\n-line 21\n+new 21\n line 22\n"
	for _, tt := range []struct {
		name  string
		files map[string]string
		patch string
		as    any
		want  string
	}{
		{"does not fit", nil, strings.Replace(hunkA, "-line 12\n", "-line xii\n", 1), &HunkError{},
			`p: fs/a.c: hunk 1 (line 3 of the patch) does not fit: at line 12 it expects "line xii", the file has "line 12", and no other place fits with a fuzz of up to 2`},
		{"second hunk", nil, hunkA + strings.Replace(second, "-line 21", "-line xxi", 1), &HunkError{}, `hunk 2 (line 13 of the patch) does not fit: at line 21 it expects "line xxi"`},
		{"beyond the end", nil, "--- a/fs/b.c\n+++ b/fs/b.c\n@@ -1,3 +1,3 @@\n one\n two\n-three\n+four\n", &HunkError{}, `at line 3 it expects "three", the file has 2 lines`},
		{"too much fuzz", nil, strings.NewReplacer(" line 9\n", " o\n", " line 10\n", " o\n", " line 11\n", " o\n").Replace(hunkA), &HunkError{}, `at line 9 it expects "o"`},
		{"tied", files, strings.ReplaceAll(tied, "fs/a.c", "tied/fs/a.c"), &HunkError{}, `it fits at lines 13 and 1 alike`},
		{"applied", done, hunkA, &AppliedError{}, "fs/a.c: already applied"},
		{"half applied", done, hunkA + second, &AppliedError{}, "hunk 1 is already applied, others of this file are not"},
		{"deleted already", nil, "--- a/fs/zz.c\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n", &AppliedError{}, "fs/zz.c: already applied"},
		{"made already", nil, "--- /dev/null\n+++ b/fs/b.c\n@@ -0,0 +1,2 @@\n+one\n+two\n", &AppliedError{}, "fs/b.c: already applied"},
		{"made otherwise", nil, "--- /dev/null\n+++ b/fs/b.c\n@@ -0,0 +1,2 @@\n+one\n+three\n", &UnsupportedError{}, "has one already"},
		{"deletes other lines", nil, "--- a/fs/b.c\n+++ /dev/null\n@@ -1 +0,0 @@\n-one\n", &HunkError{}, "has lines that the patch does not know"},
		{"no such file", nil, strings.ReplaceAll(hunkA, "a.c", "nowhere.c"), &UnsupportedError{}, "fs/nowhere.c (line 1 of the patch): not in the source of this kernel"},
		{"binary", nil, "Binary files a/fs/b.c and b/fs/b.c differ\n", &UnsupportedError{}, "fs/b.c (line 1 of the patch): a binary change"},
		{"git binary", nil, "diff --git a/fs/x.bin b/fs/x.bin\nnew file mode 100644\nindex 0..1\nGIT binary patch\nliteral 3\nKcmZQzU|?i`U|?nd000mN00aO4\n\nliteral 0\nHcmV?d00001\n\n", &UnsupportedError{}, "fs/x.bin (line 1 of the patch): a binary change"},
		{"symbolic link", nil, "diff --git a/fs/l b/fs/l\nnew file mode 120000\n--- /dev/null\n+++ b/fs/l\n@@ -0,0 +1 @@\n+a.c\n\\ No newline at end of file\n", &UnsupportedError{}, "fs/l (line 1 of the patch): a symbolic link"},
		{"through a link", nil, strings.ReplaceAll(hunkA, "a.c", "link.c"), &UnsupportedError{}, "symbolic link in the kernel's source"},
		{"blind insertion", nil, "--- a/fs/a.c\n+++ b/fs/a.c\n@@ -5,0 +6 @@\n+x\n", &HunkError{}, "without any context"},
		{"blind change elsewhere", nil, "--- a/fs/a.c\n+++ b/fs/a.c\n@@ -5 +5 @@\n-line 6\n+x\n", &HunkError{}, "no lines of context"},
		{"fits elsewhere, applied here", map[string]string{"fs/a.c": "a\nb\nc\ny\nd\ne\nf\n" + numbered(1, 4) + "a\nb\nc\nx\nd\ne\nf\n"},
			strings.Replace(tied, "@@ -7,7 +7,7 @@", "@@ -1,7 +1,7 @@", 1), &AppliedError{}, "already applied"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.files == nil {
				tt.files = source()
			}
			from := base(t, tt.files)
			dir := filepath.Join(t.TempDir(), "new")
			_, _, err := Apply(context.Background(), from, dir, []*Patch{mustParse(t, "p", tt.patch)})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			ok := false
			switch tt.as.(type) {
			case *HunkError:
				var e *HunkError
				ok = errors.As(err, &e)
			case *AppliedError:
				var e *AppliedError
				ok = errors.As(err, &e)
			case *UnsupportedError:
				var e *UnsupportedError
				ok = errors.As(err, &e)
			}
			if !ok {
				t.Errorf("got a %T, want a %T", err, tt.as)
			}
			if left, _ := filepath.Glob(dir + "*"); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}
