// SPDX-License-Identifier: Apache-2.0

package reach

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/upsplice/upsplice/splice/kbuild"
)

// little is a tree with one of each thing that headers have.
var little = map[string]string{
	"include/linux/a.h": `#ifndef A_H
#define A_H
#include <linux/base.h>
#define LIMIT 5
#define twice(x) \
	((x) + /* a comment */ (x))
static inline int helper(int x)
{
	return x + 1;
}
static inline int plain(int x) { return x; }
int outside(int x);
struct inner { int first; int second; };
struct point { int p1; struct inner *in; unsigned bits : 3; int p2; };
enum color { RED, GREEN, BLUE };
typedef struct inner inner_t;
extern const char *message;
#ifdef CONFIG_SOME
static inline int some(void) { return 1; }
#else
static inline int some(void) { return 0; }
#endif
DEFINE_THING(gadget, int);
static inline int op_add(int x) { return x; }
static inline int op_sub(int x) { return -x; }
#endif
`,
	"include/linux/base.h": `#define DEFINE_THING(name, t) static inline t name##_get(void) { return 0; } static inline t name##_put(void) { return 0; }
#define NAME_OF(f) call_##f
#define apply(f, x) op_##f(x)
#define chosen(f, x) apply(f, x)
#define BASE 1
`,
	"include/linux/b.h": `#include <linux/a.h>
struct outer { int o1; struct inner embedded; int o2; };
struct same { int s1; struct inner inner; int s2; };
struct holder { struct point *where; int h2; };
static inline int wrapper(int x) { return helper(x); }
#define deep(x) wrapper(x)
#define LARGE (LIMIT * 2)
struct array { char before; char text[LARGE]; char after; };
static inline int hidden(struct holder *h) { return h->where->p2; }
`,
	"include/trace/events/t.h": `#if !defined(T_H) || defined(TRACE_HEADER_MULTI_READ)
#define T_H
#include <linux/tracepoint.h>
TRACE_EVENT(happened, TP_PROTO(int x), TP_fast_assign(__entry->x = helper(x);));
#endif
#include <trace/define_trace.h>
`,
	"include/trace/define_trace.h": "#undef CREATE_TRACE_POINTS\n",
	"include/linux/tracepoint.h":   "#include <linux/a.h>\n#define TRACE_EVENT(name, proto, assign) static inline void trace_##name(int x) { }\n",
	"include/linux/list.def.h":     "ITEM(one)\nITEM(two)\n",
	"net/local.h":                  "#define LOCAL 1\n",
	"net/none.c":                   "#include <linux/b.h>\nint none(void) { return plain(BASE); }\n",
	"net/direct.c":                 "#include <linux/a.h>\nint direct(void) { return helper(1); }\n",
	"net/macro.c":                  "#include <linux/a.h>\nint macro(void) { return twice(1); }\n",
	"net/deep.c":                   "#include <linux/b.h>\nint f(void) { return deep(1); }\n",
	"net/pasted.c":                 "#include <linux/a.h>\nint f(void) { return chosen(add, 1); }\n",
	"net/gadget.c":                 "#include <linux/a.h>\nint f(void) { return gadget_put(); }\n",
	"net/member.c":                 "#include <linux/b.h>\nint f(struct holder *h) { return h->where->p2; }\n",
	"net/hidden.c":                 "#include <linux/b.h>\nextern void *g(void);\nint f(void) { return hidden(g()); }\n",
	"net/outer.c":                  "#include <linux/b.h>\nint f(struct outer *o) { return o->o2; }\n",
	"net/same.c":                   "#include <linux/b.h>\nint f(struct same *o) { return o->s1; }\n",
	"net/array.c":                  "#include <linux/b.h>\nint f(struct array *o) { return o->after; }\n",
	"net/typedef.c":                "#include <linux/a.h>\nint f(inner_t *o) { return o->second; }\n",
	"net/enum.c":                   "#include <linux/a.h>\nint f(void) { return BLUE; }\n",
	"net/first.c":                  "#include <linux/a.h>\nint f(void) { return RED; }\n",
	"net/some.c":                   "#include <linux/a.h>\nint f(void) { return some(); }\n",
	"net/proto.c":                  "#include <linux/a.h>\nint f(void) { return outside(2); }\n",
	"net/trace.c":                  "#include <trace/events/t.h>\nint f(void) { trace_happened(2); return 0; }\n",
	"net/create.c":                 "#define CREATE_TRACE_POINTS\n#include <trace/events/t.h>\n",
	"net/list.c":                   "#define ITEM(x) int x;\n#include <linux/list.def.h>\n",
	"net/asm.S":                    "#include <linux/a.h>\n\tmov $LIMIT, %eax\n",
	"net/whole.c":                  "#include \"part.c\"\n",
	"net/part.c":                   "#include \"local.h\"\n#include <linux/a.h>\nint f(void) { return helper(LOCAL); }\n",
	"net/option.c":                 "#include <linux/a.h>\nint f(void) { return OPTION; }\n",
	"net/blind.c":                  "static int helper(int x) { return x; }\nint f(void) { return helper(1); }\n",
}

