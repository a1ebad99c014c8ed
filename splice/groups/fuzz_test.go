// SPDX-License-Identifier: Apache-2.0

package groups

import (
	"testing"

	"github.com/upsplice/upsplice/splice/freeze"
)

var seeds = []string{
	"int f(struct s *x)\n{\n\tmutex_lock(&x->m);\n\treturn x->a;\n}\n",
	"struct s {\n\tint a:3, *b[2];\n\tunion { struct { u8 c; }; };\n\tint (*op)(void *p, int n);\n\tDECLARE_BITMAP(map, 8);\n\tstruct_group(g, int h; int i;);\n};\n",
	"enum e { A = 1 << 3, B, C = A | B, };\n",
	"#define M(a, b...) do { f(a, ##b); } while (0)\n#define N (0x10UL << GENMASK(3, 1))\n",
	"static DEFINE_MUTEX(m);\nmodule_init(x);\n#include <linux/a.h>\n",
	"typedef struct { int a; } t;\nstatic const struct ops o = { .a = f, };\n",
	"for (;;) { while (1) { switch (x) { case 1: break; } } }",
	"\"\\", "/*", "'", "{{{(((", "}}}", "#define", "#", briefPre, briefPost, "-> . ->", "((((((((((((((1))))))))))))))",
}

func FuzzMake(f *testing.F) {
	for i, s := range seeds {
		f.Add(s, seeds[(i+1)%len(seeds)], uint8(i))
	}
	f.Fuzz(func(t *testing.T, pre, post string, kind uint8) {
		if len(pre)+len(post) > 1<<13 {
			return
		}
		var list []*freeze.Entity
		for k := range freeze.Kind(8) {
			list = append(list, &freeze.Entity{File: "k/a.c", Kind: k, Names: []string{"f"}, Local: true, Pre: pre, Post: post}, &freeze.Entity{File: "k/a.h", Kind: k, Names: []string{"s"}, Pre: post}, &freeze.Entity{File: "k/b.h", Kind: k, Names: []string{"s"}, Post: post})
		}
		list = append(list, &freeze.Entity{File: "k/a.c", Kind: freeze.Kind(kind % 8), Names: []string{"x"}, Pre: pre, Post: post})
		g := New(list, Options{
			Text: func(_ string, isPost bool) string {
				if isPost {
					return post
				}
				return pre
			},
			Mentions: func(tags []string) map[string][]string {
				out := make(map[string][]string)
				for _, tag := range tags {
					out[tag] = []string{"k/a.c", "k/a.h"}
				}
				return out
			},
		})
		n := 0
		for _, gr := range g.Groups() {
			n += len(gr.Entities)
		}
		if n != len(list) {
			t.Errorf("%d entities in groups, %d given", n, len(list))
		}
	})
}

func FuzzEvaluate(f *testing.F) {
	for _, s := range []string{"1 << 4", "BIT(3) | GENMASK(7, 4)", "(1 ? 2 : 3) / 0", "~0UL", "_AC(1, UL) << 12", "'a'", "(u64)1", "-(-(-1))", "5 % 0", "1 << 64"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if len(s) > 1<<12 {
			return
		}
		a, ok := evaluate(lex(s), nil)
		b, ok2 := evaluate(lex("("+s+"\n)"), nil)
		if ok && (!ok2 || a != b) {
			t.Errorf("%q is %d, in parentheses %d, %v", s, a, b, ok2)
		}
	})
}
