// SPDX-License-Identifier: Apache-2.0

package objdiff

// tableRows are about special sections. Each has an entry of another function
// behind its own, so that a table that is cut at the wrong place shows.
var tableRows = []row{
	{
		name: "01 .altinstructions: another feature",
		pre:  `int f(void) { ALTERNATIVE(7, "lfence"); return 1; } int g(void) { ALTERNATIVE(9, "mfence"); return 2; }`,
		post: `int f(void) { ALTERNATIVE(8, "lfence"); return 1; } int g(void) { ALTERNATIVE(9, "mfence"); return 2; }`,
		want: changed("f"), check: takes(".altinstructions", ".altinstr_replacement"),
	},
	{
		name: "01 .altinstructions: another replacement",
		pre:  `int f(void) { ALTERNATIVE(7, "call outside"); return 1; }`, post: `int f(void) { ALTERNATIVE(7, "call other"); return 1; }`,
		want: changed("f"), check: why("f", "entry of .altinstructions"),
	},
	{
		name: "01 .altinstructions: one more before others",
		pre:  `int g(void) { ALTERNATIVE(9, "mfence"); return 2; }`,
		post: `int f(void) { ALTERNATIVE(8, "lfence"); return 1; } int g(void) { ALTERNATIVE(9, "mfence"); return 2; }`,
		want: summary{Outcome: Changed, Functions: []string{"new f"}},
	},
	{
		name: "02 .altinstr_aux: another bit",
		pre:  `int f(void) { STATIC_CPU_HAS(4); return 1; } int g(void) { STATIC_CPU_HAS(1); return 2; }`,
		post: `int f(void) { STATIC_CPU_HAS(8); return 1; } int g(void) { STATIC_CPU_HAS(1); return 2; }`,
		want: changed("f"),
	},
	{
		name: "02 .altinstr_aux: the same behind more",
		pre:  `int g(void) { STATIC_CPU_HAS(1); return 2; }`,
		post: `int f(void) { STATIC_CPU_HAS(8); return 1; } int g(void) { STATIC_CPU_HAS(1); return 2; }`,
		want: summary{Outcome: Changed, Functions: []string{"new f"}},
	},
	{
		name: "03 .parainstructions",
		pre:  `int f(void) { PARAVIRT(5); return 1; } int g(void) { PARAVIRT(6); return 2; }`,
		post: `int f(void) { PARAVIRT(7); return 1; } int g(void) { PARAVIRT(6); return 2; }`,
		want: changed("f"), check: takes(".parainstructions"),
	},
	{
		name: "04 .smp_locks",
		pre:  `int f(void) { asm volatile(".byte 0xf0; incl counter(%rip)"); return 1; } int g(void) { SITES(".smp_locks", "lock; incl counter(%%rip)"); return 2; }`,
		post: `int f(void) { SITES(".smp_locks", "lock; incl counter(%%rip)"); return 1; } int g(void) { SITES(".smp_locks", "lock; incl counter(%%rip)"); return 2; }`,
		want: changed("f"), check: why("f", "new entry of .smp_locks"),
	},
	{
		name: "05 __ex_table",
		pre:  `int f(void) { EX_TABLE(1); return 1; } int g(void) { EX_TABLE(1); return 2; }`,
		post: `int f(void) { EX_TABLE(3); return 1; } int g(void) { EX_TABLE(1); return 2; }`,
		want: changed("f"), check: takes("__ex_table"),
	},
	{
		name: "05 __ex_table with handlers, as before Linux 5.16",
		pre:  exHandler("ex_handler_default", "ex_handler_default"), post: exHandler("ex_handler_fault", "ex_handler_default"),
		bare: true, want: changed("f"),
	},
	{
		name: "06 __bug_table: another warning",
		pre:  `int f(int x) { if (WARN(x)) return 1; return 2; } int g(int x) { if (WARN(x > 3)) return 1; return 2; }`,
		post: `int f(int x) { if (x) return 1; return 2; } int g(int x) { if (WARN(x > 3)) return 1; return 2; }`,
		want: changed("f"),
	},
	{
		name: "06 __bug_table: flags",
		pre:  `int f(int x) { asm volatile("1: ud2\n.pushsection __bug_table,\"aw\"\n2: .long 1b-2b, 0\n.word 5, 1\n.popsection"); return x; }`,
		post: `int f(int x) { asm volatile("1: ud2\n.pushsection __bug_table,\"aw\"\n2: .long 1b-2b, 0\n.word 5, 3\n.popsection"); return x; }`,
		want: changed("f"),
	},
	{
		name: "06 __bug_table with messages, as since Linux 6.19", bare: true,
		pre: bug16("7", "one"), post: bug16("7", "two"), want: changed("f"),
	},
	{
		name: "06 __bug_table with messages: only lines", bare: true, pre: bug16("7", "one"), post: bug16("9", "one"), want: summary{Outcome: Unchanged},
	},
	{
		name: "07 __jump_table: another key in vmlinux",
		pre:  `int f(void) { if (JUMP_LABEL(far_key)) return 1; return 2; } int g(void) { if (JUMP_LABEL(far_key)) return 4; return 3; }`,
		post: `int f(void) { if (JUMP_LABEL(other_key)) return 1; return 2; } int g(void) { if (JUMP_LABEL(far_key)) return 4; return 3; }`,
		want: changed("f"), check: takes("__jump_table"),
	},
	{
		name: "07 __jump_table: key of the unit",
		pre:  `static struct key mine; int f(void) { if (JUMP_LABEL(mine)) return 1; return 2; }`,
		post: `static struct key mine; int f(void) { if (JUMP_LABEL(mine)) return 1; return 3; }`,
		want: changed("f"),
	},
	{
		name: "07 __jump_table: new key",
		pre:  `static struct key mine; int f(void) { if (JUMP_LABEL(mine)) return 1; return 2; }`,
		post: `static struct key mine, fresh = { 1 }; int f(void) { if (JUMP_LABEL(mine)) return 1; if (JUMP_LABEL(fresh)) return 9; return 2; }`,
		want: summary{Outcome: Changed, Functions: []string{"changed f"}, Data: []string{"new fresh"}}, check: takes("fresh"),
	},
	{
		name: "08 .static_call_sites",
		pre:  `int f(void) { STATIC_CALL(far_key, "outside"); return 1; } int g(void) { STATIC_CALL(far_key, "outside"); return 2; }`,
		post: `int f(void) { STATIC_CALL(other_key, "outside"); return 1; } int g(void) { STATIC_CALL(far_key, "outside"); return 2; }`,
		want: changed("f"), check: takes(".static_call_sites"),
	},
	{
		name: "09 .orc_unwind alone changes nothing and goes along",
		pre:  `asm(".pushsection .orc_unwind,\"a\"\n .long 1\n .popsection\n .pushsection .orc_unwind_ip,\"a\"\n .long use - .\n .popsection"); int f(void) { return 1; }`,
		post: `asm(".pushsection .orc_unwind,\"a\"\n .long 2\n .popsection\n .pushsection .orc_unwind_ip,\"a\"\n .long use - .\n .popsection"); int f(void) { return 1; }`,
		want: summary{Outcome: Unchanged},
	},
	{
		name: "10 .retpoline_sites",
		pre:  sites(".retpoline_sites", false), post: sites(".retpoline_sites", true), want: changed("f"), check: takes(".retpoline_sites"),
	},
	{
		name: "10 .return_sites",
		pre:  sites(".return_sites", false), post: sites(".return_sites", true), want: changed("f"), check: takes(".return_sites"),
	},
	{
		name: "10 .call_sites",
		pre:  sites(".call_sites", false), post: sites(".call_sites", true), want: changed("f"), check: takes(".call_sites"),
	},
	{
		name: "11 .ibt_endbr_seal",
		pre:  sites(".ibt_endbr_seal", false), post: sites(".ibt_endbr_seal", true), want: changed("f"),
	},
	{
		name: "12 __mcount_loc: fentry lost", pre: `int f(int x) { return x + 1; }`, post: `notrace int f(int x) { return x + 1; }`,
		want: changed("f"),
	},
	{
		name: "12 __patchable_function_entries do not make a function traceable", flags: []string{"-fpatchable-function-entry=16,16"},
		pre: `static notrace noinline int f(int x) { return x + 1; } int (*p)(int) = f;`, post: `static notrace noinline int f(int x) { return x + 2; } int (*p)(int) = f;`,
		want: summary{Outcome: Refused, Functions: []string{"changed f"}}, refusal: "no fentry",
	},
	{
		name: "12 __patchable_function_entries: a new function", flags: []string{"-fpatchable-function-entry=16,16"},
		pre: `int g(int x) { return x + 1; }`, post: `int f(int x) { return x + 3; } int g(int x) { return x + 1; }`,
		want: summary{Outcome: Changed, Functions: []string{"new f"}},
	},
	{
		name: "13 .sframe alone changes nothing",
		pre:  `asm(".pushsection .sframe,\"a\"\n .long 1\n .popsection");`, post: `asm(".pushsection .sframe,\"a\"\n .long 2, 3\n .popsection");`,
		want: summary{Outcome: Unchanged},
	},
	{
		name: "14 __dyndbg: only the line", pre: `int f(int x) { pr_debug("at %d\n", x); return x; }`, post: "\n" + `int f(int x) { pr_debug("at %d\n", x); return x; }`,
		want: summary{Outcome: Unchanged},
	},
	{
		name: "14 __dyndbg: a changed function keeps its descriptors",
		pre:  `int f(int x) { pr_debug("one %d\n", x); pr_debug("two %d\n", x); return x; }`, post: `int f(int x) { pr_debug("one %d\n", x); pr_debug("two %d\n", x); return x + 1; }`,
		want: changed("f"), check: twins("descriptor", true),
	},
	{
		name: "14 __dyndbg: another message has a descriptor of its own",
		pre:  `int f(int x) { pr_debug("one %d\n", x); return x; }`, post: `int f(int x) { pr_debug("two %d\n", x); return x; }`,
		want: summary{Outcome: Changed, Functions: []string{"changed f"}, Data: []string{"new descriptor", "removed descriptor"}}, check: takes("descriptor"),
	},
	{
		name: "15 .printk_index: only the line", pre: `int f(int x) { pr_indexed("hello"); return x; }`, post: "\n" + `int f(int x) { pr_indexed("hello"); return x; }`,
		want: summary{Outcome: Unchanged},
	},
	{
		name: "15 .printk_index: another message", pre: `int f(int x) { pr_indexed("hello"); return x; }`, post: `int f(int x) { pr_indexed("hallo"); return x; }`,
		want: summary{Outcome: Changed, Functions: []string{"changed f"},
			Data: []string{"new _entry", "removed _entry", "new _entry_ptr", "removed _entry_ptr"}},
	},
	{
		name: "16 tracepoints: a new one", pre: tracepoint("old"), post: tracepoint("fresh") + tracepoint("old"),
		want: summary{Outcome: Changed, Functions: []string{"new fires_fresh"}, Data: []string{"new __tracepoint_fresh"}},
	},
	{
		name: "16 tracepoints: one less", pre: tracepoint("fresh") + tracepoint("old"), post: tracepoint("old"),
		want:    summary{Outcome: Refused, Functions: []string{"removed fires_fresh"}, Data: []string{"removed __tracepoint_fresh"}},
		refusal: "contents without a symbol differ",
	},
	{
		name: "21 __LINE__: only in tables and messages of FORTIFY",
		pre:  lineOnly, post: "\n\n" + lineOnly, want: summary{Outcome: Unchanged},
	},
	{
		name: "21 __LINE__: in code it counts", pre: `int f(void) { return outside(__LINE__); }`, post: "\n" + `int f(void) { return outside(__LINE__); }`,
		want: changed("f"),
	},
	{
		name: "45 CFI: .kcfi_traps", pre: sites(".kcfi_traps", false), post: sites(".kcfi_traps", true), want: changed("f"),
	},
	{
		name: "45 CFI: the type in front of a function",
		pre:  prefixedFunction("__cfi_f", "movl $0x1234, %eax; .fill 11, 1, 0x90", "nop"), asm: true,
		post: prefixedFunction("__cfi_f", "movl $0x4321, %eax; .fill 11, 1, 0x90", "nop"),
		want: changed("f"), check: takes("__cfi_f"),
	},
}

