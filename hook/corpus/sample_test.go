// SPDX-License-Identifier: Apache-2.0

package corpus

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/upsplice/upsplice/splice/patch"
)

// sample are changes of each kind, for one kernel: the whole takes an hour.
var sample = []string{
	"fs-pipe-fasync",             // one function
	"fs-fcntl-rw-hint-immutable", // compiled into its callers
	"net-tcp-getsockopt-ca",      // two functions
}

func TestSample(t *testing.T) {
	all, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	var chosen []Change
	picked := map[string]int{}
	for _, c := range all {
		if c.Series != "6.1" || c.Flavour != "cloud-amd64" {
			continue
		}
		if slices.ContainsFunc(c.Files, func(f string) bool { return !strings.HasSuffix(f, ".c") }) {
			continue // a header has many units compiled
		}
		// One of each reason to refuse, one in a module, one with custom code.
		key := c.Code
		if c.Expect == Live && c.Target != "vmlinux" && c.Exercise != "" {
			key = "module"
		}
		if c.Custom != "" {
			key = "custom"
		}
		if slices.Contains(sample, c.Name) || key != "" && picked[key] == 0 {
			picked[key]++
			chosen = append(chosen, c)
		}
	}
	if len(chosen) < len(sample)+3 || picked["module"] == 0 || picked["custom"] == 0 {
		t.Fatalf("the corpus has %d of the sample: %v", len(chosen), picked)
	}
	program := filepath.Join(t.TempDir(), "program")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", program, "./run")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	// A tree and a machine's disk are large, and /tmp may be in memory.
	cache, err := os.MkdirTemp("/var/tmp", "upsplice-corpus-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(cache) })
	tried := 0
	err = Run(t.Context(), chosen, cache, program, t.Logf, func(r Row) {
		if fault := r.Fault(); fault != "" {
			t.Errorf("%s: %s", r.name(), fault)
		}
		if r.Outcome != nil && r.Exercise != "" && r.Outcome.Calls > 0 {
			tried++
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if tried < len(sample)+1 {
		t.Errorf("the new code of only %d changes ran", tried)
	}
}

// Taking a change out and putting it back gives the file of before.
func TestReverse(t *testing.T) {
	all, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range all {
		text, err := c.Patch()
		if err != nil {
			t.Fatal(err)
		}
		there := patchLines(t, c.Name, text)
		back := patchLines(t, c.Name, reverse(text))
		again := patchLines(t, c.Name, reverse(reverse(text)))
		if d := cmp.Diff(there, again); d != "" {
			t.Errorf("%s: turned round twice: %s", c.Name, d)
		}
		for _, op := range [][2]string{{"+", "-"}, {"-", "+"}, {" ", " "}} {
			if d := cmp.Diff(with(there, op[0]), with(back, op[1])); d != "" {
				t.Errorf("%s: %q turned round to %q: %s", c.Name, op[0], op[1], d)
			}
		}
	}
}

// patchLines are the lines of a patch in the order in which both sides have them.
func patchLines(t *testing.T, name string, text []byte) []string {
	t.Helper()
	p, err := patch.Parse(name, strings.NewReader(string(text)))
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, text)
	}
	var lines []string
	for _, f := range p.Files {
		for _, h := range f.Hunks {
			for _, op := range "-+ " {
				for _, l := range h.Lines {
					if rune(l.Op) == op {
						lines = append(lines, string(l.Op)+l.Text)
					}
				}
			}
		}
	}
	return lines
}

func with(lines []string, op string) (list []string) {
	for _, l := range lines {
		if rest, ok := strings.CutPrefix(l, op); ok {
			list = append(list, rest)
		}
	}
	return list
}
