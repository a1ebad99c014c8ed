// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/upsplice/upsplice/splice/kbuild"
)

// objtoolScript stands in for objtool: it notes its arguments at the end of the
// object, where an ELF reader does not look.
const objtoolScript = `#!/bin/sh
for o; do :; done
echo "objtool $*" >> "$o"
`

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

// compiler makes a source tree, an output directory and a compiler for them.
func compiler(t testing.TB, files map[string]string) *Compiler {
	t.Helper()
	dir := t.TempDir()
	o := &kbuild.Output{Dir: filepath.Join(dir, "out"), Materials: kbuild.Materials{
		Release: "test", Arch: "x86", CC: "gcc",
		Source: filepath.Join(dir, "src"), Kbuild: filepath.Join(dir, "kbuild"),
	}}
	write(t, filepath.Join(o.Source, "scripts/Kbuild.include"), "")
	write(t, filepath.Join(o.Source, "scripts/Makefile.lib"), "objtool-args-y := --orc --check\n")
	write(t, filepath.Join(o.Dir, "include/config/auto.conf"), "CONFIG_OBJTOOL=y\n")
	write(t, filepath.Join(o.Dir, "include/gen.h"), "#define GEN 1\n")
	write(t, filepath.Join(o.Kbuild, "tools/objtool/objtool"), objtoolScript)
	for name, text := range files {
		write(t, filepath.Join(o.Source, name), text)
	}
	return &Compiler{Output: o, Cache: filepath.Join(dir, "cache"), Jobs: 2}
}

func (c *Compiler) unit(name string, options ...string) kbuild.Unit {
	object := strings.TrimSuffix(name, filepath.Ext(name)) + ".o"
	args := append([]string{"gcc", "-Wp,-MMD,." + filepath.Base(object) + ".d", "-I" + c.Output.Source + "/include", "-I./include", "-O2"}, options...)
	return kbuild.Unit{
		Object: object, Source: name, Target: kbuild.Vmlinux, Objtool: true,
		Args: append(args, "-c", "-o", object, filepath.Join(c.Output.Source, name)),
	}
}

