// SPDX-License-Identifier: Apache-2.0

package patch

import (
	"strconv"
	"strings"
)

// Modes that git knows.
const (
	modeFile    = 0o100644
	modeExec    = 0o100755
	modeLink    = 0o120000
	modeGitlink = 0o160000
)

// gitFile takes "diff --git", its extended header, and what follows.
func (p *parser) gitFile() error {
	f := File{Git: true, Line: p.at + 1, commit: p.commit}
	head := strings.TrimSuffix(p.line(0)[len("diff --git "):], "\n")
	p.at++
	for p.at < len(p.lines) {
		known, err := p.extended(&f, strings.TrimSuffix(p.line(0), "\n"))
		if err != nil {
			return err
		}
		if !known {
			break
		}
		p.at++
	}
	if f.Renamed || f.Copied {
		if f.Old == "" || f.New == "" || f.Created || f.Deleted {
			return p.errorf(0, "a rename or copy without both names")
		}
		return p.renamed(f)
	}
	switch l := p.line(0); {
	case strings.HasPrefix(l, "--- ") && strings.HasPrefix(p.line(1), "+++ "):
		if err := p.names(&f); err != nil {
			return err
		}
		if err := p.hunksOf(&f); err != nil {
			return err
		}
		return p.add(f)
	case l == "GIT binary patch\n":
		if err := p.binary(&f); err != nil {
			return err
		}
	case differ.MatchString(l):
		f.Binary = true
		p.at++
	case hunkHeader.MatchString(l):
		return p.errorf(0, "a hunk without a file header")
	}
	// Without hunks the names stand in the first line only, where nothing but their
	// being equal tells them apart.
	old, new, ok := headNames(head)
	if !ok {
		return p.errorf(0, "the two names in %q cannot be told apart", head)
	}
	var err error
	if f.Old, err = p.clean(0, old); err != nil {
		return err
	}
	if f.New, err = p.clean(0, new); err != nil {
		return err
	}
	if f.Created {
		f.Old = ""
	}
	if f.Deleted {
		f.New = ""
	}
	if !f.Binary && !f.Created && !f.Deleted && f.NewMode == 0 {
		return p.errorf(0, "a file header without a change")
	}
	return p.add(f)
}

// extended takes one line of the extended header.
func (p *parser) extended(f *File, l string) (known bool, err error) {
	for _, h := range []struct {
		prefix string
		take   func(rest string) error
	}{
		{"old mode ", func(s string) error { return p.mode(&f.OldMode, s) }},
		{"new mode ", func(s string) error { return p.mode(&f.NewMode, s) }},
		{"deleted file mode ", func(s string) error { f.Deleted = true; return p.mode(&f.OldMode, s) }},
		{"new file mode ", func(s string) error { f.Created = true; return p.mode(&f.NewMode, s) }},
		{"rename from ", func(s string) error { f.Renamed = true; return p.set(&f.Old, s) }},
		{"rename to ", func(s string) error { f.Renamed = true; return p.set(&f.New, s) }},
		{"copy from ", func(s string) error { f.Copied = true; return p.set(&f.Old, s) }},
		{"copy to ", func(s string) error { f.Copied = true; return p.set(&f.New, s) }},
		{"similarity index ", nil},
		{"dissimilarity index ", nil},
		{"index ", func(s string) error {
			// A mode here is that of both sides.
			if _, m, ok := strings.Cut(s, " "); ok && f.OldMode == 0 {
				return p.mode(&f.OldMode, m)
			}
			return nil
		}},
	} {
		if rest, ok := strings.CutPrefix(l, h.prefix); ok {
			if h.take != nil {
				err = h.take(rest)
			}
			return true, err
		}
	}
	return false, nil
}

func (p *parser) mode(to *uint32, s string) error {
	n, err := strconv.ParseUint(s, 8, 32)
	if err != nil {
		return p.errorf(0, "the mode %q is not an octal number", s)
	}
	*to = uint32(n)
	return nil
}

func (p *parser) set(to *string, s string) error {
	name, err := p.clean(0, s)
	if err == nil && name == "" {
		return p.errorf(0, "%q is no usable file name", s)
	}
	*to = name
	return err
}

// renamed takes the hunks of a renamed or copied file, if it has any.
func (p *parser) renamed(f File) error {
	l := p.line(0)
	switch {
	case strings.HasPrefix(l, "--- ") && strings.HasPrefix(p.line(1), "+++ "):
		old, _, err := p.name4(0, l[4:])
		if err != nil {
			return err
		}
		new, _, err := p.name4(1, p.line(1)[4:])
		if err != nil {
			return err
		}
		if old != f.Old && behind(old) != f.Old || new != f.New && behind(new) != f.New {
			return p.errorf(0, "the names differ from those of the git header")
		}
		if !hunkHeader.MatchString(p.line(2)) {
			return p.errorf(2, "a file header without a hunk")
		}
		p.at += 2
		if err := p.hunksOf(&f); err != nil {
			return err
		}
	case l == "GIT binary patch\n":
		if err := p.binary(&f); err != nil {
			return err
		}
	case differ.MatchString(l):
		f.Binary = true
		p.at++
	case hunkHeader.MatchString(l):
		return p.errorf(0, "a hunk without a file header")
	}
	return p.add(f)
}

// binary skips the data of a binary patch: two blocks that end with empty lines.
func (p *parser) binary(f *File) error {
	f.Binary = true
	p.at++
	for strings.HasPrefix(p.line(0), "literal ") || strings.HasPrefix(p.line(0), "delta ") {
		for p.line(0) != "\n" {
			if p.at++; p.at >= len(p.lines) {
				return p.errorf(0, "the patch ends within binary data")
			}
		}
		p.at++
	}
	return nil
}

// headNames are the names of "diff --git A B". Git does not quote blanks, so the
// line can be cut where the names, without their first component, are equal.
func headNames(s string) (old, new string, ok bool) {
	if strings.HasPrefix(s, `"`) {
		q, err := strconv.QuotedPrefix(s)
		if err != nil || !strings.HasPrefix(s[len(q):], " ") {
			return "", "", false
		}
		return q, s[len(q)+1:], true
	}
	if strings.HasSuffix(s, `"`) {
		old, new, ok = strings.Cut(s, ` "`)
		return old, `"` + new, ok
	}
	for i := range len(s) {
		if s[i] != ' ' {
			continue
		}
		old, new = s[:i], s[i+1:]
		if old == new || behind(old) != "" && behind(old) == behind(new) {
			return old, new, true
		}
	}
	return "", "", false
}

// behind is a name without its first component.
func behind(name string) string {
	_, rest, _ := strings.Cut(name, "/")
	return rest
}
