// SPDX-License-Identifier: Apache-2.0

package objdiff

import (
	"strings"
	"testing"
)

var dataRows = []row{
	{
		name: "17 static locals renumbered",
		pre:  `int f(int x) { static int n; n += x; return n; }`,
		post: `int g(int x) { static int n = 9; n -= x; return n; } int f(int x) { static int n; n += x; return n; }`,
		want: summary{Outcome: Changed, Functions: []string{"new g"}, Data: []string{"new n"}},
	},
	{
		name: "17 static locals of a changed function",
		pre:  `int f(int x) { static int n; n += x; return n; } int g(int x) { static int n = 3; return n -= x; }`,
		post: `int g(int x) { static int n = 3; return n -= x; } int f(int x) { static int n; n += x * 3; return n; }`,
		want: changed("f"),
	},
	{
		name: "17 static locals moved between functions",
		pre:  `int f(int x) { static int n; n += x; return n; } int g(int x) { return x; }`,
		post: `int f(int x) { return x; } int g(int x) { static int n; n += x; return n; }`,
		want: summary{Outcome: Refused, Functions: []string{"changed f", "changed g"}, Data: []string{"new n", "removed n"}}, refusal: "cannot tell which static variable",
	},
	{
		name: "17 static locals of one function exchanged",
		pre:  `int f(int x) { if (x) { static int n; return n += x; } else { static int n; return n -= 3; } }`,
		post: `int f(int x) { if (x) { static int n; return n += x + 1; } else { static int n; return n -= 4; } }`,
		want: summary{Outcome: Refused, Functions: []string{"changed f"}, Data: []string{"new n", "removed n", "new n", "removed n"}}, refusal: "cannot tell which static variable",
	},
	{
		name: "17 static variable renamed",
		pre:  `static int total = 8; int f(int i) { total += i; return total; }`, post: `static int sum = 8; int f(int i) { sum += i + 1; return sum; }`,
		want: summary{Outcome: Refused, Functions: []string{"changed f"}, Data: []string{"new sum", "removed total"}}, refusal: "cannot tell whether sum is a new variable or the old total",
	},
	{
		name: "18 _rs: shared where the code that uses it is the same",
		pre:  `int f(int x) { pr_limited("one %d\n", x); pr_limited("two %d\n", x); return x; }`, post: `int f(int x) { pr_limited("one %d\n", x); pr_limited("two %d\n", x); return x + 1; }`,
		want: changed("f"), check: twins("_rs", true),
	},
	{
		name: "18 _rs: copied where it is not",
		pre:  `int f(int x) { pr_limited("one %d\n", x); pr_limited("two %d\n", x); return x; }`, post: `int f(int x) { pr_limited("three %d\n", x); pr_limited("two %d\n", x); return x + 1; }`,
		want: summary{Outcome: Changed, Functions: []string{"changed f"}, Data: []string{"new _rs", "removed _rs"}}, check: takes("_rs"),
	},
	{
		name: "18 __key", pre: locks("a", "b"), post: locks("a", "c", "d"),
		want: summary{Outcome: Changed, Functions: []string{"changed f"}, Data: []string{"new __key", "removed __key", "new __key"}},
	},
	{
		name: "18 __already_done in .data..once", pre: `int f(int x) { once("one"); once("two"); return x; }`, post: `int g(int x) { once("g"); return x; } int f(int x) { once("one"); once("two"); return x + 1; }`,
		want: summary{Outcome: Changed, Functions: []string{"changed f", "new g"}, Data: []string{"new __already_done"}},
	},
	{
		name: "18 __already_done that nothing uses", asm: true,
		pre: function("f", "call outside") + variable("__already_done.1", ".data..once", ".byte 0"), post: function("f", "call outside") + variable("__already_done.7", ".data..once", ".byte 0"),
		want: summary{Outcome: Unchanged},
	},
	{
		name: "18 __func__", pre: `int f(int x) { return printk("%s\n", __func__); }`, post: `int g(int x) { return printk("%s\n", __func__); } int f(int x) { return printk("%s\n", __func__) + 1; }`,
		want: summary{Outcome: Changed, Functions: []string{"changed f", "new g"}}, check: takes("__func__"),
	},
	{
		name: "18 CSWTCH", pre: cswitch("77"), post: cswitch("78"), want: changed("f"), check: takes("CSWTCH"),
	},
	{
		name: "18 names as clang makes them", asm: true,
		pre:  function("f", "cmpb $0, f.__already_done(%rip); call outside") + variable("f.__already_done", ".data..once", ".byte 0") + function("g", "movl g.n.3(%rip), %eax") + variable("g.n.3", ".bss", ".zero 4"),
		post: function("f", "cmpb $0, f.__already_done(%rip); call outside") + variable("f.__already_done", ".data..once", ".byte 0") + function("g", "movl g.n.7(%rip), %eax") + variable("g.n.7", ".bss", ".zero 4"),
		want: summary{Outcome: Unchanged},
	},
	{
		name: "19 strings merged in another way",
		pre:  `int f(void) { return printk("a long tail") + 1; }`, post: `int g(void) { return printk("not such a long tail") + 2; } int f(void) { return printk("a long tail") + 1; }`,
		want: summary{Outcome: Changed, Functions: []string{"new g"}},
	},
	{
		name: "19 string changed", pre: `int f(void) { return printk("hello %d\n", 1) + 1; }`, post: `int f(void) { return printk("hallo %d\n", 1) + 1; }`, want: changed("f"),
	},
	{
		name: "19 merged constants", asm: true,
		pre: function("f", "movdqa c+0(%rip), %xmm0") + merged("1, 2", "3, 4"), post: function("f", "movdqa c+16(%rip), %xmm0") + merged("3, 4", "1, 2"),
		want: summary{Outcome: Unchanged},
	},
	{
		name: "19 merged constants changed", asm: true,
		pre: function("f", "movdqa c+0(%rip), %xmm0") + merged("1, 2", "3, 4"), post: function("f", "movdqa c+0(%rip), %xmm0") + merged("1, 5", "3, 4"),
		want: changed("f"),
	},
	{
		name: "20 switch table: targets exchanged", flags: []string{"-fjump-tables"}, pre: jumps("0", "1"), post: jumps("1", "0"), want: changed("f"),
	},
	{
		name: "20 switch table: unchanged behind another", flags: []string{"-fjump-tables"}, pre: jumps("0", "1"), post: `int e(int x) { switch (x) { case 0: return outside(3); case 1: return other(4); case 2: return outside(5); case 3: return other(6); case 4: outside(9); return other(7); } return 1; }` + jumps("0", "1"),
		want: summary{Outcome: Changed, Functions: []string{"new e"}},
	},
	{
		name: "20 anonymous .rodata", asm: true,
		pre: function("f", "movl .rodata.odd+8(%rip), %eax") + odd, post: function("f", "movl .rodata.odd+8(%rip), %eax") + ".section .rodata.odd,\"a\",@progbits\n.quad 1, 3\n",
		want: changed("f"), check: takes(".rodata.odd"),
	},
	{
		name: "28 per-cpu data referred to", pre: `percpu int hits; int f(void) { return outside(1); }`, post: `percpu int hits; int f(void) { asm volatile("incl %%gs:%0" : "+m" (hits)); return outside(1); }`,
		want: changed("f"),
	},
	{
		name: "28 per-cpu data changed", pre: `percpu int hits = 1; int f(void) { return hits; }`, post: `percpu int hits = 2; int f(void) { return hits; }`,
		want: summary{Outcome: Refused, Data: []string{"changed hits"}}, refusal: "existing data changed: hits",
	},
	{
		name: "28 data became per-cpu", pre: `int hits = 1; int f(void) { return hits; }`, post: `percpu int hits = 1; int f(void) { return hits; }`,
		want: summary{Outcome: Refused, Data: []string{"changed hits"}}, refusal: "existing data changed: hits", check: why("hits", "per-cpu"),
	},
	{
		name: "28 new per-cpu data", pre: `int f(void) { return 1; }`, post: `percpu int hits; int f(void) { asm volatile("incl %%gs:%0" : "+m" (hits)); return 1; }`,
		want: summary{Outcome: Changed, Functions: []string{"changed f"}, Data: []string{"new hits"}}, check: takes("hits"),
	},
	{
		name: "29 .data changed", pre: `int limit = 5; int f(void) { return limit; }`, post: `int limit = 6; int f(void) { return limit; }`,
		want: summary{Outcome: Refused, Data: []string{"changed limit"}}, refusal: "existing data changed: limit",
	},
	{
		name: "29 .bss initialised", pre: `int limit; int f(void) { return limit; }`, post: `int limit = 6; int f(void) { return limit; }`,
		want: summary{Outcome: Refused, Data: []string{"changed limit"}}, refusal: "existing data changed: limit",
	},
	{
		name: "29 .rodata changed", pre: `const int v[] = { 1, 2, 3 }; int f(int i) { return v[i]; }`, post: `const int v[] = { 1, 2, 4 }; int f(int i) { return v[i]; }`,
		want: summary{Outcome: Refused, Data: []string{"changed v"}}, refusal: "existing data changed: v",
	},
	{
		name: "29 table of functions changed", pre: `struct ops t = { run_a, "x" };`, post: `struct ops t = { run_b, "x" };`,
		want: summary{Outcome: Refused, Data: []string{"changed t"}}, refusal: "existing data changed: t",
	},
	{
		name: "29 .BTF_ids renumbered", pre: btfIDs("func__a__", "1"), post: btfIDs("func__a__", "22"), want: summary{Outcome: Unchanged},
	},
	{
		name: "29 .BTF_ids changed", pre: btfIDs("func__a__", "1"), post: btfIDs("func__b__", "1"), want: summary{Outcome: Refused}, refusal: "existing data changed: lists of BTF ids",
	},
	{
		name: "30 .data..read_mostly: only the place", pre: `int limit = 5; int f(void) { return limit; }`, post: `int limit read_mostly = 5; int f(void) { return limit; }`,
		want: summary{Outcome: Unchanged},
	},
	{
		name: "30 .data..read_mostly changed", pre: `int limit read_mostly = 5; int f(void) { return limit; }`, post: `int limit read_mostly = 6; int f(void) { return limit; }`,
		want: summary{Outcome: Refused, Data: []string{"changed limit"}}, refusal: "existing data changed: limit",
	},
	{
		name: "31 object size", pre: `int a[4]; int f(void) { return a[1]; }`, post: `int a[5]; int f(void) { return a[1]; }`,
		want: summary{Outcome: Refused, Data: []string{"changed a"}}, refusal: "existing data changed: a", check: why("a", "size 0x10 became 0x14"),
	},
	{
		name: "31 section header: a constant became writable", pre: `const int v[] = { 1, 2, 3 }; int f(int i) { return v[i]; }`, post: `int v[] = { 1, 2, 3 }; int f(int i) { return v[i]; }`,
		want: summary{Outcome: Refused, Data: []string{"changed v"}}, refusal: "existing data changed: v",
	},
	{
		name: "43 UBSAN data: only lines", bare: true, flags: []string{"-fsanitize=bounds"}, pre: ubsan, post: "\n\n" + ubsan, want: summary{Outcome: Unchanged},
	},
	{
		name: "43 UBSAN data: of a changed function", bare: true, flags: []string{"-fsanitize=bounds"}, pre: ubsan, post: strings.Replace(ubsan, "int g", "int e(int i) { return v[i + 2]; }\nint g", 1) + `int h(int i) { return v[i] + 5; }`, want: summary{Outcome: Changed, Functions: []string{"new e", "new h"}},
	},
	{
		name: "46 new global", pre: `int f(int i) { return i; }`, post: `int total = 8; int f(int i) { total += i; return total; }`,
		want: summary{Outcome: Changed, Functions: []string{"changed f"}, Data: []string{"new total"}}, check: takes("total"),
	},
	{
		name: "50 a constant with a name stays where it is", pre: `int f(int i) { return outside(1); }`, post: `int f(int i) { return table[i].run(2) + outside(1); }`,
		want: changed("f"),
		check: func(t *testing.T, r *Result) {
			for _, s := range r.Taken {
				if s == "table" || s == ".rodata.table" {
					t.Errorf("takes %s along", s)
				}
			}
		},
	},
}

