// SPDX-License-Identifier: Apache-2.0

// Package osrelease reads the file that says which distribution a system is
// (os-release(5)).
package osrelease

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
)

// Paths are where the file stands below the root, in the order of os-release(5).
var Paths = []string{"etc/os-release", "usr/lib/os-release"}

// maxBytes limits the file; real ones have some hundred bytes.
const maxBytes = 64 << 10

// Release is what the file says.
type Release struct {
	ID         string   // "debian"; "linux" where the file names none
	IDLike     []string // closest first: "debian" of Ubuntu
	VersionID  string   // "12", "" for rolling releases
	Codename   string   // "bookworm"
	PrettyName string

	fields map[string]string
}

// Get returns any field by its name, "" if there is none.
func (r Release) Get(name string) string { return r.fields[name] }

// SyntaxError says which line is no assignment.
type SyntaxError struct {
	Line   int // from 1
	Reason string
}

func (e *SyntaxError) Error() string { return fmt.Sprintf("os-release, line %d: %s", e.Line, e.Reason) }

// Read reads the file of the system whose root directory is root. Errors:
// fs.ErrNotExist if there is none, *SyntaxError.
func Read(root fs.FS) (Release, error) {
	for _, p := range Paths {
		f, err := root.Open(p)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return Release{}, fmt.Errorf("reading os-release: %w", err)
		}
		defer f.Close()
		return Parse(f)
	}
	return Release{}, fmt.Errorf("reading os-release: neither %s: %w", strings.Join(Paths, " nor "), fs.ErrNotExist)
}

// Parse reads the file's text. A later assignment wins, as in a shell.
func Parse(r io.Reader) (Release, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxBytes+1))
	if err != nil {
		return Release{}, fmt.Errorf("reading os-release: %w", err)
	}
	if len(data) > maxBytes {
		return Release{}, &SyntaxError{Line: 1, Reason: fmt.Sprintf("the file is longer than %d bytes", maxBytes)}
	}
	rel := Release{fields: map[string]string{}}
	s := bufio.NewScanner(strings.NewReader(string(data)))
	s.Buffer(nil, maxBytes+1)
	for n := 1; s.Scan(); n++ {
		line := strings.TrimSpace(s.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		if !ok || !validName(name) {
			return Release{}, &SyntaxError{Line: n, Reason: "is no assignment"}
		}
		value, err := unquote(value)
		if err != nil {
			return Release{}, &SyntaxError{Line: n, Reason: err.Error()}
		}
		rel.fields[name] = value
	}
	if err := s.Err(); err != nil {
		return Release{}, fmt.Errorf("reading os-release: %w", err)
	}
	rel.ID = rel.Get("ID")
	if rel.ID == "" {
		rel.ID = "linux"
	}
	rel.IDLike = strings.Fields(rel.Get("ID_LIKE"))
	rel.VersionID = rel.Get("VERSION_ID")
	rel.Codename = rel.Get("VERSION_CODENAME")
	rel.PrettyName = rel.Get("PRETTY_NAME")
	return rel, nil
}

func validName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !(c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c == '_' || i > 0 && c >= '0' && c <= '9') {
			return false
		}
	}
	return s != ""
}

// unquote follows the shell's rules so far as os-release(5) allows them:
// no concatenation, no expansion.
func unquote(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	switch q := s[0]; q {
	case '\'':
		body, ok := strings.CutSuffix(s[1:], "'")
		if len(s) < 2 || !ok || strings.Contains(body, "'") {
			return "", errors.New("a quote is not closed")
		}
		return body, nil
	case '"':
		return unescape(s[1:], true)
	}
	return unescape(s, false)
}

func unescape(s string, quoted bool) (string, error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"' && quoted:
			if i != len(s)-1 {
				return "", errors.New("text follows the closing quote")
			}
			return b.String(), nil
		case c == '\\':
			i++
			if i == len(s) {
				return "", errors.New("ends with a backslash")
			}
			// Between double quotes a shell keeps a backslash that escapes nothing.
			if quoted && strings.IndexByte("\"\\$`", s[i]) < 0 {
				b.WriteByte('\\')
			}
			b.WriteByte(s[i])
		case !quoted && strings.IndexByte(" \t\"'", c) >= 0:
			return "", errors.New("needs quotes")
		default:
			b.WriteByte(c)
		}
	}
	if quoted {
		return "", errors.New("a quote is not closed")
	}
	return b.String(), nil
}
