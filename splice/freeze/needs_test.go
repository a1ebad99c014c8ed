// SPDX-License-Identifier: Apache-2.0

package freeze

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// errorsOf compiles a text as the kernel does and returns what the compiler says.
func errorsOf(t *testing.T, dir, name string, options ...string) string {
	t.Helper()
	args := append([]string{"-std=gnu11", "-Werror=implicit-function-declaration", "-Werror=incompatible-pointer-types", "-Werror=int-conversion",
		"-fno-diagnostics-show-caret", "-S", "-o", "/dev/null", name}, options...)
	cmd := exec.Command("gcc", args...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C"}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err == nil || !errors.As(err, &exit) {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

func TestNeeds(t *testing.T) {
	const head = "struct s { int a; }; typedef struct s *sp; struct i; int f(int, struct s *); #define M(x) ((x)->b)\n"
	for _, tt := range []struct {
		text string
		want Need // without its place
	}{
		{"int g(struct s *p) { return p->b; }", Need{Kind: Member, Name: "b", Detail: "struct s", Function: "g"}},
		{"int g(const struct s *p) { return p->b; }", Need{Kind: Member, Name: "b", Detail: "struct s", Function: "g"}},
		{"typedef struct { int a; } t; int g(t *p) { return p->b; }", Need{Kind: Member, Name: "b", Detail: "t", Function: "g"}},
		{"struct s x = { .b = 1 };", Need{Kind: Member, Name: "b", Detail: "struct s"}},
		{"int g(int p) { return p.b; }", Need{Kind: Member, Name: "b", Detail: "request for member 'b' in something not a structure or union", Function: "g"}},
		{"int g(struct i *p) { return p->b; }", Need{Kind: MissingType, Name: "i", Function: "g"}},
		{"int g(void) { return sizeof(struct i); }", Need{Kind: MissingType, Name: "i", Function: "g"}},
		{"fresh_t x;", Need{Kind: MissingType, Name: "fresh_t"}},
		{"struct i x;", Need{Kind: MissingType, Detail: "x"}},
		{"int g(void) { return FRESH; }", Need{Kind: Symbol, Name: "FRESH", Function: "g"}},
		{"int x = FRESH;", Need{Kind: Symbol, Name: "FRESH"}},
		{"int g(void) { return fresh(); }", Need{Kind: Symbol, Name: "fresh", Function: "g"}},
		{"int g(void) { return f(1); }", Need{Kind: Prototype, Name: "f", Detail: "too few arguments to function 'f'", Function: "g"}},
		{"int g(void) { return f(1, 0, 2); }", Need{Kind: Prototype, Name: "f", Detail: "too many arguments to function 'f'", Function: "g"}},
		{"int g(struct i *i) { return f(1, i); }", Need{Kind: Prototype, Name: "f", Detail: "passing argument 2 of 'f' from incompatible pointer type", Function: "g"}},
		{"int g(void) { return f(\"\", 0); }", Need{Kind: Prototype, Name: "f", Detail: "passing argument 1 of 'f' makes integer from pointer without a cast", Function: "g"}},
		{"long f(int);", Need{Kind: Prototype, Name: "f"}},
		{"int *g(int a) { return a; }", Need{Kind: Prototype, Function: "g"}},
		{"struct s { int b; };", Need{Kind: Redefinition, Name: "s", Detail: "redefinition of 'struct s'"}},
		{"int g(void) { return 0; } int g(void) { return 0; }", Need{Kind: Redefinition, Name: "g", Detail: "redefinition of 'g'"}},
		{"#define F(x) x\nint x = F(1, 2);", Need{Kind: Prototype, Name: "F"}},
		{"#include <fresh/fresh.h>", Need{Kind: Header, Name: "fresh/fresh.h"}},
		{"int g(void) { return 1 1; }", Need{Kind: Other, Function: "g"}},
	} {
		t.Run(tt.text, func(t *testing.T) {
			dir := t.TempDir()
			text := strings.Replace(head, " #define", "\n#define", 1) + tt.text + "\n"
			if err := os.WriteFile(filepath.Join(dir, "a.c"), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			list := Needs(errorsOf(t, dir, "a.c"))
			if len(list) == 0 {
				t.Fatal("no error found")
			}
			got := list[0]
			if got.File != "a.c" || got.Line < 3 {
				t.Errorf("it stands at %v", got.Place)
			}
			got.Place = Place{}
			if tt.want.Detail == "" {
				got.Detail = ""
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestBlame compiles a merged tree until it compiles.
func TestBlame(t *testing.T) {
	type tree = map[string]string
	for _, tt := range []struct {
		name      string
		pre, post tree
		want      []string // that are old in the end, beside those that always are
		more      []string // old from the beginning
	}{
		{"member in a function", tree{"a.h": "struct s { int a; };\n", "a.c": "#include \"a.h\"\nint f(struct s *s) { return 0; }\nint g(void) { return 0; }\n"},
			tree{"a.h": "struct s { int a, b; };\n", "a.c": "#include \"a.h\"\nint f(struct s *s) { return s->b; }\nint g(void) { return 1; }\n"}, []string{"function f in a.c"}, nil},
		{"member in a macro", tree{"a.h": "struct s { int a; };\n#define GET(s) (s)->a\n", "a.c": "#include \"a.h\"\nint f(struct s *s) { return GET(s); }\n"},
			tree{"a.h": "struct s { int a, b; };\n#define GET(s) (s)->b\n", "a.c": "#include \"a.h\"\nint f(struct s *s) { return GET(s) + 1; }\n"}, []string{"macro GET in a.h"}, nil},
		{"member as an argument of a macro", tree{"a.h": "struct s { int a; };\n#define GET(s, m) (s)->m\n", "a.c": "#include \"a.h\"\nint f(struct s *s) { return GET(s, a); }\n"},
			tree{"a.h": "struct s { int a, b; };\n#define GET(s, m) (s)->m\n", "a.c": "#include \"a.h\"\nint f(struct s *s) { return GET(s, b); }\n"}, []string{"function f in a.c"}, nil},
		{"an inline function and its user", tree{"a.h": "struct s { int a; };\n", "a.c": "#include \"a.h\"\nint f(struct s *s) { return 0; }\nint g(void) { return 0; }\n"},
			tree{"a.h": "struct s { int a, b; };\nstatic inline int get(struct s *s) { return s->b; }\n", "a.c": "#include \"a.h\"\nint f(struct s *s) { return get(s); }\nint g(void) { return 1; }\n"},
			[]string{"function get in a.h", "function f in a.c"}, nil},
		{"a prototype", tree{"a.h": "int f(int);\n", "a.c": "#include \"a.h\"\nint f(int a) { return a; }\nint g(void) { return f(1); }\nint h(void) { return f(2); }\n"},
			tree{"a.h": "int f(int, int);\n", "a.c": "#include \"a.h\"\nint f(int a, int b) { return a; }\nint g(void) { return f(1, 1); }\nint h(void) { return f(2, 2); }\n"},
			[]string{"declaration f in a.h", "function f in a.c", "function g in a.c", "function h in a.c"}, []string{"g"}},
		{"what an old function calls", tree{"a.h": "static inline int gone(void) { return 0; }\n", "a.c": "#include \"a.h\"\nint f(void) { return gone(); }\n"},
			tree{"a.h": "int x;\n", "a.c": "#include \"a.h\"\nint f(void) { return 1; }\n"}, []string{"function gone in a.h", "function f in a.c"}, []string{"f"}},
		{"a type that a function has to fit", tree{"a.h": "typedef int (*fn)(int);\nstruct ops { fn f; };\nint f(int);\n", "a.c": "#include \"a.h\"\nint f(int a) { return 0; }\nvoid g(struct ops *o) { o->f = f; }\n"},
			tree{"a.h": "typedef void (*fn)(int *);\nstruct ops { fn f; };\nvoid f(int *);\n", "a.c": "#include \"a.h\"\nvoid f(int *a) { }\nvoid g(struct ops *o) { o->f = f; }\n"}, []string{"declaration f in a.h", "function f in a.c"}, nil},
		{"a renamed constant of an enum", tree{"a.h": "enum e { A, B };\n", "a.c": "#include \"a.h\"\nint f(void) { return B; }\n"},
			tree{"a.h": "enum e { A, C };\n", "a.c": "#include \"a.h\"\nint f(void) { return C; }\n"}, []string{"function f in a.c"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := &Made{source: &Source{named: make(map[string][]*Entity)}, dir: t.TempDir(), files: make(map[string]*made)}
			for _, f := range []string{"a.h", "a.c"} {
				c := compare(f, tt.pre[f], tt.post[f])
				m.source.files = append(m.source.files, c)
				m.source.Entities = append(m.source.Entities, c.ents...)
			}
			m.source.index()
			back := make(map[*Entity]bool)
			for _, n := range tt.more {
				back[m.source.Named(n)[0]] = true
			}
			for round := 0; ; round++ {
				changes, err := m.merge(t.Context(), func(e *Entity) bool { return e.Frozen() || back[e] })
				if err != nil {
					t.Fatal(err)
				}
				for name, c := range changes {
					if err := os.WriteFile(filepath.Join(m.dir, name), c.Text, 0o644); err != nil {
						t.Fatal(err)
					}
				}
				cmd := exec.Command("gcc", "-fsyntax-only", "-Werror=implicit-function-declaration", "-Werror=incompatible-pointer-types", "a.c")
				cmd.Dir = m.dir
				if cmd.Run() == nil {
					break
				}
				if round == 5 {
					t.Fatal("it does not compile")
				}
				list, left := m.Blame(Needs(errorsOf(t, m.dir, filepath.Join(m.dir, "a.c"), "-DUPSPLICE_PHYSICAL_LINES")))
				if len(left) > 0 || len(list) == 0 {
					t.Fatalf("nothing to put back for %+v", left)
				}
				for _, e := range list {
					back[e] = true
				}
			}
			var got []string
			for _, e := range m.source.Entities {
				if back[e] {
					got = append(got, e.String())
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func FuzzNeeds(f *testing.F) {
	f.Add("a.c: In function 'f':\na.c:1:2: error: 'struct s' has no member named 'b'; did you mean 'a'?\na.h:3:4: note: in expansion of macro 'M'\n")
	f.Add("a.c:1:2: error: 's' {aka 'struct s'} has no member named 'b'\r\na.c:9: fatal error: x.h: No such file or directory\na.c: At top level:\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, n := range Needs(text) {
			if n.Kind == "" || n.File == "" || n.Line < 0 {
				t.Errorf("%+v", n)
			}
		}
	})
}
