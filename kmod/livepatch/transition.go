// SPDX-License-Identifier: Apache-2.0

package livepatch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

const (
	pollFirst = 5 * time.Millisecond
	pollMost  = 200 * time.Millisecond
	// settleTime is how long the kernel gets for what must not be given up early:
	// to turn a transition back, and to let go of the module after it, which it
	// does in a work item.
	settleTime = 10 * time.Second
	// finishTime is how long the kernel gets to unregister functions: thousands, on a
	// busy machine.
	finishTime = 30 * time.Minute
	// reapPatience is how long replaced modules get to become free.
	reapPatience = 2 * time.Second
	// The kernel looks at all tasks once a second; those that it cannot switch by
	// itself after two looks are prodded.
	prodAfter = 2 * time.Second
	prodEvery = 5 * time.Second
	// tellEvery is how often progress is told where there is none.
	tellEvery = time.Second
)

func (s *System) apply(ctx context.Context, name string, module []byte, deadline time.Duration, progress func(int)) error {
	if err := checkName(name); err != nil {
		return err
	}
	if _, err := os.Stat(s.sysfs()); err != nil {
		return &RefusedError{Patch: name, Reason: Unsupported, Remedy: "boot a kernel that is built with CONFIG_LIVEPATCH", Err: err}
	}
	there, err := s.instance(name)
	if err != nil {
		return err
	}
	if there != "" {
		st, err := s.state(there)
		if err != nil {
			return err
		}
		if st != nil && st.Enabled {
			return s.reach(ctx, there, true, deadline, progress)
		}
		// Its undoing was cut short. A livepatch cannot be enabled a second time.
		if err := s.undo(ctx, name, deadline, progress); err != nil {
			return err
		}
	}
	if there, err = s.load(ctx, name, module); err != nil {
		return err
	}
	return s.reach(ctx, there, true, deadline, progress)
}

// load gets the module into the kernel and returns its name there. One that is
// left of an earlier time, with its livepatch disabled, cannot be enabled again: it
// has to go first, or, if it cannot, a copy of another name is loaded.
func (s *System) load(ctx context.Context, name string, module []byte) (string, error) {
	as := name
	for n := 2; ; n++ {
		left, err := s.loaded(as)
		if err != nil {
			return "", err
		}
		if left == nil {
			break
		}
		if !left.permanent {
			if err := s.unload(ctx, as); err != nil {
				return "", err
			}
			break
		}
		if n > maxCopies {
			return "", &RefusedError{Patch: name, Reason: Busy, Remedy: "reboot", Err: fmt.Errorf("%d copies of it stay loaded until the next boot", maxCopies)}
		}
		as = copyName(name, n)
	}
	if as != name {
		var err error
		if module, err = rename(module, name, as); err != nil {
			return "", err
		}
	}
	if s.Sign != nil {
		signed, err := s.Sign(module)
		if err != nil {
			return "", fmt.Errorf("signing module %s: %w", as, err)
		}
		module = signed
	}
	if err := s.Load(module, ""); err != nil {
		return "", refusal(as, err)
	}
	return as, nil
}

func (s *System) undo(ctx context.Context, name string, deadline time.Duration, progress func(int)) error {
	if err := checkName(name); err != nil {
		return err
	}
	there, err := s.instance(name)
	if err != nil {
		return err
	}
	if there != "" {
		if err := s.disable(there); err != nil {
			return err
		}
		if err := s.reach(ctx, there, false, deadline, progress); err != nil {
			return err
		}
	}
	mods, err := s.modules()
	if err != nil {
		return err
	}
	for _, m := range mods {
		if base(m.name) == name && !m.permanent {
			if err := s.unload(context.WithoutCancel(ctx), m.name); err != nil {
				return err
			}
		}
	}
	return nil
}

// disable begins the way back, unless it has begun already.
func (s *System) disable(name string) error {
	st, err := s.state(name)
	if err != nil || st == nil || !st.Enabled {
		return err
	}
	err = s.setEnabled(name, false)
	if err == nil || gone(err) {
		return nil
	}
	// The kernel says EINVAL to what is so already: somebody else was faster.
	if st, again := s.state(name); again == nil && (st == nil || !st.Enabled) {
		return nil
	}
	return refusal(name, err)
}

// errDisabled: somebody else disabled the livepatch while it was waited for.
var errDisabled = errors.New("it was disabled by somebody else during its transition")

