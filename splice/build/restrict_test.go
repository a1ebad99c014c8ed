// SPDX-License-Identifier: Apache-2.0

package build

import (
	"testing"

	"github.com/upsplice/upsplice/splice/kbuild"
	"github.com/upsplice/upsplice/splice/objdiff"
)

// TestRestrict: what the administrator does not want is deferred, by name.
func TestRestrict(t *testing.T) {
	for _, tt := range []struct {
		name   string
		policy Policy
		target string
		live   bool
	}{
		{"everything", Policy{}, kbuild.Vmlinux, true},
		{"denied directory", Policy{Deny: []string{"fs"}}, kbuild.Vmlinux, false},
		{"denied function", Policy{Deny: []string{":do_it"}}, kbuild.Vmlinux, false},
		{"other function denied", Policy{Deny: []string{":do_other"}}, kbuild.Vmlinux, true},
		{"allowed", Policy{Allow: []string{"fs/x.c"}}, kbuild.Vmlinux, true},
		{"not among what is allowed", Policy{Allow: []string{"net"}}, kbuild.Vmlinux, false},
		{"module that is not loaded", Policy{Modules: []string{}}, "fs/x-y", false},
		{"module that is loaded", Policy{Modules: []string{"x_y"}}, "fs/x-y", true},
		{"the kernel itself", Policy{Modules: []string{}}, kbuild.Vmlinux, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := &candidate{pair: pair{object: "fs/x.o", pre: &kbuild.Unit{Source: "fs/x.c", Target: tt.target}},
				diff: &objdiff.Result{Functions: []objdiff.Change{{Name: "do_it", Kind: objdiff.KindChanged}}}}
			g := &group{members: []*candidate{c}}
			b := &builder{Request: Request{Policy: tt.policy}}
			if err := b.restrict(t.Context(), []*group{g}); err != nil {
				t.Fatal(err)
			}
			if g.live() != tt.live || !tt.live && (len(g.reasons) != 1 || g.reasons[0].Code != "policy") {
				t.Errorf("live %v, %+v", g.live(), g.reasons)
			}
		})
	}
	if err := (&builder{Request: Request{Policy: Policy{Deny: []string{"a b"}}}}).restrict(t.Context(), nil); err == nil {
		t.Error("a wrong pattern: no error")
	}
}
