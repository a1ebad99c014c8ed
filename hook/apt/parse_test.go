// SPDX-License-Identifier: Apache-2.0

package apt

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

const archives = "/var/cache/apt/archives/"

func TestRealTransactions(t *testing.T) {
	for _, tc := range []struct {
		file     string
		protocol int
		lines    int
		want     []Change
	}{
		{"v3-upgrade.txt", 3, 8, []Change{
			{"apparmor", "amd64", "", "3.0.8-3", archives + "apparmor_3.0.8-3_amd64.deb", Install},
			{"firmware-linux-free", "all", "", "20200122-1", archives + "firmware-linux-free_20200122-1_all.deb", Install},
			{"linux-image-6.1.0-56-cloud-amd64", "amd64", "", "6.1.192-2", archives + "linux-image-6.1.0-56-cloud-amd64_6.1.192-2_amd64.deb", Install},
			{"linux-image-cloud-amd64", "amd64", "6.1.176-1", "6.1.192-2", archives + "linux-image-cloud-amd64_6.1.192-2_amd64.deb", Upgrade},
		}},
		{"v3-dist-upgrade-file-repo.txt", 3, 4, []Change{
			{"linux-image-6.1.0-56-cloud-amd64", "amd64", "", "6.1.192-2", "/srv/repo/pool/linux-image-6.1.0-56-cloud-amd64_6.1.192-2_amd64.deb", Install},
			{"linux-image-cloud-amd64", "amd64", "6.1.192-1", "6.1.192-2", "/srv/repo/pool/linux-image-cloud-amd64_6.1.192-2_amd64.deb", Upgrade},
		}},
		{"v3-purge.txt", 3, 1, []Change{
			{"linux-image-6.1.0-55-cloud-amd64", "amd64", "6.1.192-1", "", "", Removal},
		}},
		{"v3-reinstall.txt", 3, 2, []Change{
			{"hostname", "amd64", "3.23+nmu1", "3.23+nmu1", archives + "hostname_3.23+nmu1_amd64.deb", Reinstall},
		}},
		{"v3-downgrade-unattended.txt", 3, 2, []Change{
			{"linux-image-cloud-amd64", "amd64", "6.1.192-2", "6.1.192-1", archives + "linux-image-cloud-amd64_6.1.192-1_amd64.deb", Downgrade},
		}},
		{"v2-reinstall.txt", 2, 2, []Change{
			{"hostname", "", "3.23+nmu1", "3.23+nmu1", archives + "hostname_3.23+nmu1_amd64.deb", Reinstall},
		}},
		{"v1-reinstall.txt", 1, 1, []Change{
			{"hostname", "amd64", "", "3.23+nmu1", archives + "hostname_3.23+nmu1_amd64.deb", Install},
		}},
	} {
		t.Run(tc.file, func(t *testing.T) {
			f, err := os.Open(filepath.Join("testdata", tc.file))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			// A pipe may deliver any pieces.
			tr, err := Parse(iotest.OneByteReader(f))
			if err != nil {
				t.Fatal(err)
			}
			if tr.Protocol != tc.protocol {
				t.Errorf("protocol %d, want %d", tr.Protocol, tc.protocol)
			}
			if len(tr.Lines) != tc.lines {
				t.Errorf("%d lines, want %d", len(tr.Lines), tc.lines)
			}
			if d := cmp.Diff(tc.want, tr.Changes()); d != "" {
				t.Errorf("changes (-want +got):\n%s", d)
			}
		})
	}
}

func TestConfig(t *testing.T) {
	f, err := os.Open("testdata/v3-upgrade.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	tr, err := Parse(f)
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string][]string{
		"APT::Architecture":              {"amd64"},
		"CommandLine::AsString":          {"apt-get -y upgrade --with-new-pkgs"},
		"APT::Never-MarkAuto-Sections::": {"metapackages", "tasks"},
		"DPkg::Pre-Install-Pkgs::upsplice": {
			"test -x /usr/bin/upsplice && /usr/bin/upsplice hook apt || true"},
		"Dir::State::lists": {"lists/"},
	} {
		if d := cmp.Diff(want, tr.Config[key]); d != "" {
			t.Errorf("%s (-want +got):\n%s", key, d)
		}
	}
}

// v3 is a transaction of these package lines.
func v3(lines ...string) string {
	return "VERSION 3\nAPT::Architecture=amd64\n\n" + strings.Join(append(lines, ""), "\n")
}

