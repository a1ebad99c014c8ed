// SPDX-License-Identifier: Apache-2.0

// Package debversion compares Debian package versions (deb-version(7)). It
// refuses what dpkg refuses before the comparison, because a version that
// is misread could make an older kernel look newer.
package debversion

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	debver "github.com/knqyf263/go-deb-version"
)

// MaxLength limits a version, in bytes. The longest in Debian has about 60.
const MaxLength = 256

// maxDigits of one number: more would overflow in the comparison. The longest in
// use are dates with a time, 14 digits.
const maxDigits = 18

// Version is a valid Debian version. The zero value is none.
type Version struct {
	parsed debver.Version
}

// InvalidError says why a string is no version.
type InvalidError struct {
	Version string
	Reason  string
}

func (e *InvalidError) Error() string {
	return fmt.Sprintf("version %q is invalid: %s", e.Version, e.Reason)
}

// Parse validates s. Errors: *InvalidError.
func Parse(s string) (Version, error) {
	if reason := check(s); reason != "" {
		return Version{}, &InvalidError{Version: clip(s), Reason: reason}
	}
	v, err := debver.NewVersion(s)
	if err != nil {
		return Version{}, &InvalidError{Version: s, Reason: err.Error()}
	}
	return Version{parsed: v}, nil
}

func clip(s string) string {
	if len(s) > MaxLength {
		return s[:MaxLength]
	}
	return s
}

func check(s string) string {
	if s == "" {
		return "it is empty"
	}
	if len(s) > MaxLength {
		return "it is too long"
	}
	rest := s
	if epoch, after, ok := strings.Cut(s, ":"); ok {
		n, err := strconv.ParseUint(epoch, 10, 32)
		if err != nil || n > math.MaxInt32 {
			return "its epoch is no number"
		}
		rest = after
	}
	upstream, revision := rest, ""
	if i := strings.LastIndexByte(rest, '-'); i >= 0 {
		upstream, revision = rest[:i], rest[i+1:]
		if revision == "" {
			return "its revision is empty"
		}
	}
	if upstream == "" || upstream[0] < '0' || upstream[0] > '9' {
		return "it does not start with a digit"
	}
	if bad := invalid(upstream, ".-+~:"); bad != "" {
		return bad
	}
	return invalid(revision, ".+~")
}

func invalid(s, symbols string) string {
	digits := 0
	for i := range len(s) {
		c := s[i]
		if c >= '0' && c <= '9' {
			if digits++; digits > maxDigits {
				return "it has a number that is too long"
			}
			continue
		}
		digits = 0
		if c|0x20 >= 'a' && c|0x20 <= 'z' || strings.IndexByte(symbols, c) >= 0 {
			continue
		}
		return fmt.Sprintf("%q may not stand in it", c)
	}
	return ""
}

// Compare is -1, 0 or +1 as v is older than, equal to or newer than w.
func (v Version) Compare(w Version) int {
	switch d := v.parsed.Compare(w.parsed); {
	case d < 0:
		return -1
	case d > 0:
		return 1
	}
	return 0
}

// Compare parses both and compares them. Errors: *InvalidError.
func Compare(a, b string) (int, error) {
	v, err := Parse(a)
	if err != nil {
		return 0, err
	}
	w, err := Parse(b)
	if err != nil {
		return 0, err
	}
	return v.Compare(w), nil
}
