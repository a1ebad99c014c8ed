// SPDX-License-Identifier: Apache-2.0

package freeze

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// describe says what differs: "function f", with - for what only the old version
// has, + for what only the new one has, ! for what has to be old.
func describe(m *merged) (list []string) {
	for _, e := range m.ents {
		s := e.Kind.String() + " " + strings.Join(e.Names, " ")
		switch {
		case !e.new:
			s = "-" + s
		case !e.old:
			s = "+" + s
		case e.Frozen():
			s = "!" + s
		}
		list = append(list, s)
	}
	return list
}

func everything(old bool) func(*Entity) bool { return func(*Entity) bool { return old } }

// check holds a merge to its promises at both ends.
func check(t testing.TB, m *merged) {
	t.Helper()
	if text, _ := m.write(everything(true)); text != m.pre {
		t.Errorf("with everything old:\n%s\nwant\n%s", text, m.pre)
	}
	text, _ := m.write(everything(false))
	if !same(text, m.post) && !(len(m.ents) == 0 && text == m.pre) {
		t.Errorf("with nothing old:\n%s\nwant\n%s", text, m.post)
	}
}

func TestEntities(t *testing.T) {
	for _, tt := range []struct {
		name, file, pre, post string
		want                  []string
	}{
		{"nothing", "a.c", "int f(void) { return 0; }\n", "/* c */\nint f(void)\n{\n\treturn 0; // }\n}\n", nil},
		{"body", "a.c", "int a;\nint f(void) { return 0; }\n", "int a;\nint f(void) { return 1; }\n", []string{"function f"}},
		{"new and gone", "a.c", "int f(void) { return 0; }\nint h;\n", "int h;\nint g(void) { return 0; }\n", []string{"-function f", "+function g"}},
		{"type", "a.h", "struct s {\n\tint a;\n};\nstruct t { int a; };\n", "struct s {\n\tint b;\n};\nstruct t { int a; };\nstruct u { int a; };\n", []string{"!type s", "+type u"}},
		{"attribute of a type", "a.h", "struct s { char a; int b; };\n", "struct s { char a; int b; } __packed;\n", []string{"!type s"}},
		{"enum", "a.h", "enum e { A, B = 2 };\n", "enum e { A, C, B = 2 };\n", []string{"!type e A C B"}},
		{"enum without a name", "a.h", "enum { A, B };\nenum { X };\n", "enum { N, A, B };\nenum { X };\n", []string{"!type A B N"}},
		{"typedef", "a.h", "typedef int (*fn)(int);\n", "typedef int (*fn)(long);\n", []string{"!type fn"}},
		{"type with variable", "a.c", "static struct {\n\tint a;\n} x = { 1 };\n", "static struct {\n\tint a;\n} x = { 2 };\n", []string{"data x"}},
		{"type with variable that differs", "a.c", "static struct {\n\tint a;\n} x = { 1 };\n", "static struct {\n\tlong a;\n} x = { 1 };\n", []string{"!data x"}},
		{"table", "a.c", "static const struct ops o = {\n\t.a = f,\n};\n", "static const struct ops o = {\n\t.a = f,\n\t.b = g,\n};\n", []string{"data o"}},
		{"macro", "a.h", "#define A(x) \\\n\tdo { \\\n\t\tf(x); \\\n\t} while (0)\nint a;\n", "#define A(x) \\\n\tdo { \\\n\t\tg(x); \\\n\t} while (0)\nint a;\n", []string{"macro A"}},
		{"macro laid out otherwise", "a.h", "#define A(x) \\\n\tf(x)\n", "#define A(x) f(x)\n", nil},
		{"macro without parameters", "a.h", "#define A (x)\n", "#define A(x)\n", []string{"macro A"}},
		{"operators", "a.c", "int f(int a, int *b) { return a & &b; }\n", "int f(int a, int *b) { return a && b; }\n", []string{"function f"}},
		{"operator that is two", "a.c", "int f(void) { return a && b; }\n", "int f(void) { return a & & b; }\n", []string{"function f"}},
		{"line break ends a directive", "a.c", "#define A x\ny;\n", "#define A x y\n;\n", []string{"macro A", "-data y", "+invocation "}},
		{"syscall", "a.c", "SYSCALL_DEFINE2(read, int, fd, char *, buf)\n{\n\treturn 0;\n}\n", "SYSCALL_DEFINE2(read, int, fd, char *, buf)\n{\n\treturn 1;\n}\n", []string{"function __do_sys_read __se_sys_read __x64_sys_read"}},
		{"invocations", "a.c", "int f(void) { return 0; }\nEXPORT_SYMBOL(f);\nstatic DEFINE_MUTEX(lock);\nmodule_init(f);\n",
			"int f(void) { return 0; }\nEXPORT_SYMBOL_GPL(f);\nstatic DEFINE_MUTEX(lock2);\nmodule_init(f);\n", []string{"invocation f", "-invocation lock", "+invocation lock2"}},
		{"invocation without semicolon", "a.c", "DEFINE_SHOW(a)\nEXPORT_ACPI(f)\nstatic int g(void) { return 0; }\n", "DEFINE_SHOW(a)\nEXPORT_ACPI(f)\nstatic int g(void) { return 1; }\n", []string{"function g"}},
		{"list with conditions", "a.c", "ITEM(a)\n#ifdef X\nITEM(b)\n#endif\nITEM(c)\nint x;\n", "ITEM(a)\n#ifdef X\nITEM(d)\n#endif\nITEM(c)\nint x;\n", []string{"-invocation b", "+invocation d"}},
		{"old style", "a.c", "int f(a, b)\nint a;\nchar *b;\n{\n\treturn 0;\n}\n", "int f(a, b)\nint a;\nchar *b;\n{\n\treturn 1;\n}\n", []string{"-invocation ", "+invocation "}},
		{"condition in a body", "a.c", "int f(void)\n{\n#ifdef A\n#ifdef B\n\treturn 1;\n#endif\n#else\n\treturn 2;\n#endif\n}\nint g;\n", "int f(void)\n{\n#ifdef A\n\treturn 1;\n#else\n\treturn 2;\n#endif\n}\nint g;\n", []string{"function f"}},
		{"include in a body", "a.c", "int f(void)\n{\n#include \"x.h\"\n}\n", "int f(void)\n{\n#include \"y.h\"\n}\n", []string{"function f"}},
		{"macro in a type", "a.h", "struct s {\n\tint a;\n#define FLAG 1\n};\n", "struct s {\n\tint a;\n#define FLAG 2\n};\n", []string{"!type s FLAG"}},
		{"braces in comments and strings", "a.c", "int f(void) { /* { */ return '{'; }\nchar *s = \"}\"; // {\nint g;\n", "int f(void) { /* { */ return '}'; }\nchar *s = \"}\"; // {\nint g;\n", []string{"function f"}},
		{"guard", "a.h", "#ifndef A_H\n#define A_H\nint f(int);\n#endif /* A_H */\n", "#ifndef A_H\n#define A_H\nint f(long);\n#endif\n", []string{"declaration f"}},
		{"same conditions", "a.h", "#ifdef A\nint f(int);\n#else\nstatic inline int f(int a) { return 0; }\n#endif\n", "#ifdef A\nint f(int);\n#else\nstatic inline int f(int a) { return 1; }\n#endif\n", []string{"function f"}},
		{"both branches", "a.h", "#ifdef A\nint f(int);\n#else\nstatic inline int f(int a) { return 0; }\n#endif\n", "#ifdef A\nint f(long);\n#else\nstatic inline int f(long a) { return 0; }\n#endif\n", []string{"declaration f", "function f"}},
		{"other condition", "a.h", "int a;\n#ifdef A\nint f(int);\n#endif\n", "int a;\n#if defined(A) || B\nint f(int);\n#endif\n", []string{"declaration f"}},
		{"type under another condition", "a.h", "#ifdef A\nint f(int);\nint g(int);\nstruct s { int a; };\n#endif\n", "#ifdef B\nint f(int);\nint g(int);\nstruct s { long a; };\n#endif\n", []string{"!declaration f g s"}},
		{"condition put around", "a.h", "int f(int);\nint g(int);\n", "#ifdef A\nint f(int);\n#else\nstatic inline int f(int a) { return 0; }\n#endif\nint g(int);\n", []string{"function f"}},
		{"branch added", "a.h", "#ifdef A\nint f(int);\nstruct s { int a; };\n#endif\n", "#ifdef A\nint f(int);\nstruct s { int a; };\n#else\nstatic inline int f(int a) { return 0; }\n#endif\n", []string{"+function f"}},
		{"branches replaced", "a.h", "#if A\nint a;\n#else\nint b;\n#endif\n", "#if A\nint a;\n#elif B\nint c;\n#endif\n", []string{"data b c"}},
		{"second group of that condition", "a.h", "#ifdef A\nint a;\n#endif\n#ifdef A\nint b;\n#endif\n", "#ifdef A\nint b;\n#endif\n", []string{"-data a"}},
		{"two heads", "a.c", "#ifdef A\nint f(int a)\n#else\nint f(void)\n#endif\n{ return 1; }\nint g;\n", "#ifdef A\nint f(int a)\n#else\nint f(void)\n#endif\n{ return 2; }\nint g;\n", []string{"function f"}},
		{"two ends", "a.c", "int f(int a) {\n#ifdef A\n return 1; }\n#else\n return 2; }\n#endif\nint g;\n", "int f(int a) {\n#ifdef A\n return 1; }\n#else\n return 3; }\n#endif\nint g;\n", []string{"function f"}},
		{"macro to function", "a.h", "#define f(x) (x)\nint a;\n", "int a;\nstatic inline int f(int x) { return x; }\n", []string{"function f"}},
		{"moved", "a.c", "int f(void) { return 0; }\nint a;\nint b;\n", "int a;\nint b;\nint f(void) { return 0; }\n", nil},
		{"moved and changed", "a.c", "int f(void) { return 0; }\nint a;\nint b;\n", "int a;\nint b;\nint f(void) { return 1; }\n", []string{"function f"}},
		{"includes", "a.c", "#include <a.h>\n#include <c.h>\n", "#include <a.h>\n#include \"b.h\"\n", []string{"-include c.h", "+include b.h"}},
		{"on one line", "a.h", "struct a; struct b; int x; int y;\n", "struct a; struct c; int x; long y;\n", []string{"-declaration b", "+declaration c", "data y"}},
		{"language", "a.h", "#ifdef __cplusplus\nextern \"C\" {\n#endif\nint f(int);\n#ifdef __cplusplus\n}\n#endif\n", "#ifdef __cplusplus\nextern \"C\" {\n#endif\nint f(long);\n#ifdef __cplusplus\n}\n#endif\n", []string{"declaration f"}},
		{"semicolon", "a.c", "int f(void) { return 0; };\nint g;\n", "int f(void) { return 0; }\nint g;\n", []string{"function f"}},
		{"assertion", "a.c", "static_assert(A == 1);\nint g;\n", "static_assert(A == 2);\nint g;\n", []string{"-invocation static_assert", "+invocation static_assert"}},
		{"pragma", "a.c", "#pragma pack(1)\nint g;\n", "#pragma pack(2)\nint g;\n", []string{"-invocation ", "+invocation "}},
		{"unbalanced", "a.c", "int f(void) {\n", "int f(void) { {\n", []string{"!file "}},
		{"half a condition", "a.c", "#if A\nint f;\n", "#if A\nint g;\n", []string{"!file "}},
		{"struct with its instance in a header", "a.h", "extern struct s { int a; } x;\n", "extern struct s { int b; } x;\n", []string{"!type s x"}},
		{"pointers to functions", "a.c", "static int (*hook)(int);\nvoid (*g(int x))(void) { return 0; }\n", "static int (*hook)(long);\nvoid (*g(int x))(void) { return 1; }\n", []string{"data hook", "function g"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := compare(tt.file, tt.pre, tt.post)
			if diff := cmp.Diff(tt.want, describe(m)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			check(t, m)
		})
	}
}

// TestMixed: where each piece stands with some entities old.
func TestMixed(t *testing.T) {
	for _, tt := range []struct {
		name, pre, post, old, want string
	}{
		{"types old", "struct s { int a; };\nint f(void)\n{\n\treturn 0;\n}\n", "struct s { int a, b; };\nint f(void)\n{\n\treturn 1;\n}\n", "s",
			"struct s { int a; };\nint f(void)\n{\n\treturn 1;\n}\n"},
		{"comments go with their entity", "/* pre */\nint f(void) { return 0; }\n\n/* x */\nint g(void) { return 0; }\n", "/* post */\nint f(void) { return 1; }\n\n/* y */\nint g(void) { return 1; }\n", "f",
			"/* pre */\nint f(void) { return 0; }\n\n/* y */\nint g(void) { return 1; }\n"},
		{"gone one that stays", "int a;\nint f(void) { return 0; }\nint b;\n", "int a;\nint g(void) { return 0; }\nint b;\n", "f",
			"int a;\nint f(void) { return 0; }\nint g(void) { return 0; }\nint b;\n"},
		{"moved one that is old", "int f(void) { return 0; }\nint a;\nint x(void) { return 0; }\n", "int a;\nint f(void) { return 1; }\nint x(void) { return 1; }\n", "f",
			"int a;\nint f(void) { return 0; }\nint x(void) { return 1; }\n"},
		{"branches of one name", "#ifdef A\nint f(void) { return 0; }\n#else\nint f(void) { return 10; }\n#endif\n", "#ifdef A\nint f(void) { return 1; }\n#else\nint f(void) { return 11; }\n#endif\n", "return 10",
			"#ifdef A\nint f(void) { return 1; }\n#else\nint f(void) { return 10; }\n#endif\n"},
		{"no newline at the end", "int a;\nint b;", "int c;\nint b;\nint d;", "a", "int a;\nint c;\nint b;\nint d;\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := compare("a.c", tt.pre, tt.post)
			text, spans := m.write(func(e *Entity) bool { return slices.Contains(e.Names, tt.old) || strings.Contains(e.Pre, tt.old+";") })
			if diff := cmp.Diff(tt.want, text); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			for _, s := range spans {
				if part := text[s.from:s.to]; !strings.Contains(s.ent.Pre, strings.TrimSpace(part)) && !strings.Contains(s.ent.Post, strings.TrimSpace(part)) {
					t.Errorf("%q is not of %v", part, s.ent)
				}
			}
			check(t, m)
		})
	}
}