func write(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func littleUnits(dir string) []kbuild.Unit {
	var units []kbuild.Unit
	for _, name := range slices.Sorted(maps.Keys(little)) {
		ext := filepath.Ext(name)
		if ext == ".h" || name == "net/part.c" {
			continue
		}
		u := kbuild.Unit{Object: strings.TrimSuffix(name, ext) + ".o", Source: name,
			Args: []string{"cc", "-nostdinc", "-I" + dir + "/include", "-I./include", "-c", "-o", "x.o", dir + "/" + name}}
		if name == "net/option.c" {
			u.Args = append(u.Args, "-DOPTION=helper(3)")
		}
		units = append(units, u)
	}
	return units
}

// TestOldStays: a header that includes one more is a change of all who include it,
// but not for callers whose units may stay as they are.
func TestOldStays(t *testing.T) {
	dir := t.TempDir()
	pre, post := filepath.Join(dir, "pre"), filepath.Join(dir, "post")
	edited := maps.Clone(little)
	edited["include/linux/a.h"] = strings.NewReplacer("#define A_H\n", "#define A_H\n#include <linux/pipe.h>\n", "x + 1;", "x + 2;").Replace(edited["include/linux/a.h"])
	write(t, pre, little)
	write(t, post, edited)
	for stays, want := range map[bool]int{true: 6, false: 20} {
		trees := Trees{Pre: pre, Post: post, OldStays: stays}
		list, err := Changes(t.Context(), trees, []string{"include/linux/a.h"})
		if err != nil {
			t.Fatal(err)
		}
		found, err := Units(t.Context(), trees, littleUnits(pre), list)
		if err != nil {
			t.Fatal(err)
		}
		if len(list) != 1 || list[0].Whole == stays || stays && len(found) != want || !stays && len(found) < want {
			t.Errorf("with OldStays %v: %d units, %+v", stays, len(found), list)
		}
	}
}

func TestUnits(t *testing.T) {
	const a, b = "include/linux/a.h", "include/linux/b.h"
	for _, tt := range []struct {
		name, header, old, now string
		want                   string // names of units in net/
	}{
		{"comment", a, "a comment", "another one", ""},
		{"white space", a, "int x)\n{\n\treturn x + 1", "int x) {\n\n\n return x+1", ""},
		{"continued line", a, "twice(x) \\\n", "twice(x) ", ""},
		{"forward declaration", a, "int outside", "struct nothing;\nint outside", ""},
		{"inline function", a, "x + 1;", "x + 2;", "create deep direct option trace whole"},
		{"macro", a, "((x) + ", "(1 + (x) + ", "macro"},
		{"constant", a, "LIMIT 5", "LIMIT 6", "array asm"},
		{"new macro that hides a function", a, "int outside", "#define plain(x) 3\nint outside", "none"},
		{"prototype", a, "int outside(int x)", "long outside(int x)", "proto"},
		{"member at the end", a, "int second;", "int second; int third;", "outer same typedef"},
		{"member in front", a, "int p1;", "int p0; int p1;", "hidden member"},
		{"bit field", a, "bits : 3", "bits : 4", "hidden member"},
		{"enum, last", a, "GREEN, BLUE", "GREEN, BLUE, GREY", ""},
		{"enum, middle", a, "GREEN, BLUE", "GREEN, GREY, BLUE", "enum"},
		{"enum, first", a, "{ RED", "{ BLACK, RED", "enum first"},
		{"typedef", a, "struct inner inner_t", "struct point inner_t", "typedef"},
		{"branch of a condition", a, "return 1;", "return 2;", "some"},
		{"condition", a, "CONFIG_SOME", "CONFIG_OTHER", "some"},
		{"pasted", a, "op_add(int x) { return x", "op_add(int x) { return 2 * x", "pasted"},
		{"not pasted", a, "op_sub(int x) { return -x", "op_sub(int x) { return - 2 * x", ""},
		{"made by a macro", a, "(gadget, int)", "(gadget, long)", "gadget"},
		{"macro that makes functions", "include/linux/base.h", "return 0; } static", "return 1; } static", "gadget"},
		{"trace point", "include/trace/events/t.h", "helper(x)", "helper(x + 1)", "create trace"},
		{"list of items", "include/linux/list.def.h", "ITEM(two)", "ITEM(three)", "list"},
		{"local header of an included source", "net/local.h", "1", "2", "whole"},
		{"function around another", b, "return helper(x)", "return 2 * helper(x)", "deep"},
		{"file scope assembly", b, "struct outer", "asm(\"nop\");\nstruct outer", "array deep hidden member none outer same"},
		{"moved before a macro", a, "#define LIMIT 5\n", "", "array asm"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			pre, post := filepath.Join(dir, "pre"), filepath.Join(dir, "post")
			write(t, pre, little)
			edited := maps.Clone(little)
			if !strings.Contains(edited[tt.header], tt.old) {
				t.Fatalf("%s has no %q", tt.header, tt.old)
			}
			edited[tt.header] = strings.Replace(edited[tt.header], tt.old, tt.now, 1)
			if tt.name == "moved before a macro" {
				edited[tt.header] += tt.old
			}
			write(t, post, edited)
			trees := Trees{Pre: pre, Post: post}
			list, err := Changes(t.Context(), trees, []string{tt.header})
			if err != nil {
				t.Fatal(err)
			}
			found, err := Units(t.Context(), trees, littleUnits(pre), list)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for o := range found {
				got = append(got, strings.TrimSuffix(filepath.Base(o), ".o"))
			}
			slices.Sort(got)
			if diff := cmp.Diff(tt.want, strings.Join(got, " ")); diff != "" {
				t.Errorf("(-want +got):\n%s\n%+v\n%v", diff, list, found)
			}
		})
	}
}

func TestSources(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, little)
	got, err := Sources(t.Context(), Trees{Pre: dir, Post: dir}, littleUnits(dir), []string{"net/part.c", "net/local.h", "net/none.c", "gone.c"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string][]string{"net/whole.o": {"net/part.c", "net/local.h"}}, got); diff != "" {
		t.Error(diff)
	}
}