func TestUnits(t *testing.T) {
	c := compiler(t, map[string]string{
		"include/a.h": "int other(int);\n",
		"fs/a.c":      "#include <a.h>\n#include <gen.h>\nint one(int x) { return other(x) + GEN; }\nint two(void) { return 2; }\nint data = 3;\n",
		"fs/b.S":      ".globl b\nb: nop\n",
	})
	a, b := c.unit("fs/a.c"), c.unit("fs/b.S")
	b.Objtool = false
	module := c.unit("fs/a.c", "-DMODULE")
	module.Target, module.Object = "fs/m", "fs/m.o"
	var done []string
	objects, err := c.Units(t.Context(), []kbuild.Unit{a, b, module}, func(u kbuild.Unit) { done = append(done, u.Object) })
	if err != nil {
		t.Fatal(err)
	}
	if len(objects) != 3 || len(done) != 3 {
		t.Fatalf("%d objects, done %v", len(objects), done)
	}
	if diff := cmp.Diff([]string{"O:include/gen.h", "fs/a.c", "include/a.h"}, objects[0].Deps); diff != "" {
		t.Errorf("dependencies (-want +got):\n%s", diff)
	}
	f, err := elf.Open(objects[0].Path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, name := range []string{".text.one", ".text.two", ".data.data", ".debug_info"} {
		if f.Section(name) == nil {
			t.Errorf("no section %s", name)
		}
	}
	for i, want := range []string{"objtool --orc --check /", "", "objtool --orc --check --module /"} {
		text, err := os.ReadFile(objects[i].Path)
		if err != nil {
			t.Fatal(err)
		}
		if got := bytes.Contains(text, []byte("\nobjtool ")) || bytes.Contains(text, []byte("objtool --")); got != (want != "") || !bytes.Contains(text, []byte(want)) {
			t.Errorf("%s: objtool ran: %v, want %q", objects[i].Unit.Object, got, want)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(c.Cache, "tmp-*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	if _, err := os.Stat(filepath.Join(c.Output.Dir, "fs")); err == nil {
		t.Error("something was written to the output directory")
	}
}

// TestNoDebug: objects with and without debug information are kept apart.
func TestNoDebug(t *testing.T) {
	c := compiler(t, map[string]string{"a.c": "int f(void) { return 1; }\n"})
	for _, without := range []bool{false, true, false} {
		c.NoDebug = without
		objects, err := c.Units(t.Context(), []kbuild.Unit{c.unit("a.c", "-g")}, nil)
		if err != nil {
			t.Fatal(err)
		}
		f, err := elf.Open(objects[0].Path)
		if err != nil {
			t.Fatal(err)
		}
		if got := f.Section(".debug_info") == nil; got != without || f.Section(".text.f") == nil {
			t.Errorf("NoDebug %v: no debug information: %v", without, got)
		}
		f.Close()
	}
}

// counting replaces the compiler by one that leaves a trace of each compilation.
func counting(t *testing.T, c *Compiler) func() int {
	t.Helper()
	bin, log := t.TempDir(), filepath.Join(t.TempDir(), "log")
	write(t, filepath.Join(bin, "gcc"), fmt.Sprintf("#!/bin/sh\ncase $1 in --version) ;; *) echo x >> %s;; esac\nPATH=%s exec gcc \"$@\"\n", log, os.Getenv("PATH")))
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	return func() int {
		text, _ := os.ReadFile(log)
		return len(text) / 2
	}
}

func TestCache(t *testing.T) {
	files := map[string]string{
		"include/a.h": "#define A 1\n",
		"include/b.h": "#define B 1\n",
		"a.c":         "#include <a.h>\nint f(void) { return A; }\n",
	}
	c := compiler(t, files)
	count := counting(t, c)
	get := func(c *Compiler) string {
		t.Helper()
		objects, err := c.Units(t.Context(), []kbuild.Unit{c.unit("a.c")}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return objects[0].Path
	}
	first := get(c)
	if again := get(c); again != first || count() != 1 {
		t.Errorf("the same again: %s after %s, %d compilations", again, first, count())
	}

	// A new process, an equal tree at another place.
	other := compiler(t, files)
	other.Cache = c.Cache
	if got := get(other); got != first || count() != 1 {
		t.Errorf("an equal tree: %s after %s, %d compilations", got, first, count())
	}
	write(t, filepath.Join(other.Output.Source, "include/b.h"), "#define B 2\n")
	if got := get(other); got != first || count() != 1 {
		t.Errorf("a header that is not used: %d compilations", count())
	}
	write(t, filepath.Join(other.Output.Source, "include/a.h"), "#define A 22\n")
	second := get(other)
	if second == first || count() != 2 {
		t.Errorf("a changed header: %d compilations", count())
	}
	if got := get(c); got != first || count() != 2 {
		t.Errorf("the first tree after the second: %s, %d compilations", got, count())
	}
	// Another objtool, another object.
	third := compiler(t, files)
	third.Cache = c.Cache
	write(t, filepath.Join(third.Output.Kbuild, "tools/objtool/objtool"), objtoolScript+"# changed\n")
	if got := get(third); got == first || count() != 3 {
		t.Errorf("another objtool: %d compilations", count())
	}
	// Damage is noticed.
	if err := os.Truncate(second, 0); err != nil {
		t.Fatal(err)
	}
	if get(other); count() != 4 {
		t.Errorf("an empty object was taken from the cache, %d compilations", count())
	}
	recipes, _ := filepath.Glob(filepath.Join(c.Cache, "*.json"))
	for _, r := range recipes {
		write(t, r, "{")
	}
	if get(c); count() != 5 {
		t.Errorf("a damaged recipe: %d compilations", count())
	}
}

func TestErrors(t *testing.T) {
	c := compiler(t, map[string]string{
		"good.c": "int good;\n",
		"bad.c":  "int bad(void) { return missing; }\n",
		"obj.c":  "int obj;\n",
	})
	write(t, filepath.Join(c.Output.Kbuild, "tools/objtool/objtool"),
		"#!/bin/sh\nfor o; do :; done\ngrep -q obj.c $o || exit 0\necho 'obj.o: error: objtool: no' >&2; exit 1\n")
	objects, err := c.Units(t.Context(), []kbuild.Unit{c.unit("bad.c"), c.unit("good.c"), c.unit("obj.c")}, nil)
	if len(objects) != 1 || objects[0].Unit.Object != "good.o" {
		t.Errorf("objects: %+v", objects)
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok || len(joined.Unwrap()) != 2 {
		t.Fatalf("got %v, want two errors", err)
	}
	var first, second *Error
	if !errors.As(joined.Unwrap()[0], &first) || first.Unit != "bad.o" || first.Stage != "compiler" || !strings.Contains(first.Error(), "missing") {
		t.Errorf("first: %v", first)
	}
	if !errors.As(joined.Unwrap()[1], &second) || second.Unit != "obj.o" || second.Stage != "objtool" || !strings.Contains(second.Error(), "objtool: no") {
		t.Errorf("second: %v", second)
	}
	if left, _ := filepath.Glob(filepath.Join(c.Cache, "*.o")); len(left) != 1 {
		t.Errorf("objects in the cache: %v", left)
	}
}

// TestFrozen: what the compiler warns of is an error, and all errors are named with
// the lines that they stand in.
func TestFrozen(t *testing.T) {
	c := compiler(t, map[string]string{
		"a.c": "#ifndef UPSPLICE_PHYSICAL_LINES\n#line 100\n#endif\nint *f(long x)\n{\n\treturn x;\n}\nint g(void)\n{\n\treturn y;\n}\n",
	})
	_, err := c.Units(t.Context(), []kbuild.Unit{c.unit("a.c", "-fmax-errors=1", "-Wno-int-conversion")}, nil)
	if e := new(Error); !errors.As(err, &e) || !strings.Contains(e.Output, "a.c:107:") {
		t.Fatalf("%v", err)
	}
	c.Frozen = true
	_, err = c.Units(t.Context(), []kbuild.Unit{c.unit("a.c", "-fmax-errors=1", "-Wno-int-conversion")}, nil)
	e := new(Error)
	if !errors.As(err, &e) {
		t.Fatalf("%v", err)
	}
	for _, place := range []string{"a.c:6:16: error: ", "a.c:10:16: error: "} {
		if !strings.Contains(e.Output, place) {
			t.Errorf("no error at %s in\n%s", place, e.Output)
		}
	}
}

func TestOutputLimit(t *testing.T) {
	c := compiler(t, map[string]string{"a.c": strings.Repeat("#warning this is a line of the source that the compiler repeats\n", 3000) + "#error end\n"})
	_, err := c.Units(t.Context(), []kbuild.Unit{c.unit("a.c")}, nil)
	var e *Error
	if !errors.As(err, &e) || len(e.Output) != maxOutput {
		t.Errorf("got %d bytes of output", len(e.Output))
	}
}

func TestMissingCompiler(t *testing.T) {
	c := compiler(t, map[string]string{"a.c": "int a;\n"})
	c.Output.CC = "gcc-99"
	_, err := c.Units(t.Context(), []kbuild.Unit{c.unit("a.c")}, nil)
	var e *Error
	if !errors.As(err, &e) || !strings.Contains(err.Error(), "install the package gcc-99") {
		t.Errorf("got %v", err)
	}
	if _, err := c.Version(t.Context()); !errors.As(err, &e) {
		t.Errorf("got %v", err)
	}
}

func TestVersion(t *testing.T) {
	c := compiler(t, nil)
	v, err := c.Version(t.Context())
	if err != nil || !strings.Contains(v, "gcc") || strings.Contains(v, "\n") {
		t.Errorf("%q, %v", v, err)
	}
}

func TestCancel(t *testing.T) {
	c := compiler(t, map[string]string{"a.c": "int a;\n"})
	// A compiler whose child goes on unless the whole group is killed.
	bin := t.TempDir()
	pid := filepath.Join(t.TempDir(), "pid")
	write(t, filepath.Join(bin, "slow"), "#!/bin/sh\ncase $1 in --version) echo slow 1;; *) sleep 60 & echo $! > "+pid+"; wait;; esac\n")
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	c.Output.CC = "slow"
	u := c.unit("a.c")
	u.Args[0] = "slow"
	ctx, cancel := context.WithCancel(t.Context())
	var child int
	go func() {
		defer cancel()
		for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
			if text, err := os.ReadFile(pid); err == nil {
				if _, err := fmt.Sscan(string(text), &child); err == nil {
					return
				}
			}
		}
	}()
	objects, err := c.Units(ctx, []kbuild.Unit{u, u, u}, nil)
	if !errors.Is(err, context.Canceled) || objects != nil {
		t.Errorf("got %v, %v", objects, err)
	}
	if child == 0 {
		t.Fatal("the compiler did not start")
	}
	// The child may still be a zombie of whoever adopts it.
	for range 100 {
		if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", child)); err != nil || strings.Contains(string(stat), ") Z ") {
			child = 0
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if child != 0 {
		t.Error("the compiler's child still runs")
	}
	if left, _ := os.ReadDir(c.Cache); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestFullDisk(t *testing.T) {
	c := compiler(t, map[string]string{"a.c": "int a;\n"})
	bin := t.TempDir()
	write(t, filepath.Join(bin, "full"), "#!/bin/sh\ncase $1 in --version) echo full 1;; *) echo \"fatal error: error writing to x.s: No space left on device\" >&2; exit 1;; esac\n")
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	c.Output.CC = "full"
	u := c.unit("a.c")
	u.Args[0] = "full"
	_, err := c.Units(t.Context(), []kbuild.Unit{u}, nil)
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), c.Cache) {
		t.Errorf("got %v, want ENOSPC and the directory", err)
	}
}

func TestDependencies(t *testing.T) {
	got := dependencies("x.o: /src/fs/../fs/a.c /src/include/b\\ c.h \\\n ./include/gen.h /usr/lib/stdarg.h \\\r\n ./include/gen.h\n\n/src/include/b.h:\n", "/src")
	want := []string{"/usr/lib/stdarg.h", "O:include/gen.h", "fs/a.c", "include/b c.h"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got := dependencies("nothing", "/src"); got != nil {
		t.Errorf("got %q", got)
	}
}

func FuzzDependencies(f *testing.F) {
	f.Add("x.o: /src/a.c \\\n b.h\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, d := range dependencies(text, "/src") {
			if d == "" {
				t.Error("an empty path")
			}
		}
	})
}
