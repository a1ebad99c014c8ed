// SPDX-License-Identifier: Apache-2.0

package objdiff

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const limitOld = `int limit = 5; int f(void) { return limit; } `

var customRows = []row{
	{
		name: "39 callbacks", pre: limitOld,
		post: limitOld + `static int before(void *obj) { limit = 6; return 0; } static void after(void *obj) { limit = 5; }
			KPATCH_CALLBACK(pre_patch, before) KPATCH_CALLBACK(post_unpatch, after)`,
		want: summary{Outcome: Changed, Functions: []string{"new after", "new before"}}, check: callbacks("pre_patch before", "post_unpatch after"),
	},
	{
		name: "39 callbacks of livepatch_helpers.h", pre: limitOld,
		post: limitOld + `static int before(void *obj) { limit = 6; return 0; } static void after(void *obj) { limit = 5; } KLP_CALLBACK(pre_unpatch, after) KLP_CALLBACK(post_patch, before)`,
		want: summary{Outcome: Changed, Functions: []string{"new after", "new before"}}, check: callbacks("post_patch before", "pre_unpatch after"),
	},
	{
		name: "39 callback that is not new", pre: limitOld, post: limitOld + `KPATCH_CALLBACK(pre_patch, run_a)`,
		want: summary{Outcome: Refused}, refusal: "custom code: the pre_patch callback is a function of the running kernel",
	},
	{
		name: "39 callback of another unit", pre: limitOld, post: limitOld + `KPATCH_CALLBACK(pre_patch, outside)`,
		want: summary{Outcome: Refused}, refusal: "custom code: the pre_patch callback is not a function of this unit",
	},
	{
		name: "39 callback in boot code", pre: limitOld, post: limitOld + `section(".init.text") int before(void *obj) { return 1; } KPATCH_CALLBACK(pre_patch, before)`,
		want: summary{Outcome: Refused, Boot: []string{"new before"}}, refusal: "custom code: the pre_patch callback is in a section of boot code: take __init or __exit away",
	},
	{
		name: "39 two callbacks of one kind", pre: limitOld,
		post: limitOld + `static int a(void *obj) { return 1; } static int b(void *obj) { return 2; } KLP_CALLBACK(pre_patch, a) KPATCH_CALLBACK(pre_patch, b)`,
		want: summary{Outcome: Refused, Functions: []string{"new a", "new b"}}, refusal: "custom code: a second pre_patch callback",
	},
	{
		name: "39 hooks of old sources", pre: limitOld, post: limitOld + `static void a(void) { limit = 2; } static void *hook __used section(".kpatch.hooks.load") = a;`,
		want: summary{Outcome: Refused, Functions: []string{"new a"}}, refusal: "custom code: not a section that is known",
	},
	{
		name: "42 ignored section", pre: `int limit section(".data.odd") = 5; int f(void) { return limit + 1; }`, post: `int limit section(".data.odd") = 6; int f(void) { return limit + 2; } KPATCH_IGNORE_SECTION(".data.odd")`,
		want: changed("f"), check: ignoring(".data.odd"),
	},
	{
		name: "42 ignored section, other data changed", pre: `int limit section(".data.odd") = 5, l2 = 1; int f(void) { return limit + 1; }`, post: `int limit section(".data.odd") = 6, l2 = 2; int f(void) { return limit + 2; } KPATCH_IGNORE_SECTION(".data.odd")`,
		want: summary{Outcome: Refused, Functions: []string{"changed f"}, Data: []string{"changed l2"}}, refusal: "existing data changed: l2", check: ignoring(".data.odd"),
	},
	{
		name: "42 ignored section without symbols", pre: `asm(".pushsection .mystery, \"a\"\n .quad run_a\n .popsection");`, post: `asm(".pushsection .mystery, \"a\"\n .quad run_b\n .popsection"); KPATCH_IGNORE_SECTION(".mystery")`,
		want: summary{Outcome: Unchanged}, check: ignoring(".mystery"),
	},
	{
		name: "42 ignored function and its cold part", pre: coldPart + `int g(void) { return 1; }`, post: strings.Replace(coldPart, "outside(1)", "outside(2)", 1) + `int g(void) { return 2; } KPATCH_IGNORE_FUNCTION(f)`,
		want: changed("g"), check: ignoring("f"),
	},
	{
		name: "42 ignored function that is new and called", pre: `int g(int x) { return x; }`, post: `static noinline int h(int x) { return outside(x) + 1; } int g(int x) { return h(x) + 1; } KPATCH_IGNORE_FUNCTION(h)`,
		want: summary{Outcome: Refused, Functions: []string{"changed g"}}, refusal: "custom code: h is ignored, but the new code of g refers to h", check: ignoring("h"),
	},
	{
		name: "42 forced function", pre: `int g(int x) { return x; }`, post: `int g(int x) { return x + 1; } KPATCH_FORCE_UNSAFE(g)`, want: changed("g"),
	},
	{
		name: "42 .discard, .llvm and .modinfo",
		pre:  `static const char info[] __used section(".modinfo") = "author=a";`,
		post: `static const char info[] __used section(".modinfo") = "author=b"; static int d __used section(".discard.x") = 1; static int l __used section(".llvm_odd") = 1;`,
		want: summary{Outcome: Unchanged},
	},
}

func callbacks(want ...string) func(*testing.T, *Result) {
	return func(t *testing.T, r *Result) {
		t.Helper()
		var got []string
		for _, c := range r.Callbacks {
			got = append(got, c.When+" "+c.Function.Name)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("callbacks (-want +got):\n%s", diff)
		}
	}
}

func ignoring(want ...string) func(*testing.T, *Result) {
	return func(t *testing.T, r *Result) {
		t.Helper()
		if diff := cmp.Diff(want, r.Ignored); diff != "" {
			t.Errorf("ignored (-want +got):\n%s", diff)
		}
	}
}
