// SPDX-License-Identifier: Apache-2.0

// Package deb822 reads Debian control data: paragraphs of "Field: value" lines,
// as in a package's control file, /var/lib/dpkg/status and Packages indices
// (format: deb822(5)).
package deb822

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
)

// DefaultMaxParagraph limits the bytes of one paragraph; the longest in Debian's
// indices have some tens of kilobytes.
const DefaultMaxParagraph = 1 << 20

// Paragraph is one set of fields. Field names are compared without regard to case.
type Paragraph struct {
	fields map[string]string // by lower-case name
}

// Get returns the value of a field, "" if there is none. Lines of a folded value
// are separated by "\n" and keep no leading blank.
func (p Paragraph) Get(field string) string { return p.fields[strings.ToLower(field)] }

// Len is the number of fields.
func (p Paragraph) Len() int { return len(p.fields) }

// SyntaxError says which line is not control data.
type SyntaxError struct {
	Line   int // from 1
	Reason string
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("control data, line %d: %s", e.Line, e.Reason)
}

// Reader reads one paragraph after the other.
type Reader struct {
	// MaxParagraph limits the bytes of one paragraph, 0: DefaultMaxParagraph.
	MaxParagraph int

	r    *bufio.Reader
	line int
}

// NewReader reads from r.
func NewReader(r io.Reader) *Reader { return &Reader{r: bufio.NewReader(r)} }

// Next returns the next paragraph, io.EOF after the last one, or a *SyntaxError.
func (r *Reader) Next() (Paragraph, error) {
	left := r.MaxParagraph
	if left <= 0 {
		left = DefaultMaxParagraph
	}
	p := Paragraph{fields: map[string]string{}}
	last := ""
	for {
		line, err := r.readLine(&left)
		if err != nil && err != io.EOF {
			return Paragraph{}, err
		}
		end := err == io.EOF
		switch {
		case strings.TrimRight(line, " \t") == "":
			if p.Len() > 0 {
				return p, nil
			}
			if end {
				return Paragraph{}, io.EOF
			}
			continue
		case line[0] == '#':
		case line[0] == ' ' || line[0] == '\t':
			if last == "" {
				return Paragraph{}, r.errorf("continues a field, but there is none")
			}
			p.fields[last] += "\n" + strings.TrimSpace(line)
		default:
			name, value, ok := strings.Cut(line, ":")
			if !ok || !validName(name) {
				return Paragraph{}, r.errorf("is no field")
			}
			last = strings.ToLower(name)
			if _, dup := p.fields[last]; dup {
				return Paragraph{}, r.errorf("repeats field " + name)
			}
			p.fields[last] = strings.TrimSpace(value)
		}
		if end {
			return p.orEOF()
		}
	}
}

// orEOF is the paragraph that the end of the file finished, if it has any field.
func (p Paragraph) orEOF() (Paragraph, error) {
	if p.Len() == 0 {
		return Paragraph{}, io.EOF
	}
	return p, nil
}

func (r *Reader) errorf(reason string) error { return &SyntaxError{Line: r.line, Reason: reason} }

// readLine returns a line without its end; io.EOF may come with the last line.
func (r *Reader) readLine(left *int) (string, error) {
	r.line++
	var b strings.Builder
	for {
		part, err := r.r.ReadSlice('\n')
		if *left -= len(part); *left < 0 {
			return "", r.errorf("paragraph is too long")
		}
		b.Write(part)
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		return strings.TrimRight(b.String(), "\r\n"), err
	}
}

func validName(s string) bool {
	if s == "" || s[0] == '-' {
		return false
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// Parse reads a file of exactly one paragraph, such as a package's control file.
func Parse(r io.Reader) (Paragraph, error) {
	d := NewReader(r)
	p, err := d.Next()
	if err == io.EOF {
		return Paragraph{}, &SyntaxError{Line: d.line, Reason: "no paragraph"}
	}
	if err != nil {
		return Paragraph{}, err
	}
	switch _, err := d.Next(); err {
	case io.EOF:
		return p, nil
	case nil:
		return Paragraph{}, &SyntaxError{Line: d.line, Reason: "a second paragraph"}
	default:
		return Paragraph{}, err
	}
}
