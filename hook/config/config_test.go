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
policy = "fixes"
allow = ["fs/ext4", ":do_exit"]
deny = ["drivers/*:probe_*"]
modules = "loaded"
dry_run = true
wait = "0s"
transition_timeout = "1m30s"
cache = "/srv/c"
jobs = 3
snapshot = "https://snapshot.example/archive"
sign_key = "/etc/k"
sign_cert = "/etc/c"
build_user = "builder"
backend = "debian"
`
	want := Config{
		Enabled: false, Policy: Fixes, Allow: []string{"fs/ext4", ":do_exit"}, Deny: []string{"drivers/*:probe_*"},
		Modules: Loaded, DryRun: true, Wait: 0, TransitionTimeout: 90 * time.Second,
		Cache: "/srv/c", Jobs: 3,
		Snapshot: "https://snapshot.example/archive", SignKey: "/etc/k", SignCert: "/etc/c", BuildUser: "builder", Backend: "debian",
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
		{"colour = 1", "unknown key colour (known: enabled, policy, allow, deny, modules, dry_run, wait,"},
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
		{"jobs = -1", "jobs is -1"},
		{"sign_key = \"/k\"", "sign_cert go together"},
		{"sign_key = \"k\"\nsign_cert = \"/c\"", "sign_key"},
		{"snapshot = \"ftp://x/\"", "snapshot"},
		{"snapshot = \"file:///etc\"", "snapshot"},
		{"policy = \"fix\"", `policy is "fix", must be "all", "fixes" or "off"`},
		{"policy = \"\"", `policy is ""`},
		{"policy = 1", "policy"},
		{"modules = \"all\"", `modules is "all", must be "loaded" or "installed"`},
		{"allow = [\"/fs\"]", `allow: pattern "/fs": a file is given from the root of the kernel source`},
		{"deny = [\"fs:\"]", `deny: pattern "fs:": there is no function behind the colon; patterns look like`},
		{"deny = [\"\"]", `deny: pattern "": it is empty`},
		{"deny = \"fs\"", "deny"},
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
	if err != nil || !cmp.Equal(got, Default()) {
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

func FuzzParse(f *testing.F) {
	f.Add(Example())
	f.Add("wait = \"1h\"\n[x]\ny = 1\n")
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
