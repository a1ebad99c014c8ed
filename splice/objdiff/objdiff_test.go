// SPDX-License-Identifier: Apache-2.0

package objdiff

import (
	"bytes"
	"debug/elf"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/upsplice/upsplice/splice/object"
)

// kernelFlags are those of a kernel build that shape the code.
var kernelFlags = strings.Fields(`-O2 -std=gnu11 -ffunction-sections -fdata-sections -mcmodel=kernel -fno-PIE
	-mno-red-zone -mno-sse -fno-asynchronous-unwind-tables -fno-strict-aliasing -fno-common -fcf-protection=none
	-fno-stack-protector -fno-jump-tables -mpreferred-stack-boundary=3 -pg -mfentry -mrecord-mcount`)

// prelude has the kernel's macros in small.
const prelude = `
#define noinline __attribute__((noinline))
#define __cold __attribute__((cold))
#define section(s) __attribute__((section(s)))
#define notrace __attribute__((no_instrument_function))
#define unlikely(x) __builtin_expect(!!(x), 0)
typedef unsigned long ulong;
extern int printk(const char *fmt, ...);
extern __cold void panic(const char *fmt, ...);
extern int ratelimit(void *state, const char *func);
extern void *memset(void *, int, ulong);
extern int outside(int), other(int);
#define pr_limited(fmt, ...) do { static struct { int interval, burst; } _rs = { 5, 10 }; \
	if (ratelimit(&_rs, __func__)) printk(fmt, ##__VA_ARGS__); } while (0)
#define WARN(cond) ({ int __c = !!(cond); if (unlikely(__c)) asm volatile("1: ud2\n" \
	".pushsection __bug_table, \"aw\"\n2: .long 1b - 2b\n .long %c0 - 2b\n .word %c1\n .word 1\n .popsection" \
	:: "i" (__FILE__), "i" (__LINE__)); __c; })
#define ALTERNATIVE(cpuid, repl) asm volatile("661: nop; nop; nop; nop; nop\n662:\n" \
	".pushsection .altinstructions, \"a\"\n .long 661b - .\n .long 663f - .\n .word " #cpuid "\n .byte 662b-661b\n .byte 664f-663f\n .popsection\n" \
	".pushsection .altinstr_replacement, \"ax\"\n663: " repl "\n664:\n .popsection" ::: "memory")
#define EX_TABLE(type) asm volatile("1: mov (%%rax), %%eax\n2:\n .pushsection __ex_table, \"a\"\n .long 1b - .\n .long 2b - .\n .long " #type "\n .popsection" ::: "rax")
#line 1 "unit.c"
`

func compile(t testing.TB, src string, flags ...string) *object.Object {
	t.Helper()
	return read(t, compileBytes(t, src, flags...))
}

