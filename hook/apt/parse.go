// SPDX-License-Identifier: Apache-2.0

package apt

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"strings"
)

// Far above what a dist-upgrade of a whole distribution sends, and far below
// what would hurt a small machine.
const (
	maxLine  = 64 << 10
	maxLines = 100_000
	maxTotal = 64 << 20
)

// ParseError says which line is not what apt sends.
type ParseError struct {
	Line int // from 1
	Err  error
}

func (e *ParseError) Error() string {
	return fmt.Sprintf("reading apt's transaction, line %d: %v", e.Line, e.Err)
}

func (e *ParseError) Unwrap() error { return e.Err }

// Parse reads a transaction to the end of r. Errors of the content are
// *ParseError. An empty input is a transaction without packages: that is what
// version 1 sends for removals.
func Parse(r io.Reader) (*Transaction, error) {
	s := &scanner{r: bufio.NewReaderSize(r, maxLine)}
	t, err := s.transaction()
	if err != nil {
		return nil, &ParseError{Line: max(s.n, 1), Err: err}
	}
	return t, nil
}

type scanner struct {
	r     *bufio.Reader
	n     int // lines read
	total int
}

// next returns the next line without its newline, io.EOF after the last.
func (s *scanner) next() (string, error) {
	b, err := s.r.ReadSlice('\n')
	if err == io.EOF && len(b) == 0 {
		return "", io.EOF
	}
	s.n++
	s.total += len(b)
	switch {
	case err == bufio.ErrBufferFull:
		return "", fmt.Errorf("longer than %d bytes", maxLine)
	case err == io.EOF:
		// apt ends every line; a cut one may be half a path.
		return "", errors.New("the input ends within the line")
	case err != nil:
		return "", err
	case s.n > maxLines:
		return "", fmt.Errorf("more than %d lines", maxLines)
	case s.total > maxTotal:
		return "", fmt.Errorf("more than %d bytes", maxTotal)
	}
	return string(b[:len(b)-1]), nil
}

func (s *scanner) transaction() (*Transaction, error) {
	first, err := s.next()
	if err == io.EOF {
		return &Transaction{Protocol: 1}, nil
	}
	if err != nil {
		return nil, err
	}
	version, ok := strings.CutPrefix(first, "VERSION ")
	if !ok {
		return s.version1(first)
	}
	t := &Transaction{Config: map[string][]string{}}
	parse := parseLine3
	switch version {
	case "2":
		t.Protocol, parse = 2, parseLine2
	case "3":
		t.Protocol = 3
	default:
		return nil, fmt.Errorf("protocol version %q, known are 1, 2 and 3", version)
	}
	if err := s.config(t.Config); err != nil {
		return nil, err
	}
	for {
		line, err := s.next()
		if err == io.EOF {
			return t, nil
		}
		if err != nil {
			return nil, err
		}
		l, err := parse(line)
		if err != nil {
			return nil, err
		}
		t.Lines = append(t.Lines, l)
	}
}

// config reads lines Key=value, both percent-encoded, to the empty line.
func (s *scanner) config(config map[string][]string) error {
	for {
		line, err := s.next()
		if err == io.EOF {
			return errors.New("the input ends within the configuration")
		}
		if err != nil || line == "" {
			return err
		}
		k, v, ok := strings.Cut(line, "=")
		if !ok {
			return fmt.Errorf("%.60q is not key=value", line)
		}
		key, err := unquote(k)
		if err != nil {
			return err
		}
		value, err := unquote(v)
		if err != nil {
			return err
		}
		config[key] = append(config[key], value)
	}
}