func TestChanges(t *testing.T) {
	for _, tc := range []struct {
		name  string
		input string
		want  []Change
	}{
		{"empty input", "", nil},
		{"no packages", v3(), nil},
		{"multi-arch", v3(
			"libc6 2.36-8 amd64 same < 2.36-9 amd64 same /a/libc6_2.36-9_amd64.deb",
			"libc6 2.36-8 i386 same < 2.36-9 i386 same /a/libc6_2.36-9_i386.deb",
			"python3 3.11.1 amd64 allowed = 3.11.1 amd64 allowed **CONFIGURE**",
			"libc6 2.36-8 i386 same < 2.36-9 i386 same **CONFIGURE**",
			"libc6 2.36-8 amd64 same < 2.36-9 amd64 same **CONFIGURE**",
		), []Change{
			{"libc6", "amd64", "2.36-8", "2.36-9", "/a/libc6_2.36-9_amd64.deb", Upgrade},
			{"libc6", "i386", "2.36-8", "2.36-9", "/a/libc6_2.36-9_i386.deb", Upgrade},
			{"python3", "amd64", "3.11.1", "3.11.1", "", ConfigureOnly},
		}},
		{"from amd64 to all", v3("x 1 amd64 none < 2 all foreign /a/x_2_all.deb", "x 1 amd64 none < 2 all foreign **CONFIGURE**"),
			[]Change{{"x", "all", "1", "2", "/a/x_2_all.deb", Upgrade}}},
		{"removed to be unpacked again", v3(
			"x 1 amd64 none < 2 amd64 none **REMOVE**",
			"x 1 amd64 none < 2 amd64 none /a/x_2_amd64.deb",
			"x 1 amd64 none < 2 amd64 none **CONFIGURE**",
		), []Change{{"x", "amd64", "1", "2", "/a/x_2_amd64.deb", Upgrade}}},
		{"configured, then removed", v3(
			"x 1 amd64 none > - - none **CONFIGURE**",
			"x 1 amd64 none > - - none **REMOVE**",
		), []Change{{"x", "amd64", "1", "", "", Removal}}},
		{"apt has no file", v3("x - - none < 2 amd64 none **ERROR**", "x - - none < 2 amd64 none **CONFIGURE**"),
			[]Change{{"x", "amd64", "", "2", "", Install}}},
		{"blank and percent in a path", v3("x - - none < 2 amd64 none /my repo/x_1%3a2_amd64.deb"),
			[]Change{{"x", "amd64", "", "2", "/my repo/x_1%3a2_amd64.deb", Install}}},
		{"epoch and tilde", v3("x 1:1.0~rc1-1+b1 amd64 none < 1:1.0-1 amd64 none /a/x.deb"),
			[]Change{{"x", "amd64", "1:1.0~rc1-1+b1", "1:1.0-1", "/a/x.deb", Upgrade}}},
		{"version 2, new package", "VERSION 2\n\nx - < 2 /a/x_2_amd64.deb\nx - < 2 **CONFIGURE**\ny 1 > - **REMOVE**\n",
			[]Change{{"x", "", "", "2", "/a/x_2_amd64.deb", Install}, {"y", "", "1", "", "", Removal}}},
		{"version 1, epoch", "/a/x_1%3a2-1_amd64.deb\n/b/y_3_all.deb\n",
			[]Change{{"x", "amd64", "", "1:2-1", "/a/x_1%3a2-1_amd64.deb", Install}, {"y", "all", "", "3", "/b/y_3_all.deb", Install}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tr, err := Parse(strings.NewReader(tc.input))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tc.want, tr.Changes()); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
}

func TestGarbage(t *testing.T) {
	const head = "VERSION 3\nAPT::Architecture=amd64\n\n"
	for _, tc := range []struct {
		name, input string
		line        int
		want        string
	}{
		{"noise", "\x7fELF\x02\x01\n", 1, "neither an absolute path"},
		{"unknown version", "VERSION 4\n\n", 1, `protocol version "4"`},
		{"version with a blank", "VERSION 3 \n\n", 1, "protocol version"},
		{"only a version", "VERSION 3\n", 1, "ends within the configuration"},
		{"cut in the configuration", "VERSION 3\nA=1\nB=", 3, "ends within the line"},
		{"no value", "VERSION 3\nA\n\n", 2, "key=value"},
		{"cut escape", "VERSION 3\nA=%2\n\n", 2, "%XX"},
		{"wrong escape", "VERSION 3\nA=%zz\n\n", 2, "%zz"},
		{"cut in a path", head + "x - - none < 2 amd64 none /a/x_2_am", 4, "ends within the line"},
		{"eight fields", head + "x - - none < 2 amd64 none\n", 4, "8 fields"},
		{"version 2 line in 3", head + "x 1 < 2 /a/x.deb\n", 4, "5 fields"},
		{"empty line", head + "\n", 4, "1 fields"},
		{"name", head + "../x - - none < 2 amd64 none /a\n", 4, "package name"},
		{"old version", head + "x \x1b[31m - none < 2 amd64 none /a\n", 4, "version"},
		{"new version", head + "x - - none < $(id) amd64 none /a\n", 4, "version"},
		{"arch", head + "x - - none < 2 AMD64 none /a\n", 4, "architecture"},
		{"multi-arch", head + "x - - maybe < 2 amd64 none /a\n", 4, "multi-arch"},
		{"direction", head + "x - - none ? 2 amd64 none /a\n", 4, "one of < = >"},
		{"relative path", head + "x - - none < 2 amd64 none a/x.deb\n", 4, "neither"},
		{"unknown action", head + "x - - none < 2 amd64 none **DANCE**\n", 4, "neither"},
		{"control character", head + "x - - none < 2 amd64 none /a/\x1b[2J.deb\n", 4, "control character"},
		{"unpack of nothing", head + "x 1 amd64 none > - - none /a/x.deb\n", 4, "without a new version"},
		{"version 1 name", "/a/x.deb\n", 1, "name_version_arch"},
		{"version 1 not a package", "/a/x_1_amd64.deb\n/etc/passwd\n", 2, "name_version_arch"},
		{"long line", "VERSION 3\nA=" + strings.Repeat("x", maxLine) + "\n\n", 2, "longer than"},
		{"many lines", "VERSION 3\n" + strings.Repeat("A=1\n", maxLines), maxLines + 1, "lines"},
		{"many bytes", "VERSION 3\n" + strings.Repeat("A="+strings.Repeat("x", maxLine-4)+"\n", maxTotal/maxLine+2), maxTotal/maxLine + 2, "bytes"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Parse(strings.NewReader(tc.input))
			pe, ok := errors.AsType[*ParseError](err)
			if !ok {
				t.Fatalf("got %v, want a ParseError", err)
			}
			if pe.Line != tc.line {
				t.Errorf("line %d, want %d: %v", pe.Line, tc.line, err)
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%q lacks %q", err, tc.want)
			}
			if len(err.Error()) > 500 {
				t.Errorf("the message has %d bytes", len(err.Error()))
			}
			if strings.ContainsAny(err.Error(), "\x1b\n") {
				t.Errorf("the message has control characters: %q", err)
			}
		})
	}
}

func TestReadError(t *testing.T) {
	cause := errors.New("broken")
	_, err := Parse(iotest.ErrReader(cause))
	if !errors.Is(err, cause) {
		t.Errorf("got %v, want the reader's error", err)
	}
}

func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/v*.txt")
	if err != nil || len(files) == 0 {
		f.Fatalf("no corpus: %v", err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(b))
	}
	f.Add(v3("x - - none < 2 amd64 none **ERROR**", "y 1 amd64 same > 0 amd64 same **CONFIGURE**"))
	f.Fuzz(func(t *testing.T, input string) {
		tr, err := Parse(strings.NewReader(input))
		if err != nil {
			if _, ok := errors.AsType[*ParseError](err); !ok {
				t.Errorf("%v is not a ParseError", err)
			}
			return
		}
		changes := tr.Changes()
		if len(changes) > len(tr.Lines) {
			t.Errorf("%d changes of %d lines", len(changes), len(tr.Lines))
		}
		for _, c := range changes {
			if c.Name == "" || c.Kind == "" || (c.Kind == Removal) != (c.New == "") && c.Kind != ConfigureOnly {
				t.Errorf("impossible change %+v", c)
			}
			if c.Path != "" && !strings.HasPrefix(c.Path, "/") {
				t.Errorf("relative path %q", c.Path)
			}
		}
	})
}
