// SPDX-License-Identifier: Apache-2.0

package tree

import (
	"bytes"

	"github.com/rogpeppe/go-internal/diff"
)

// maxDiff is the size above which two files are not compared line by line: the
// comparison is in memory and takes several times the size.
const maxDiff = 16 << 20

// count fills the hunks and lines of a changed file. A file too large to compare
// counts as one hunk that replaces everything, a binary one as one hunk.
func count(f *File, old, new []byte) {
	switch {
	case binary(old) || binary(new):
		f.Hunks = 1
	case f.Kind != "changed" || len(old) > maxDiff || len(new) > maxDiff:
		f.Hunks, f.Added, f.Removed = 1, lines(new), lines(old)
	default:
		f.Hunks, f.Added, f.Removed = countUnified(diff.Diff("a", old, "b", new))
	}
}

// countUnified counts in a unified diff. The two header lines come before the
// first hunk, so that a removed line that reads "-- x" is not taken for one.
func countUnified(text []byte) (hunks, added, removed int) {
	for len(text) > 0 {
		line, rest, _ := bytes.Cut(text, []byte("\n"))
		text = rest
		switch {
		case bytes.HasPrefix(line, []byte("@@ ")):
			hunks++
		case hunks == 0 || len(line) == 0:
		case line[0] == '+':
			added++
		case line[0] == '-':
			removed++
		}
	}
	return hunks, added, removed
}

func lines(text []byte) int {
	n := bytes.Count(text, []byte("\n"))
	if len(text) > 0 && text[len(text)-1] != '\n' {
		n++
	}
	return n
}

func binary(text []byte) bool {
	return bytes.IndexByte(text[:min(len(text), 8000)], 0) >= 0
}
