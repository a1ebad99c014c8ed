// SPDX-License-Identifier: Apache-2.0

package objdiff

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// macros are those of the kernel that fill tables about code, in small.
const macros = `
#define __used __attribute__((used))
#define SITES(table, insn) asm volatile("1: " insn "\n .pushsection " table ", \"a\"\n .long 1b - .\n .popsection" ::: "rax", "memory")
struct key { int enabled; };
extern struct key far_key, other_key;
static inline __attribute__((always_inline, no_instrument_function)) int jump_label(struct key *k) { asm goto("1: .byte 0x0f,0x1f,0x44,0x00,0x00\n" \
	" .pushsection __jump_table, \"aw\"\n .balign 8\n .long 1b - ., %l[yes] - .\n .quad %c0 - .\n .popsection" :: "i" (k) :: yes); return 0; yes: return 1; }
#define JUMP_LABEL(key) jump_label(&key)
#define STATIC_CALL(key, tramp) asm volatile("1: call " tramp "\n .pushsection .static_call_sites, \"aw\"\n .balign 4\n" \
	" .long 1b - ., %c0 - .\n .popsection" :: "i" (&key) : "rax", "memory")
#define PARAVIRT(type) asm volatile("1: call *pv_ops(%%rip)\n2: .pushsection .parainstructions, \"a\"\n .balign 8\n .quad 1b\n .byte " #type "\n .byte 2b-1b\n .balign 8\n .popsection" ::: "rax")
#define STATIC_CPU_HAS(mask) asm volatile("1: jmp 6f\n2: .pushsection .altinstructions, \"a\"\n .long 1b - ., 3f - .\n .word 7\n .byte 2b - 1b, 4f - 3f\n .popsection\n" \
	".pushsection .altinstr_replacement, \"ax\"\n3: nop\n4: .popsection\n" \
	".pushsection .altinstr_aux, \"ax\"\n6: testb $" #mask ", counter(%%rip)\n jnz 2b\n jmp 2b\n .popsection" ::: "cc")
#define pr_debug(fmt, ...) do { static struct { const char *mod, *func, *file, *format; unsigned line:18, flags:14; } \
	descriptor __attribute__((aligned(8))) section("__dyndbg") = { "unit", __func__, __FILE__, fmt, __LINE__, 1 }; \
	if (descriptor.flags & 1) ddebug(&descriptor, fmt, ##__VA_ARGS__); } while (0)
extern void ddebug(void *, const char *, ...);
#define pr_indexed(text) do { static const struct { const char *fmt, *func, *file; unsigned line; } _entry = { text, __func__, __FILE__, __LINE__ }; \
	static const void *_entry_ptr __used section(".printk_index") = &_entry; printk(text); } while (0)
#define once(text) do { static _Bool section(".data..once") __already_done; if (!__already_done) { __already_done = 1; printk(text); } } while (0)
#define percpu section(".data..percpu")
#define read_mostly section(".data..read_mostly")
#define KPATCH_CALLBACK(when, fn) static const struct { void *fn; char *objname; } kpatch_##when##_data __used section(".kpatch.callbacks." #when) = { fn };
#define KPATCH_IGNORE_SECTION(sec) static const char *ignore_section __used section(".kpatch.ignore.sections") = sec;
#define KPATCH_IGNORE_FUNCTION(fn) static void *__kpatch_ignore_func_##fn __used section(".kpatch.ignore.functions") = fn;
#define KPATCH_FORCE_UNSAFE(fn) static void *__kpatch_force_func_##fn __used section(".kpatch.force") = fn;
#define KLP_CALLBACK(when, fn) void *__klp_##when##_callback_vmlinux __used section(".discard.klp_callback_ptrs") = fn;
`

type row struct {
	name      string
	pre, post string
	flags     []string
	asm       bool // not C
	bare      bool // no context around
	want      summary
	refusal   string // part of a reason
	check     func(*testing.T, *Result)
}