const lineOnly = `
#define LINE(x) LINE2(x)
#define LINE2(x) #x
int f(int x) { if (WARN(x)) printk("field \"a\" at unit.c:" LINE(__LINE__)); return 2; }
int g(int x) { return printk("field \"begin\" at unit.c:" LINE(__LINE__)); }`

func sites(table string, entry bool) string {
	f := `asm volatile("nop" ::: "rax", "memory")`
	if entry {
		f = `SITES("` + table + `", "nop")`
	}
	return `int f(void) { ` + f + `; return 1; } int g(void) { SITES("` + table + `", "nop"); return 2; }`
}

func exHandler(f, g string) string {
	entry := func(handler string) string {
		return `asm volatile("1: mov (%%rax), %%eax\n2:\n .pushsection __ex_table, \"a\"\n .long 1b - ., 2b - ., ` + handler + ` - .\n .popsection" ::: "rax")`
	}
	return `int f(void) { ` + entry(f) + `; return 1; } int g(void) { ` + entry(g) + `; return 2; }`
}

// bug16 has struct bug_entry with the address of a format.
func bug16(line, format string) string {
	warn := func(format string) string {
		return `asm volatile("1: ud2\n .pushsection __bug_table,\"aw\"\n .long 1b - ., %c0 - ., %c1 - .\n .word ` + line +
			`, 1\n .popsection" :: "i" ("` + format + `"), "i" (__FILE__))`
	}
	return `int f(void) { ` + warn(format) + `; return 1; } int g(void) { ` + warn("other") + `; return 2; } int h(void) { ` + warn("third") + `; return 3; }`
}

func tracepoint(name string) string {
	return `asm(".pushsection __tracepoints_ptrs,\"a\"\n .long __tracepoint_` + name + ` - .\n .popsection");
struct key __tracepoint_` + name + ` section("__tracepoints"); int fires_` + name + `(void) { if (JUMP_LABEL(__tracepoint_` + name + `)) return outside(1); return 0; }`
}

func prefixedFunction(name, front, first string) string {
	return `.section .text.f,"ax",@progbits
.type ` + name + `, @function
` + name + `: ` + front + `
.size ` + name + `, . - ` + name + `
.globl f
.type f, @function
f: 1: call __fentry__
` + first + `
ret
.size f, . - f
.section __mcount_loc,"a",@progbits
.quad 1b
`
}
