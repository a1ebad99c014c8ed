// SPDX-License-Identifier: Apache-2.0

// Package livepatch loads livepatch modules and drives their transitions through
// /sys/kernel/livepatch (Documentation/livepatch/livepatch.rst). It never forces
// a transition.
//
// # Replacement
//
// A livepatch with klp_patch.replace set takes over from all others in one
// transition; each task goes from the old new code to the new new code at once
// (Documentation/livepatch/cumulative-patches.rst). Two things follow for code
// that keeps data of its own. Only the callbacks of the new livepatch run; those
// of the replaced one, post_unpatch included, do not. And shadow variables are
// untouched: what the replaced livepatch attached to an object stays there, is
// found by the new one under the same id, and is the new one's to free.
//
// # Modules that stay
//
// A module without an exit function cannot be unloaded; the kernel calls it
// permanent in /proc/modules. A splice has one when something may still call its
// functions after it is undone. Undo and Reap leave such a module where it is, and
// that is success: no task enters it through a patched function any more. The
// kernel cannot enable a livepatch a second time, so that Apply loads a further
// copy of the module, under its name with "_r2", "_r3" and so on.
package livepatch

import (
	"context"
	"time"
)

// System is the door to the kernel; tests replace it.
type System struct {
	Root   string                                   // "/" or a fake tree: sys/kernel/livepatch, proc
	Load   func(module []byte, params string) error // init_module; errors hold the errno
	Unload func(name string) error                  // delete_module, without waiting
	Sign   func(module []byte) ([]byte, error)      // signs what is loaded; nil: load it as it is
	Prod   func(threads []int)                      // make sleeping threads pass the kernel's exit; nil: do not

	settle time.Duration // instead of settleTime, for tests
	prod   time.Duration // instead of prodAfter, for tests
	last   time.Duration // instead of finishTime, for tests
}

// Host is the running system.
func Host() *System { return host() }

// State of one livepatch module in sysfs.
type State struct {
	Name       string
	Enabled    bool
	Transition bool
	Functions  int // patched functions, those of modules that are not loaded left out
}

// List returns all livepatch modules on the system, those of others included.
func (s *System) List() ([]State, error) { return s.list() }

// Blocker is a task that holds up a transition.
type Blocker struct {
	PID    int
	Comm   string
	Kernel bool // a kernel thread: nothing makes it leave a function but itself
	Stack  []string
}

// Blockers returns the tasks that the transition of the livepatch waits for, at
// most 20 of them; none if it is in no transition.
func (s *System) Blockers(name string) ([]Blocker, error) { return s.blockersOf(name) }

// Instance returns the name under which the livepatch called name is in sysfs: name
// itself, or that of a further copy; "" if it is not there.
func (s *System) Instance(name string) (string, error) { return s.instance(name) }

// Base returns the name that a further copy of a livepatch was loaded for, and
// every other name as it is.
func Base(name string) string { return base(name) }

// StalledError: the transition did not finish in time and was reversed.
type StalledError struct {
	Patch    string
	After    time.Duration
	Blockers []Blocker
	Reversed bool  // false: the reversal did not finish either; the kernel goes on trying
	Err      error // what stood in the way of the reversal, or ended the wait before its time; may be nil
}

// Unwrap returns Err.
func (e *StalledError) Unwrap() error { return e.Err }

// Reason says why the kernel refused.
type Reason string

// The reasons of a RefusedError.
const (
	Busy        Reason = "busy"        // another livepatch is in its transition
	Forbidden   Reason = "forbidden"   // no privilege, lockdown, or modules are disabled
	Signature   Reason = "signature"   // the kernel wants a signature that it trusts
	WrongKernel Reason = "wrongkernel" // the module is for another kernel
	Unsupported Reason = "unsupported" // the kernel has no livepatch
	Rejected    Reason = "rejected"    // the kernel's own check of the livepatch said no
)

// RefusedError: the kernel did not take the livepatch, or did not let it go. The
// kernel runs the code it ran before.
type RefusedError struct {
	Patch  string
	Reason Reason
	Remedy string // may be empty
	Err    error
}

func (e *RefusedError) Error() string { return e.error() }

// Unwrap returns Err.
func (e *RefusedError) Unwrap() error { return e.Err }

func (e *StalledError) Error() string { return e.error() }

// Apply loads module, whose name is name, and waits until every task runs the new
// code. If that takes longer than deadline, or if ctx ends, the transition is
// reversed, the module unloaded, and a *StalledError returned; a refusal by the
// kernel is a *RefusedError. When all tasks have switched nothing is reversed any more:
// what the kernel has then to do for the livepatch that was replaced it does in its
// own time, some 0.1 s for each function that is no longer redirected. progress is called with the number of tasks still to
// switch, when it changes and once a second; it may be nil.
//
// A livepatch of this name that is enabled already, because the last run was
// killed, is waited for and not loaded again. One whose undoing was cut short is
// undone first.
//
// A task that sleeps in a patched function is prodded, after two seconds and then
// every five: the kernel itself does the like after fifteen. Kernel threads cannot
// be prodded.
func (s *System) Apply(ctx context.Context, name string, module []byte, deadline time.Duration, progress func(tasks int)) error {
	return s.apply(ctx, name, module, deadline, progress)
}

// Undo disables the livepatch, waits for the transition and unloads the module,
// whatever state it is in: enabled, in transition either way, disabled, replaced
// by another, or without its livepatch. If the transition takes longer than
// deadline the livepatch is enabled again and a *StalledError returned. When all tasks
// have switched the old code runs, and the kernel takes some 0.1 s for each function
// to clean up, for which Undo waits whatever the deadline and ctx say. A livepatch that
// is not there is not an error, nor is a module that stays.
func (s *System) Undo(ctx context.Context, name string, deadline time.Duration, progress func(tasks int)) error {
	return s.undo(ctx, name, deadline, progress)
}

// Reap unloads modules of this name prefix whose patch has been replaced. The
// kernel lets go of them a moment after the transition, which Reap waits for. A
// module that cannot go yet is left for the next time, and is not an error; nor is
// one that stays until the next boot.
func (s *System) Reap(prefix string) error { return s.reap(prefix) }
