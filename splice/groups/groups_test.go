// SPDX-License-Identifier: Apache-2.0

package groups

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/upsplice/upsplice/splice/freeze"
)

// names lists groups by the first names of their entities, those of one group
// joined with blanks; types, declarations and includes on their own are left out.
func names(list []*Group) []string {
	var out []string
	for _, g := range list {
		if !g.Code() {
			continue
		}
		var l []string
		for _, e := range g.Entities {
			if e.Kind != freeze.Declaration && e.Kind != freeze.Include {
				if e.Kind == freeze.Whole {
					l = append(l, e.File)
				} else {
					l = append(l, e.Names[0])
				}
			}
		}
		out = append(out, strings.Join(l, " "))
	}
	return out
}

func TestEdges(t *testing.T) {
	tests := []struct {
		name      string
		pre, post map[string]string
		want      []string
	}{
		{"mere calls join nothing",
			map[string]string{"a.c": "int f(int x)\n{\n\treturn x;\n}\nint g(int x)\n{\n\treturn f(x);\n}\n"},
			map[string]string{"a.c": "int f(int x)\n{\n\treturn x + 1;\n}\nint g(int x)\n{\n\treturn f(x) + 2;\n}\n"},
			[]string{"f", "g"}},
		{"new callee",
			map[string]string{"a.c": "int g(int x)\n{\n\treturn x;\n}\n"},
			map[string]string{"a.c": "static int check(int x)\n{\n\treturn x > 3;\n}\nint g(int x)\n{\n\treturn check(x);\n}\n"},
			[]string{"check g"}},
		{"removed callee binds those that called it",
			map[string]string{"a.c": "static int old(int x) { return x; }\nint f(int x) { return old(x); }\nint g(int x) { return old(x); }\n"},
			map[string]string{"a.c": "int f(int x) { return x; }\nint g(int x) { return x; }\n"},
			[]string{"old f g"}},
		{"new reference to what changed",
			map[string]string{"a.c": "int f(int x) { return x; }\nint g(int x) { return x; }\n"},
			map[string]string{"a.c": "int f(int x) { return x + 1; }\nint g(int x) { return f(x); }\n"},
			[]string{"f g"}},
		{"another signature binds all users",
			map[string]string{"a.c": "int f(int x) { return x; }\nint g(int x) { return f(x) + 1; }\n"},
			map[string]string{"a.c": "int f(long x) { return x; }\nint g(int x) { return f(x) + 2; }\n"},
			[]string{"f g"}},
		{"names of parameters and const are no signature",
			map[string]string{"a.c": "int f(struct s *x) { return x->a; }\nint g(struct s *x) { return f(x) + 1; }\n"},
			map[string]string{"a.c": "static int f(const struct s *y) { return y->a; }\nint g(struct s *x) { return f(x) + 2; }\n"},
			[]string{"f", "g"}},
		{"a static function of another file is another one",
			map[string]string{"a.c": "static int f(int x) { return x; }\n", "b.c": "int g(int x) { return x; }\n"},
			map[string]string{"a.c": "static int f(int x) { return x + 1; }\n", "b.c": "int g(int x) { return f(x); }\n"},
			[]string{"f", "g"}},
		{"an extern function of another file",
			map[string]string{"a.c": "int f(int x) { return x; }\n", "b.c": "int g(int x) { return x; }\n"},
			map[string]string{"a.c": "int f(int x) { return x + 1; }\n", "b.c": "int g(int x) { return f(x); }\n"},
			[]string{"f g"}},
		{"a local one hides an extern one",
			map[string]string{"a.c": "int f(int x) { return x; }\n", "b.c": "static int f(int x) { return 0; }\nint g(int x) { return x; }\n"},
			map[string]string{"a.c": "int f(int x) { return x + 1; }\n", "b.c": "static int f(int x) { return 1; }\nint g(int x) { return f(x); }\n"},
			[]string{"f", "f g"}},
		{"a variable hides a function",
			map[string]string{"a.c": "int index(int x) { return x; }\n", "b.c": "int g(int x) { return x; }\n"},
			map[string]string{"a.c": "int index(int x) { return x + 1; }\n", "b.c": "int g(int x) { int index = x; return index; }\n"},
			[]string{"index", "g"}},
		{"a new member binds its users, by the type of the variable",
			map[string]string{"include/linux/s.h": "struct s {\n\tint a;\n};\nstruct other {\n\tint b;\n};\n", "k/a.c": "int f(struct s *x) { return 0; }\n", "k/b.c": "int g(struct s *x) { return 1; }\n", "k/c.c": "int h(struct other *x) { return 1; }\n"},
			map[string]string{"include/linux/s.h": "struct s {\n\tint a;\n\tint state;\n};\nstruct other {\n\tint b;\n};\n", "k/a.c": "int f(struct s *x) { x->state = 1; return 0; }\n", "k/b.c": "int g(struct s *x) { return x->state; }\n", "k/c.c": "int h(struct other *x) { return x->state; }\n"},
			[]string{"f g", "h"}},
		{"users of two new members are two groups",
			map[string]string{"s.h": "struct s {\n\tint a;\n};\n", "a.c": "int f(struct s *x) { return 0; }\nint g(struct s *x) { return 1; }\n"},
			map[string]string{"s.h": "struct s {\n\tint a;\n\tint m1, m2;\n};\n", "a.c": "int f(struct s *x) { return x->m1; }\nint g(struct s *x) { return x->m2; }\n"},
			[]string{"f", "g"}},
		{"a removed member binds those that used it",
			map[string]string{"s.h": "struct s {\n\tint a, gone;\n};\n", "a.c": "void f(struct s *x) { x->gone = 1; }\nint g(struct s *x) { return x->gone; }\n"},
			map[string]string{"s.h": "struct s {\n\tint a;\n};\n", "a.c": "void f(struct s *x) { }\nint g(struct s *x) { return 1; }\n"},
			[]string{"f g"}},
		{"common names of members in unrelated files",
			map[string]string{"drivers/a/s.h": "struct s {\n\tint a;\n};\n", "drivers/a/a.c": "int f(struct s *x) { return 0; }\n", "net/b.c": "int g(struct t *x) { return 0; }\n", "net/c.c": "int h(void) { return y()->list; }\n"},
			map[string]string{"drivers/a/s.h": "struct s {\n\tint a, list;\n};\n", "drivers/a/a.c": "int f(struct s *x) { return x->list; }\n", "net/b.c": "int g(struct t *x) { return x->list; }\n", "net/c.c": "int h(void) { return y()->list + 1; }\n"},
			[]string{"f", "g", "h"}},
		{"export with its function",
			map[string]string{"a.c": "int f(int x) { return x; }\n"},
			map[string]string{"a.c": "int f(int x) { return x + 1; }\nEXPORT_SYMBOL_GPL(f);\n"},
			[]string{"f f"}},
		{"lock that is defined with its users",
			map[string]string{"a.c": "int f(int x) { return x; }\n"},
			map[string]string{"a.c": "static DEFINE_MUTEX(m);\nint f(int x) { mutex_lock(&m); mutex_unlock(&m); return x; }\n"},
			[]string{"m f"}},
		{"attribute with what it calls by a pasted name",
			map[string]string{"a.c": "int f(int x) { return x; }\n"},
			map[string]string{"a.c": "int f(int x) { return x + 1; }\nstatic int state_show(void) { return 1; }\nDEFINE_SHOW_ATTRIBUTE(state);\n"},
			[]string{"f", "state_show state"}},
		{"moved function",
			map[string]string{"a.c": "static int f(int x) { return x; }\n", "b.c": "int g(void) { return 0; }\n"},
			map[string]string{"a.c": "int k;\n", "b.c": "static int f(int x) { return x; }\nint g(void) { return 1; }\n"},
			[]string{"f f", "k", "g"}},
		{"a new file and what calls into it",
			map[string]string{"a.c": "int f(int x) { return x; }\nint g(int x) { return x; }\n"},
			map[string]string{"a.c": "int f(int x) { return fresh(x); }\nint g(int x) { return x + 1; }\n", "new.c": "static int own;\nint fresh(int x) { return own; }\n"},
			[]string{"f new.c", "g"}},
		{"changed macro: only who newly uses it",
			map[string]string{"a.c": "#define M(x) (x)\nint f(int x) { return M(x); }\nint g(int x) { return x; }\n"},
			map[string]string{"a.c": "#define M(x) ((x) + y())\nint f(int x) { return M(x) + 1; }\nint g(int x) { return M(x); }\n"},
			[]string{"M g", "f"}},
		{"callback whose pointer has another signature",
			map[string]string{"s.h": "struct ops {\n\tint (*dump)(struct skb *skb);\n};\n", "a.c": "static int a_dump(struct skb *skb) { return 0; }\n", "b.c": "int call(struct ops *o, struct skb *s) { return o->dump(s); }\n"},
			map[string]string{"s.h": "struct ops {\n\tint (*dump)(struct skb *skb, bool reset);\n};\n", "a.c": "static int a_dump(struct skb *skb, bool reset) { return reset; }\n", "b.c": "int call(struct ops *o, struct skb *s) { return o->dump(s, true); }\n"},
			[]string{"a_dump call"}},
		{"lock that moves into the caller",
			map[string]string{"a.c": "static int inner(struct s *x) { mutex_lock(&x->m); mutex_unlock(&x->m); return 0; }\nint outer(struct s *x) { return inner(x); }\n"},
			map[string]string{"a.c": "static int inner(struct s *x) { return 0; }\nint outer(struct s *x) { int r; mutex_lock(&x->m); r = inner(x); mutex_unlock(&x->m); return r; }\n"},
			[]string{"inner outer"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, names(Make(changes(t, tt.pre, tt.post)))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestPrototype(t *testing.T) {
	g := New(changes(t,
		map[string]string{"include/linux/f.h": "int f(int x);\n", "a.c": "int f(int x) { return x; }\n"},
		map[string]string{"include/linux/f.h": "int f(int x, int y);\n", "a.c": "int f(int x, int y) { return x + y; }\n"}), Options{})
	if n := len(g.Groups()); n != 1 {
		t.Errorf("%d groups, want the prototype with its definition", n)
	}
}

func TestIncludeOfNewFile(t *testing.T) {
	list := changes(t,
		map[string]string{"net/a.c": "int f(int x) { return x; }\n"},
		map[string]string{"net/a.c": "#include \"fresh.h\"\nint f(int x) { return x + 1; }\n", "net/fresh.h": "#define FRESH 1\n"})
	g := New(list, Options{})
	if g.Group(named(t, list, "fresh.h")) != g.Group(named(t, list, "net/fresh.h")) || g.Group(named(t, list, "f")) == g.Group(named(t, list, "net/fresh.h")) {
		t.Errorf("groups %v", names(g.Groups()))
	}
}

func TestWhyAndJoin(t *testing.T) {
	list := changes(t,
		map[string]string{"a.c": "int f(int x) { return x; }\nint g(int x) { return x; }\nint h(int x) { return x; }\n"},
		map[string]string{"a.c": "static int n(int x) { return x; }\nint f(int x) { return n(x); }\nint g(int x) { return n(x); }\nint h(int x) { return x + 1; }\n"})
	g := New(list, Options{})
	f, gg, h := named(t, list, "f"), named(t, list, "g"), named(t, list, "h")
	way := g.Why(f, gg)
	if len(way) != 2 || way[0].Name != "n" || way[1].Why != WhyNew {
		t.Errorf("way %+v", way)
	}
	if g.Why(f, h) != nil || g.Group(f) == g.Group(h) {
		t.Error("f and h are joined")
	}
	g.Join(f, h, "asked for")
	if g.Group(gg) != g.Group(h) || len(g.Group(h).Entities) != 4 || len(g.Groups()) != 1 {
		t.Error("the caller's edge does not join")
	}
	if g.Group(&freeze.Entity{}) != nil {
		t.Error("a group for what is not there")
	}
}

func TestStable(t *testing.T) {
	pre := map[string]string{"s.h": "struct s {\n\tint a;\n};\n", "a.c": "int f(struct s *x) { return 0; }\nint g(struct s *x) { return 1; }\nint h(void) { return 0; }\n"}
	post := map[string]string{"s.h": "struct s {\n\tint a;\n\tint m;\n};\n", "a.c": "int f(struct s *x) { get_s(x); return x->m; }\nint g(struct s *x) { put_s(x); return x->m; }\nint h(void) { return f(0) + g(0); }\n"}
	list := changes(t, pre, post)
	want := New(list, Options{})
	for range 20 {
		got := New(list, Options{})
		if !slices.Equal(got.Edges(), want.Edges()) {
			t.Fatalf("edges %v, then %v", want.Edges(), got.Edges())
		}
		for i, gr := range got.Groups() {
			if !slices.Equal(gr.Entities, want.Groups()[i].Entities) || !slices.Equal(gr.Reasons, want.Groups()[i].Reasons) {
				t.Fatalf("group %d differs", i)
			}
		}
	}
}
