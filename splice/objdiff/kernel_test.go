// SPDX-License-Identifier: Apache-2.0

package objdiff

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/upsplice/upsplice/kmod/lab"
	"github.com/upsplice/upsplice/splice/object"
)

// unit uses what the kernel keeps tables about: static keys, static calls,
// alternatives, exception tables, lock prefixes, warnings, dynamic messages.
const unit = `
#include <linux/kernel.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/mutex.h>
#include <linux/ratelimit.h>
#include <linux/jump_label.h>
#include <linux/sched.h>
#include <linux/uaccess.h>
#include <linux/percpu.h>
#include <linux/init.h>
#include <linux/syscalls.h>
#include <asm/word-at-a-time.h>
DEFINE_STATIC_KEY_FALSE(feature);
static DEFINE_PER_CPU(int, hits);
static DEFINE_MUTEX(lock);
static atomic_t refs;
struct thing { struct mutex lock; int val; };
int outside(int x);
//A
int keyed(int x) { if (static_branch_unlikely(&feature)) x = outside(x + 1); return x + 5; }
int warned(int x) { if (WARN_ON_ONCE(x > 5)) return outside(3); WARN(x < 0, "negative %d\n", x); return x; }
int limited(int x) { pr_err_ratelimited("limited %d\n", x); pr_warn_once("once %d\n", x); return x + outside(x); }
int debugged(int x) { pr_debug("debugging %d\n", x); return outside(x); }
int user(int __user *p) { int v = 0; if (get_user(v, p)) return -EFAULT; return v + this_cpu_inc_return(hits); }
int locked(int x) { mutex_lock(&lock); atomic_inc(&refs); x = outside(x); mutex_unlock(&lock); might_sleep(); return x; }
int capable_cpu(int x) { if (static_cpu_has(X86_FEATURE_SMAP)) return outside(x); return x + atomic_read(&refs); }
long zeropad(void *p) { return load_unaligned_zeropad(p) + outside(2); }
struct thing *made(void) { struct thing *t = kzalloc(sizeof(*t), GFP_KERNEL); if (t) mutex_init(&t->lock); return t; }
SYSCALL_DEFINE2(answer, int, x, int __user *, p) { if (put_user(x, p)) return -EFAULT; return outside(x) + 42; }
static int __init start(void) { return outside(7); }
module_init(start);
//B
`

// paddedFlags and paddedObjtool are what kernels with CONFIG_CALL_PADDING and
// CONFIG_X86_KERNEL_IBT have beside.
var (
	paddedFlags   = strings.Fields("-fcf-protection=branch -fpatchable-function-entry=16,16")
	paddedObjtool = strings.Fields("--hacks=skylake --ibt --prefix=16 --link --module")
)