func locks(names ...string) string {
	src := `extern void lock_init(const char *name, void *key); int f(int x) { x++;`
	for _, n := range names {
		src += ` { static char __key[8]; lock_init("` + n + `", &__key); }`
	}
	return src + ` return x; }`
}

func cswitch(n string) string {
	return `int f(int x) { switch (x) { case 0: return 9; case 1: return ` + n + `; case 2: return 13; case 3: return 8; case 4: return 1; } return 0; }`
}

func jumps(a, b string) string {
	return `int f(int x) { switch (x) { case ` + a + `: return outside(9); case ` + b + `: return other(7); case 2: return outside(1); case 3: return other(8); case 4: outside(4); return other(3); } return 0; }`
}

func merged(first, second string) string {
	return ".section .rodata.cst16,\"aM\",@progbits,16\n.balign 16\nc: .quad " + first + "\n.quad " + second + "\n"
}

func btfIDs(name, number string) string {
	return `asm(".pushsection .BTF_ids,\"a\"\n .local __BTF_ID__` + name + number + `\n .type __BTF_ID__` + name + number + `, STT_OBJECT\n .size __BTF_ID__` + name + number + `, 4\n__BTF_ID__` + name + number + `:\n .zero 4\n .popsection");`
}

const ubsan = `static int v[4]; extern void set(int *); int f(int i) { set(v); return v[i]; }
int g(int i) { return v[i + 1]; }`
