// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/upsplice/upsplice/hook/outcome"
	"github.com/upsplice/upsplice/hook/progress"
)

// heard collects the texts of events.
type heard struct {
	mu    sync.Mutex
	texts []string
}

func (h *heard) take(e progress.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if e.Text != "" {
		h.texts = append(h.texts, e.Text)
	}
}

func (h *heard) want(t *testing.T, want ...string) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if d := cmp.Diff(want, h.texts); d != "" {
		t.Errorf("events (-want +got):\n%s", d)
	}
}

// doRun is a whole run with one note.
func doRun(t *testing.T, l *Lock, note string) {
	t.Helper()
	ev := must[*Events](t)(l.Events())
	ev.Emit(progress.Event{Kind: progress.Note, Text: note})
	ev.Emit(progress.Event{Kind: progress.End, Text: note + " ended", Outcome: string(outcome.Live)})
	ok(t, ev.Err())
	ok(t, ev.Close())
	ok(t, l.Finish(Result{Outcome: outcome.Live}))
}

func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestFollowARunFromQueueToEnd(t *testing.T) {
	j := open(t, t.TempDir(), bootA)
	l := lock(t, j)
	// What an earlier run said is not to be heard.
	must[Run](t)(l.Begin(update("r0"), "x"))
	doRun(t, l, "old")

	ticket := must[string](t)(j.Enqueue(update("r1")))
	var h heard
	got := make(chan error, 1)
	go func() { got <- j.Follow(deadline(t), ticket, h.take) }()
	time.Sleep(2 * followPoll)
	if _, _, err := l.Take("start"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * followPoll)
	ev := must[*Events](t)(l.Events())
	ev.Emit(progress.Event{Kind: progress.Stage, Stage: "build", Text: "building"})
	time.Sleep(2 * followPoll)
	select {
	case err := <-got:
		t.Fatalf("following ended before the run: %v", err)
	default:
	}
	// The next request is there before this run ends.
	must[string](t)(j.Enqueue(update("r2")))
	ev.Emit(progress.Event{Kind: progress.End, Text: "ended"})
	ok(t, ev.Close())
	ok(t, l.Finish(Result{Outcome: outcome.Live}))
	if _, _, err := l.Take("start"); err != nil {
		t.Fatal(err)
	}
	doRun(t, l, "second")
	if err := <-got; err != nil {
		t.Error(err)
	}
	h.want(t, "building", "ended", "second", "second ended")
}

func TestFollowARunThatHasEnded(t *testing.T) {
	j := open(t, t.TempDir(), bootA)
	l := lock(t, j)
	ticket := must[string](t)(j.Enqueue(update("r1")))
	if _, _, err := l.Take("start"); err != nil {
		t.Fatal(err)
	}
	doRun(t, l, "a")
	var with, without, other heard
	ok(t, j.Follow(deadline(t), ticket, with.take))
	with.want(t, "a", "a ended")
	ok(t, j.Follow(deadline(t), "", without.take))
	without.want(t)
	ok(t, j.Follow(deadline(t), "another", other.take))
	other.want(t)
}

func TestFollowAKilledWorker(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, bootA)
	ticket := must[string](t)(j.Enqueue(update("r1")))
	cmd := startChild(t, dir, "building")
	var h heard
	got := make(chan error, 1)
	go func() { got <- j.Follow(deadline(t), ticket, h.take) }()
	time.Sleep(2 * followPoll)
	ok(t, cmd.Process.Kill())
	_ = cmd.Wait()
	if err := <-got; !errors.Is(err, ErrInterrupted) {
		t.Errorf("got %v, want ErrInterrupted", err)
	}
	h.want(t, "at work")
}

func TestFollowWithoutAWorker(t *testing.T) {
	j := open(t, t.TempDir(), bootA)
	ticket := must[string](t)(j.Enqueue(update("r1")))
	if err := j.follow(deadline(t), ticket, nil, followPoll); !errors.Is(err, ErrNoWorker) {
		t.Errorf("got %v, want ErrNoWorker", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := j.Follow(ctx, ticket, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}

func TestFollowTornLines(t *testing.T) {
	j := open(t, t.TempDir(), bootA)
	l := lock(t, j)
	run := must[Run](t)(l.Begin(update("r1"), "x"))
	ev := must[*Events](t)(l.Events())
	ev.Emit(progress.Event{Kind: progress.Note, Text: "a"})
	// A write that a full disk cut short, and bytes that are no event.
	f := must[*os.File](t)(os.OpenFile(j.path(progressFile), os.O_WRONLY|os.O_APPEND, 0))
	must[int](t)(f.WriteString(`{"run":"` + run.Ticket + `","kind":"no` + "\nnoise\n{}\n" + strings.Repeat("x", 3*maxLine) + "\n"))
	ok(t, f.Close())
	ev.Emit(progress.Event{Kind: progress.End, Text: "b"})
	ok(t, ev.Close())
	ok(t, l.Finish(Result{Outcome: outcome.Live}))
	var h heard
	ok(t, j.Follow(deadline(t), run.Ticket, h.take))
	h.want(t, "a", "b")
}

func TestEventsAreThinnedOut(t *testing.T) {
	j := open(t, t.TempDir(), bootA)
	now := time.Unix(1000, 0)
	j.now = func() time.Time { return now }
	l := lock(t, j)
	run := must[Run](t)(l.Begin(update("r1"), "x"))
	ev := must[*Events](t)(l.Events())
	for i := range int64(1000) {
		now = now.Add(time.Millisecond)
		ev.Emit(progress.Event{Kind: progress.Tick, Stage: "fetch", Done: i + 1, Total: 1000})
	}
	ev.Emit(progress.Event{Kind: progress.Note, Text: strings.Repeat("ü", maxEventText)})
	// A run that never stops talking does not fill the disk.
	for range maxProgress/maxEventText + 100 {
		ev.Emit(progress.Event{Kind: progress.Note, Text: strings.Repeat("y", maxEventText)})
	}
	ev.Emit(progress.Event{Kind: progress.End, Text: "end"})
	ok(t, ev.Err())
	ok(t, ev.Close())
	if st, err := os.Stat(j.path(progressFile)); err != nil || st.Size() > maxProgress+4*maxEventText {
		t.Errorf("%d bytes, %v", st.Size(), err)
	}
	ok(t, l.Finish(Result{Outcome: outcome.Live}))
	var ticks int
	var last progress.Event
	var complete bool
	ok(t, j.Follow(deadline(t), run.Ticket, func(e progress.Event) {
		if e.Kind == progress.Tick {
			ticks++
			complete = e.Done == e.Total
		}
		if e.Run != run.Ticket {
			t.Errorf("an event of the run %q", e.Run)
		}
		last = e
	}))
	if ticks < 5 || ticks > 15 || !complete {
		t.Errorf("%d ticks of a second, complete %v", ticks, complete)
	}
	if last.Kind != progress.End || last.Text != "end" {
		t.Errorf("the last event is %+v", last)
	}
}

func FuzzFollowLine(f *testing.F) {
	f.Add([]byte(`{"time":"2026-11-20T23:00:00Z","run":"x","kind":"tick","done":1,"total":2,"unit":"bytes"}`))
	f.Add([]byte(`{"run":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		fo := follower{skip: "old", fn: func(e progress.Event) {
			if e.Run == "old" || e.Run == "" {
				t.Errorf("passed on %+v", e)
			}
		}}
		fo.line(b)
	})
}
