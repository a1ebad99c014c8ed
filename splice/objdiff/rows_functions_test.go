// SPDX-License-Identifier: Apache-2.0

package objdiff

import (
	"strings"
	"testing"
)

const coldPart = `int f(int x) { if (unlikely(x > 100)) { panic("%d", x); outside(1); } return x + 1; }`

var functionRows = []row{
	{
		name: "22 .cold changed", pre: coldPart, post: strings.Replace(coldPart, "outside(1)", "outside(2)", 1),
		want: changed("f", "f.cold"), check: parent("f.cold", "f"),
	},
	{
		name: "22 .cold goes along", pre: coldPart, post: strings.Replace(coldPart, "x + 1", "x + 2", 1),
		want: changed("f", "f.cold"), check: parent("f.cold", "f"),
	},
	{
		name: "22 .cold appears", pre: `int f(int x) { return x + 1; }`, post: coldPart,
		want: summary{Outcome: Changed, Functions: []string{"changed f", "new f.cold"}}, check: parent("f.cold", "f"),
	},
	{
		name: "22 .cold goes", pre: coldPart, post: `int f(int x) { return x + 1; }`,
		want: summary{Outcome: Changed, Functions: []string{"changed f", "removed f.cold"}},
	},
	{
		name: "22 .part changed", asm: true, pre: part("call outside"), post: part("call other"),
		want: changed("f", "f.part.0"), check: parent("f.part.0", "f"),
	},
	{
		name: "23 .constprop renumbered",
		pre:  clone + `int f(int x) { return c(x, 3); } int g(int x) { return c(x, 3) + 5; }`,
		post: clone + `int g(int x) { return c(x, 3) + 5; } int f(int x) { return c(x, 3); }`,
		want: summary{Outcome: Unchanged},
	},
	{
		name: "23 .constprop changed",
		pre:  clone + `int f(int x) { return c(x, 3); } int g(int x) { return c(x, 3) + 5; }`,
		post: strings.Replace(clone, "* k; return s", "* k; return s - 1", 1) + `int f(int x) { return c(x, 3); } int g(int x) { return c(x, 3) + 5; }`,
		want: changed("c.constprop.0"),
	},
	{
		name: "23 .isra of another number", asm: true,
		pre: function("s.isra.0", "call outside") + function("f", "call s.isra.0"), post: function("s.isra.5", "call outside") + function("f", "call s.isra.5"),
		want: summary{Outcome: Unchanged},
	},
	{
		name: "23 .isra of another number, changed", asm: true,
		pre: function("s.isra.0", "call outside") + function("f", "call s.isra.0"), post: function("s.isra.5", "call other") + function("f", "call s.isra.5"),
		want: changed("s.isra.5"),
	},
	{
		name: "23 __UNIQUE_ID_ of a variable and of a function", asm: true,
		pre:  function("__UNIQUE_ID_hook12", "call outside; movl __UNIQUE_ID_state13(%rip), %eax") + variable("__UNIQUE_ID_state13", ".bss", ".zero 4"),
		post: function("__UNIQUE_ID_hook412", "call outside; movl __UNIQUE_ID_state413(%rip), %eax") + variable("__UNIQUE_ID_state413", ".bss", ".zero 4"),
		want: summary{Outcome: Unchanged},
	},
	{
		name: "23 .llvm. of another number", asm: true,
		pre: function("s.llvm.123456", "call t.llvm.55") + function("f", "call s.llvm.123456"), post: function("s.llvm.987", "call t.llvm.66") + function("f", "call s.llvm.987"),
		want: summary{Outcome: Unchanged},
	},
	{
		name: "23 .llvm. appears, changed", asm: true,
		pre: function("s", "call outside") + function("f", "call s"), post: function("s.llvm.987", "call other") + function("f", "call s.llvm.987"),
		want: changed("s.llvm.987"),
	},
	{
		name: "24 .text.unlikely", pre: `int f(int x) { return outside(x) + 1; }`, post: `section(".text.unlikely") int f(int x) { return outside(x) + 1; }`,
		want: summary{Outcome: Unchanged},
	},
	{
		name: "24 .text.hot, changed", pre: `int f(int x) { return outside(x) + 1; }`, post: `__attribute__((hot)) int f(int x) { return outside(x) + 2; }`,
		want: changed("f"),
	},
	{
		name: "24 .init.text: only at boot", pre: `section(".init.text") int f(void) { return 1; }`, post: `section(".init.text") int f(void) { return 2; }`,
		want: summary{Outcome: Refused, Boot: []string{"changed f"}}, refusal: "init: runs only at boot",
		check: func(t *testing.T, r *Result) {
			for _, f := range r.Refusals {
				if f.Blocks() {
					t.Errorf("%v blocks", f)
				}
			}
		},
	},
	{
		name: "24 .init.text: no longer",
		pre:  `section(".init.text") noinline int f(void) { return 1; } int g(void) { return f(); }`,
		post: `noinline int f(void) { return 1; } int g(void) { return f(); }`,
		want: summary{Outcome: Changed, Functions: []string{"new f", "changed g"}, Boot: []string{"removed f"}}, refusal: "init:",
	},
	{
		name: "24 .exit.text", pre: `section(".exit.text") int f(void) { return 1; } int g(void) { return 1; }`, post: `section(".exit.text") int f(void) { return 2; } int g(void) { return 2; }`,
		want: summary{Outcome: Changed, Functions: []string{"changed g"}, Boot: []string{"changed f"}}, refusal: "init:",
	},
	{
		name: "25 __pfx_ goes along", asm: true,
		pre: prefixedFunction("__pfx_f", ".fill 16, 1, 0x90", "call outside"), post: prefixedFunction("__pfx_f", ".fill 16, 1, 0x90", "call other"),
		want: changed("f"), check: takes("__pfx_f"),
	},
	{
		name: "25 __pfx_ appears", asm: true,
		pre: function("f", "call outside"), post: prefixedFunction("__pfx_f", ".fill 16, 1, 0x90", "call outside"),
		want: changed("f"), check: why("f", "what stands in front of it differs"),
	},
	{
		name: "26 weak function changed", pre: `__attribute__((weak)) int f(int x) { return x + 1; }`, post: `__attribute__((weak)) int f(int x) { return x + 2; }`,
		want: changed("f"),
	},
	{
		name: "26 weak function is not weak any more", pre: `__attribute__((weak)) int f(int x) { return x + 1; }`, post: `int f(int x) { return x + 1; }`,
		want: summary{Outcome: Refused}, refusal: "weak: the binding of f became",
	},
	{
		name: "26 weak reference", pre: `extern __attribute__((weak)) int w(int); int f(int x) { return w ? w(x) : 1; }`, post: `extern __attribute__((weak)) int w(int); int f(int x) { return w ? w(x) : 2; }`,
		want: changed("f"),
	},
	{
		name: "27 an export is no change", pre: `int f(void) { return 1; }`,
		post: `int f(void) { return 1; } asm(".pushsection ___ksymtab+f, \"a\"\n .long f - .\n .popsection\n .pushsection .export_symbol, \"a\"\n .quad f\n .popsection");`,
		want: summary{Outcome: Unchanged},
	},
	{
		name: "32 a pointer to a changed function is no change of the table",
		pre:  `int f(int x) { return x + 1; } struct ops t = { f, "x" }; int g(void) { return t.run(1); }`, post: `int f(int x) { return x + 2; } struct ops t = { f, "x" }; int g(void) { return t.run(1); }`,
		want: changed("f"),
	},
	{
		name: "33 without fentry", pre: `notrace int f(int x) { return x + 1; } int g(int x) { return f(x) + other(x); }`, post: `notrace int f(int x) { return x + 2; } int g(int x) { return f(x) + other(x); }`,
		flags: []string{"-fno-inline"}, want: summary{Outcome: Refused, Functions: []string{"changed f"}}, refusal: "other units may call it; change its callers instead (here: g)",
	},
	{
		name: "33 without fentry, its callers take it along", pre: outOfLine("1", "1"), post: outOfLine("2", "1"),
		want: changed("f", "g", "h", "i"), check: why("h", "calls f, which cannot be redirected"),
	},
	{
		name: "33 without fentry, a caller changed too", pre: outOfLine("1", "1"), post: outOfLine("2", "5"), want: changed("f", "g", "h", "i"),
	},
	{
		name: "33 without fentry, callers of callers", flags: []string{"-fno-inline"},
		pre:  `static notrace int f(int x) { return outside(x) + 1; } static notrace int g(int x) { return f(x) + 3; } int h(int x) { return g(x) + 7; } int i(int x) { return outside(x); }`,
		post: `static notrace int f(int x) { return outside(x) + 2; } static notrace int g(int x) { return f(x) + 3; } int h(int x) { return g(x) + 7; } int i(int x) { return outside(x); }`,
		want: changed("f", "g", "h"),
	},
	{
		name: "33 without fentry, its address in a table", pre: `static notrace int f(int x) { return x + 1; } struct ops t = { f, "x" };`, post: `static notrace int f(int x) { return x + 2; } struct ops t = { f, "x" };`,
		want: summary{Outcome: Refused, Functions: []string{"changed f"}}, refusal: "its address is in t",
	},
	{
		name: "33 without fentry, its address in code",
		pre:  `extern void hook(int (*)(int)); static notrace int f(int x) { return x + 1; } void g(void) { hook(f); }`, post: `extern void hook(int (*)(int)); static notrace int f(int x) { return x + 2; } void g(void) { hook(f); }`,
		want: summary{Outcome: Refused, Functions: []string{"changed f"}}, refusal: "g uses its address",
	},
	{
		name: "35 local labels of assembly", asm: true,
		pre: function("f", ".Lone: call outside; jmp .Lone") + function("g", "call other"), post: function("f", ".Ltwo: call outside; jmp .Ltwo") + function("g", "call other"),
		want: summary{Outcome: Unchanged},
	},
	{
		name: "41 syscall wrappers", flags: []string{"-fno-inline"}, pre: syscall("1"), post: syscall("2"),
		want: changed("__do_sys_foo", "__se_sys_foo"),
	},
	{
		name: "44 reference outside of its section", asm: true,
		pre: function("f", "movl .rodata.odd+64(%rip), %eax") + odd, post: function("f", "movl .rodata.odd+72(%rip), %eax") + odd,
		want: summary{Outcome: Refused, Functions: []string{"changed f"}}, refusal: "a place outside of .rodata.odd",
	},
	{
		name: "44 reference to the end of a section", asm: true,
		pre: function("f", "movq $.rodata.odd+16, %rax; call outside") + odd, post: function("f", "movq $.rodata.odd+16, %rax; call other") + odd,
		want: changed("f"),
	},
	{
		name: "46 new function and new static one", pre: `int f(int x) { return x; }`, post: `static noinline int g(int x) { return outside(x) + 2; } int f(int x) { return g(x) + x; }`,
		want: summary{Outcome: Changed, Functions: []string{"changed f", "new g"}}, check: takes("f", "g"),
	},
	{
		name: "46 removed function", pre: `int f(int x) { return x; } int g(int x) { return x; }`, post: `int f(int x) { return x; }`,
		want: summary{Outcome: Changed, Functions: []string{"removed g"}},
	},
	{
		name: "46 made static", pre: `noinline int g(int x) { return outside(x) + 1; } int f(int x) { return g(x) + 1; }`, post: `static noinline int g(int x) { return outside(x) + 1; } int f(int x) { return g(x) + 1; }`,
		want: summary{Outcome: Unchanged},
	},
	{
		name: "46 made global, changed", pre: `static noinline int g(int x) { return outside(x) + 1; } int f(int x) { return g(x) + 1; }`, post: `noinline int g(int x) { return outside(x) + 2; } int f(int x) { return g(x) + 1; }`,
		want: changed("g"),
	},
	{
		name: "47 initcalls", pre: initcall("1_41_start6"), post: initcall("2_42_stop6"),
		want: summary{Outcome: Refused, Boot: []string{"removed __initcall__kmod_unit__1_41_start6", "new __initcall__kmod_unit__2_42_stop6"}}, refusal: "init:",
	},
	{
		name: "47 absolute symbols", asm: true,
		pre: ".set limit, 5\n" + function("f", "movl $limit, %eax; movq $far, %rax") + ".globl far\nfar = 77\n", post: ".set limit, 5\n" + function("f", "movl $limit, %eax; movq $far, %rax") + ".globl far\nfar = 78\n",
		want: changed("f"),
	},
	{
		name: "48 renamed source file", pre: "#line 1 \"old.c\"\n" + lineOnly, post: "#line 1 \"new.c\"\n" + lineOnly, want: changed("f"),
	},
	{
		name: "49 no change", pre: coldPart + clone, post: coldPart + clone, want: summary{Outcome: Unchanged},
	},
}