// unquote decodes %XX. A plus sign stands for itself.
func unquote(s string) (string, error) {
	if !strings.Contains(s, "%") {
		return s, nil
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b.WriteByte(s[i])
			continue
		}
		if i+2 >= len(s) {
			return "", fmt.Errorf("%.60q ends within a %%XX", s)
		}
		hi, lo := unhex(s[i+1]), unhex(s[i+2])
		if hi < 0 || lo < 0 {
			return "", fmt.Errorf("%q is not a %%XX", s[i:i+3])
		}
		b.WriteByte(byte(hi<<4 | lo))
		i += 2
	}
	return b.String(), nil
}

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// version1 reads paths of package files, the first of which was read already.
func (s *scanner) version1(line string) (*Transaction, error) {
	t := &Transaction{Protocol: 1}
	for {
		p, err := checkPath(line)
		if err != nil {
			return nil, err
		}
		name, version, arch, err := splitFile(p)
		if err != nil {
			return nil, err
		}
		t.Lines = append(t.Lines, Line{Name: name, NewVersion: version, NewArch: arch, Action: Unpack, Path: p})
		line, err = s.next()
		if err == io.EOF {
			return t, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// splitFile takes name_version_arch.deb apart. apt writes an epoch's colon in
// a file name as %3a.
func splitFile(p string) (name, version, arch string, err error) {
	base, ok := strings.CutSuffix(path.Base(p), ".deb")
	parts := strings.Split(base, "_")
	if !ok || len(parts) != 3 {
		return "", "", "", fmt.Errorf("%.200q is not name_version_arch.deb", p)
	}
	if parts[1], err = unquote(parts[1]); err != nil {
		return "", "", "", err
	}
	name, arch = parts[0], parts[2]
	if version, err = field(versionForm, "version", parts[1]); err != nil {
		return "", "", "", err
	}
	if err := check(nameForm, "package name", name); err != nil {
		return "", "", "", err
	}
	return name, version, arch, check(archForm, "architecture", arch)
}

// parseLine2 reads "name old dir new action".
func parseLine2(line string) (Line, error) {
	f := strings.SplitN(line, " ", 5)
	if len(f) != 5 {
		return Line{}, fmt.Errorf("%d fields instead of 5", len(f))
	}
	return makeLine(f[0], [3]string{f[1], "-", "none"}, f[2], [3]string{f[3], "-", "none"}, f[4])
}

// parseLine3 reads "name old oldarch oldmulti dir new newarch newmulti action".
// The action may be a path with blanks in it.
func parseLine3(line string) (Line, error) {
	f := strings.SplitN(line, " ", 9)
	if len(f) != 9 {
		return Line{}, fmt.Errorf("%d fields instead of 9", len(f))
	}
	return makeLine(f[0], [3]string(f[1:4]), f[4], [3]string(f[5:8]), f[8])
}

// The forms keep control characters out of everything that is printed, logged
// or used in a path later; what they let through is what dpkg does.
var (
	nameForm    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9+._-]*$`)
	versionForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.+:~-]*$`)
	archForm    = regexp.MustCompile(`^[a-z0-9][a-z0-9-]*$`)
)

func check(form *regexp.Regexp, what, s string) error {
	if !form.MatchString(s) {
		return fmt.Errorf("%.60q is not a %s", s, what)
	}
	return nil
}

// field is check for a field that may be "-".
func field(form *regexp.Regexp, what, s string) (string, error) {
	if s == "-" {
		return "", nil
	}
	return s, check(form, what, s)
}

func multi(s string) (string, error) {
	switch s {
	case "none":
		return "", nil
	case "same", "foreign", "allowed":
		return s, nil
	}
	return "", fmt.Errorf("%.60q is not a multi-arch type", s)
}

func makeLine(name string, old [3]string, dir string, now [3]string, action string) (l Line, err error) {
	l.Name = name
	if err := check(nameForm, "package name", name); err != nil {
		return Line{}, err
	}
	if l.OldVersion, l.OldArch, l.OldMulti, err = side(old); err != nil {
		return Line{}, err
	}
	if l.NewVersion, l.NewArch, l.NewMulti, err = side(now); err != nil {
		return Line{}, err
	}
	if dir != "<" && dir != "=" && dir != ">" {
		return Line{}, fmt.Errorf("%.60q is not one of < = >", dir)
	}
	l.Direction = dir[0]
	switch action {
	case "**CONFIGURE**":
		l.Action = Configure
	case "**REMOVE**":
		l.Action = Remove
	case "**ERROR**":
		l.Action = Broken
	default:
		l.Action = Unpack
		if l.Path, err = checkPath(action); err != nil {
			return Line{}, err
		}
	}
	if (l.Action == Unpack || l.Action == Broken) && l.NewVersion == "" {
		return Line{}, errors.New("a package is unpacked without a new version")
	}
	return l, nil
}

func side(f [3]string) (version, arch, ma string, err error) {
	if version, err = field(versionForm, "version", f[0]); err != nil {
		return
	}
	if arch, err = field(archForm, "architecture", f[1]); err != nil {
		return
	}
	ma, err = multi(f[2])
	return
}

func checkPath(p string) (string, error) {
	if !strings.HasPrefix(p, "/") {
		return "", fmt.Errorf("%.60q is neither an absolute path nor an action", p)
	}
	for _, c := range []byte(p) {
		if c < ' ' || c == 0x7f {
			return "", fmt.Errorf("control character in the path %.60q", p)
		}
	}
	return p, nil
}