func changed(names ...string) summary {
	s := summary{Outcome: Changed}
	for _, n := range names {
		s.Functions = append(s.Functions, "changed "+n)
	}
	return s
}

func assemble(t testing.TB, src string) []byte {
	t.Helper()
	dir := t.TempDir()
	in, out := filepath.Join(dir, "unit.s"), filepath.Join(dir, "unit.o")
	if err := os.WriteFile(in, []byte(src), 0o600); err != nil {
		t.Fatal(err)
	}
	if msg, err := exec.Command("as", "-o", out, in).CombinedOutput(); err != nil {
		t.Fatalf("as: %v\n%s", err, msg)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (tt row) compile(t *testing.T, src string) []byte {
	t.Helper()
	if tt.asm {
		return assemble(t, src)
	}
	around := context
	if tt.bare {
		around = ""
	}
	return compileBytes(t, macros+"#line 1 \"unit.c\"\n"+around+src, tt.flags...)
}

func (tt row) run(t *testing.T) {
	pre, post := tt.compile(t, tt.pre), tt.compile(t, tt.post)
	r, err := compareParts(read(t, pre), read(t, post), nil)
	if err != nil {
		t.Fatal(err)
	}
	got := summarise(r)
	if tt.refusal != "" {
		found := false
		for _, f := range r.Refusals {
			found = found || strings.Contains(f.Reason, tt.refusal)
		}
		if !found {
			t.Errorf("no refusal with %q: %v", tt.refusal, r.Refusals)
		}
		got.Refusals = nil
	}
	if diff := cmp.Diff(tt.want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
		for _, c := range append(append(r.Functions, r.Data...), r.Boot...) {
			t.Logf("%s %s: %s", c.Kind, c.Name, c.Why)
		}
		t.Log(r.Refusals)
	}
	if tt.check != nil {
		tt.check(t, r)
	}
	for _, b := range [][]byte{pre, post} {
		compare := compareParts // without the shortcut for objects that are the same in every detail
		if strings.Contains(tt.refusal, "custom code") {
			compare = CompareWith // what is refused for itself stays so
		}
		r, err := compare(read(t, b), read(t, b), nil)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(summary{Outcome: Unchanged}, summarise(r)); diff != "" {
			t.Errorf("compared with itself:\n%s", diff)
		}
	}
}

// why demands the reason that a Change of this name gives.
func why(name, part string) func(*testing.T, *Result) {
	return func(t *testing.T, r *Result) {
		t.Helper()
		for _, c := range append(append([]Change{}, r.Functions...), r.Data...) {
			if c.Name == name && strings.Contains(c.Why, part) {
				return
			}
		}
		t.Errorf("no change of %s because of %q: %v", name, part, r.Functions)
	}
}

// takes demands that all of these go along.
func takes(names ...string) func(*testing.T, *Result) {
	return func(t *testing.T, r *Result) {
		t.Helper()
		for _, n := range names {
			found := false
			for _, s := range r.Taken {
				found = found || stem(s) == n
			}
			if !found {
				t.Errorf("%s is not taken along: %v", n, r.Taken)
			}
		}
	}
}

// twins demands that a variable with this stem is the running one, or that it is not.
func twins(name string, want bool) func(*testing.T, *Result) {
	return func(t *testing.T, r *Result) {
		t.Helper()
		for _, c := range r.Data {
			if c.Kind == KindNew && stem(c.Name) == name {
				if want {
					t.Errorf("%s is not the running one", c.Name)
				}
				return
			}
		}
		if !want {
			t.Errorf("%s is the running one", name)
		}
	}
}

func TestHardCases(t *testing.T) {
	for _, list := range [][]row{tableRows, functionRows, dataRows, customRows} {
		for _, tt := range list {
			t.Run(tt.name, func(t *testing.T) {
				t.Parallel()
				tt.run(t)
			})
		}
	}
}
