// SPDX-License-Identifier: Apache-2.0

package changelog

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const sample = `linux (6.1.192-2) bookworm-security; urgency=high

  * ext4: fix NULL folio dereference in mballoc (Closes: #1154101)

 -- Some Body <some@example.org>  Mon, 16 Nov 2026 11:17:40 +0100

linux (6.1.192-1) bookworm-security; urgency=high, binary-only=yes

  * New upstream stable update:
    https://www.kernel.org/pub/linux/kernel/v6.x/ChangeLog-6.1.191
    - io-wq: order the exit bit against worker creation task work
    - smb: client: fix OOB read/write from unvalidated DataOffset in
      coalesce_t2() (CVE-2026-89633)
    - two at once (CVE-2026-0001,
      CVE-2026-1234567, CVE-2026-0001)

  [ Another One ]
  * [x86] Enable FOO
      + as module

 -- Some Body <some@example.org>  Sun, 15 Nov 2026 11:17:40 +0100

linux (6.1.190-1) bookworm-security; urgency=medium

  * Old.

 -- Some Body <some@example.org>  Sat, 14 Nov 2026 11:17:40 +0100
`

var newest = Entry{Source: "linux", Version: "6.1.192-2", Distribution: "bookworm-security", Urgency: "high",
	Items: []Item{{Text: "ext4: fix NULL folio dereference in mballoc (Closes: #1154101)"}}}

var second = Entry{Source: "linux", Version: "6.1.192-1", Distribution: "bookworm-security", Urgency: "high",
	Items: []Item{
		{Text: "New upstream stable update: https://www.kernel.org/pub/linux/kernel/v6.x/ChangeLog-6.1.191"},
		{Text: "io-wq: order the exit bit against worker creation task work"},
		{Text: "smb: client: fix OOB read/write from unvalidated DataOffset in coalesce_t2() (CVE-2026-89633)", CVEs: []string{"CVE-2026-89633"}},
		{Text: "two at once (CVE-2026-0001, CVE-2026-1234567, CVE-2026-0001)", CVEs: []string{"CVE-2026-0001", "CVE-2026-1234567"}},
		{Text: "[x86] Enable FOO"},
		{Text: "as module"},
	}}

func TestBetween(t *testing.T) {
	for _, c := range []struct {
		from, to string
		want     []Entry
	}{
		{"6.1.192-1", "6.1.192-2", []Entry{newest}},
		{"6.1.190-1", "6.1.192-2", []Entry{newest, second}},
		{"6.1.190-1", "6.1.192-1", []Entry{second}},
		{"6.1.191-1", "6.1.192-1", []Entry{second}}, // from itself has no entry
		{"6.1.192-2", "6.1.192-2", nil},
	} {
		got, err := Between(Entries(strings.NewReader(sample)), c.from, c.to)
		if err != nil {
			t.Errorf("Between(%s, %s): %v", c.from, c.to, err)
		}
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("Between(%s, %s): %s", c.from, c.to, d)
		}
	}
	_, err := Between(Entries(strings.NewReader(sample)), "6.1.1-1", "6.1.192-2")
	var nf *NotFoundError
	if !errors.As(err, &nf) || nf.Oldest != "6.1.190-1" {
		t.Errorf("error %v, want a NotFoundError", err)
	}
}

// What follows the wanted entries is not read: it may be megabytes.
func TestBetweenStopsReading(t *testing.T) {
	r := io.MultiReader(strings.NewReader(sample), bomb{t})
	if _, err := Between(Entries(r), "6.1.192-1", "6.1.192-2"); err != nil {
		t.Error(err)
	}
}

type bomb struct{ t *testing.T }

func (b bomb) Read([]byte) (int, error) {
	b.t.Error("read past the entry that ends the range")
	return 0, io.EOF
}

func TestSyntaxErrors(t *testing.T) {
	for _, c := range []struct {
		in   string
		line int
	}{
		{"not a changelog\n", 1},
		{"  * outside\n", 1},
		{"linux (1) a; urgency=low\n\n  * cut off", 3},
		{"linux (1) a; urgency=low\n\nlinux (0) a; urgency=low\n", 3},
		{"linux (1) a; urgency=low\n  * " + strings.Repeat("x", maxLine) + "\n", 1},
		{"linux (1) a; urgency=low\n  * x\n" + strings.Repeat("    "+strings.Repeat("x", 9000)+"\n", 9), 10},
	} {
		var err error
		for _, err = range Entries(strings.NewReader(c.in)) {
			if err != nil {
				break
			}
		}
		var se *SyntaxError
		if !errors.As(err, &se) || se.Line != c.line {
			t.Errorf("%.40q: error %v, want a SyntaxError in line %d", c.in, err, c.line)
		}
	}
}

func TestEmpty(t *testing.T) {
	for e, err := range Entries(strings.NewReader("\n\n")) {
		t.Errorf("an entry of nothing: %v, %v", e, err)
	}
}

func FuzzEntries(f *testing.F) {
	f.Add(sample)
	f.Add("linux (1) a b; urgency=low\n  * x\n -- y\n")
	f.Fuzz(func(t *testing.T, in string) {
		size := 0
		for e, err := range Entries(strings.NewReader(in)) {
			if err != nil {
				break
			}
			for _, it := range e.Items {
				size += len(it.Text)
				if it.Text == "" || strings.Contains(it.Text, "\n") {
					t.Errorf("item %q", it.Text)
				}
			}
		}
		if size > 2*len(in) {
			t.Errorf("%d bytes of items from %d bytes", size, len(in))
		}
	})
}