// kernelUnit compiles a unit as the kernel would and passes it through objtool.
func kernelUnit(t *testing.T, k lab.Kernel, src string, padded bool) *object.Object {
	t.Helper()
	dir := t.TempDir()
	in, out := filepath.Join(dir, "unit.c"), filepath.Join(dir, "unit.o")
	if err := os.WriteFile(in, []byte(src), 0o600); err != nil {
		t.Fatal(err)
	}
	args := append([]string{"-w", "-nostdinc", "-D__KERNEL__", `-DKBUILD_MODNAME="unit"`, `-DKBUILD_BASENAME="unit"`, `-DKBUILD_MODFILE="unit"`,
		"-D__KBUILD_MODNAME=kmod_unit", "-DCC_USING_FENTRY", "-fshort-wchar", "-fmacro-prefix-map=" + dir + "/="}, kernelFlags...)
	args = append(args, strings.Fields(`-mno-mmx -mno-sse2 -mno-3dnow -mno-avx -mno-80387 -mskip-rax-setup -fno-asynchronous-unwind-tables
		-mindirect-branch=thunk-extern -mindirect-branch-register -mindirect-branch-cs-prefix -mfunction-return=thunk-extern -mharden-sls=all
		-fno-delete-null-pointer-checks -fno-allow-store-data-races -fno-strict-overflow -fconserve-stack`)...)
	objtoolArgs := strings.Fields("--hacks=jump_label --hacks=noinstr --orc --retpoline --rethunk --sls --static-call --uaccess")
	if padded {
		args, objtoolArgs = append(args, paddedFlags...), append(objtoolArgs, paddedObjtool...)
	}
	for _, d := range [][2]string{
		{"arch/x86/include", "arch/x86/include/generated"},
		{"include", "include"},
		{"arch/x86/include/uapi", "arch/x86/include/generated/uapi"},
		{"include/uapi", "include/generated/uapi"},
	} {
		args = append(args, "-I"+filepath.Join(k.CommonDir, d[0]), "-I"+filepath.Join(k.HeadersDir, d[1]))
	}
	for _, h := range []string{"compiler-version.h", "kconfig.h", "compiler_types.h"} {
		args = append(args, "-include", filepath.Join(k.CommonDir, "include/linux", h))
	}
	if msg, err := exec.Command("gcc", append(args, "-c", "-o", out, in)...).CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, msg)
	}
	objtool := exec.Command(filepath.Join(k.KbuildDir, "tools/objtool/objtool"), append(objtoolArgs, out)...)
	objtool.Env = append(os.Environ(), "SRCARCH=x86")
	if msg, err := objtool.CombinedOutput(); err != nil {
		t.Fatalf("objtool: %v\n%s", err, msg)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return read(t, b)
}

