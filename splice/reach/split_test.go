// SPDX-License-Identifier: Apache-2.0

package reach

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// entities describes what the splitter found: kind, and what is defined.
func entities(text string) []string {
	names := newInterner(newTable())
	var out []string
	for _, e := range parse(names, text).ents {
		s := [...]string{"macro", "code", "decl", "type", "invoke", "open"}[e.kind]
		for _, list := range [][]uint32{e.defs, e.tags} {
			for _, d := range list {
				s += " " + names.table.name(d)
			}
		}
		if len(e.members) > 0 {
			s += " {"
			for _, m := range e.members {
				for _, n := range m.names {
					s += " " + names.table.name(n)
				}
			}
			s += " }"
		}
		out = append(out, s)
	}
	return out
}

func TestSplit(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       []string
	}{
		{"function", "static inline int f(struct s *a, int b)\n{ if (a) { return b; } return 0; }", []string{"code f"}},
		{"function in capitals", "static inline int F(int x) { return x; }", []string{"code F"}},
		{"function with attributes", "static __always_inline __must_check struct s *f(int b) __acquires(x) { return 0; }", []string{"code f"}},
		{"prototypes", "extern int f(int), g(struct s *);", []string{"decl f g"}},
		{"printf", "extern __printf(2, 3) void f(int, const char *, ...);", []string{"decl f"}},
		{"attribute after", "int f(void) __attribute__((const));", []string{"decl f"}},
		{"returns a pointer to a function", "void (*f(int x))(void);", []string{"decl f"}},
		{"data", "extern const struct s a, *b, c[4];", []string{"decl a b c"}},
		{"pointer to function", "extern int (*hook)(struct s *, int);", []string{"decl hook"}},
		{"initialised", "static const struct s t[] = { { .a = f }, { 2 } };", []string{"code t"}},
		{"forward", "struct s; enum e; union u;", nil},
		{"struct", "struct s { int a, b : 3; char *c; int (*d)(int e); struct { int f; } g; union { int h; long i; }; };", []string{"type s { a b c d f g h i }"}},
		{"packed", "struct __attribute__((packed)) s { int a; } __packed;", []string{"type s { a }"}},
		{"bitmap", "struct s { DECLARE_BITMAP(map, LONG); struct_group(both, int a; int b;); };", []string{"type s { map LONG both a b }"}},
		{"conditional member", "struct s {\n#ifdef A\nint a;\n#else\nlong a;\n#endif\nint b; };", []string{"type s { a a b }"}},
		{"array", "struct s { int a[LEN][2]; };", []string{"type s { a }"}},
		{"enum", "enum e { A, B = 4, C = A + B, };", []string{"type e { A B C }"}},
		{"nested enum", "struct s { enum { A, B } kind; int b; };", []string{"type s { A B kind b }"}},
		{"typedef", "typedef unsigned long word; typedef int (*fn)(struct s *); typedef struct { int a; } t, *tp;", []string{"decl word", "decl fn", "type t tp { a }"}},
		{"macro", "#define A(x) \\\n  (x)\n#define B\n#undef B", []string{"macro A", "macro B", "macro B"}},
		{"macro within", "struct s { int a;\n#define A a\nint b; };", []string{"macro A", "type s { a b }"}},
		{"guard and language", "#ifndef A_H\n#define A_H\n#ifdef __cplusplus\nextern \"C\" {\n#endif\nint f(void);\n#ifdef __cplusplus\n}\n#endif\n#endif", []string{"macro A_H", "decl f"}},
		{"invocation", "DEFINE_STATIC_KEY_FALSE(key);\nint f(void);", []string{"invoke key", "decl f"}},
		{"static invocation", "static DEFINE_MUTEX(lock);", []string{"decl lock"}},
		{"without semicolon", "DEFINE_THING(a, b)\nstatic inline int f(void) { return 0; }", []string{"invoke a b f"}},
		{"assembly", "asm(\".macro x\");", []string{"open"}},
		{"pragma", "#pragma pack(1)\n#pragma once", []string{"open"}},
		{"type of a function", "typedef int (actor)(struct s *);", []string{"decl actor"}},
		{"conditional constant", "enum {\nA,\n#ifdef X\nB,\n#endif\n};", []string{"type { A B }"}},
		{"definitions up to the end", "DEFINE_GUARD(a, int)\nDEFINE_GUARD(b, int)", []string{"invoke a b"}},
		{"unfinished", "ITEM(a)\nITEM(b)", []string{"open"}},
		{"two heads", "#ifdef A\nint f(int a)\n#else\nint f(void)\n#endif\n{ return 1; }\nint g;", []string{"code f", "decl g"}},
		{"two heads with braces", "#ifdef A\nint f(int a) {\n#else\nint f(void) {\n#endif\n return 1; }\nint g;", []string{"code f", "decl g"}},
		{"two ends", "int f(int a) {\n#ifdef A\n return 1; }\n#else\n return 2; }\n#endif\nint g;", []string{"code f", "open"}},
		{"strings", "#define Q '\\''\nstatic inline char f(void) { return '}'; /* } */ } // }\nint g;", []string{"macro Q", "code f", "decl g"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, entities(tt.text)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// FuzzSplit: no text makes the splitter fail, and comments and white space at the
// ends of lines never make a difference.
func FuzzSplit(f *testing.F) {
	for name, text := range little {
		if strings.HasSuffix(name, ".h") {
			f.Add(text)
		}
	}
	f.Add("struct s { enum { A = f(1, 2), B } x : 3; }; #define A(x) a ## x ## b\n#if 1\nint f(\n#else\n{\n#endif\n")
	f.Fuzz(func(t *testing.T, text string) {
		names := newInterner(newTable())
		a := parse(names, text)
		for i := range a.ents {
			for m := range a.ents[i].members {
				a.ents[i].moved(m)
			}
		}
		s := scanner{names: names, seen: make(map[uint32]use)}
		s.parse(text)
		d := differ{names: names.table}
		d.compare(a, parse(names, text))
		if d.c.Whole || len(d.c.effects) > 0 || len(d.c.includes) > 0 {
			t.Errorf("a text differs from itself: %+v", d.c)
		}
		// Within a string or a continued line a blank would be a part of it.
		if strings.ContainsAny(text, "\"'\\/\r") {
			return
		}
		d = differ{names: names.table}
		d.compare(a, parse(names, "/* x */ "+strings.ReplaceAll(text, "\n", " /* \n */ // x\n")))
		if d.c.Whole || len(d.c.effects) > 0 || len(d.c.includes) > 0 {
			t.Errorf("white space and comments make a difference: %+v", d.c)
		}
	})
}
