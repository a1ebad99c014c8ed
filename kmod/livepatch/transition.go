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
)

func (s *System) apply(ctx context.Context, name string, module []byte, deadline time.Duration, progress func(int)) error {
	if err := checkName(name); err != nil {
		return err
	}
	if _, err := os.Stat(s.sysfs()); err != nil {
		return &RefusedError{Patch: name, Reason: Unsupported, Remedy: "boot a kernel that is built with CONFIG_LIVEPATCH", Err: err}
	}
	st, err := s.state(name)
	if err != nil {
		return err
	}
	switch {
	case st == nil:
		if err := s.load(ctx, name, module); err != nil {
			return err
		}
	case !st.Enabled:
		return &RefusedError{Patch: name, Reason: Busy, Remedy: "try again when it is gone from /sys/kernel/livepatch", Err: errors.New("it is just being disabled")}
	}
	return s.reach(ctx, name, true, deadline, progress)
}

// load gets the module into the kernel. One that is left of an earlier time, with
// its livepatch disabled, cannot be enabled again: it has to go first.
func (s *System) load(ctx context.Context, name string, module []byte) error {
	left, err := s.loaded(name)
	if err != nil {
		return err
	}
	if left {
		if err := s.unload(ctx, name); err != nil {
			return err
		}
	}
	if err := s.Load(module, ""); err != nil {
		return refusal(name, err)
	}
	return nil
}

func (s *System) undo(ctx context.Context, name string, deadline time.Duration, progress func(int)) error {
	if err := checkName(name); err != nil {
		return err
	}
	st, err := s.state(name)
	if err != nil {
		return err
	}
	if st != nil && st.Enabled {
		if err := s.setEnabled(name, false); err != nil && !gone(err) {
			return refusal(name, err)
		}
	}
	if st != nil {
		if err := s.reach(ctx, name, false, deadline, progress); err != nil {
			return err
		}
	}
	left, err := s.loaded(name)
	if err != nil || !left {
		return err
	}
	return s.unload(ctx, name)
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
	stalled := &StalledError{Patch: name, After: deadline, Blockers: s.blockers(target)}
	if ctx.Err() != nil {
		stalled.Err = context.Cause(ctx)
	}
	// It may have finished while its blockers were being read.
	if s.wait(limited, name, target, nil) == nil {
		return nil
	}
	if err := s.setEnabled(name, !target); err != nil && !gone(err) {
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

// wait polls until the livepatch is enabled, or gone, and not in transition. It
// looks at least once, also with a context that has ended.
func (s *System) wait(ctx context.Context, name string, target bool, progress func(int)) error {
	last := -1
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
			if n := len(s.waiting(target)); n != last {
				progress(n)
				last = n
			}
		}
		if err := sleep(ctx, pause); err != nil {
			return err
		}
	}
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
		s += fmt.Sprintf("%s%s (%d)", sep, b.Comm, b.PID)
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
