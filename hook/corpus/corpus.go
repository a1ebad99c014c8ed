// SPDX-License-Identifier: Apache-2.0

// Package corpus holds real changes of real Debian kernels, one upstream fix each,
// and what has to become of each of them.
package corpus

import (
	"bytes"
	"embed"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"

	"github.com/upsplice/upsplice/splice/patch"
)

//go:embed corpus.toml patches custom guest
var files embed.FS

// What becomes of a change.
const (
	Live      = "live"
	Refused   = "refused"
	Unchanged = "unchanged" // no object differs
)

// Change is one change and what is expected of it.
type Change struct {
	Name      string `toml:"name"`      // "fs-pipe-fasync"
	Series    string `toml:"series"`    // of the kernel: "6.1"
	Flavour   string `toml:"flavour"`   // "cloud-amd64", "amd64"
	Target    string `toml:"target"`    // "vmlinux" or a module's name
	Subsystem string `toml:"subsystem"` // "fs", "net", ...
	// Since is the first version of the Debian package with the change: in later
	// kernels it is taken out.
	Since    string `toml:"since"`
	Expect   string `toml:"expect"`   // Live, Refused, Unchanged
	Code     string `toml:"code"`     // with Refused: the Code of a splicefile.Reason
	Function string `toml:"function"` // changed function that Exercise runs
	// Exercise is sh that makes the changed code run in a guest with busybox, Poke
	// and guest.sh; empty where the hardware or a tool is missing.
	Exercise string `toml:"exercise"`
	// Custom names a patch with custom code. It is made for the tree with the change
	// taken out, and makes a change live that would else be refused.
	Custom string `toml:"custom"`

	Title string   `toml:"-"` // of the upstream commit, if known
	Files []string `toml:"-"` // that the patch changes
}

// Patch returns the change: a unified diff for patch -p1.
func (c Change) Patch() ([]byte, error) {
	return files.ReadFile("patches/" + c.Series + "/" + c.Name + ".patch")
}

// CustomPatch returns the patch that Custom names, nil if there is none.
func (c Change) CustomPatch() ([]byte, error) {
	if c.Custom == "" {
		return nil, nil
	}
	return files.ReadFile(c.Custom)
}

// GuestFiles returns what exercises need in the guest: functions for a sh, to be sourced,
// and the source of poke, to be compiled statically.
func GuestFiles() (sh, poke []byte, err error) {
	if sh, err = files.ReadFile("guest/guest.sh"); err != nil {
		return nil, nil, err
	}
	poke, err = files.ReadFile("guest/poke.c")
	return sh, poke, err
}

// Load returns all changes in the order of the file.
func Load() ([]Change, error) { return load(files) }

func load(root fs.FS) ([]Change, error) {
	text, err := fs.ReadFile(root, "corpus.toml")
	if err != nil {
		return nil, err
	}
	var list struct {
		Change []Change `toml:"change"`
	}
	meta, err := toml.NewDecoder(bytes.NewReader(text)).Decode(&list)
	if err != nil {
		return nil, fmt.Errorf("reading corpus.toml: %w", err)
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		return nil, fmt.Errorf("reading corpus.toml: unknown key %s", unknown[0])
	}
	seen := map[string]bool{}
	for i := range list.Change {
		c := &list.Change[i]
		if err := c.check(root); err != nil {
			return nil, fmt.Errorf("reading corpus.toml: change %q: %w", c.Name, err)
		}
		if seen[c.Name] {
			return nil, fmt.Errorf("reading corpus.toml: two changes are called %q", c.Name)
		}
		seen[c.Name] = true
	}
	return list.Change, nil
}

var (
	validName  = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)+$`)
	titleLine  = regexp.MustCompile(`(?m)^Upstream: (.*)$`)
	originLine = regexp.MustCompile(`\ACut from Debian's kernel source, \S+ to (\S+)\.\n`)
	codes      = []string{"module", "header", "layout", "no-fentry", "data", "pre-mismatch", "post-mismatch", "compile", "section", "init", "flags", "weak", "custom"}
)

func (c *Change) check(root fs.FS) error {
	if !validName.MatchString(c.Name) {
		return fmt.Errorf("not a name: words in lower case with hyphens between them")
	}
	for _, f := range []struct {
		key, value string
		of         []string
	}{
		{"series", c.Series, []string{"6.1", "6.12"}},
		{"flavour", c.Flavour, []string{"cloud-amd64", "amd64"}},
		{"expect", c.Expect, []string{Live, Refused, Unchanged}},
	} {
		if !slices.Contains(f.of, f.value) {
			return fmt.Errorf("%s is %q, not one of %s", f.key, f.value, strings.Join(f.of, ", "))
		}
	}
	if c.Target == "" || c.Subsystem == "" || c.Since == "" {
		return fmt.Errorf("target, subsystem and since have to be given")
	}
	if c.Expect == Refused && !slices.Contains(codes, c.Code) || c.Expect != Refused && c.Code != "" {
		return fmt.Errorf("code %q does not go with %q", c.Code, c.Expect)
	}
	if c.Exercise != "" && c.Function == "" && c.Expect == Live {
		return fmt.Errorf("an exercise needs the function that it runs")
	}
	name := "patches/" + c.Series + "/" + c.Name + ".patch"
	text, err := fs.ReadFile(root, name)
	if err != nil {
		return err
	}
	origin := originLine.FindSubmatch(text)
	if origin == nil || string(origin[1]) != c.Since {
		return fmt.Errorf("%s does not begin with the versions it was cut from, or they are not those of since", name)
	}
	if m := titleLine.FindSubmatch(text); m != nil {
		c.Title = string(m[1])
	}
	if c.Files, err = changed(name, text); err != nil {
		return err
	}
	if c.Custom == "" {
		return nil
	}
	if text, err = fs.ReadFile(root, c.Custom); err != nil {
		return err
	}
	_, err = changed(c.Custom, text)
	return err
}

// changed returns the files that a patch changes.
func changed(name string, text []byte) ([]string, error) {
	p, err := patch.Parse(name, bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	var list []string
	for _, f := range p.Files {
		path, ok := strings.CutPrefix(f.New, "b/")
		if !ok || f.Old != "a/"+path {
			return nil, fmt.Errorf("%s: it changes %q into %q, which is not one file of a/ and b/", name, f.Old, f.New)
		}
		list = append(list, path)
	}
	return list, nil
}