func compileBytes(t testing.TB, src string, flags ...string) []byte {
	t.Helper()
	dir := t.TempDir()
	out := filepath.Join(dir, "unit.o")
	if err := os.WriteFile(filepath.Join(dir, "unit.c"), []byte(prelude+src), 0o600); err != nil {
		t.Fatal(err)
	}
	args := append(append([]string{"-c", "-o", out}, kernelFlags...), flags...)
	cmd := exec.Command("gcc", append(args, filepath.Join(dir, "unit.c"))...)
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, msg)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func read(t testing.TB, b []byte) *object.Object {
	t.Helper()
	o, err := object.Read(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// summary is a result in a form that tests can write down: "changed f".
type summary struct {
	Outcome                         Outcome
	Functions, Data, Refusals, Boot []string
}

func summarise(r *Result) summary {
	s := summary{Outcome: r.Outcome}
	for _, c := range r.Functions {
		s.Functions = append(s.Functions, string(c.Kind)+" "+c.Name)
	}
	for _, c := range r.Data {
		s.Data = append(s.Data, string(c.Kind)+" "+stem(c.Name))
	}
	for _, c := range r.Boot {
		s.Boot = append(s.Boot, string(c.Kind)+" "+c.Name)
	}
	for _, f := range r.Refusals {
		reason, _, _ := strings.Cut(f.Reason, ":")
		s.Refusals = append(s.Refusals, reason+" "+stem(f.Symbol+f.Section))
	}
	return s
}

// context is code around the case under test, so that there is something that
// must not be reported: tables of pointers, strings, numbered variables, tail
// calls, indexes below zero, references with immediates behind them.
const context = `
static int hidden(int x) { static int calls; calls += x; pr_limited("hidden %d\n", x); return calls; }
static const char *const names[] = { "one", "two", "three" };
struct ops { int (*run)(int); const char *name; };
int run_a(int x) { pr_limited("run a %d\n", x); return hidden(x) + 1; }
int run_b(int x) { if (WARN(x > 7)) panic("too much: %d\n", x); return hidden(x) - 1; }
static const struct ops table[] = { { run_a, "a" }, { run_b, "b" } };
int counter = 3; static int small[8]; static volatile unsigned char flag; static short word;
int use(int i) { word = 77; flag = 1; counter = 42; if (flag == 3) small[i - 1]++; return table[i].run(i) + names[i - 1][0]; }
int tail(int x) { return use(x + small[2]); }
int site(void) { ALTERNATIVE(100, "call outside"); EX_TABLE(1); return counter; }
`

func TestCompare(t *testing.T) {
	for _, tt := range []struct {
		name, pre, post string
		flags           []string
		want            summary
	}{
		{
			name: "nothing", pre: `int f(void) { return 1; }`, post: `int f(void) { return 1; }`,
			want: summary{Outcome: Unchanged},
		},
		{
			name: "only lines shifted",
			pre:  `int f(int x) { if (WARN(x)) return 1; return 2; }`,
			post: "\n\n\n" + `int f(int x) { if (WARN(x)) return 1; return 2; }`,
			want: summary{Outcome: Unchanged},
		},
		{
			name: "line in a message",
			pre:  `int f(int x) { return printk("field \"begin\" at drivers/block/virtio_blk.c:709"); }`,
			post: `int f(int x) { return printk("field \"begin\" at drivers/block/virtio_blk.c:716"); }`,
			want: summary{Outcome: Unchanged},
		},
		{
			name: "warning becomes another",
			pre:  `int f(int x) { asm volatile("1: ud2\n.pushsection __bug_table,\"aw\"\n2: .long 1b-2b, 0\n.word 5, 1\n.popsection"); return x; }`,
			post: `int f(int x) { asm volatile("1: ud2\n.pushsection __bug_table,\"aw\"\n2: .long 1b-2b, 0\n.word 5, 3\n.popsection"); return x; }`,
			want: summary{Outcome: Changed, Functions: []string{"changed f"}},
		},
		{
			name: "immediate", pre: `int f(void) { return 1; }`, post: `int f(void) { return 2; }`,
			want: summary{Outcome: Changed, Functions: []string{"changed f"}},
		},
		{
			name: "other callee", pre: `int f(void) { return outside(1) + 1; }`, post: `int f(void) { return other(1) + 1; }`,
			want: summary{Outcome: Changed, Functions: []string{"changed f"}},
		},
		{
			name: "static local renumbered",
			pre:  `int f(int x) { static int n; n += x; return n; }`,
			post: `int g(int x) { static int n = 9; n -= x; return n; } int f(int x) { static int n; n += x; return n; }`,
			want: summary{Outcome: Changed, Functions: []string{"new g"}, Data: []string{"new n"}},
		},
		{
			name: "static local of a changed function",
			pre:  `int f(int x) { static int n; n += x; pr_limited("f"); return n; }`,
			post: `int g(int x) { static int n; n += x; pr_limited("g"); return n; } int f(int x) { static int n; n += x + 1; pr_limited("f"); return n; }`,
			want: summary{Outcome: Changed, Functions: []string{"changed f", "new g"}, Data: []string{"new _rs", "new n"}},
		},
		{
			name: "static locals in another order",
			pre:  `int f(int x) { static int n; return n += x; } int g(int x) { static int n; return n -= x; }`,
			post: `int g(int x) { static int n; return n -= x; } int f(int x) { static int n; return n += x; }`,
			want: summary{Outcome: Unchanged},
		},
		{
			name: "static locals of one function exchanged",
			pre:  `int f(int x) { if (x) { static int n; return n += x; } else { static int n; return n -= 3; } }`,
			post: `int f(int x) { if (x) { static int n; return n += x + 1; } else { static int n; return n -= 4; } }`,
			want: summary{Outcome: Refused, Functions: []string{"changed f"}, Data: []string{"new n", "removed n", "new n", "removed n"},
				Refusals: []string{"existing data changed n.bss.n", "existing data changed n.bss.n"}},
		},
		{
			name: "string", pre: `int f(void) { return printk("hello %d\n", 1) + 1; }`, post: `int f(void) { return printk("hallo %d\n", 1) + 1; }`,
			want: summary{Outcome: Changed, Functions: []string{"changed f"}},
		},
		{
			name: "strings merged in another way",
			pre:  `int f(void) { return printk("a long tail") + 1; }`,
			post: `int g(void) { return printk("not such a long tail") + 2; } int f(void) { return printk("a long tail") + 1; }`,
			want: summary{Outcome: Changed, Functions: []string{"new g"}},
		},
		{
			name: "new function and caller", pre: `int f(int x) { return x; }`, post: `static noinline int g(int x) { return outside(x) + 2; } int f(int x) { return g(x) + x; }`,
			want: summary{Outcome: Changed, Functions: []string{"changed f", "new g"}},
		},
		{
			name: "removed function", pre: `int f(int x) { return x; } int g(int x) { return x; }`, post: `int f(int x) { return x; }`,
			want: summary{Outcome: Changed, Functions: []string{"removed g"}},
		},
		{
			name: "callee changed, caller not",
			pre:  `static noinline int g(int x) { return outside(x) + 1; } int f(int x) { return g(x) + 1; }`,
			post: `static noinline int g(int x) { return outside(x) + 2; } int f(int x) { return g(x) + 1; }`,
			want: summary{Outcome: Changed, Functions: []string{"changed g"}},
		},
		{
			name: "inlined into the caller",
			pre:  `static inline int g(int x) { return outside(x) * 3; } int f(int x) { return g(x) + 1; } int h(int x) { return x; }`,
			post: `static inline int g(int x) { return outside(x) * 5; } int f(int x) { return g(x) + 1; } int h(int x) { return x; }`,
			want: summary{Outcome: Changed, Functions: []string{"changed f"}},
		},
		{
			name: "data changed", pre: `int limit = 5; int f(void) { return limit; }`, post: `int limit = 6; int f(void) { return limit; }`,
			want: summary{Outcome: Refused, Data: []string{"changed limit"}, Refusals: []string{"existing data changed limit.data.limit"}},
		},
		{
			name: "data got initialised", pre: `int limit; int f(void) { return limit; }`, post: `int limit = 6; int f(void) { return limit; }`,
			want: summary{Outcome: Refused, Data: []string{"changed limit"}, Refusals: []string{"existing data changed limit.data.limit"}},
		},
		{
			name: "zeros written out are the same", pre: `int limit; int f(void) { return limit; }`,
			post: `int limit section(".data.limit"); int f(void) { return limit; }`,
			want: summary{Outcome: Unchanged},
		},
		{
			name: "bss grew", pre: `int a[4]; int f(void) { return a[1]; }`, post: `int a[5]; int f(void) { return a[1]; }`,
			want: summary{Outcome: Refused, Data: []string{"changed a"}, Refusals: []string{"existing data changed a.bss.a"}},
		},
		{
			name: "constant changed", pre: `const int v[] = { 1, 2, 3 }; int f(int i) { return v[i]; }`, post: `const int v[] = { 1, 2, 4 }; int f(int i) { return v[i]; }`,
			want: summary{Outcome: Refused, Data: []string{"changed v"}, Refusals: []string{"existing data changed v.rodata.v"}},
		},
		{
			name: "table entry changed",
			pre:  `struct ops t = { run_a, "x" };`, post: `struct ops t = { run_b, "x" };`,
			want: summary{Outcome: Refused, Data: []string{"changed t"}, Refusals: []string{"existing data changed t.data.t"}},
		},
		{
			name: "name in a table changed",
			pre:  `const struct ops t = { run_a, "x" };`, post: `const struct ops t = { run_a, "y" };`,
			want: summary{Outcome: Refused, Data: []string{"changed t"}, Refusals: []string{"existing data changed t.rodata.t"}},
		},
		{
			name: "constant became writable",
			pre:  `const int v[] = { 1, 2, 3 }; int f(int i) { return v[i]; }`, post: `int v[] = { 1, 2, 3 }; int f(int i) { return v[i]; }`,
			want: summary{Outcome: Refused, Data: []string{"changed v"}, Refusals: []string{"existing data changed v.data.v"}},
		},
		{
			name: "constant table referred to", pre: `int f(int i) { return outside(1); }`, post: `int f(int i) { return table[i].run(2) + outside(1); }`,
			want: summary{Outcome: Changed, Functions: []string{"changed f"}},
		},
		{
			name: "other element of the same table", pre: `extern int far[9]; int f(void) { return small[2] + far[1]; }`, post: `extern int far[9]; int f(void) { return small[3] + far[1]; }`,
			want: summary{Outcome: Changed, Functions: []string{"changed f"}},
		},
		{
			name: "other element of an outside table", pre: `extern int far[9]; int f(void) { return far[1]; }`, post: `extern int far[9]; int f(void) { return far[2]; }`,
			want: summary{Outcome: Changed, Functions: []string{"changed f"}},
		},
		{
			name: "new static data", pre: `int f(int i) { return i; }`, post: `static int total = 8; int f(int i) { total += i; return total; }`,
			want: summary{Outcome: Changed, Functions: []string{"changed f"}, Data: []string{"new total"}},
		},
		{
			name: "removed static data", pre: `static int total = 8; int f(int i) { total += i; return total; }`, post: `int f(int i) { return i; }`,
			want: summary{Outcome: Changed, Functions: []string{"changed f"}, Data: []string{"removed total"}},
		},
		{
			name: "static became external", pre: `static int total = 8; int f(int i) { total += i; return total; }`, post: `extern int total; int f(int i) { total += i; return total; }`,
			want: summary{Outcome: Changed, Functions: []string{"changed f"}, Data: []string{"removed total"}},
		},
		{
			name: "cold part changed",
			pre:  `int f(int x) { if (unlikely(x > 100)) { panic("%d", x); outside(1); } return x + 1; }`,
			post: `int f(int x) { if (unlikely(x > 100)) { panic("%d", x); outside(2); } return x + 1; }`,
			want: summary{Outcome: Changed, Functions: []string{"changed f", "changed f.cold"}},
		},
		{
			name: "cold part goes along",
			pre:  `int f(int x) { if (unlikely(x > 100)) { panic("%d", x); outside(1); } return x + 1; }`,
			post: `int f(int x) { if (unlikely(x > 100)) { panic("%d", x); outside(1); } return x + 2; }`,
			want: summary{Outcome: Changed, Functions: []string{"changed f", "changed f.cold"}},
		},
		{
			name: "without fentry",
			pre:  `notrace int f(int x) { return x + 1; }`, post: `notrace int f(int x) { return x + 2; }`,
			want: summary{Outcome: Refused, Functions: []string{"changed f"}, Refusals: []string{"no fentry f.text.f"}},
		},
		{
			name: "fentry lost",
			pre:  `int f(int x) { return x + 1; }`, post: `notrace int f(int x) { return x + 1; }`,
			want: summary{Outcome: Changed, Functions: []string{"changed f"}},
		},
		{
			name: "init function", pre: `section(".init.text") int f(void) { return 1; }`, post: `section(".init.text") int f(void) { return 2; }`,
			want: summary{Outcome: Refused, Boot: []string{"changed f"}, Refusals: []string{"init f.init.text"}},
		},
		{
			name: "init function beside another",
			pre:  `section(".init.text") int f(void) { return 1; } int g(void) { return 1; } int d section(".init.data") = 1;`,
			post: `section(".init.text") int f(void) { return 2; } int g(void) { return 2; } int d section(".init.data") = 2;`,
			want: summary{Outcome: Changed, Functions: []string{"changed g"}, Boot: []string{"changed d", "changed f"}, Refusals: []string{"init d.init.data", "init f.init.text"}},
		},
		{
			name: "no longer init",
			pre:  `section(".init.text") noinline int f(void) { return 1; } int g(void) { return f(); }`,
			post: `noinline int f(void) { return 1; } int g(void) { return f(); }`,
			want: summary{Outcome: Changed, Functions: []string{"new f", "changed g"}, Boot: []string{"removed f"}, Refusals: []string{"init f.init.text"}},
		},
		{
			name: "alternative changed", pre: `int f(void) { ALTERNATIVE(7, "lfence"); return 1; }`, post: `int f(void) { ALTERNATIVE(8, "lfence"); return 1; }`,
			want: summary{Outcome: Changed, Functions: []string{"changed f"}},
		},
		{
			name: "replacement changed", pre: `int f(void) { ALTERNATIVE(7, "call outside"); return 1; }`, post: `int f(void) { ALTERNATIVE(7, "call other"); return 1; }`,
			want: summary{Outcome: Changed, Functions: []string{"changed f"}},
		},
		{
			name: "exception table changed", pre: `int f(void) { EX_TABLE(1); return 1; }`, post: `int f(void) { EX_TABLE(3); return 1; }`,
			want: summary{Outcome: Changed, Functions: []string{"changed f"}},
		},
		{
			name: "new function before others in one section",
			pre:  `section(".sched.text") noinline static int a(int x) { return x * 3; } section(".sched.text") int f(int x) { return a(x) + 1; }`,
			post: `section(".sched.text") noinline int b(int x) { return outside(x) * 5; } section(".sched.text") noinline static int a(int x) { return x * 3; } section(".sched.text") int f(int x) { return a(x) + 1; }`,
			want: summary{Outcome: Changed, Functions: []string{"new b"}},
		},
		{
			// Both callees have the same length and place, so that the bytes of the
			// call, which has no relocation, are the same.
			name: "same distance to another function in one section",
			pre:  `section(".sched.text") noinline static int a(int x) { return x * 3; } section(".sched.text") int f(int x) { return a(x) + 1; }`,
			post: `section(".sched.text") noinline static int b(int x) { return x * 3; } section(".sched.text") int f(int x) { return b(x) + 1; }`,
			want: summary{Outcome: Changed, Functions: []string{"removed a", "new b", "changed f"}},
		},
		{
			name: "moved to another section", pre: `int f(int x) { return x + 1; }`, post: `section(".noinstr.text") int f(int x) { return x + 1; }`,
			want: summary{Outcome: Changed, Functions: []string{"changed f"}},
		},
		{
			name: "made static", pre: `noinline int g(int x) { return outside(x) + 1; } int f(int x) { return g(x) + 1; }`,
			post: `static noinline int g(int x) { return outside(x) + 1; } int f(int x) { return g(x) + 1; }`,
			want: summary{Outcome: Unchanged},
		},
		{
			name: "clones renumbered",
			pre:  `static noinline int c(int x, int k) { int s = 0; for (int i = 0; i < x; i++) s += outside(i * k) * k; return s; } int f(int x) { return c(x, 3); } int g(int x) { return c(x, 3) + 5; }`,
			post: `static noinline int c(int x, int k) { int s = 0; for (int i = 0; i < x; i++) s += outside(i * k) * k; return s; } int g(int x) { return c(x, 3) + 5; } int f(int x) { return c(x, 3); }`,
			want: summary{Outcome: Unchanged},
		},
		{
			name: "function name in a message", pre: `int f(int x) { return printk("%s\n", __func__); }`,
			post: `int g(int x) { return printk("%s\n", __func__); } int f(int x) { return printk("%s\n", __func__); }`,
			want: summary{Outcome: Changed, Functions: []string{"new g"}},
		},
		{
			name: "switch table", pre: `int f(int x) { switch (x) { case 0: return 9; case 1: return 77; case 2: return 13; case 3: return 8; case 4: return 1; } return 0; }`,
			post: `int f(int x) { switch (x) { case 0: return 9; case 1: return 77; case 2: return 13; case 3: return 8; case 4: return 2; } return 0; }`,
			want: summary{Outcome: Changed, Functions: []string{"changed f"}},
		},
		{
			name: "jump table", flags: []string{"-fjump-tables"},
			pre:  `int f(int x) { switch (x) { case 0: return outside(9); case 1: return other(7); case 2: return outside(1); case 3: return other(8); case 4: outside(4); return other(3); } return 0; }`,
			post: `int f(int x) { switch (x) { case 1: return outside(9); case 0: return other(7); case 2: return outside(1); case 3: return other(8); case 4: outside(4); return other(3); } return 0; }`,
			want: summary{Outcome: Changed, Functions: []string{"changed f"}},
		},
		{
			name: "code without a symbol", pre: `asm(".pushsection .text.bare, \"ax\"\n ret\n .popsection");`, post: `asm(".pushsection .text.bare, \"ax\"\n nop; ret\n .popsection");`,
			want: summary{Outcome: Refused, Refusals: []string{"contents without a symbol differ .text.bare"}},
		},
		{
			name: "unknown table", pre: `asm(".pushsection .mystery, \"a\"\n .quad run_a\n .popsection");`, post: `asm(".pushsection .mystery, \"a\"\n .quad run_b\n .popsection");`,
			want: summary{Outcome: Refused, Refusals: []string{"contents without a symbol differ .mystery"}},
		},
		{
			name: "exports and module information do not matter",
			pre:  `static const char info[] section(".modinfo") __attribute__((used)) = "author=a";`,
			post: `static const char info[] section(".modinfo") __attribute__((used)) = "author=b"; asm(".pushsection ___ksymtab+use, \"a\"\n .long use - .\n .popsection");`,
			want: summary{Outcome: Unchanged},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			pre, post := compileBytes(t, context+tt.pre, tt.flags...), compileBytes(t, context+tt.post, tt.flags...)
			r, err := Compare(read(t, pre), read(t, post))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, summarise(r)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
				for _, c := range append(r.Functions, r.Data...) {
					t.Logf("%s %s: %s", c.Kind, c.Name, c.Why)
				}
			}
			for _, b := range [][]byte{pre, post} {
				// without the shortcut for objects that are the same in every detail
				r, err := compareParts(read(t, b), read(t, b), nil)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(summary{Outcome: Unchanged}, summarise(r)); diff != "" {
					t.Errorf("compared with itself:\n%s", diff)
				}
			}
		})
	}
}

