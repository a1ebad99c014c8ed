// SPDX-License-Identifier: Apache-2.0

package lines

import (
	"bytes"
	"strconv"

	"github.com/rogpeppe/go-internal/diff"
)

// match returns, for each line of post, the number that it has in pre, from 1, and 0
// for a line that pre does not have.
func match(pre, post []byte) []int {
	n := bytes.Count(post, []byte("\n"))
	if len(post) > 0 && post[len(post)-1] != '\n' {
		n++
	}
	numbers := make([]int, n)
	text := diff.Diff("pre", pre, "post", post)
	old, at := 1, 0 // number in pre and index in post of the next line
	same := func(until int) {
		for ; at < until && at < n; at++ {
			numbers[at] = old
			old++
		}
	}
	inHunk := false
	for len(text) > 0 {
		line, rest, _ := bytes.Cut(text, []byte("\n"))
		text = rest
		switch {
		case bytes.HasPrefix(line, []byte("@@ -")):
			inHunk = true
			same(hunkStart(line))
		case !inHunk || len(line) == 0:
		case line[0] == ' ':
			same(at + 1)
		case line[0] == '-':
			old++
		case line[0] == '+':
			at++
		}
	}
	same(n)
	return numbers
}

// hunkStart is the index of the first line of a hunk in post, out of
// "@@ -1,2 +3,4 @@". A side without lines is given as the line before it.
func hunkStart(head []byte) int {
	_, rest, _ := bytes.Cut(head, []byte(" +"))
	rest, _, _ = bytes.Cut(rest, []byte(" @@"))
	first, count, _ := bytes.Cut(rest, []byte(","))
	n, _ := strconv.Atoi(string(first))
	if string(count) == "0" {
		return n
	}
	return n - 1
}
