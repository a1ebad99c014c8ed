// SPDX-License-Identifier: Apache-2.0

package deb822

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReader(t *testing.T) {
	const in = "\n\n# comment\nPackage: a\nDepends: x,\n y (>= 1),\n\tz\nEmpty:\n\n \nPackage: b\r\nversion:1:2"
	r := NewReader(strings.NewReader(in))
	p, err := r.Next()
	if err != nil {
		t.Fatal(err)
	}
	if p.Get("package") != "a" || p.Get("Depends") != "x,\ny (>= 1),\nz" || p.Get("Empty") != "" || p.Len() != 3 {
		t.Errorf("first paragraph: %v", p.fields)
	}
	p, err = r.Next()
	if err != nil || p.Get("Package") != "b" || p.Get("Version") != "1:2" {
		t.Errorf("second paragraph: %v, %v", p.fields, err)
	}
	for range 2 {
		if _, err = r.Next(); err != io.EOF {
			t.Errorf("after the last paragraph: %v, want io.EOF", err)
		}
	}
}

func TestSyntaxErrors(t *testing.T) {
	for _, c := range []struct {
		in   string
		line int
	}{
		{"Package: a\nno colon here\n", 2},
		{" starts with a blank\n", 1},
		{"Package: a\nPACKAGE: b\n", 2},
		{"-Field: a\n", 1},
		{"Package: a\n\nPackage: b\n", 4},
		{"Field: " + strings.Repeat("x", DefaultMaxParagraph), 1},
		{"", 1},
	} {
		_, err := Parse(strings.NewReader(c.in))
		var se *SyntaxError
		if !errors.As(err, &se) || se.Line != c.line {
			t.Errorf("Parse(%.30q): error %v, want a SyntaxError in line %d", c.in, err, c.line)
		}
	}
}

func TestRelations(t *testing.T) {
	got := Relations("linux-headers-6.1.0-55-common (= 6.1.192-1),\nlinux-kbuild-6.1 (>= 6.1.192-1), a:any | b [amd64] <!nocheck>, broken (, (= 1), ,")
	want := [][]Relation{
		{{"linux-headers-6.1.0-55-common", "=", "6.1.192-1"}},
		{{"linux-kbuild-6.1", ">=", "6.1.192-1"}},
		{{Name: "a"}, {Name: "b"}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func FuzzReader(f *testing.F) {
	f.Add("Package: a\nDepends: x,\n y (>= 1)\n\nPackage: b\n")
	f.Add("A:\n\n#\n B: c\n")
	f.Fuzz(func(t *testing.T, in string) {
		r := NewReader(strings.NewReader(in))
		r.MaxParagraph = 4096
		for {
			p, err := r.Next()
			if err != nil {
				break
			}
			if p.Len() == 0 {
				t.Fatal("a paragraph without fields")
			}
			Relations(p.Get("Depends"))
		}
	})
}