const clone = `static noinline int c(int x, int k) { int s = 0; for (int i = 0; i < x; i++) s += outside(i * k) * k; return s; } `

// part is a function of which the compiler put the larger part elsewhere.
func part(body string) string {
	return function("f", "test %edi, %edi; jne f.part.0") + function("f.part.0", body) + function("g", "call f")
}

func outOfLine(f, g string) string {
	return `static noinline notrace int f(int x) { return outside(x) + ` + f + `; } int g(int x) { return f(x) + ` + g + `; }
int h(int x) { return f(x + 1) + other(x); } int i(int x) { return h(x) + 2; }`
}

func syscall(n string) string {
	return `static inline notrace long __do_sys_foo(long a) { return outside(a) + ` + n + `; } static long __se_sys_foo(long a) { return __do_sys_foo(a); }
long __x64_sys_foo(const long *regs) { return __se_sys_foo(regs[3]); } long __ia32_sys_foo(const long *regs) { return __se_sys_foo(regs[1]); }`
}

func initcall(n string) string {
	return `section(".init.text") int start(void) { return 7; } section(".init.text") int stop(void) { return 8; }
static void *__initcall__kmod_unit__` + n + ` __used section(".initcall6.init") = ` + map[bool]string{true: "start", false: "stop"}[n < "2"] + `;`
}

const odd = ".section .rodata.odd,\"a\",@progbits\n.quad 1, 2\n"

// function is one in a section of its own that starts with a call of __fentry__.
func function(name, body string) string {
	return ".section .text." + name + ",\"ax\",@progbits\n.type " + name + ", @function\n" + name + ": 1: call __fentry__\n" +
		body + "\nret\n.size " + name + ", . - " + name + "\n.section __mcount_loc,\"a\",@progbits\n.quad 1b\n"
}

func variable(name, section, value string) string {
	if !strings.Contains(section, "..") {
		section += "." + name // as -fdata-sections does where the source names none
	}
	return ".section " + section + ",\"aw\"\n.type " + name + ", @object\n" + name + ": " + value + "\n.size " + name + ", . - " + name + "\n"
}

// parent demands that a part names the function that it was split off from.
func parent(part, function string) func(*testing.T, *Result) {
	return func(t *testing.T, r *Result) {
		t.Helper()
		for _, c := range r.Functions {
			if c.Name == part && c.Parent != function {
				t.Errorf("parent of %s is %q", part, c.Parent)
			}
		}
	}
}
