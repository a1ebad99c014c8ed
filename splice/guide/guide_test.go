// SPDX-License-Identifier: Apache-2.0

// Package guide holds splice/GUIDE.md to its word: every example is compiled as the
// kernel compiles its own code, before and after its patch, and compared.
package guide

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/upsplice/upsplice/kmod/lab"
	"github.com/upsplice/upsplice/splice/compile"
	"github.com/upsplice/upsplice/splice/kbuild"
	"github.com/upsplice/upsplice/splice/object"
)

// example is a C file of the guide, or one with a patch of the guide applied.
type example struct {
	name string // "shadow.c", "shadow-1.c"
	text string
	of   string // of a patched one: the name of the file without it
	want string // the word after "diff"
	line int    // in the guide
}

// examples reads the fenced blocks "c NAME" and "diff WANT"; the patched file is
// named in the diff.
func examples(t *testing.T, guide string) []example {
	t.Helper()
	var list []example
	var fence []string
	var body strings.Builder
	start := 0
	for i, line := range strings.Split(guide, "\n") {
		switch info, isFence := strings.CutPrefix(line, "```"); {
		case isFence && fence == nil:
			fence, start = strings.Fields(info), i+1
			body.Reset()
			if len(fence) != 2 || fence[0] != "c" && fence[0] != "diff" {
				t.Errorf("GUIDE.md:%d: a block has to be \"c NAME\" or \"diff OUTCOME\", not %q", start, info)
			}
		case isFence && fence[0] == "c":
			list = append(list, example{name: fence[1], text: body.String(), line: start})
			fence = nil
		case isFence:
			list = append(list, patched(t, list, body.String(), fence[1], start))
			fence = nil
		case fence != nil:
			body.WriteString(line + "\n")
		}
	}
	if fence != nil {
		t.Fatalf("GUIDE.md:%d: the block has no end", start)
	}
	return list
}

func patched(t *testing.T, list []example, diff, want string, line int) example {
	t.Helper()
	first, _, _ := strings.Cut(diff, "\n")
	name, ok := strings.CutPrefix(first, "--- a/guide/")
	i := slices.IndexFunc(list, func(e example) bool { return e.name == name })
	if !ok || i < 0 {
		t.Fatalf("GUIDE.md:%d: the diff is not of an example above: %q", line, first)
	}
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(list[i].text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("patch", "-s", "-F0", file)
	cmd.Stdin = strings.NewReader(diff)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("GUIDE.md:%d: the diff does not apply: %v\n%s", line, err, out)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	count := 1
	for _, e := range list {
		if e.of == name {
			count++
		}
	}
	return example{name: fmt.Sprintf("%s-%d.c", strings.TrimSuffix(name, ".c"), count), text: string(text), of: name, want: want, line: line}
}

// headersOnly are makefiles that the header packages leave out, and kbuild wants
// to see before it says how a file is compiled.
var headersOnly = []string{"arch/x86/entry/syscalls", "arch/x86/tools", "scripts", "scripts/basic", "scripts/mod", "scripts/dtc", "tools/objtool"}

// sourceTree makes a tree of the headers, with the examples in guide/.
func sourceTree(t *testing.T, k lab.Kernel, list []example) string {
	t.Helper()
	src := filepath.Join(t.TempDir(), "src")
	if out, err := exec.Command("cp", "-rs", k.CommonDir, src).CombinedOutput(); err != nil {
		t.Fatalf("linking the headers: %v\n%s", err, out)
	}
	var objects strings.Builder
	objects.WriteString("obj-y :=")
	for _, e := range list {
		objects.WriteString(" " + strings.TrimSuffix(e.name, ".c") + ".o")
		write(t, filepath.Join(src, "guide", e.name), e.text)
	}
	write(t, filepath.Join(src, "guide/Makefile"), objects.String()+"\n")
	write(t, filepath.Join(src, "Kbuild"), "obj-y += guide/\nprepare:\n")
	write(t, filepath.Join(src, "scripts/orc_hash.sh"), "")
	for _, dir := range headersOnly {
		name := filepath.Join(src, dir, "Makefile")
		if _, err := os.Stat(name); err != nil {
			write(t, name, "%: ;\n")
		}
	}
	return src
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// build compiles the examples with the kernel's flags and ours for custom code.
func build(t *testing.T, k lab.Kernel, list []example) map[string]*object.Object {
	t.Helper()
	include, err := filepath.Abs("../../kmod/cfiles/include")
	if err != nil {
		t.Fatal(err)
	}
	out, err := kbuild.Seed(t.Context(), filepath.Join(t.TempDir(), "out"), kbuild.Materials{
		Release: k.Release, Arch: "x86", CC: compiler(t, k), Source: sourceTree(t, k, list), Headers: k.HeadersDir, Kbuild: k.KbuildDir,
	})
	if err != nil {
		t.Fatal(err)
	}
	var targets []string
	for _, e := range list {
		targets = append(targets, "guide/"+strings.TrimSuffix(e.name, ".c")+".o")
	}
	units, err := out.Query(t.Context(), targets...)
	if err != nil || len(units) != len(list) {
		t.Fatalf("kbuild lists %d of %d examples: %v", len(units), len(list), err)
	}
	for i, u := range units {
		at := slices.Index(u.Args, "-c")
		if at < 0 {
			t.Fatalf("%s: no -c in %q", u.Object, u.Args)
		}
		units[i].Args = slices.Insert(slices.Clone(u.Args), at, "-I"+include, "-Werror")
		units[i].Target = kbuild.Vmlinux
		units[i].Objtool = true
	}
	objects, err := (&compile.Compiler{Output: out}).Units(t.Context(), units, nil)
	if err != nil {
		var failed *compile.Error
		if errors.As(err, &failed) {
			t.Fatalf("%v\n%s", err, failed.Output)
		}
		t.Fatal(err)
	}
	read := make(map[string]*object.Object)
	for _, o := range objects {
		name := filepath.Base(o.Unit.Source)
		if read[name], err = object.ReadFile(o.Path); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	return read
}
