// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"debug/elf"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// unit compiles a source as the engine would and returns the path of the object.
func unit(t *testing.T, src string, flags ...string) string {
	t.Helper()
	dir := t.TempDir()
	in, out := filepath.Join(dir, "unit.c"), filepath.Join(dir, "unit.o")
	if err := os.WriteFile(in, []byte(src), 0o600); err != nil {
		t.Fatal(err)
	}
	args := append(strings.Fields("-O2 -c -fno-PIE -mcmodel=kernel -ffunction-sections -fdata-sections -fcf-protection=none -fno-asynchronous-unwind-tables -pg -mfentry -mrecord-mcount"), flags...)
	cmd := exec.Command("gcc", append(args, "-o", out, "unit.c")...)
	cmd.Dir = dir
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, msg)
	}
	return out
}

// edited is a copy of a file with its contents changed.
func edited(t *testing.T, path string, edit func([]byte) []byte) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "edited.o")
	if err := os.WriteFile(out, edit(bytes.Clone(b)), 0o600); err != nil {
		t.Fatal(err)
	}
	return out
}

const (
	diffBase  = "int limit = 3; extern int outside(int); int f(int x) { return outside(x) + limit; } int g(int x) { return x; }"
	diffOther = "int limit = 3; extern int outside(int); int fresh = 8; int h(int x) { return outside(fresh); } int f(int x) { return h(x) + limit; }"
	diffData  = "int limit = 4; extern int outside(int); int f(int x) { return outside(x) + limit; } int g(int x) { return x; }"
	diffBoot  = "__attribute__((section(\".init.text\"))) int start(void) { return 1; } "
)

func TestDiff(t *testing.T) {
	base := unit(t, diffBase)
	for _, tt := range []struct {
		name      string
		pre, post string
		code      int
		outcome   string
		want      map[string][]string // list to its members in the JSON
		text      []string            // in the plain output
	}{
		{name: "unchanged", pre: base, post: base, code: 3, outcome: "unchanged", text: []string{"unchanged"}},
		{name: "changed", pre: base, post: unit(t, diffOther), code: 0, outcome: "changed",
			want: map[string][]string{"functions": {"changed f", "removed g", "new h"}, "data": {"new fresh"}},
			text: []string{"changed  function f (", "new      function h", "removed  function g", "new      data     fresh", "taken    fresh"}},
		{name: "refused", pre: base, post: unit(t, diffData), code: 4, outcome: "refused",
			want: map[string][]string{"data": {"changed limit"}, "refusals": {".data.limit limit existing data changed: limit"}},
			text: []string{"refused  .data.limit limit: existing data changed: limit"}},
		{name: "boot", pre: unit(t, diffBoot+diffBase), post: unit(t, strings.Replace(diffBoot, "1", "2", 1)+diffBase), code: 4, outcome: "refused",
			want: map[string][]string{"boot": {"changed start"}, "refusals": {".init.text start init: runs only at boot, on loading or on unloading"}},
			text: []string{"changed  at boot  start"}},
		{name: "custom code", pre: base, code: 0, outcome: "changed",
			post: unit(t, diffBase+` static int before(void *o) { limit = 9; return 0; } static const struct { void *fn; char *name; } reg __attribute__((used, section(".kpatch.callbacks.pre_patch"))) = { before };`),
			want: map[string][]string{"functions": {"new before"}, "callbacks": {"pre_patch before"}}, text: []string{"callback pre_patch   before"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out, errw bytes.Buffer
			if code := Main([]string{"diff", "--json", tt.pre, tt.post}, strings.NewReader(""), &out, &errw); code != tt.code {
				t.Errorf("exit code %d, want %d: %s", code, tt.code, errw.String())
			}
			var res struct {
				Outcome               string
				Functions, Data, Boot []struct{ Name, Kind, Section string }
				Taken                 []string
				Refusals              []struct{ Section, Symbol, Reason string }
				Callbacks             []struct{ When, Function string }
				Ignored               []string
			}
			dec := json.NewDecoder(&out)
			if err := dec.Decode(&res); err != nil {
				t.Fatal(err)
			}
			if res.Outcome != tt.outcome {
				t.Errorf("outcome %q, want %q", res.Outcome, tt.outcome)
			}
			got := map[string][]string{}
			for name, list := range map[string][]struct{ Name, Kind, Section string }{"functions": res.Functions, "data": res.Data, "boot": res.Boot} {
				for _, c := range list {
					got[name] = append(got[name], c.Kind+" "+c.Name)
				}
			}
			for _, r := range res.Refusals {
				got["refusals"] = append(got["refusals"], r.Section+" "+r.Symbol+" "+r.Reason)
			}
			for _, c := range res.Callbacks {
				got["callbacks"] = append(got["callbacks"], c.When+" "+c.Function)
			}
			if tt.want == nil {
				tt.want = map[string][]string{}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("JSON (-want +got):\n%s", diff)
			}
			out.Reset()
			if code := Main([]string{"diff", tt.pre, tt.post}, strings.NewReader(""), &out, io.Discard); code != tt.code {
				t.Errorf("without --json: exit code %d", code)
			}
			for _, text := range append(tt.text, tt.outcome) {
				if !strings.Contains(out.String(), text) {
					t.Errorf("output lacks %q:\n%s", text, out.String())
				}
			}
		})
	}
}

func TestDiffBadInput(t *testing.T) {
	base := unit(t, diffBase)
	arm := edited(t, base, func(b []byte) []byte { b[18] = byte(elf.EM_AARCH64); return b })
	riscv := edited(t, base, func(b []byte) []byte { b[18] = byte(elf.EM_RISCV); return b })
	for _, tt := range []struct{ name, pre, post, want string }{
		{"no such file", base, filepath.Join(t.TempDir(), "none.o"), "none.o"},
		{"not an ELF", base, edited(t, base, func([]byte) []byte { return bytes.Repeat([]byte("text\n"), 50) }), "no ELF magic"},
		{"empty", edited(t, base, func([]byte) []byte { return nil }), base, "too short"},
		{"truncated", base, edited(t, base, func(b []byte) []byte { return b[:len(b)/2] }), "lie outside the file"},
		{"an unknown architecture", riscv, base, "EM_RISCV"},
		{"another architecture", arm, arm, "EM_AARCH64 is not supported"},
		{"two architectures", base, arm, "pre is for EM_X86_64, post for EM_AARCH64"},
		{"an executable", base, edited(t, base, func(b []byte) []byte { b[16] = byte(elf.ET_EXEC); return b }), "not ET_REL"},
		{"without -ffunction-sections", base, unit(t, diffBase, "-fno-function-sections"), "compile with -ffunction-sections"},
		{"a directory", base, t.TempDir(), "is a directory"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out, errw bytes.Buffer
			if code := Main([]string{"diff", "--json", tt.pre, tt.post}, strings.NewReader(""), &out, &errw); code != 1 {
				t.Errorf("exit code %d, want 1", code)
			}
			var res struct{ Outcome, Error string }
			if err := json.Unmarshal(out.Bytes(), &res); err != nil {
				t.Fatal(err)
			}
			if res.Outcome != "error" || !strings.Contains(res.Error, tt.want) {
				t.Errorf("outcome %q, error %q, want %q", res.Outcome, res.Error, tt.want)
			}
			if !strings.Contains(errw.String(), tt.want) {
				t.Errorf("standard error: %q", errw.String())
			}
		})
	}
	if code := Main([]string{"diff", base}, strings.NewReader(""), io.Discard, io.Discard); code != 2 {
		t.Errorf("one argument: exit code %d, want 2", code)
	}
}
