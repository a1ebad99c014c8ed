// SPDX-License-Identifier: Apache-2.0

package osrelease

import (
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

const debian = `PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"
NAME="Debian GNU/Linux"
VERSION_ID="12"
VERSION="12 (bookworm)"
VERSION_CODENAME=bookworm
ID=debian
HOME_URL="https://www.debian.org/"
`

func TestRead(t *testing.T) {
	etc := &fstest.MapFile{Data: []byte(debian)}
	lib := &fstest.MapFile{Data: []byte("ID=ubuntu\nID_LIKE='debian other'\n")}
	r, err := Read(fstest.MapFS{"etc/os-release": etc, "usr/lib/os-release": lib})
	if err != nil || r.ID != "debian" || r.VersionID != "12" || r.Codename != "bookworm" ||
		r.PrettyName != "Debian GNU/Linux 12 (bookworm)" || r.Get("HOME_URL") != "https://www.debian.org/" {
		t.Errorf("Read = %+v, %v", r, err)
	}
	r, err = Read(fstest.MapFS{"usr/lib/os-release": lib})
	if err != nil || r.ID != "ubuntu" || !slices.Equal(r.IDLike, []string{"debian", "other"}) {
		t.Errorf("Read = %+v, %v", r, err)
	}
	if _, err = Read(fstest.MapFS{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Read of nothing: %v, want fs.ErrNotExist", err)
	}
}

func TestParse(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{`X=plain`, "plain"},
		{`X=`, ""},
		{`X=""`, ""},
		{`X="a \"b\" \$c \\ \n"`, `a "b" $c \ \n`},
		{`X='a \" b'`, `a \" b`},
		{`X=a\ b`, "a b"},
		{"# c\n\n  X=1\nX=2\n", "2"},
	} {
		r, err := Parse(strings.NewReader(c.in))
		if err != nil || r.Get("X") != c.want {
			t.Errorf("Parse(%q) gives %q, %v; want %q", c.in, r.Get("X"), err, c.want)
		}
		if r.ID != "linux" {
			t.Errorf("Parse(%q).ID = %q, want the default", c.in, r.ID)
		}
	}
	for _, in := range []string{"X", "=1", "1X=1", "A-B=1", `X="a`, `X='a`, `X='`, `X="a"b`, `X=a b`, `X=a\`, `X='a'b'`, "X=" + strings.Repeat("y", maxBytes)} {
		_, err := Parse(strings.NewReader(in))
		var se *SyntaxError
		if !errors.As(err, &se) || se.Line != 1 {
			t.Errorf("Parse(%.20q): %v, want a SyntaxError in line 1", in, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(debian)
	f.Add(`X="a \"b"` + "\nY='c'\nZ=d\\ e")
	f.Fuzz(func(t *testing.T, in string) {
		r, err := Parse(strings.NewReader(in))
		if err == nil && r.ID == "" {
			t.Error("no error and no ID")
		}
	})
}
