// SPDX-License-Identifier: Apache-2.0

package groups

import (
	"slices"
	"strings"
	"testing"

	"github.com/upsplice/upsplice/splice/freeze"
)

// A walk whose state lives on the stack of one function.
const (
	briefPre = `struct walk {
	int at;
};
struct holder {
	int n;
};
static int step(struct walk *w)
{
	return w->at++;
}
int run(int n)
{
	struct walk w = { .at = n };

	while (step(&w))
		;
	return w.at;
}
`
	briefPost = `struct walk {
	int at;
	int end;
};
struct holder {
	int n;
};
static int step(struct walk *w)
{
	return w->at++ < w->end;
}
int run(int n)
{
	struct walk w = { .at = n, .end = 9 };

	while (step(&w))
		;
	return w.at;
}
`
)

func briefGraph(t *testing.T, pre, post map[string]string) (*Graph, []*freeze.Entity) {
	list := changes(t, pre, post)
	return New(list, Options{
		Text: func(file string, isPost bool) string {
			if isPost {
				return post[file]
			}
			return pre[file]
		},
		Mentions: func(tags []string) map[string][]string {
			names := set(tags...)
			out := make(map[string][]string)
			for _, m := range []map[string]string{pre, post} {
				for file, text := range m {
					for _, tag := range Mentioned(text, names) {
						out[tag] = append(out[tag], file)
					}
				}
			}
			return out
		},
	}), list
}

func TestBriefType(t *testing.T) {
	other := "int other(struct walk *w)\n{\n\treturn w->at;\n}\n"
	g, list := briefGraph(t, map[string]string{"k/a.h": briefPre[:26], "k/a.c": briefPre[26:], "k/b.c": other},
		map[string]string{"k/a.h": briefPost[:36], "k/a.c": briefPost[36:], "k/b.c": other + "int more(struct walk *w)\n{\n\treturn other(w);\n}\n"})
	gr := g.Group(named(t, list, "walk"))
	if len(gr.Reasons) != 0 || len(gr.Types) != 1 || gr.Types[0].Names[0] != "walk" {
		t.Fatalf("group %+v", gr)
	}
	for _, name := range []string{"step", "run", "more"} {
		if g.Group(named(t, list, name)) != gr {
			t.Errorf("%s is not in the group of the type", name)
		}
	}
	if !slices.Equal(gr.Users, []string{"k/a.c", "k/a.h", "k/b.c"}) {
		t.Errorf("users %v", gr.Users)
	}
	// Without the other files nothing can be said.
	if gr := New(list, Options{}).Group(named(t, list, "run")); len(gr.Types) != 0 || len(gr.Reasons) == 0 || gr.Reasons[0].Code != CodeMember {
		t.Errorf("group %+v without the texts", gr)
	}
}

