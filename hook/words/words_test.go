// SPDX-License-Identifier: Apache-2.0

package words

import (
	"testing"
	"time"
)

func TestCount(t *testing.T) {
	for _, c := range []struct {
		n    int
		noun string
		want string
	}{
		{0, "function", "0 functions"},
		{1, "function", "1 function"},
		{2, "function", "2 functions"},
		{1, "patch", "1 patch"},
		{2, "patch", "2 patches"},
		{3, "entry", "3 entries"},
		{2, "day", "2 days"},
		{2, "fix", "2 fixes"},
		{2, "changed header", "2 changed headers"},
		{5, "CVE", "5 CVEs"},
		{2, "y", "2 ys"},
	} {
		if got := Count(c.n, c.noun); got != c.want {
			t.Errorf("Count(%d, %q) = %q, want %q", c.n, c.noun, got, c.want)
		}
	}
}

func TestVerb(t *testing.T) {
	for _, c := range []struct {
		n          int
		verb, want string
	}{{1, "run", "runs"}, {2, "run", "run"}, {0, "wait", "wait"}, {1, "are", "is"}, {2, "are", "are"}} {
		if got := Verb(c.n, c.verb); got != c.want {
			t.Errorf("Verb(%d, %q) = %q, want %q", c.n, c.verb, got, c.want)
		}
	}
}

func TestDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{0: "0 s", 24 * time.Second: "24 s", 119 * time.Second: "119 s", 9 * time.Minute: "9 min"} {
		if got := Duration(d); got != want {
			t.Errorf("Duration(%v) = %q, want %q", d, got, want)
		}
	}
}
