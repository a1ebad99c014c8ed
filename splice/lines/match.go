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
	n := len(split(post))
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
	fill(numbers, split(pre), split(post))
	return numbers
}

// maxTable bounds the work on one gap, in pairs of lines.
const maxTable = 4 << 20

// fill finds the lines that are the same in the gaps between those that match
// already: diff looks at lines that a text has once, and takes a brace or a return
// beside them for changed.
func fill(numbers []int, pre, post [][]byte) {
	old := 0 // index in pre
	for at := 0; at <= len(numbers); at++ {
		if at < len(numbers) && numbers[at] != 0 {
			old = numbers[at]
			continue
		}
		end, next := at, len(pre)
		for end < len(numbers) && numbers[end] == 0 {
			end++
		}
		if end < len(numbers) {
			next = numbers[end] - 1
		}
		common(numbers[at:end], pre[old:next], post[at:end], old)
		at, old = end, next
		if end < len(numbers) {
			old = numbers[end]
		}
	}
}

// common numbers the longest common subsequence of a gap; first is the index of its
// first line in pre.
func common(numbers []int, pre, post [][]byte, first int) {
	for len(pre) > 0 && len(post) > 0 && bytes.Equal(pre[0], post[0]) {
		first++
		numbers[0] = first
		numbers, pre, post = numbers[1:], pre[1:], post[1:]
	}
	for len(pre) > 0 && len(post) > 0 && bytes.Equal(pre[len(pre)-1], post[len(post)-1]) {
		numbers[len(post)-1] = first + len(pre)
		pre, post = pre[:len(pre)-1], post[:len(post)-1]
	}
	if len(pre) == 0 || len(post) == 0 || len(pre)*len(post) > maxTable {
		return
	}
	// longest[i*w+j]: of pre[i:] and post[j:], where a line of code counts more than an
	// empty one or a brace.
	w := len(post) + 1
	longest := make([]int32, (len(pre)+1)*w)
	for i := len(pre) - 1; i >= 0; i-- {
		for j := len(post) - 1; j >= 0; j-- {
			if bytes.Equal(pre[i], post[j]) {
				longest[i*w+j] = longest[(i+1)*w+j+1] + weight(pre[i])
			}
			longest[i*w+j] = max(longest[i*w+j], longest[(i+1)*w+j], longest[i*w+j+1])
		}
	}
	for i, j := 0, 0; i < len(pre) && j < len(post); {
		switch {
		case bytes.Equal(pre[i], post[j]) && longest[i*w+j] == longest[(i+1)*w+j+1]+weight(pre[i]):
			numbers[j] = first + i + 1
			i++
			j++
		case longest[(i+1)*w+j] >= longest[i*w+j+1]:
			i++
		default:
			j++
		}
	}
}

func weight(line []byte) int32 {
	if len(bytes.Trim(line, " \t\r\n{};")) == 0 {
		return 1
	}
	return 4
}

// split cuts a text into lines with their newlines.
func split(text []byte) [][]byte {
	lines := bytes.SplitAfter(text, []byte("\n"))
	if len(lines[len(lines)-1]) == 0 {
		lines = lines[:len(lines)-1]
	}
	return lines
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
