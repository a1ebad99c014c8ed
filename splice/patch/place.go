// SPDX-License-Identifier: Apache-2.0

package patch

import (
	"fmt"
	"strings"
)

// text is a file in lines while hunks are applied to it.
type text struct {
	lines []string // with their newlines
	out   []string
	at    int // first line that no hunk has touched yet
}

func newText(s string) *text {
	lines := strings.SplitAfter(s, "\n")
	if lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	return &text{lines: lines}
}

func (t *text) String() string { return strings.Join(t.out, "") + strings.Join(t.lines[t.at:], "") }

// pattern is what a hunk looks for: its old lines without those of the context that
// the fuzz disregards.
type pattern struct {
	lines   []string
	cut     int // lines disregarded at the beginning
	drop    int // and at the end
	atStart bool
	atEnd   bool
}

// shape are the counts of a hunk that decide how its context can be cut.
type shape struct {
	old            []string
	prefix, suffix int
	noNewline      bool // a line has none
}

func shapeOf(h *Hunk) shape {
	var s shape
	changed := false
	for _, l := range h.Lines {
		s.noNewline = s.noNewline || !strings.HasSuffix(l.Text, "\n")
		switch {
		case l.Op != ' ':
			changed, s.suffix = true, 0
		case changed:
			s.suffix++
		default:
			s.prefix++
		}
		if l.Op != '+' {
			s.old = append(s.old, l.Text)
		}
	}
	return s
}

// cut returns the pattern at a fuzz; ok is false if there is no more context to
// disregard: unlike GNU patch, it leaves a line at least. Context is taken off the
// longer side first, so that both sides keep at most the same. A side that is the
// shorter one even then was cut off by an end of the file, and must be there; so
// must a last line without newline.
func (s shape) cut(h *Hunk, fuzz int) (p pattern, ok bool) {
	longer := max(s.prefix, s.suffix)
	if fuzz > 0 && (fuzz >= longer || s.noNewline) {
		return p, false
	}
	keep := longer - fuzz
	prefix, suffix := min(s.prefix, keep), min(s.suffix, keep)
	p.cut = s.prefix - prefix
	p.drop = s.suffix - suffix
	p.lines = s.old[p.cut : len(s.old)-p.drop]
	p.atStart = prefix < suffix && h.OldStart <= 1
	p.atEnd = suffix < prefix || s.noNewline
	return p, true
}

func (t *text) matches(p pattern, at int) bool {
	// As with GNU patch, there must be lines in the place of those that are
	// disregarded at the beginning, but not of those at the end.
	if at < t.at || at < p.cut || at+len(p.lines) > len(t.lines) || p.atStart && at != 0 || p.atEnd && at+len(p.lines) != len(t.lines) {
		return false
	}
	for i, l := range p.lines {
		if t.lines[at+i] != l {
			return false
		}
	}
	return true
}

// maxAlso bounds how many further places are looked for.
const maxAlso = 3

// find returns all lines that the pattern fits at, nearest to guess first, up to
// enough of them.
func (t *text) find(p pattern, guess, enough int) []int {
	var found []int
	for d := 0; (guess-d >= t.at || guess+d <= len(t.lines)) && len(found) < enough; d++ {
		if t.matches(p, guess+d) {
			found = append(found, guess+d)
		}
		if d > 0 && t.matches(p, guess-d) {
			found = append(found, guess-d)
		}
	}
	return found
}

// apply applies the hunks in order. The error lacks the names of patch and file.
func (t *text) apply(hunks []Hunk) ([]Placed, *HunkError) {
	var placed []Placed
	drift := 0 // offset of the last hunk: the next one is looked for from there
	for i := range hunks {
		h := &hunks[i]
		fail := func(format string, arg ...any) *HunkError {
			return &HunkError{Hunk: i + 1, PatchLine: h.Line, Line: h.OldStart, Reason: fmt.Sprintf(format, arg...)}
		}
		want := h.OldStart - 1 // index of the first line, as the patch says
		if h.OldLines == 0 {
			want = h.OldStart // "after line OldStart"
		}
		s := shapeOf(h)
		if s.prefix+s.suffix == 0 && len(s.old) < len(t.lines) {
			// Nothing shows that the place is right but the number.
			if len(s.old) == 0 {
				return nil, fail("it inserts lines without any context; make the patch with three lines of context (diff -U3)")
			}
			if drift != 0 || !t.matches(pattern{lines: s.old}, want) {
				return nil, fail("it has no lines of context and does not fit at line %d; make the patch with three lines of context (diff -U3)", want+1)
			}
		}
		p, ok := placeHunk(t, h, s, want, drift)
		if !ok {
			return nil, t.misfit(i, h, s, want+drift)
		}
		if p.tie != 0 {
			return nil, fail("it fits at lines %d and %d alike; make the patch for the source of this kernel", p.Line, p.tie)
		}
		drift = p.Offset
		p.Hunk = i + 1
		placed = append(placed, p.Placed)
		t.write(h, s, p)
	}
	return placed, nil
}

