// SPDX-License-Identifier: Apache-2.0

package apt

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/upsplice/upsplice/plugins/backend"
)

const shown = `Package: linux-kbuild-6.1
Source: linux
Version: 6.1.192-2
Architecture: amd64
Filename: pool/main/l/linux/x.deb
Size: 1568188
SHA256: 7e85

Package: linux-kbuild-6.1
Status: install ok installed
Version: 6.1.190-1
Architecture: amd64

Package: strange
Version: 1:2
Architecture: all
Filename: x
Size: -5
`

func TestParseOffers(t *testing.T) {
	got, err := parseOffers(strings.NewReader(shown))
	if err != nil || len(got) != 1 {
		t.Fatalf("%d offers, %v", len(got), err)
	}
	o := got[0]
	if o.Name != "linux-kbuild-6.1" || o.Version != "6.1.192-2" || o.Size != 1568188 || o.SHA256 != "7e85" ||
		o.FileName != "linux-kbuild-6.1_6.1.192-2_amd64.deb" || o.Control.Get("Source") != "linux" {
		t.Errorf("offer %+v", o)
	}
	if f := FileName("x", "1:2.0", "all"); f != "x_1%3a2.0_all.deb" {
		t.Errorf("FileName with an epoch: %s", f)
	}
	_, err = parseOffers(strings.NewReader("no control data"))
	if !errors.Is(err, &backend.Error{Kind: backend.Internal}) {
		t.Errorf("error %v", err)
	}
}

// What apt 2.6 really prints.
func TestClassify(t *testing.T) {
	for text, want := range map[string]backend.Kind{
		"E: Version '1.0' for 'linux-kbuild-6.1' was not found\n":              backend.NotFound,
		"E: Unable to locate package nosuch\n":                                 backend.NotFound,
		"E: No packages found\n":                                               backend.NotFound,
		"E: Failed to fetch http://h/p.deb  404  Not Found [IP: 1.2.3.4 80]\n": backend.NotFound,
		"E: Failed to fetch http://h/p.deb  Could not connect to h:80 (1.2.3.4). - connect (111: Connection refused)\n":     backend.Unavailable,
		"E: Failed to fetch http://h/p.deb  Temporary failure resolving 'h'\n":                                              backend.Unavailable,
		"E: Failed to fetch http://h/p.deb  Connection failed [IP: 1.2.3.4 80]\n":                                           backend.Unavailable,
		"E: Failed to fetch http://h/p.deb  Hash Sum mismatch\n   Hashes of expected file:\n":                               backend.Corrupt,
		"E: Failed to fetch http://h/p.deb  File has unexpected size (5 != 6). Mirror sync in progress?\n":                  backend.Corrupt,
		"E: Failed to fetch http://h/p.deb  Error writing to file - write (28: No space left on device) [IP: 1.2.3.4 80]\n": backend.NoSpace,
		"W: something\nE: You don't have enough free space in /x/.\n":                                                       backend.NoSpace,
		"E: Could not open file x - open (13: Permission denied)\n":                                                         backend.Internal,
		"": backend.Internal,
	} {
		err := classify("apt-get", errors.New("exit status 100"), text)
		if !errors.Is(err, &backend.Error{Kind: want}) {
			t.Errorf("%q: %v, want kind %q", text, err, want)
		}
	}
	err := classify("apt-get", errors.New("exit status 100"), "W: w\nE: one\nE: two\n")
	if want := "internal: apt-get: one; two"; err.Error() != want {
		t.Errorf("%q, want %q", err, want)
	}
}

func TestFollow(t *testing.T) {
	var got []float64
	follow(strings.NewReader("dlstatus:1:0.0000:Retrieving file 1 of 2\nnoise\ndlstatus:1:x:y\ndlstatus:1:250:y\ndlstatus:1:50.5:a:b\n"+
		strings.Repeat("x", 1<<20)), func(f float64) { got = append(got, f) })
	if d := cmp.Diff([]float64{0, 0.505}, got); d != "" {
		t.Error(d)
	}
}

func TestEnvironment(t *testing.T) {
	t.Setenv("DPKG_FRONTEND_LOCKED", "true")
	t.Setenv("APT_HOOK_INFO_FD", "20")
	t.Setenv("LANG", "de_DE.UTF-8")
	t.Setenv("APT_CONFIG", "/x")
	t.Setenv("http_proxy", "http://p")
	env := command(context.Background(), "true").Env
	for _, kv := range env {
		if strings.HasPrefix(kv, "DPKG_") || strings.HasPrefix(kv, "APT_HOOK") || kv == "LANG=de_DE.UTF-8" {
			t.Errorf("%s reaches apt", kv)
		}
	}
	for _, kv := range []string{"LANG=C.UTF-8", "APT_CONFIG=/x", "http_proxy=http://p"} {
		if !slices.Contains(env, kv) {
			t.Errorf("%s does not reach apt", kv)
		}
	}
}

func TestComplete(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.deb")
	o := Offer{Size: 3, SHA256: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"} // of "abc"
	for content, want := range map[string]struct{ ok, left bool }{
		"abc": {true, true}, "ab": {false, true}, "abd": {false, false}, "abcd": {false, false},
	} {
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		ok, err := complete(path, o)
		_, serr := os.Stat(path)
		if err != nil || ok != want.ok || (serr == nil) != want.left {
			t.Errorf("%q: complete %v, left %v, %v; want %+v", content, ok, serr == nil, err, want)
		}
	}
	os.Remove(path)
	if ok, err := complete(path, o); ok || err != nil {
		t.Errorf("no file: %v, %v", ok, err)
	}
}

func FuzzFollow(f *testing.F) {
	f.Add("dlstatus:1:43.21:Retrieving file 1 of 1\n")
	f.Fuzz(func(t *testing.T, in string) {
		follow(strings.NewReader(in), func(x float64) {
			if !(x >= 0 && x <= 1) {
				t.Errorf("fraction %v", x)
			}
		})
	})
}
