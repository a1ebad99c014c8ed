// SPDX-License-Identifier: Apache-2.0

// Package lines keeps the numbers of source lines in place when a patch moves them.
//
// WARN, might_sleep and many others compile __LINE__ into the code, so that one line
// inserted at the top of a file changes functions that nobody touched. Guessing
// afterwards which constants are line numbers is the known way to get that wrong.
// Here the new source is laid out instead so that every line that it shares with the
// old one has its old number: where the numbers have run apart, a #line directive is
// put before the next shared line that stands at a safe place. Lines that are new
// count on from the line before them, and may share a number with an old one.
package lines

import (
	"bytes"
	"strconv"
)

// maxSize is that of the largest file that is laid out; there are larger ones only
// among headers that list registers.
const maxSize = 16 << 20

// Layout returns post, of C or of a header, with #line directives such that each line
// it shares with pre has the number that it has in pre, whichever branches of #if
// are taken. A directive stands on a line of its own, never within a directive, a
// comment, a string or parentheses: what is between parentheses may be the argument
// of a macro. There it waits for the next safe line. Files with #line directives of
// their own, and assembly, are returned as they are; so is a post in which no number
// changes.
func Layout(pre, post []byte) []byte { return layout(pre, post, "") }

// Physical is the macro that takes the directives of LayoutUnless out of effect.
const Physical = "UPSPLICE_PHYSICAL_LINES"

// LayoutUnless is Layout with directives that have no effect where the macro
// Physical is defined. What the compiler says then is about the lines of the text
// as it is: laid out, two lines can have the same number.
func LayoutUnless(pre, post []byte) []byte { return layout(pre, post, Physical) }

func layout(pre, post []byte, unless string) []byte {
	if bytes.Equal(pre, post) || len(pre) > maxSize || len(post) > maxSize {
		return post
	}
	src := scan(post)
	if src.given || scan(pre).given {
		return post
	}
	height := 1
	if unless != "" {
		height = 3
	}
	at := directives(src, match(pre, post), height)
	if len(at) == 0 {
		return post
	}
	var out []byte
	for i, l := range src.lines {
		if n := at[i]; n != 0 {
			if unless != "" {
				out = append(out, "#ifndef "+unless+"\n"...)
				n-- // of the #endif
			}
			out = append(out, "#line "...)
			out = strconv.AppendInt(out, int64(n), 10)
			out = append(out, '\n')
			if unless != "" {
				out = append(out, "#endif\n"...)
			}
		}
		out = append(out, l.text...)
	}
	return out
}

// directives decides where to put #line: number by index of the line that follows.
// numbers are those of the lines in pre, 0 for new ones.
//
// Which branch of an #if is taken is not known, and a directive in a branch that is
// not does nothing. So the shift (number of a line less its place in post) is
// followed along all paths: it is the set of shifts that are possible at a line.
//
// height is the number of lines that one takes.
func directives(src source, numbers []int, height int) map[int]int {
	type level struct {
		entry set // shifts before the #if, if all branches so far are skipped
		ends  set // shifts at the ends of the branches, if one of them is taken
		whole bool
	}
	at := make(map[int]int)
	var stack []level
	shift := set{0: true}
	for i, l := range src.lines {
		if n := numbers[i]; n != 0 && l.safe && l.cond == condNone && !shift.is(n-i-1) {
			at[i] = n
			shift = set{n - i - 1: true}
			for j := range stack {
				// On the other paths its lines are skipped.
				stack[j].entry, stack[j].ends = stack[j].entry.plus(height), stack[j].ends.plus(height)
			}
		}
		switch l.cond {
		case condIf:
			stack = append(stack, level{entry: shift.plus(0), ends: set{}})
		case condElse, condElif:
			if len(stack) == 0 {
				return nil // not a source that can be compiled
			}
			top := &stack[len(stack)-1]
			top.ends.add(shift)
			top.whole = top.whole || l.cond == condElse
			shift = top.entry.plus(0)
		case condEnd:
			if len(stack) == 0 {
				return nil
			}
			top := stack[len(stack)-1]
			stack = stack[:len(stack)-1]
			shift = shift.plus(0)
			shift.add(top.ends)
			if !top.whole {
				shift.add(top.entry)
			}
		}
		if len(shift) > maxShifts || len(stack) > maxNesting {
			return nil
		}
	}
	return at
}

// Limits of what is followed.
const (
	maxShifts  = 64
	maxNesting = 256
)

// set of numbers that are possible.
type set map[int]bool

func (s set) is(n int) bool { return len(s) == 1 && s[n] }

func (s set) add(other set) {
	for n := range other {
		s[n] = true
	}
}

func (s set) plus(d int) set {
	m := make(set, len(s))
	for n := range s {
		m[n+d] = true
	}
	return m
}