func TestIdenticalIsUnchanged(t *testing.T) {
	o := compile(t, context)
	r, err := Compare(o, compile(t, context))
	if err != nil {
		t.Fatal(err)
	}
	if r.Outcome != Unchanged || len(r.Twin) == 0 {
		t.Errorf("outcome %s, %d twins", r.Outcome, len(r.Twin))
	}
}

// TestEveryByteCounts changes one byte after the other, and one relocation after
// the other: no change may be taken for none, but for those that are listed.
func TestEveryByteCounts(t *testing.T) {
	b := compileBytes(t, context+`int f(int x) { static int n = 4; n += x; return printk("%s: %d\n", __func__, n) + run_b(3); }`)
	pre := read(t, b)
	outcome := func(post *object.Object) Outcome {
		r, err := Compare(pre, post)
		if err != nil {
			return Error
		}
		return r.Outcome
	}
	for i, sec := range read(t, b).Sections {
		if classify(sec) == classIgnored {
			continue
		}
		for off := range sec.Data {
			post := read(t, bytes.Clone(b))
			s := post.Sections[i]
			s.Data[off] ^= 0x10
			field := false
			for _, r := range s.Relocs {
				field = field || uint64(off) >= r.Offset && uint64(off) < r.Offset+uint64(r.Width(post.Machine))
			}
			line := s.Name == "__bug_table" && (off%12 == 8 || off%12 == 9)
			if got := outcome(post); (got == Unchanged) != (field || line) {
				t.Errorf("byte 0x%x of %s: %s", off, s.Name, got)
			}
		}
		for k := range sec.Relocs {
			for name, change := range map[string]func(*object.Reloc, *object.Object){
				"addend": func(r *object.Reloc, _ *object.Object) { r.Addend++ },
				"symbol": func(r *object.Reloc, o *object.Object) { r.Symbol = o.Lookup("ratelimit")[0] },
				"type":   func(r *object.Reloc, _ *object.Object) { r.Type = uint32(elf.R_X86_64_SIZE32) },
			} {
				post := read(t, b)
				r := &post.Sections[i].Relocs[k]
				old := *r
				change(r, post)
				inFileName := sec.Name == "__bug_table" && name == "addend" && k%2 == 1
				if *r != old && !inFileName && outcome(post) == Unchanged {
					t.Errorf("%s of relocation %d of %s does not count", name, k, sec.Name)
				}
			}
		}
	}
}