// reach waits until the transition to enabled (true) or gone (false) is through,
// and turns it back when it takes too long.
func (s *System) reach(ctx context.Context, name string, target bool, deadline time.Duration, progress func(int)) error {
	limited, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	err := s.wait(limited, name, target, progress)
	if err == nil || limited.Err() == nil {
		return err
	}
	if len(s.waiting(target)) == 0 {
		return s.finish(ctx, name, target, deadline, progress)
	}
	stalled := &StalledError{Patch: name, After: deadline, Blockers: s.blockers(target)}
	if ctx.Err() != nil {
		stalled.Err = context.Cause(ctx)
	}
	// It may have finished while its blockers were being read.
	if s.wait(limited, name, target, nil) == nil {
		return nil
	}
	if err := s.setEnabled(name, !target); err != nil && !gone(err) {
		if s.wait(limited, name, target, nil) == nil {
			return nil
		}
		stalled.Err = errors.Join(stalled.Err, fmt.Errorf("reversing the transition: %w", err))
		return stalled
	}
	// Turning back is not given up when the caller is in a hurry: it would leave
	// the kernel between two versions.
	back, cancel := context.WithTimeout(context.WithoutCancel(ctx), max(deadline, s.settling()))
	defer cancel()
	if err := s.wait(back, name, !target, nil); err != nil {
		stalled.Err = errors.Join(stalled.Err, err)
		return stalled
	}
	stalled.Reversed = true
	if target {
		stalled.Err = errors.Join(stalled.Err, s.unload(back, name))
	}
	return stalled
}

// finish waits for the kernel when every task has switched, and cannot be hurried: the
// kernel holds its lock until it is done, and would take a reversal for a wish of its
// own. It unregisters the functions that are no longer redirected one by one, each
// time with a grace period of RCU tasks: 0.1 s on an idle machine, more under load.
func (s *System) finish(ctx context.Context, name string, target bool, deadline time.Duration, progress func(int)) error {
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.finishing())
	defer cancel()
	err := s.wait(end, name, target, progress)
	if err != nil && end.Err() != nil {
		return &StalledError{Patch: name, After: deadline + s.finishing(), Err: errUnfinished}
	}
	return err
}

// errUnfinished: the kernel has taken longer than finishTime.
var errUnfinished = errors.New("all tasks have switched, and the kernel is still at work")

// wait polls until the livepatch is enabled, or gone, and not in transition. It
// looks at least once, also with a context that has ended.
func (s *System) wait(ctx context.Context, name string, target bool, progress func(int)) error {
	last, told := -1, time.Now()
	prod := time.Now().Add(s.prodding())
	for pause := pollFirst; ; pause = min(pause*2, pollMost) {
		st, err := s.state(name)
		switch {
		case err != nil:
			return err
		case st == nil && target:
			return &RefusedError{Patch: name, Reason: Rejected, Err: errDisabled}
		case st == nil, target && st.Enabled && !st.Transition:
			return nil
		case target && !st.Enabled:
			return &RefusedError{Patch: name, Reason: Rejected, Err: errDisabled}
		}
		if progress != nil {
			if n := len(s.waiting(target)); n != last || time.Since(told) >= tellEvery {
				progress(n)
				last, told = n, time.Now()
			}
		}
		if s.Prod != nil && time.Now().After(prod) {
			s.Prod(s.sleepers(target))
			prod = time.Now().Add(prodEvery)
		}
		if err := sleep(ctx, pause); err != nil {
			return err
		}
	}
}

func (s *System) prodding() time.Duration {
	if s.prod != 0 {
		return s.prod
	}
	return prodAfter
}

func (s *System) finishing() time.Duration {
	if s.last != 0 {
		return s.last
	}
	return finishTime
}

func (s *System) settling() time.Duration {
	if s.settle != 0 {
		return s.settle
	}
	return settleTime
}

// unload waits for the last user of the module.
func (s *System) unload(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, s.settling())
	defer cancel()
	for pause := pollFirst; ; pause = min(pause*2, pollMost) {
		err := s.Unload(name)
		if err == nil || gone(err) {
			return nil
		}
		if stillUsed(err) && sleep(ctx, pause) == nil {
			continue
		}
		return fmt.Errorf("unloading module %s: %w", name, err)
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// checkName keeps names from leading out of sysfs. The kernel's module names
// have underscores where file names have dashes.
func checkName(name string) error {
	if name == "" || strings.ContainsAny(name, "/.-\x00 \n") {
		return fmt.Errorf("livepatch %q: not the name of a module", name)
	}
	return nil
}

func (e *StalledError) error() string {
	s := fmt.Sprintf("waiting for livepatch %s: the transition did not finish within %v", e.Patch, e.After)
	for i, b := range e.Blockers {
		if i == 3 {
			s += fmt.Sprintf(" and %d more", len(e.Blockers)-i)
			break
		}
		sep := ", "
		if i == 0 {
			sep = "; held up by "
		}
		kind := ""
		if b.Kernel {
			kind = "kernel thread "
		}
		s += fmt.Sprintf("%s%s%s (%d)", sep, kind, b.Comm, b.PID)
		if len(b.Stack) > 0 {
			s += " in " + b.Stack[0]
		}
	}
	if e.Reversed {
		s += "; it was reversed"
	} else {
		s += "; the reversal is not through yet"
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *RefusedError) error() string {
	s := "livepatching"
	if e.Patch != "" {
		s = "livepatch " + e.Patch
	}
	s += ": refused (" + string(e.Reason) + "): " + e.Err.Error()
	if e.Remedy != "" {
		s += "; " + e.Remedy
	}
	return s
}