// place is where a hunk fits.
type place struct {
	Placed
	start, cut, drop int // index of the first line of the pattern; context lines disregarded at either end
	tie              int // another line that is as good, 0 if there is none
}

func placeHunk(t *text, h *Hunk, s shape, want, drift int) (place, bool) {
	for fuzz := 0; fuzz <= maxFuzz; fuzz++ {
		pat, ok := s.cut(h, fuzz)
		if !ok {
			break
		}
		guess := want + drift + pat.cut
		found := t.find(pat, guess, maxAlso+1)
		if len(found) == 0 {
			continue
		}
		at := found[0]
		// If the hunk was applied, other code may fit it too, and its own with fuzz.
		if d, there := t.applied(h, s, want+drift, max(fuzz-1, 0)); there && (fuzz > 0 || d < abs(at-guess)) {
			return place{}, false
		}
		p := place{start: at, cut: pat.cut, drop: pat.drop}
		p.Line, p.Offset, p.Fuzz = at-pat.cut+1, at-pat.cut-want, fuzz
		if at == guess && fuzz == 0 {
			return p, true
		}
		for _, other := range found[1:] {
			p.Also = append(p.Also, other-pat.cut+1)
		}
		if len(found) > 1 && (fuzz > 0 || abs(found[1]-guess) == abs(at-guess)) {
			p.tie = p.Also[0]
		}
		return p, true
	}
	return place{}, false
}

// applied says whether the new lines of a hunk stand in the text, with a fuzz, and
// how far from a line.
func (t *text) applied(h *Hunk, s shape, at, fuzz int) (distance int, there bool) {
	old, ok := s.cut(h, fuzz)
	if !ok {
		return 0, false
	}
	new := newLines(h)
	p := pattern{lines: new[old.cut : len(new)-old.drop]}
	if len(p.lines) == 0 {
		return 0, false
	}
	at += old.cut
	found := t.find(p, at, 1)
	if len(found) == 0 {
		return 0, false
	}
	return abs(found[0] - at), true
}

func newLines(h *Hunk) []string {
	var new []string
	for _, l := range h.Lines {
		if l.Op != '-' {
			new = append(new, l.Text)
		}
	}
	return new
}

// write brings the new lines of a hunk, and what stands before it, to the output.
func (t *text) write(h *Hunk, s shape, p place) {
	t.out = append(t.out, t.lines[t.at:p.start]...)
	t.at = p.start
	context := 0 // old lines seen
	for _, l := range h.Lines {
		if l.Op == '+' {
			t.out = append(t.out, l.Text)
			continue
		}
		context++
		if context <= p.cut || context > len(s.old)-p.drop {
			continue // disregarded: the file's own line stays, untouched
		}
		if l.Op == ' ' {
			t.out = append(t.out, t.lines[t.at])
		}
		t.at++
	}
}

// misfit explains why a hunk fits nowhere: the first line that differs at the place
// where it should.
func (t *text) misfit(i int, h *Hunk, s shape, guess int) *HunkError {
	e := &HunkError{Hunk: i + 1, PatchLine: h.Line}
	guess = max(guess, t.at)
	for j, l := range s.old {
		e.Line, e.Want = guess+j+1, strings.TrimSuffix(l, "\n")
		if guess+j >= len(t.lines) {
			e.Reason = fmt.Sprintf("at line %d it expects %q, the file has %d lines, and no other place fits with a fuzz of up to %d; make the patch for the source of this kernel",
				e.Line, e.Want, len(t.lines), maxFuzz)
			return e
		}
		if t.lines[guess+j] != l {
			e.Have = strings.TrimSuffix(t.lines[guess+j], "\n")
			if e.Have == e.Want {
				e.Reason = fmt.Sprintf("line %d has a newline at its end on one side only", e.Line)
			}
			return e
		}
	}
	e.Line = h.OldStart
	e.Reason = "it belongs to an end of the file, and there are further lines; make the patch for the source of this kernel"
	return e
}

// applied lists the hunks, from 1, whose new lines the text has where they should
// be after the patch, or at an offset that they share.
func applied(s string, hunks []Hunk) []int {
	t := newText(s)
	var list []int
	drift := 0
	for i := range hunks {
		h := &hunks[i]
		new := newLines(h)
		if len(new) == 0 {
			continue
		}
		want := h.NewStart - 1
		found := t.find(pattern{lines: new}, want+drift, 1)
		if len(found) == 0 {
			continue
		}
		drift = found[0] - want
		t.at = found[0] + len(new)
		list = append(list, i+1)
	}
	return list
}

func abs(n int) int { return max(n, -n) }
