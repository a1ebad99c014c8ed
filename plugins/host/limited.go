// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/upsplice/upsplice/plugins/backend"
)

// TimeoutError says that a backend did not answer in time.
type TimeoutError struct {
	Backend string
	Call    string // "fetch"
	Limit   time.Duration
	Idle    bool // the limit is on the time without progress
}

func (e *TimeoutError) Error() string {
	if e.Idle {
		return fmt.Sprintf("backend %s: %s: no progress for %v", e.Backend, e.Call, e.Limit)
	}
	return fmt.Sprintf("backend %s: %s: no answer within %v", e.Backend, e.Call, e.Limit)
}

// Timeout makes it a timeout in the sense of package net.
func (e *TimeoutError) Timeout() bool { return true }

const (
	maxProgress   = 1_000_000             // messages of one fetch
	progressEvery = 50 * time.Millisecond // passed on
)

// limited puts the time limits on each call and adds to an error how the process
// ended, where it did.
type limited struct {
	next   backend.Backend
	limits Limits
	proc   *process
	name   string
}

var _ backend.Backend = (*limited)(nil)

func call[T any](ctx context.Context, l *limited, name string, f func(context.Context) (T, error)) (T, error) {
	limit := &TimeoutError{Backend: l.name, Call: name, Limit: l.limits.Call}
	limited, cancel := context.WithTimeoutCause(ctx, l.limits.Call, limit)
	defer cancel()
	v, err := f(limited)
	return v, l.explain(limit.instead(err, ctx, limited))
}

// instead returns e for an error that only says that a deadline has passed, if
// that was the limit's: gRPC sends the deadline along, and the backend's clock may
// be the first to notice.
func (e *TimeoutError) instead(err error, ctx, limited context.Context) error {
	if err == e || !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	own, _ := limited.Deadline()
	if callers, ok := ctx.Deadline(); ok && !own.Before(callers) {
		return err
	}
	return e
}

func (l *limited) explain(err error) error {
	var e *backend.Error
	if !errors.As(err, &e) || e.Kind != backend.Internal || l.proc == nil {
		return err
	}
	how := l.proc.ended()
	if how == "" {
		return err
	}
	return &backend.Error{Kind: backend.Internal, What: "backend " + l.name, Detail: "its process ended: " + how, Remedy: e.Remedy}
}

func (l *limited) Describe(ctx context.Context) (backend.Description, error) {
	return call(ctx, l, "describe", l.next.Describe)
}

func (l *limited) Kernels(ctx context.Context, packages []backend.Package) ([]backend.Kernel, error) {
	return call(ctx, l, "kernels", func(ctx context.Context) ([]backend.Kernel, error) {
		return l.next.Kernels(ctx, packages)
	})
}

func (l *limited) Installed(ctx context.Context, release string) (backend.Kernel, error) {
	return call(ctx, l, "installed", func(ctx context.Context) (backend.Kernel, error) {
		return l.next.Installed(ctx, release)
	})
}

func (l *limited) Available(ctx context.Context, flavour string) ([]backend.Kernel, error) {
	return call(ctx, l, "available", func(ctx context.Context) ([]backend.Kernel, error) {
		return l.next.Available(ctx, flavour)
	})
}

func (l *limited) Compare(ctx context.Context, a, b backend.Kernel) (int, error) {
	return call(ctx, l, "compare", func(ctx context.Context) (int, error) { return l.next.Compare(ctx, a, b) })
}

func (l *limited) Changes(ctx context.Context, from, to backend.Kernel) ([]backend.Change, error) {
	return call(ctx, l, "changes", func(ctx context.Context) ([]backend.Change, error) {
		return l.next.Changes(ctx, from, to)
	})
}

func (l *limited) Prebuilt(ctx context.Context, from, to backend.Kernel, buildID string) ([]backend.Prebuilt, error) {
	return call(ctx, l, "prebuilt", func(ctx context.Context) ([]backend.Prebuilt, error) {
		return l.next.Prebuilt(ctx, from, to, buildID)
	})
}

// Fetch has two limits: on the whole, and on the time without progress.
func (l *limited) Fetch(ctx context.Context, req backend.FetchRequest, progress func(backend.Progress)) (backend.Materials, error) {
	limit := &TimeoutError{Backend: l.name, Call: "fetch", Limit: l.limits.Fetch}
	whole, cancelAll := context.WithTimeoutCause(ctx, l.limits.Fetch, limit)
	defer cancelAll()
	watched, cancel := context.WithCancelCause(whole)
	defer cancel(nil)
	idle := time.AfterFunc(l.limits.Idle, func() {
		cancel(&TimeoutError{Backend: l.name, Call: "fetch", Limit: l.limits.Idle, Idle: true})
	})
	defer idle.Stop()
	thin := &thinner{out: progress}
	m, err := l.next.Fetch(watched, req, func(p backend.Progress) {
		idle.Reset(l.limits.Idle)
		if !thin.add(p) {
			cancel(&backend.Error{Kind: backend.Internal, What: "backend " + l.name,
				Detail: fmt.Sprintf("it sent more than %d progress messages", maxProgress)})
		}
	})
	thin.flush()
	return m, l.explain(limit.instead(err, ctx, whole))
}

// thinner passes on some of very many progress messages, the last one included.
type thinner struct {
	out func(backend.Progress)

	mu      sync.Mutex
	n       int
	last    time.Time
	pending *backend.Progress
}

func (t *thinner) add(p backend.Progress) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.n++; t.n > maxProgress {
		return false
	}
	if now := time.Now(); now.Sub(t.last) >= progressEvery {
		t.last, t.pending = now, nil
		t.send(p)
	} else {
		t.pending = &p
	}
	return true
}

func (t *thinner) flush() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.pending != nil {
		t.send(*t.pending)
	}
}

func (t *thinner) send(p backend.Progress) {
	if t.out != nil {
		t.out(p)
	}
}
