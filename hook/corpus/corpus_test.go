// SPDX-License-Identifier: Apache-2.0

package corpus

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// TestCorpus: the list is as large and as mixed as it has to be, and nothing lies
// about that it does not name.
func TestCorpus(t *testing.T) {
	list, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	named := map[string]bool{}
	for _, c := range list {
		count[c.Expect]++
		count["series "+c.Series]++
		count["flavour "+c.Flavour]++
		count["subsystem "+c.Subsystem]++
		count["code "+c.Code]++
		if c.Target == "vmlinux" {
			count["built in"]++
		} else {
			count["module"]++
		}
		if c.Exercise != "" {
			count["exercise"]++
		}
		if c.Title != "" {
			count["title"]++
		}
		if c.Custom != "" {
			count["custom"]++
			named[c.Custom] = true
		}
		if slices.ContainsFunc(c.Files, func(f string) bool { return strings.HasSuffix(f, ".h") }) {
			count["header"]++
		}
		named["patches/"+c.Series+"/"+c.Name+".patch"] = true
		if text, err := c.Patch(); err != nil || len(text) == 0 {
			t.Errorf("%s: %v", c.Name, err)
		}
		if text, err := c.CustomPatch(); err != nil || (text != nil) != (c.Custom != "") {
			t.Errorf("%s: custom: %v", c.Name, err)
		}
	}
	for what, least := range map[string]int{
		Live: 70, Refused: 12, Unchanged: 1, "custom": 5, "exercise": 60, "module": 20, "built in": 60, "header": 5,
		"series 6.1": 30, "series 6.12": 30, "flavour amd64": 5, "flavour cloud-amd64": 60, "title": 100,
		"code data": 2, "code layout": 3, "code init": 2, "code no-fentry": 2,
		"subsystem fs": 5, "subsystem net": 5, "subsystem mm": 3, "subsystem kernel": 5, "subsystem block": 3,
		"subsystem drivers": 5, "subsystem security": 2, "subsystem crypto": 1, "subsystem sound": 2, "subsystem lib": 2,
		"subsystem x86": 2, "subsystem kvm": 2, "subsystem io_uring": 1, "subsystem ipc": 2,
	} {
		if count[what] < least {
			t.Errorf("%s: %d changes, want at least %d", what, count[what], least)
		}
	}
	for _, dir := range []string{"patches", "custom"} {
		err := fs.WalkDir(files, dir, func(name string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() && !named[name] {
				t.Errorf("no change names %s", name)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
}

// TestGuest: what exercises call exists.
func TestGuest(t *testing.T) {
	sh, poke, err := GuestFiles()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	source := filepath.Join(dir, "poke.c")
	if err := os.WriteFile(source, poke, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("gcc", "-Wall", "-Werror", "-static", "-o", filepath.Join(dir, "poke"), source).CombinedOutput(); err != nil {
		t.Fatalf("compiling poke: %v\n%s", err, out)
	}
	list, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range list {
		if out, err := exec.Command("sh", "-n", "-c", string(sh)+"\n"+c.Exercise).CombinedOutput(); err != nil {
			t.Errorf("%s: %s", c.Name, out)
		}
		words := strings.Fields(c.Exercise)
		for i, w := range words {
			if w == "poke" && !strings.Contains(string(poke), `IS("`+strings.TrimRight(words[i+1], ";")+`")`) {
				t.Errorf("%s: poke cannot %s", c.Name, words[i+1])
			}
		}
	}
}

func TestLoadRefuses(t *testing.T) {
	const good = `[[change]]
name = "fs-x"
series = "6.1"
flavour = "amd64"
target = "vmlinux"
subsystem = "fs"
since = "6.1.9-1"
expect = "live"
`
	const diff = "Cut from Debian's kernel source, 6.1.8-1 to 6.1.9-1.\n\n--- a/fs/x.c\n+++ b/fs/x.c\n@@ -1 +1 @@\n-a\n+b\n"
	for _, tt := range []struct{ name, old, now, patch, want string }{
		{"good", "", "", diff, ""},
		{"no patch", "", "", "", "patches/6.1/fs-x.patch"},
		{"twice", good, good + good, diff, "two changes"},
		{"name", "fs-x", "../x", diff, "not a name"},
		{"series", `"6.1"`, `"5.10"`, diff, "series"},
		{"code", `"live"`, `"refused"`, diff, "code"},
		{"key", "expect", "expects", diff, "unknown key"},
		{"syntax", "expect", "= expect", diff, "corpus.toml"},
		{"since", "6.1.9-1", "6.1.10-1", diff, "since"},
		{"no file", "", "", diff[:strings.Index(diff, "---")], "no unified diff"},
		{"another file", "", "", strings.Replace(diff, "b/fs/x.c", "b/fs/y.c", 1), "not one file"},
		{"custom", `expect`, "custom = \"custom/none.patch\"\nexpect", diff, "custom/none.patch"},
		{"exercise", `expect`, "exercise = \"true\"\nexpect", diff, "function"},
	} {
		root := fstest.MapFS{"corpus.toml": {Data: []byte(strings.Replace(good, tt.old, tt.now, 1))}}
		if tt.old == "" {
			root["corpus.toml"].Data = []byte(good)
		}
		if tt.patch != "" {
			root["patches/6.1/fs-x.patch"] = &fstest.MapFile{Data: []byte(tt.patch)}
		}
		_, err := load(root)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}
