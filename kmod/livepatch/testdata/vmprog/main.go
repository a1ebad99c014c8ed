// SPDX-License-Identifier: Apache-2.0

// Vmprog drives package livepatch through its life with a real kernel. It runs as
// root in a guest that is thrown away, and exits with 1 at the first surprise.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/upsplice/upsplice/kmod/livepatch"
)

const (
	first  = "upsplice_test_first"
	second = "upsplice_test_second"
	stall  = "upsplice_test_stall"
	long   = 2 * time.Minute
)

var (
	sys = livepatch.Host()
	ctx = context.Background()
)

func check(ok bool, format string, args ...any) {
	if !ok {
		fmt.Printf("\nvmprog: "+format+"\n", args...)
		os.Exit(1)
	}
}

func need(err error, what string) { check(err == nil, "%s: %v", what, err) }

func module(name string) []byte {
	b, err := os.ReadFile("/lib/" + name + ".ko")
	need(err, "reading")
	return b
}

func cmdline(want string) {
	b, err := os.ReadFile("/proc/cmdline")
	need(err, "reading")
	check(strings.Contains(string(b), want), "/proc/cmdline is %q, and not %q", b, want)
}

func loaded(name string) bool {
	b, err := os.ReadFile("/proc/modules")
	need(err, "reading")
	return bytes.Contains(b, []byte(name+" "))
}

func names() string {
	all, err := sys.List()
	need(err, "List")
	var s []string
	for _, st := range all {
		s = append(s, fmt.Sprintf("%s:%v:%v:%d", st.Name, st.Enabled, st.Transition, st.Functions))
	}
	return strings.Join(s, " ")
}

func apply(name string) {
	calls := 0
	need(sys.Apply(ctx, name, module(name), long, func(n int) { calls++ }), "Apply "+name)
	fmt.Printf("applied %s, progress told %d times\n", name, calls)
}

func refused(err error, want livepatch.Reason) {
	var r *livepatch.RefusedError
	check(errors.As(err, &r) && r.Reason == want, "refusal %q expected: %v", want, err)
	fmt.Println("refused as it should:", err)
}

func main() {
	cmdline("console=")
	apply(first)
	cmdline("one")
	check(names() == first+":true:false:1", "List: %s", names())
	apply(first)
	need(sys.Undo(ctx, first, long, nil), "Undo")
	cmdline("console=")
	check(names() == "" && !loaded(first), "after Undo: %s, loaded %v", names(), loaded(first))

	apply(first)
	apply(second)
	cmdline("two")
	check(names() == second+":true:false:1", "after the replacement: %s", names())
	check(loaded(first), "the replaced module went by itself")
	for start := time.Now(); loaded(first) && time.Since(start) < long; time.Sleep(50 * time.Millisecond) {
		need(sys.Reap("upsplice_test_"), "Reap")
	}
	check(!loaded(first) && loaded(second), "Reap left the first or took the second")

	stalls()
	cmdline("two")
	check(names() == second+":true:false:1" && !loaded(stall), "after the stall: %s", names())

	wrong := module(first)
	// With module versions, the kernel ignores the release in vermagic but not the rest.
	magic := bytes.Index(wrong, []byte("vermagic="))
	check(magic > 0, "the module has no vermagic")
	smp := bytes.Index(wrong[magic:], []byte(" SMP "))
	check(smp > 0, "vermagic does not say SMP")
	wrong[magic+smp+1] = 'X'
	refused(sys.Apply(ctx, first, wrong, long, nil), livepatch.WrongKernel)

	need(sys.Undo(ctx, second, long, nil), "Undo")
	cmdline("console=")
	need(os.WriteFile("/sys/kernel/security/lockdown", []byte("integrity"), 0), "locking down")
	refused(sys.Apply(ctx, first, module(first), long, nil), livepatch.Forbidden)
	check(names() == "" && !loaded(first), "left over: %s", names())
}

// stalls tries a patch that cannot get through, and another one meanwhile.
func stalls() {
	done := make(chan error)
	go func() { done <- sys.Apply(ctx, stall, module(stall), 4*time.Second, nil) }()
	for start := time.Now(); !strings.Contains(names(), stall+":true:true"); time.Sleep(20 * time.Millisecond) {
		check(time.Since(start) < long, "the stalling patch does not appear: %s", names())
	}
	refused(sys.Apply(ctx, first, module(first), long, nil), livepatch.Busy)
	err := <-done
	var s *livepatch.StalledError
	check(errors.As(err, &s) && s.Reversed && s.Err == nil, "stall: %v", err)
	check(len(s.Blockers) > 0 && s.Blockers[0].Comm == "kthreadd" && strings.HasPrefix(s.Blockers[0].Stack[0], "kthreadd+"), "blockers: %+v", s.Blockers)
	fmt.Println("stalled as it should:", err)
}