// little are two trees.
var little = [2]map[string]string{
	{
		"Makefile":        "obj-y := a.o\n",
		"include/a.h":     "#ifndef A_H\n#define A_H\nstruct s {\n\tint a;\n};\nint f(struct s *);\n#define LIMIT 10\n#endif\n",
		"include/old.h":   "struct moved { int a; };\nstatic inline int gone(void) { return 1; }\n",
		"include/new.h":   "int other;\n",
		"kernel/Makefile": "obj-y := a.o\n",
		"kernel/part.c":   "static int part;\n",
		"kernel/a.c":      "#include \"../include/a.h\"\n\nstatic int helper(struct s *s)\n{\n\treturn s->a;\n}\n\nint f(struct s *s)\n{\n\treturn helper(s);\n}\n",
		"kernel/away.c":   "int away;\n",
		"kernel/equal.c":  "int equal;\n",
	},
	{
		"Makefile":        "obj-y := a.o b.o\n",
		"include/a.h":     "#ifndef A_H\n#define A_H\nstruct s {\n\tint a;\n\tint b;\n};\nint f(struct s *, int);\n#define LIMIT 20\n#endif\n",
		"include/old.h":   "int rest;\n",
		"include/new.h":   "int other;\nstruct moved { long a; };\n",
		"kernel/Makefile": "obj-y := a.o\n",
		"kernel/part.c":   "static long part;\n",
		"kernel/a.c":      "#include \"../include/a.h\"\n\nstatic int fresh(struct s *s)\n{\n\treturn s->a + LIMIT;\n}\n\nstatic int helper(struct s *s)\n{\n\treturn s->b;\n}\n\nint f(struct s *s, int x)\n{\n\treturn helper(s) + fresh(s);\n}\n",
		"kernel/b.c":      "int b;\n",
		"kernel/equal.c":  "int equal;\n",
	},
}

