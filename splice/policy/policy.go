// SPDX-License-Identifier: Apache-2.0

// Package policy decides which changes of an update the administrator wants live.
// It judges whole groups: one member that is not wanted leaves the group for the
// next boot.
package policy

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/upsplice/upsplice/splice/splicefile"
)

// Code is that of the reasons which this package gives.
const Code = "policy"

// Change is a function that a group changes, and the file that it stands in;
// Function is empty for what is no function.
type Change struct{ File, Function string }

// Rules are checked patterns.
type Rules struct{ allow, deny []pattern }

// pattern has its two parts apart; an empty one matches all.
type pattern struct{ text, file, function string }

// New checks the patterns, which build.Policy describes. The error is a
// *PatternError.
func New(allow, deny []string) (*Rules, error) {
	r := &Rules{}
	for _, list := range []struct {
		from []string
		to   *[]pattern
	}{{allow, &r.allow}, {deny, &r.deny}} {
		for _, text := range list.from {
			p, err := parse(text)
			if err != nil {
				return nil, &PatternError{Pattern: text, Err: err}
			}
			*list.to = append(*list.to, p)
		}
	}
	return r, nil
}

// PatternError says what is wrong with a pattern.
type PatternError struct {
	Pattern string
	Err     error
}

func (e *PatternError) Error() string { return fmt.Sprintf("pattern %q: %v", e.Pattern, e.Err) }

// Unwrap returns the cause.
func (e *PatternError) Unwrap() error { return e.Err }

func parse(text string) (pattern, error) {
	file, function, colon := strings.Cut(text, ":")
	p := pattern{text: text, file: strings.TrimSuffix(file, "/"), function: function}
	switch {
	case strings.Contains(function, ":"):
		return p, errors.New("it has two colons")
	case colon && function == "":
		return p, errors.New("there is no function behind the colon")
	case p.file == "" && function == "":
		return p, errors.New("it is empty")
	case strings.ContainsAny(text, " \t\n"):
		return p, errors.New("it has a space")
	case strings.ContainsRune(function, '/'):
		return p, errors.New("a function has no slash in its name")
	case p.file != "" && (path.IsAbs(file) || path.Clean(p.file) != p.file || strings.HasPrefix(p.file, "..")):
		return p, errors.New("a file is given from the root of the kernel source, such as fs/ext4/inode.c")
	}
	for _, part := range []string{p.file, p.function} {
		if _, err := path.Match(part, ""); err != nil {
			return p, errors.New("a bracket or a backslash is not closed")
		}
	}
	return p, nil
}

// match: a pattern of a file also matches all that is below a directory of that
// name.
func (p pattern) match(c Change) bool {
	if p.function != "" {
		if ok, _ := path.Match(p.function, c.Function); !ok || c.Function == "" {
			return false
		}
	}
	if p.file == "" {
		return true
	}
	for f := c.File; f != "." && f != "/" && f != ""; f = path.Dir(f) {
		if ok, _ := path.Match(p.file, f); ok {
			return true
		}
	}
	return false
}

// Unwanted gives the reason for which a group of these changes waits; ok is false
// if it is wanted. Deny decides first. With Allow, each change has to be allowed: a
// group whose other half nobody asked for is not guessed about.
func (r *Rules) Unwanted(changes []Change) (reason splicefile.Reason, ok bool) {
	for _, c := range changes {
		for _, p := range r.deny {
			if p.match(c) {
				return because(c, "the configuration denies "+p.text), true
			}
		}
	}
	if len(r.allow) == 0 {
		return splicefile.Reason{}, false
	}
	for _, c := range changes {
		allowed := false
		for _, p := range r.allow {
			allowed = allowed || p.match(c)
		}
		if !allowed {
			return because(c, "the configuration does not allow it"), true
		}
	}
	return splicefile.Reason{}, false
}

func because(c Change, detail string) splicefile.Reason {
	what := c.File
	if c.Function != "" {
		what = c.Function
	}
	return splicefile.Reason{Code: Code, What: what, Detail: detail}
}
