// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/upsplice/upsplice/hook/outcome"
)

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestREADMEHasTheTableOfOutcomes(t *testing.T) {
	if !strings.Contains(read(t, "../../README.md"), outcome.Markdown()) {
		t.Errorf("README.md does not contain this table:\n%s", outcome.Markdown())
	}
}

// Every verb and flag that a person can see is in the manual page and every verb
// in the README.
func TestManualIsComplete(t *testing.T) {
	manual := strings.ReplaceAll(read(t, "../../packaging/man/upsplice.8"), `\-`, "-")
	readme := read(t, "../../README.md")
	a := &app{in: strings.NewReader(""), out: io.Discard, err: io.Discard}
	var check func(*cobra.Command)
	check = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			if sub.Hidden || sub.Name() == "completion" || sub.Name() == "help" {
				continue
			}
			if !sub.HasSubCommands() {
				path := strings.TrimPrefix(sub.CommandPath(), "upsplice ")
				if !strings.Contains(manual, path) {
					t.Errorf("the manual does not have %q", path)
				}
				if !strings.Contains(readme, "`"+path) && !strings.Contains(readme, "upsplice "+path) {
					t.Errorf("the README does not have %q", path)
				}
			}
			sub.LocalFlags().VisitAll(func(f *pflag.Flag) {
				if f.Name != "help" && !strings.Contains(manual, "--"+f.Name) && (f.Shorthand == "" || !strings.Contains(manual, "-"+f.Shorthand)) {
					t.Errorf("the manual does not have --%s of %s", f.Name, sub.CommandPath())
				}
			})
			check(sub)
		}
	}
	check(a.root())
	for _, r := range outcome.Table() {
		if !strings.Contains(manual, fmt.Sprintf("\n.B %d\n", r.ExitCode)) {
			t.Errorf("the manual does not have exit code %d", r.ExitCode)
		}
	}
}

func TestWrongCommandLinesAreUsage(t *testing.T) {
	for _, args := range [][]string{{"nonsense"}, {"apply"}, {"diff", "one"}, {"status", "--nonsense"}, {"create"}, {"plan", "a", "b", "c"}} {
		if code := Main(append(args, "--config", "/nonexistent"), strings.NewReader(""), io.Discard, io.Discard); code != outcome.Usage.ExitCode() {
			t.Errorf("upsplice %s: exit code %d, want %d", strings.Join(args, " "), code, outcome.Usage.ExitCode())
		}
	}
}

func TestHookIsAlwaysZero(t *testing.T) {
	broken := t.TempDir() + "/upsplice.toml"
	if err := os.WriteFile(broken, []byte("nonsense = 1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"hook", "apt", "--config", broken},
		{"hook", "apt", "--post", "--config", broken},
		{"hook", "apt", "--dry-run", "--state", "/dev/null/x"},
		{"hook", "apt", "--state", "/dev/null/x"},
		{"hook", "apt", "--post", "--state", "/dev/null/x"},
	} {
		if code := Main(args, strings.NewReader(""), io.Discard, io.Discard); code != 0 {
			t.Errorf("upsplice %s: exit code %d", strings.Join(args, " "), code)
		}
	}
}