func trees(t testing.TB) (pre, post string, files []string) {
	t.Helper()
	dir := t.TempDir()
	var dirs [2]string
	for i, tree := range little {
		dirs[i] = filepath.Join(dir, fmt.Sprint(i))
		var index []string
		for name, text := range tree {
			full := filepath.Join(dirs[i], name)
			if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(full, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			index = append(index, "k 0 0 "+name+"\n")
			if little[1-i][name] != text {
				files = append(files, name)
			}
		}
		slices.Sort(index)
		text := "upsplice tree index 1\n" + strings.Join(index, "")
		if err := os.WriteFile(filepath.Join(dirs[i], ".upsplice.index"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dirs[0], dirs[1], files
}

func TestRead(t *testing.T) {
	pre, post, files := trees(t)
	s, err := Read(t.Context(), pre, post, files)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range s.Entities {
		line := e.String()
		if e.Local {
			line += ", local"
		}
		if e.Frozen() {
			line += ", frozen"
		}
		for _, w := range e.With {
			line += ", with " + w.String()
		}
		got = append(got, line)
	}
	want := []string{
		"type s in include/a.h, frozen",
		"declaration f in include/a.h, with function f in kernel/a.c",
		"macro LIMIT in include/a.h",
		"type moved in include/new.h, frozen, with type moved in include/old.h",
		"type moved in include/old.h, frozen, with type moved in include/new.h",
		"function gone in include/old.h",
		"data rest in include/old.h",
		"function fresh in kernel/a.c, local",
		"function helper in kernel/a.c, local",
		"function f in kernel/a.c, with declaration f in include/a.h",
		"file away in kernel/away.c, frozen",
		"file b in kernel/b.c",
		"data part in kernel/part.c",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	f := s.Named("fresh")
	if len(f) != 1 || f[0].Pre != "" || !strings.HasPrefix(f[0].Post, "static int fresh") {
		t.Fatalf("%v", f)
	}
	if diff := cmp.Diff([]string{"LIMIT", "a", "s"}, f[0].PostRefs); diff != "" {
		t.Errorf("mentions (-want +got):\n%s", diff)
	}
	if _, err := Read(t.Context(), pre, post, []string{"nowhere.c"}); err == nil {
		t.Error("a file that neither tree has is accepted")
	}
}

func TestMake(t *testing.T) {
	pre, post, files := trees(t)
	s, err := Read(t.Context(), pre, post, files)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "mid")
	m, err := s.Make(t.Context(), dir, (*Entity).Frozen)
	if err != nil {
		t.Fatal(err)
	}
	delta := func() (list []string) {
		for _, f := range m.Delta.Files {
			list = append(list, f.Path+" "+f.Kind)
		}
		return list
	}
	want := []string{"Makefile changed", "include/a.h changed", "include/old.h changed", "kernel/a.c changed", "kernel/b.c new", "kernel/part.c changed"}
	if diff := cmp.Diff(want, delta()); diff != "" {
		t.Errorf("delta (-want +got):\n%s", diff)
	}
	text, err := os.ReadFile(filepath.Join(dir, "kernel/a.c"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), "#line ") {
		t.Errorf("the file is not laid out:\n%s", text)
	}
	owners := make(map[string]string)
	for i, l := range strings.Split(string(text), "\n") {
		if e, ok := m.At(filepath.Join(dir, "kernel/a.c"), i+1); ok {
			owners[strings.TrimSpace(l)] = e.Names[0]
		}
	}
	for line, owner := range map[string]string{"return s->a + LIMIT;": "fresh", "return s->b;": "helper", "return helper(s) + fresh(s);": "f", "static int helper(struct s *s)": "helper"} {
		if owners[line] != owner {
			t.Errorf("%q is of %q, want %q", line, owners[line], owner)
		}
	}
	if e, ok := m.At("kernel/a.c", 1); ok {
		t.Errorf("an #include that both have is of %v", e)
	}

	before, err := os.Stat(filepath.Join(dir, "include/a.h"))
	if err != nil {
		t.Fatal(err)
	}
	old := func(e *Entity) bool { return e.Frozen() || e.File == "kernel/a.c" || e.Kind == Whole }
	if err := m.Again(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	want = []string{"Makefile changed", "include/a.h changed", "include/old.h changed", "kernel/part.c changed"}
	if diff := cmp.Diff(want, delta()); diff != "" {
		t.Errorf("delta of the second (-want +got):\n%s", diff)
	}
	after, err := os.Stat(filepath.Join(dir, "include/a.h"))
	if err != nil || !os.SameFile(before, after) {
		t.Errorf("a file that did not change was written: %v", err)
	}
	text, err = os.ReadFile(filepath.Join(dir, "kernel/a.c"))
	if err != nil || string(text) != little[0]["kernel/a.c"] {
		t.Errorf("a file that is old is\n%s, %v", text, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "kernel/b.c")); err == nil {
		t.Error("a new file that is old is there")
	}

	// What is made the one way is what is made the other.
	other := filepath.Join(filepath.Dir(dir), "other")
	m2, err := s.Make(t.Context(), other, old)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(m2.Delta, m.Delta); diff != "" {
		t.Errorf("made at once and in two steps (-want +got):\n%s", diff)
	}
	for _, f := range files {
		a, _ := os.ReadFile(filepath.Join(dir, f))
		b, _ := os.ReadFile(filepath.Join(other, f))
		if string(a) != string(b) {
			t.Errorf("%s differs:\n%s\n%s", f, a, b)
		}
	}
}

func FuzzMerge(f *testing.F) {
	for name := range little[0] {
		f.Add(little[0][name], little[1][name], uint64(5))
	}
	f.Add("#if A\nint f(int a)\n#else\nint f(void)\n#endif\n{ }\nEXPORT(f)\n", "#if A\nint f(int a) {\n#else\nint f(void) {\n#endif\n}\n#define X \\\n 1\nEXPORT(f)\n", uint64(3))
	f.Add("enum { A, B };\nstruct s { int a; } x; struct t;\n", "extern \"C\" {\nenum { B };\n};\nstruct t; struct s { int b; } x;", uint64(2))
	f.Fuzz(func(t *testing.T, pre, post string, bits uint64) {
		m := compare("a.c", pre, post)
		check(t, m)
		n := 0
		text, spans := m.write(func(*Entity) bool { n++; return bits>>(n%64)&1 != 0 })
		last := 0
		for _, s := range spans {
			if s.from < last || s.to < s.from || s.to > len(text) {
				t.Fatalf("span %d to %d of %d, after %d", s.from, s.to, len(text), last)
			}
			last = s.to
		}
		for i, s := range number(text, text, spans) {
			if s.from < 1 || s.to < s.from {
				t.Fatalf("span %d: lines %d to %d", i, s.from, s.to)
			}
		}
	})
}
