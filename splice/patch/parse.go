// SPDX-License-Identifier: Apache-2.0

package patch

import (
	"bytes"
	"fmt"
	"io"
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// parser goes through the lines of one patch.
type parser struct {
	name   string
	lines  []string // with their newlines
	at     int      // index of the next line
	patch  *Patch
	hunks  int
	commit int
}

func parse(name string, r io.Reader) (*Patch, error) {
	text, err := io.ReadAll(io.LimitReader(r, MaxBytes+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	if len(text) > MaxBytes {
		return nil, fmt.Errorf("reading %s: more than %d bytes", name, MaxBytes)
	}
	p := &parser{name: name, patch: &Patch{Name: name}}
	if p.lines, err = split(text); err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	for p.at < len(p.lines) {
		if err := p.next(); err != nil {
			return nil, fmt.Errorf("reading %s: %w", name, err)
		}
	}
	if len(p.patch.Files) == 0 {
		return nil, fmt.Errorf("reading %s: it holds no unified diff", name)
	}
	return p.patch, nil
}

// split cuts the text into lines. A patch that passed through a system with CRLF
// line ends has them everywhere, and gets its own back; one that has them in some
// lines changes files that have them.
func split(text []byte) ([]string, error) {
	n := bytes.Count(text, []byte("\n"))
	if n > 0 && n == bytes.Count(text, []byte("\r\n")) {
		text = bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))
	}
	lines := strings.SplitAfter(string(text), "\n")
	if lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	for i, l := range lines {
		if len(l) > maxLine {
			return nil, fmt.Errorf("line %d: longer than %d bytes", i+1, maxLine)
		}
		if strings.HasSuffix(l, "\r\n") && (strings.HasPrefix(l, "diff --git ") || hunkHeader.MatchString(l)) {
			return nil, fmt.Errorf("line %d: ends with a carriage return, other lines do not: something changed the line ends; fetch the patch again as it was", i+1)
		}
	}
	return lines, nil
}

func (p *parser) line(ahead int) string {
	if p.at+ahead < len(p.lines) {
		return p.lines[p.at+ahead]
	}
	return ""
}

func (p *parser) errorf(ahead int, format string, arg ...any) error {
	return fmt.Errorf("line %d: %s", p.at+ahead+1, fmt.Sprintf(format, arg...))
}

var (
	mailStart  = regexp.MustCompile(`^From [0-9a-f]{40,64} `)
	hunkHeader = regexp.MustCompile(`^@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@(.*)`)
	onlyIn     = regexp.MustCompile(`^Only in ([^ :]+/)*[^ :]+: \S+\n?$`)
	differ     = regexp.MustCompile(`^(?:Binary files|Files) (.+) and (.+) differ\n?$`)
)

// next takes the text, or the one file, at the current line.
func (p *parser) next() error {
	l := p.line(0)
	switch {
	case strings.HasPrefix(l, "diff --git "):
		return p.gitFile()
	case strings.HasPrefix(l, "--- ") && strings.HasPrefix(p.line(1), "+++ "):
		return p.plainFile()
	case hunkHeader.MatchString(l):
		return p.errorf(0, "a hunk without a file header")
	case strings.HasPrefix(l, "diff --cc ") || strings.HasPrefix(l, "diff --combined "):
		return p.errorf(0, "the combined diff of a merge cannot be applied; make a diff to one parent")
	case strings.HasPrefix(l, "***************"):
		return p.errorf(0, "a context diff; make a unified one (diff -u)")
	case onlyIn.MatchString(l):
		return p.errorf(0, "the diff lacks a file (%s); make it with diff -N", strings.TrimSpace(l))
	case mailStart.MatchString(l):
		p.commit++
	}
	if m := differ.FindStringSubmatch(l); m != nil {
		return p.binaryNote(m[1], m[2])
	}
	p.at++
	return nil
}

// binaryNote takes the line with which diff says that files differ.
func (p *parser) binaryNote(old, new string) error {
	f := File{Line: p.at + 1, Binary: true, commit: p.commit}
	var err error
	if f.Old, err = p.clean(0, old); err != nil {
		return err
	}
	if f.New, err = p.clean(0, new); err != nil {
		return err
	}
	f.Created, f.Deleted = f.Old == "", f.New == ""
	p.at++
	return p.add(f)
}

// plainFile takes "--- old", "+++ new" and the hunks that must follow.
func (p *parser) plainFile() error {
	f := File{Line: p.at + 1, commit: p.commit}
	if err := p.names(&f); err != nil {
		return err
	}
	if err := p.hunksOf(&f); err != nil {
		return err
	}
	return p.add(f)
}

// names reads the two lines before the hunks.
func (p *parser) names(f *File) error {
	old, oldEpoch, err := p.name4(0, p.line(0)[4:])
	if err != nil {
		return err
	}
	new, newEpoch, err := p.name4(1, p.line(1)[4:])
	if err != nil {
		return err
	}
	if !hunkHeader.MatchString(p.line(2)) {
		return p.errorf(2, "a file header without a hunk")
	}
	if f.Git {
		// The extended header has said what happens; both must say the same.
		if (old == "") != f.Created || (new == "") != f.Deleted {
			return p.errorf(0, "whether the file is new or deleted differs from the git header")
		}
		f.Old, f.New = old, new
		p.at += 2
		return nil
	}
	f.Old, f.New = old, new
	m := hunkHeader.FindStringSubmatch(p.line(2))
	f.Created = old == "" || oldEpoch && m[1] == "0" && m[2] == "0"
	f.Deleted = new == "" || newEpoch && m[3] == "0" && m[4] == "0"
	if f.Created && f.Deleted {
		return p.errorf(0, "a file that is neither before nor after the patch")
	}
	if f.Created {
		f.Old = ""
	}
	if f.Deleted {
		f.New = ""
	}
	p.at += 2
	return nil
}

// name4 reads a name and, behind a tab, the time that diff writes. The epoch stands
// for a file that is not there.
func (p *parser) name4(ahead int, s string) (name string, epoch bool, err error) {
	s = strings.TrimSuffix(s, "\n")
	raw, stamp, _ := strings.Cut(s, "\t")
	if strings.HasPrefix(s, `"`) {
		raw = s
		if i := strings.LastIndex(s, "\"\t"); i > 0 {
			raw, stamp = s[:i+1], s[i+2:]
		}
	}
	name, err = p.clean(ahead, raw)
	t, timeErr := time.Parse("2006-01-02 15:04:05.999999999 -0700", stamp)
	return name, timeErr == nil && t.Unix() == 0, err
}

// clean unquotes a name and refuses those that lead out of a tree. The result is ""
// for /dev/null.
func (p *parser) clean(ahead int, raw string) (string, error) {
	name := raw
	if strings.HasPrefix(raw, `"`) {
		var err error
		if name, err = strconv.Unquote(raw); err != nil {
			return "", p.errorf(ahead, "the name %s is not quoted as git does", raw)
		}
	}
	if name == "/dev/null" {
		return "", nil
	}
	switch {
	case name == "" || strings.ContainsAny(name, "\x00\n\r") || len(name) > 4096:
		return "", p.errorf(ahead, "%q is no usable file name", name)
	case path.IsAbs(name):
		return "", p.errorf(ahead, "%q is an absolute path", name)
	case strings.Contains("/"+name+"/", "/../"):
		return "", p.errorf(ahead, "%q leads out of the tree", name)
	}
	// "./fs/x.c", as find and diff write it, has the component that is taken off.
	dot := strings.HasPrefix(name, "./")
	name = path.Clean(name)
	if dot {
		name = "./" + name
	}
	return name, nil
}

// hunksOf takes all hunks at the current line.
func (p *parser) hunksOf(f *File) error {
	end := 0 // first line of the old file after the last hunk
	for hunkHeader.MatchString(p.line(0)) {
		if p.hunks++; p.hunks > maxHunks {
			return p.errorf(0, "more than %d hunks", maxHunks)
		}
		h, err := p.hunk()
		if err != nil {
			return err
		}
		if h.OldStart < end {
			return fmt.Errorf("line %d: the hunk comes before the end of the last one", h.Line)
		}
		end = h.OldStart + h.OldLines
		f.Hunks = append(f.Hunks, h)
	}
	if f.Created && (len(f.Hunks) > 1 || len(f.Hunks) == 1 && f.Hunks[0].OldLines > 0) {
		return fmt.Errorf("line %d: a new file with old lines", f.Line)
	}
	if f.Deleted && (len(f.Hunks) > 1 || len(f.Hunks) == 1 && f.Hunks[0].NewLines > 0) {
		return fmt.Errorf("line %d: a deleted file with new lines", f.Line)
	}
	// What looks like a line of a hunk here is one that its header does not count.
	switch l := p.line(0); {
	case len(f.Hunks) == 0 || l == "" || l == "-- \n" || l == "---\n" || l == "--\n",
		strings.HasPrefix(l, "--- ") && strings.HasPrefix(p.line(1), "+++ "):
	case strings.HasPrefix(l, "@@ "):
		return p.errorf(0, "not a hunk header: %q", strings.TrimSpace(l))
	case strings.ContainsRune(" +-", rune(l[0])):
		return p.errorf(0, "the hunk is longer than its header says")
	}
	return nil
}

func (p *parser) hunk() (Hunk, error) {
	m := hunkHeader.FindStringSubmatch(p.line(0))
	h := Hunk{Line: p.at + 1, Section: strings.TrimSpace(m[5])}
	for i, to := range []*int{&h.OldStart, &h.OldLines, &h.NewStart, &h.NewLines} {
		*to = 1
		if m[i+1] == "" {
			continue
		}
		n, err := strconv.ParseInt(m[i+1], 10, 31)
		if err != nil {
			return h, p.errorf(0, "the line number %s is out of range", m[i+1])
		}
		*to = int(n)
	}
	if h.OldStart == 0 && h.OldLines != 0 || h.NewStart == 0 && h.NewLines != 0 {
		return h, p.errorf(0, "line 0 with lines in it")
	}
	p.at++
	changes := false
	for old, new := h.OldLines, h.NewLines; old > 0 || new > 0; p.at++ {
		l := p.line(0)
		if l == "" {
			return h, p.errorf(0, "the patch ends within a hunk: %d old and %d new lines are missing", old, new)
		}
		op, text := l[0], l[1:]
		if l == "\n" {
			op, text = ' ', l // the blank of an empty line of context, lost on the way
		}
		switch op {
		case ' ':
			old--
			new--
		case '-':
			old--
			changes = true
		case '+':
			new--
			changes = true
		case '\\':
			if err := h.noNewline(p); err != nil {
				return h, err
			}
			continue
		default:
			return h, p.errorf(0, "%q within a hunk: %d old and %d new lines are missing", strings.TrimSuffix(l, "\n"), old, new)
		}
		if old < 0 || new < 0 {
			return h, p.errorf(0, "the hunk has other lines than its header says")
		}
		h.Lines = append(h.Lines, Line{op, text})
	}
	if strings.HasPrefix(p.line(0), `\ `) {
		if err := h.noNewline(p); err != nil {
			return h, err
		}
		p.at++
	}
	if !changes {
		return h, fmt.Errorf("line %d: the hunk changes nothing", h.Line)
	}
	for i, l := range h.Lines {
		if !strings.HasSuffix(l.Text, "\n") && !h.lastOf(i) {
			return h, fmt.Errorf("line %d: a line in the middle of a file has no newline", h.Line)
		}
	}
	return h, nil
}

// noNewline takes the mark after a last line without newline.
func (h *Hunk) noNewline(p *parser) error {
	if len(h.Lines) == 0 || !strings.HasSuffix(h.Lines[len(h.Lines)-1].Text, "\n") {
		return p.errorf(0, "no line that the missing newline could belong to")
	}
	last := &h.Lines[len(h.Lines)-1]
	last.Text = strings.TrimSuffix(last.Text, "\n")
	return nil
}

// lastOf says whether line i is the last one of each side that it is of.
func (h *Hunk) lastOf(i int) bool {
	for _, l := range h.Lines[i+1:] {
		if l.Op == ' ' || h.Lines[i].Op == ' ' || l.Op == h.Lines[i].Op {
			return false
		}
	}
	return true
}

func (p *parser) add(f File) error {
	if len(p.patch.Files) == maxFiles {
		return fmt.Errorf("line %d: more than %d files", f.Line, maxFiles)
	}
	if f.Old == "" && f.New == "" {
		return fmt.Errorf("line %d: a change without a file name", f.Line)
	}
	p.patch.Files = append(p.patch.Files, f)
	return nil
}