// TestTwins checks identities, not only outcomes: a static variable must be the
// one of the same function, whatever its number.
func TestTwins(t *testing.T) {
	pre := compile(t, `int f(int x) { static int n; return n += x; } int g(int x) { static int n; n -= x; pr_limited("g"); return n; }`)
	post := compile(t, `int h(int x) { static int n; return n *= x; } int g(int x) { static int n; n -= x + 1; pr_limited("g"); return n; } int f(int x) { static int n; return n += x; }`)
	r, err := Compare(pre, post)
	if err != nil {
		t.Fatal(err)
	}
	uses := func(o *object.Object, fn, want string) *object.Symbol {
		x := object.NewIndex(o)
		for _, rel := range o.Lookup(fn)[0].Relocs() {
			s := rel.Symbol
			if s.Type == elf.STT_SECTION {
				s = x.Covering(s.Section, 0)
			}
			if s != nil && stem(s.Name) == want {
				return s
			}
		}
		t.Fatalf("%s refers to no %s", fn, want)
		return nil
	}
	for _, tt := range []struct{ fn, name string }{{"f", "n"}, {"g", "n"}, {"g", "_rs"}, {"g", "__func__"}} {
		if a, b := uses(pre, tt.fn, tt.name), uses(post, tt.fn, tt.name); r.Twin[b] != a {
			t.Errorf("%s of %s: twin of %s is %v, want %s", tt.name, tt.fn, b.Name, r.Twin[b], a.Name)
		}
	}
	if b := uses(post, "h", "n"); r.Twin[b] != nil {
		t.Errorf("%s of the new function has twin %s", b.Name, r.Twin[b].Name)
	}
	for _, s := range post.Symbols {
		if s.Name == "ratelimit" && (r.Twin[s] == nil || r.Twin[s].Name != "ratelimit") {
			t.Errorf("twin of an undefined symbol: %v", r.Twin[s])
		}
	}
	want := []string{"__func__", "__mcount_loc", "g", "h", "n"}
	var got []string
	for _, n := range r.Taken {
		if !strings.HasPrefix(n, ".rodata") {
			got = append(got, stem(n))
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("taken (-want +got):\n%s", diff)
	}
}

func TestJSON(t *testing.T) {
	r, err := Compare(compile(t, `int f(void) { return 1; }`), compile(t, `int f(void) { return 2; }`))
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"outcome":"changed","functions":[{"name":"f","kind":"changed","why":"contents differ at 0x6","section":".text.f","fentry":true}],` +
		`"data":[],"taken":["__mcount_loc","f"],"refusals":[],"boot":[],"callbacks":[],"ignored":[]}`
	if string(b) != want {
		t.Errorf("got  %s\nwant %s", b, want)
	}
}

func TestErrors(t *testing.T) {
	o := compile(t, `int f(void) { return 1; }`)
	arm := *o
	arm.Machine = elf.EM_AARCH64
	if _, err := Compare(&arm, &arm); err == nil || !strings.Contains(err.Error(), "EM_AARCH64 is not supported") {
		t.Errorf("other machine: error %v", err)
	}
	if _, err := Compare(o, &arm); err == nil || !strings.Contains(err.Error(), "pre is for EM_X86_64, post for EM_AARCH64") {
		t.Errorf("two machines: error %v", err)
	}
	bad := compile(t, `int f(void) { asm volatile(".pushsection __ex_table, \"a\"\n .long 1, 2\n .popsection"); return 2; }`)
	if _, err := Compare(o, bad); err == nil || !strings.Contains(err.Error(), "__ex_table") {
		t.Errorf("entries without relocations: error %v", err)
	}
	shared := compile(t, context, "-fno-function-sections")
	if _, err := Compare(o, shared); err == nil || !strings.Contains(err.Error(), "post: ") || !strings.Contains(err.Error(), "compile with -ffunction-sections") {
		t.Errorf("functions in one section: error %v", err)
	}
	asm := read(t, assemble(t, ".text\n.type f, @function\nf: ret\n.size f, 1\n.type g, @function\ng: ret\n.size g, 1\n"))
	if _, err := compareParts(asm, asm, nil); err != nil {
		t.Errorf("assembly with two functions in one section: %v", err)
	}
}

func FuzzCompare(f *testing.F) {
	good := compileBytes(f, context)
	f.Add(good, 0, byte(0))
	f.Add(compileBytes(f, context+"int g(int x) { return x; }"), 0x700, byte(9))
	f.Add(compileBytes(f, macros+`int f(int x) { once("a"); return x; } static int before(void *o) { return 0; }
		KPATCH_CALLBACK(pre_patch, before) KPATCH_IGNORE_FUNCTION(f) KPATCH_IGNORE_SECTION(".data")`), 0x200, byte(3))
	f.Add(assemble(f, prefixedFunction("__pfx_f", ".fill 16, 1, 0x90", "call outside")+odd), 0x40, byte(1))
	base := read(f, good)
	f.Fuzz(func(t *testing.T, b []byte, at int, with byte) {
		if at >= 0 && at < len(b) {
			b = bytes.Clone(b)
			b[at] = with
		}
		o, err := object.Read(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		there, err := Compare(base, o)
		if err != nil {
			return
		}
		if back, err := Compare(o, base); err == nil {
			Join([]*Result{there, back})
		}
		again, _ := object.Read(bytes.NewReader(b), int64(len(b)))
		r, err := Compare(o, again)
		if err != nil || r.Outcome != Unchanged {
			t.Errorf("compared with itself: %v, %v", r, err)
		}
	})
}
