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
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/upsplice/upsplice/kmod/livepatch"
)

const (
	first  = "upsplice_test_first"
	second = "upsplice_test_second"
	stall  = "upsplice_test_stall"
	sleep  = "upsplice_test_sleep"
	pinned = "upsplice_test_pinned"
	shadow = "upsplice_test_shadow"
	heir   = "upsplice_test_heir"
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
	need(sys.Reap("upsplice_test_"), "Reap")
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
	sleeps()
	stays()
	shadows()
	cmdline("console=")
	need(os.WriteFile("/sys/kernel/security/lockdown", []byte("integrity"), 0), "locking down")
	refused(sys.Apply(ctx, first, module(first), long, nil), livepatch.Forbidden)
	check(names() == "" && !loaded(first), "left over: %s", names())
}

// reader reads /proc/cmdline in a process of its own, which sleeps in the function
// of the livepatch sleep. It is not a child of this one, which would not be prodded.
func reader() *reading {
	r := &reading{done: make(chan error, 1)}
	cmd := exec.Command("/bin/sh", "-c", "cat /proc/cmdline; exit $?")
	cmd.Stdout = &r.out
	need(cmd.Start(), "starting cat")
	go func() { r.done <- cmd.Wait() }()
	for start := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		stacks, _ := filepath.Glob("/proc/[0-9]*/stack")
		for _, path := range stacks {
			if b, _ := os.ReadFile(path); strings.Contains(string(b), sleep) {
				return r
			}
		}
		check(time.Since(start) < long, "cat does not sleep in the new function")
	}
}

type reading struct {
	out  bytes.Buffer
	done chan error
}

// got: the reader was not disturbed by what made it change sides.
func (r *reading) got(want string) {
	select {
	case err := <-r.done:
		need(err, "cat")
		check(strings.Contains(r.out.String(), want), "cat read %q, and not %q", r.out.String(), want)
	case <-time.After(long):
		check(false, "cat does not end")
	}
}

// sleeps replaces and undoes a livepatch in whose function a process sleeps. The
// kernel's own fake signal comes after 15 s; with it alone it takes that long.
func sleeps() {
	const kernelAlone = 14 * time.Second
	apply(sleep)
	r := reader()
	start := time.Now()
	apply(second)
	check(time.Since(start) < kernelAlone, "the replacement took %v", time.Since(start))
	fmt.Println("a sleeping process was replaced under after", time.Since(start))
	r.got("two")
	need(sys.Undo(ctx, second, long, nil), "Undo")
	need(sys.Reap("upsplice_test_"), "Reap")

	apply(sleep)
	r = reader()
	start = time.Now()
	need(sys.Undo(ctx, sleep, long, nil), "Undo")
	check(time.Since(start) < kernelAlone, "Undo took %v", time.Since(start))
	r.got("console=")

	apply(sleep)
	r = reader()
	start = time.Now()
	gentle := *sys
	gentle.Prod = nil
	need(gentle.Undo(ctx, sleep, long, nil), "Undo")
	check(time.Since(start) >= kernelAlone, "the process does not need the prod: without it, Undo took %v", time.Since(start))
	r.got("console=")
	check(names() == "" && !loaded(sleep), "after the sleepers: %s", names())
}

// stays applies and undoes a module that cannot be unloaded.
func stays() {
	apply(pinned)
	cmdline("pinned")
	need(sys.Undo(ctx, pinned, long, nil), "Undo")
	cmdline("console=")
	check(names() == "" && loaded(pinned), "after Undo: %s, loaded %v", names(), loaded(pinned))
	need(sys.Undo(ctx, pinned, long, nil), "Undo of what is undone")

	apply(pinned)
	cmdline("pinned")
	check(names() == pinned+"_r2:true:false:1", "List: %s", names())
	there, err := sys.Instance(pinned)
	check(err == nil && there == pinned+"_r2", "Instance: %s, %v", there, err)
	apply(pinned)
	check(!loaded(pinned+"_r3"), "an enabled livepatch was loaded again")
	apply(second)
	cmdline("two")
	need(sys.Reap("upsplice_test_"), "Reap")
	check(loaded(pinned) && loaded(pinned+"_r2"), "a permanent module was unloaded")
	need(sys.Undo(ctx, pinned, long, nil), "Undo of the replaced")
	cmdline("two")
	need(sys.Undo(ctx, second, long, nil), "Undo")
	check(names() == "", "after the pinned: %s", names())
}

// shadows: data that the first livepatch attached is the second one's after the
// replacement, and of the callbacks only the new one's run.
func shadows() {
	apply(shadow)
	cmdline("shadow 1")
	cmdline("shadow 2")
	apply(heir)
	cmdline("heir 3")
	need(sys.Reap("upsplice_test_"), "Reap")
	check(!loaded(shadow), "the replaced module is still loaded")
	cmdline("heir 4")
	need(sys.Undo(ctx, heir, long, nil), "Undo")
	log, err := exec.Command("/bin/dmesg").Output()
	need(err, "dmesg")
	for text, want := range map[string]bool{
		"pre_patch of shadow": true, "post_unpatch of shadow": false, "pre_patch of heir": true, "post_unpatch of heir": true,
	} {
		check(strings.Contains(string(log), "callback "+text) == want, "callback %s ran: %v", text, !want)
	}
	apply(shadow)
	cmdline("shadow 1")
	need(sys.Undo(ctx, shadow, long, nil), "Undo")
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
	check(len(s.Blockers) > 0 && s.Blockers[0].Comm == "kthreadd" && s.Blockers[0].Kernel && strings.HasPrefix(s.Blockers[0].Stack[0], "kthreadd+"), "blockers: %+v", s.Blockers)
	fmt.Println("stalled as it should:", err)
}