// Each of these lets an object live longer, or be seen by others.
func TestLongLived(t *testing.T) {
	tests := map[string]string{
		"allocated":                "void f(void)\n{\n\tstruct walk *w = kzalloc(sizeof(*w), 1);\n}\n",
		"allocated by name":        "void f(void)\n{\n\tvoid *p = kzalloc(sizeof(struct walk), 1);\n}\n",
		"size without brackets":    "void f(struct walk *w)\n{\n\tvoid *p = kzalloc(sizeof *w, 1);\n}\n",
		"result of a call":         "void f(void)\n{\n\tstruct walk *w = get_walk();\n}\n",
		"assigned later":           "void f(void)\n{\n\tstruct walk *w;\n\tw = get_walk();\n}\n",
		"from private data":        "void f(struct holder *h)\n{\n\tstruct walk *w = h->priv;\n}\n",
		"cast":                     "int f(char *cb)\n{\n\treturn ((struct walk *)cb)->at;\n}\n",
		"global":                   "static struct walk one;\n",
		"global with a value":      "static struct walk one = { .at = 1 };\n",
		"table":                    "struct walk many[4];\n",
		"static in a function":     "void f(void)\n{\n\tstatic struct walk w;\n}\n",
		"member":                   "struct big {\n\tstruct walk w;\n};\n",
		"pointer in another type":  "struct big {\n\tstruct walk *w;\n};\n",
		"stored":                   "void f(struct walk *w, struct holder *h)\n{\n\th->w = w;\n}\n",
		"address stored":           "void f(struct holder *h)\n{\n\tstruct walk w;\n\th->w = &w;\n}\n",
		"stored in an initialiser": "void f(struct walk *w)\n{\n\tstruct holder h = { .w = w };\n}\n",
		"stored in an array":       "void f(struct walk *w)\n{\n\ttable[0] = w;\n}\n",
		"another variable":         "void f(struct walk *w)\n{\n\tvoid *p = w;\n\tkeep(p);\n}\n",
		"returned":                 "void *f(struct walk *w)\n{\n\treturn w;\n}\n",
		"result":                   "struct walk *f(void);\n",
		"passed to anything":       "void f(struct walk *w)\n{\n\tqueue(w);\n}\n",
		"address of a member":      "void f(struct walk *w)\n{\n\tqueue(&w->at);\n}\n",
		"passed as data":           "void f(void)\n{\n\tstruct walk w;\n\ton_each_cpu(fn, &w, 1);\n}\n",
		"copied":                   "void f(struct walk *w, struct holder *h)\n{\n\t*h->copy = *w;\n}\n",
		"copied as bytes":          "void f(struct walk *w, void *p)\n{\n\tmemcpy(p, w, 8);\n}\n",
		"macro":                    "#define WALK(p) ((struct walk *)(p)->cb)\n",
		"trace event":              "TRACE_EVENT(walked, TP_PROTO(struct walk *w), TP_ARGS(w));\n",
		"pointer to pointer":       "void f(struct walk **w)\n{\n}\n",
		"two of one name":          "void f(struct walk *w)\n{\n\tif (w) {\n\t\tstruct holder *w = x();\n\t}\n\tqueue(w);\n}\n",
		"several":                  "void f(void)\n{\n\tstruct walk a, *b = x(), **c;\n}\n",
		"pointer per cpu":          "static DEFINE_PER_CPU(struct walk *, one);\n",
		"per cpu":                  "static DEFINE_PER_CPU(struct walk, one);\n",
	}
	for name, text := range tests {
		t.Run(name, func(t *testing.T) {
			g, list := briefGraph(t, map[string]string{"k/a.c": briefPre + text}, map[string]string{"k/a.c": briefPost + text})
			gr := g.Group(named(t, list, "run"))
			if len(gr.Types) != 0 || len(gr.Reasons) == 0 || gr.Reasons[0].Code != CodeMember {
				t.Errorf("types %v, reasons %v", gr.Types, gr.Reasons)
			}
		})
	}
	t.Run("linked", func(t *testing.T) {
		g, list := briefGraph(t, map[string]string{"k/a.c": strings.Replace(briefPre, "int at;", "int at;\n\tstruct list_head list;", 1)}, map[string]string{"k/a.c": strings.Replace(briefPost, "int at;", "int at;\n\tstruct list_head list;", 1)})
		if gr := g.Group(named(t, list, "run")); len(gr.Types) != 0 {
			t.Errorf("types %v", gr.Types)
		}
	})
	t.Run("its group is deferred", func(t *testing.T) {
		more := "int body(void *data)\n{\n\tstruct walk w;\n\twhile (!kthread_should_stop())\n\t\tstep(&w);\n\treturn 0;\n}\n"
		g, list := briefGraph(t, map[string]string{"k/a.c": briefPre + more}, map[string]string{"k/a.c": briefPost + strings.Replace(more, "return 0", "return 1", 1)})
		if gr := g.Group(named(t, list, "body")); len(gr.Types) != 0 || len(gr.Entities) != 1 {
			t.Errorf("group %+v", gr)
		}
	})
}
