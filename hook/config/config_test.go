// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/upsplice/upsplice/hook/outcome"
)

func TestExampleIsTheDefault(t *testing.T) {
	got, err := Parse(strings.NewReader(Example()))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(Default(), got); d != "" {
		t.Errorf("the example is not the default (-default +example):\n%s", d)
	}
	for _, k := range Keys() {
		if !strings.Contains(Example(), "\n"+k+" = ") {
			t.Errorf("the example lacks the key %s", k)
		}
	}
	for i, line := range strings.Split(Example(), "\n") {
		if len(line) > 80 {
			t.Errorf("line %d is %d columns wide", i+1, len(line))
		}
		if line == "#" || line == "# " {
			t.Errorf("line %d is an empty comment: a key without a doc tag", i+1)
		}
	}
}

func TestEveryKeyIsRead(t *testing.T) {
	const text = `
enabled = false
wait = "0s"
transition_timeout = "1m30s"
cache = "/srv/c"
cache_limit = "500MiB"
jobs = 3
snapshot = "https://snapshot.example/archive"
build_user = "builder"
backend = "debian"
`
	want := Config{
		Enabled: false, Wait: 0, TransitionTimeout: 90 * time.Second,
		Cache: "/srv/c", CacheLimit: 500 << 20, Jobs: 3,
		Snapshot: "https://snapshot.example/archive", BuildUser: "builder", Backend: "debian",
	}
	got, err := Parse(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

func TestRefused(t *testing.T) {
	for _, tc := range []struct{ text, want string }{
		{"colour = 1", "unknown key colour (known: enabled, wait,"},
		{"colour = 1\nshape = 2", "unknown keys colour, shape (known:"},
		{"[apt]\nwait = \"1m\"", "unknown keys apt, apt.wait"},
		{"Wait = \"1m\"", "unknown key Wait"},
		{"enabled = true\nwait = ", "line 2"},
		{"enabled = \"yes\"", "enabled"},
		{"wait = \"soon\"", "soon"},
		{"wait = 600", "wait is a number without a unit"},
		{"wait = \"-1s\"", "wait is -1s"},
		{"transition_timeout = \"0s\"", "transition_timeout is 0s"},
		{"cache = \"var/cache\"", "absolute path"},
		{"cache = \"/\"", "absolute path"},
		{"cache_limit = \"3GB\"", "3GB"},
		{"cache_limit = 3", "\"3\""},
		{"cache_limit = \"0B\"", "cache_limit is 0B"},
		{"jobs = -1", "jobs is -1"},
		{"snapshot = \"ftp://x/\"", "snapshot"},
		{"snapshot = \"file:///etc\"", "snapshot"},
		{"build_user = \"root\"", "never parsed as root"},
		{"build_user = \"\"", "is not a user name"},
		{"backend = \"../x\"", "backend"},
		{strings.Repeat("#", maxSize+1), "larger than"},
	} {
		_, err := Parse(strings.NewReader(tc.text))
		if err == nil {
			t.Errorf("%.40q is accepted", tc.text)
			continue
		}
		if !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%.40q: %q lacks %q", tc.text, err, tc.want)
		}
		if strings.Contains(err.Error(), "\n") {
			t.Errorf("%.40q: more than one line: %q", tc.text, err)
		}
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	got, err := Load(filepath.Join(dir, "none.toml"))
	if err != nil || got != Default() {
		t.Errorf("without a file: %+v, %v", got, err)
	}

	bad := filepath.Join(dir, "bad.toml")
	if err := os.WriteFile(bad, []byte("colour = 1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = Load(bad)
	if outcome.Of(err) != outcome.Usage || !strings.Contains(err.Error(), bad) {
		t.Errorf("an unknown key: %v", err)
	}
	if uk, ok := errors.AsType[*UnknownKeysError](err); !ok || uk.Unknown[0] != "colour" {
		t.Errorf("the error does not name the key: %v", err)
	}

	if _, err = Load(dir); outcome.Of(err) == outcome.Done {
		t.Error("a directory is accepted")
	}
}

func TestSize(t *testing.T) {
	for text, want := range map[string]Size{
		"0B": 0, "1B": 1, "1KiB": 1024, "3GiB": 3 << 30, "2 TiB": 2 << 40, "8388607TiB": 8388607 << 40,
	} {
		var s Size
		if err := s.UnmarshalText([]byte(text)); err != nil || s != want {
			t.Errorf("%s: %d, %v", text, s, err)
		}
		var again Size
		if err := again.UnmarshalText([]byte(s.String())); err != nil || again != s {
			t.Errorf("%s does not survive String: %s", text, s)
		}
	}
	for _, text := range []string{"", "3", "GiB", "-1B", "1.5GiB", "8388608TiB", "9999999999999999999B"} {
		var s Size
		if err := s.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is accepted as %d", text, s)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(Example())
	f.Add("wait = \"1h\"\n[x]\ny = 1\n")
	f.Add("cache_limit = 3")
	f.Add("a.b.c = [1, {x = 2}]")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Parse(strings.NewReader(text))
		if err != nil {
			return
		}
		if err := c.check(); err != nil {
			t.Errorf("accepted, but %v", err)
		}
	})
}