func TestKernelUnit(t *testing.T) {
	k := lab.NeedNewest(t, lab.Headers)
	pre := kernelUnit(t, k, unit, false)
	for _, table := range []string{"__jump_table", ".static_call_sites", ".altinstructions", "__ex_table", ".smp_locks", "__bug_table", ".return_sites", "__mcount_loc"} {
		if s := pre.Section(table); s == nil || s.Size == 0 {
			t.Errorf("the unit has no %s", table)
		}
	}
	// everything once more, so that every number and every place moves
	fresh := `int fresh(int __user *p, int x) { int v; if (static_branch_unlikely(&feature)) WARN_ON_ONCE(x > 7); pr_err_ratelimited("fresh %d\n", x);
		pr_debug("fresh %d\n", x); if (get_user(v, p)) return 1; v += load_unaligned_zeropad(p); atomic_dec(&refs); might_sleep(); return static_cpu_has(X86_FEATURE_SMAP) ? v : x; }` + "\n#line 20\n"
	for _, tt := range []struct {
		name, old, now string
		want           summary
	}{
		{"nothing", "", "", summary{Outcome: Unchanged}},
		{"lines", "//A", "//A\n\n\n", summary{Outcome: Unchanged}},
		{"new function", "//A\n", fresh, summary{Outcome: Changed, Functions: []string{"new fresh", "new fresh.cold"}}},
		{"static key", "static_branch_unlikely(&feature)", "static_branch_likely(&feature)", summary{Outcome: Changed, Functions: []string{"changed keyed"}}},
		{"other key", "static_branch_unlikely(&feature)", "static_branch_unlikely(&other)", summary{Outcome: Changed, Functions: []string{"changed keyed"}}},
		{"kind of warning", "WARN_ON_ONCE(x > 5)", "WARN_ON(x > 5)", summary{Outcome: Changed, Functions: []string{"changed warned"}}},
		{"rate limited message", "limited %d", "limitless %d", summary{Outcome: Changed, Functions: []string{"changed limited", "changed limited.cold"}}},
		{"debug message", "debugging %d", "bugging %d", summary{Outcome: Changed, Functions: []string{"changed debugged"},
			Data: []string{"new __UNIQUE_ID_ddebug", "removed __UNIQUE_ID_ddebug"}}},
		{"access to user memory", "if (get_user(v, p)) return -EFAULT;", "if (get_user(v, p)) return -EIO;", summary{Outcome: Changed, Functions: []string{"changed user"}}},
		{"padded load", "load_unaligned_zeropad(p) + outside(2)", "load_unaligned_zeropad(p + 8) + outside(2)", summary{Outcome: Changed, Functions: []string{"changed zeropad"}}},
		{"processor feature", "static_cpu_has(X86_FEATURE_SMAP)", "static_cpu_has(X86_FEATURE_SMEP)", summary{Outcome: Changed, Functions: []string{"changed capable_cpu"}}},
		{"locked operation", "atomic_inc(&refs)", "atomic_dec(&refs)", summary{Outcome: Changed, Functions: []string{"changed locked"}}},
		{"size of an allocation", "int val; };", "int val; int more[90]; };", summary{Outcome: Changed, Functions: []string{"changed made"}}},
		{"system call", "outside(x) + 42", "outside(x) + 43", summary{Outcome: Changed, Functions: []string{"changed __ia32_sys_answer", "changed __x64_sys_answer"}}},
		{"per-cpu variable", "DEFINE_PER_CPU(int, hits)", "DEFINE_PER_CPU(int, hits) = 4", summary{Outcome: Refused, Data: []string{"changed hits"}}},
		{"code of boot", "outside(7)", "outside(8)", summary{Outcome: Refused, Boot: []string{"changed start"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			src := strings.Replace(unit, tt.old, tt.now, 1)
			if tt.name == "other key" {
				src = strings.Replace(src, "//A", "extern struct static_key_false other;", 1)
			}
			r, err := compareParts(pre, kernelUnit(t, k, src, false), nil)
			if err != nil {
				t.Fatal(err)
			}
			got := summarise(r)
			got.Refusals = nil
			if tt.name == "new function" {
				got.Data = nil
				for _, c := range r.Data {
					if c.Kind != KindNew || !isPerSite(c.Name) {
						t.Errorf("%s %s", c.Kind, c.Name)
					}
				}
				if len(r.Data) < 2 {
					t.Errorf("data %v", r.Data)
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
				for _, c := range append(append(r.Functions, r.Data...), r.Boot...) {
					t.Logf("%s %s: %s", c.Kind, c.Name, c.Why)
				}
				t.Log(r.Refusals)
			}
		})
	}
}

// TestPaddedKernelUnit has what kernels since 6.2 put in front of functions and
// lists about them.
func TestPaddedKernelUnit(t *testing.T) {
	k := lab.NeedBackport(t, "cloud-amd64", lab.Headers)
	pre := kernelUnit(t, k, unit, true)
	if len(pre.Lookup("__pfx_keyed")) != 1 || pre.Section("__patchable_function_entries") == nil || pre.Section(".ibt_endbr_seal") == nil {
		t.Fatal("the unit is not padded")
	}
	for _, tt := range []struct {
		name, old, now string
		want           summary
		taken          string
	}{
		{"nothing", "", "", summary{Outcome: Unchanged}, ""},
		{"lines", "//A", "//A\n\n\n", summary{Outcome: Unchanged}, ""},
		{"new function", "//B", "int fresh(int x) { WARN_ON_ONCE(x > 7); return outside(x) + 3; }", summary{Outcome: Changed, Functions: []string{"new fresh"}}, "__pfx_fresh"},
		{"changed function", "return x + 5", "return x + 6", summary{Outcome: Changed, Functions: []string{"changed keyed"}}, "__pfx_keyed"},
		{"without fentry", "int outside(int x);", "int outside(int x); static noinline notrace int plain(int x) { return outside(x) + 1; } int caller(int x) { return plain(x) + 1; }",
			summary{Outcome: Changed, Functions: []string{"new caller", "new plain"}}, "__pfx_plain"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r, err := compareParts(pre, kernelUnit(t, k, strings.Replace(unit, tt.old, tt.now, 1), true), nil)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, summarise(r)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
				for _, c := range append(append(r.Functions, r.Data...), r.Boot...) {
					t.Logf("%s %s: %s", c.Kind, c.Name, c.Why)
				}
			}
			if tt.taken != "" && !slices.Contains(r.Taken, tt.taken) {
				t.Errorf("%s is not taken: %v", tt.taken, r.Taken)
			}
			for _, c := range r.Functions {
				if c.Name == "plain" && c.Fentry {
					t.Error("a notrace function counts as traceable")
				}
			}
		})
	}
}
