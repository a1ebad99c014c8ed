// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/upsplice/upsplice/hook/progress"
)

const (
	// A follower looks five times a second, so ticks that come faster than ten
	// times are never seen.
	tickEvery = 100 * time.Millisecond
	// A run writes some hundred kilobytes. Beyond this only its End is kept.
	maxProgress = 16 << 20
	// An event is a line for people; a compiler's whole output is not one.
	maxEventText = 4 << 10
)

// Events is the writer of the progress file. It is a progress.Sink for any
// number of goroutines.
type Events struct {
	run string
	now func() time.Time

	mu       sync.Mutex
	f        *os.File
	size     int
	err      error
	lastTick time.Time
	tickOf   string
}

// newEvents puts a fresh progress file in the place of the last run's. Whoever
// still follows that one has it open and can read it to its end.
func newEvents(j *Journal, run string) (*Events, error) {
	tmp := j.path(tmpDir, "."+progressFile+"."+run)
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_APPEND|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return nil, fmt.Errorf("starting the progress file: %w", err)
	}
	if err := f.Chmod(0o644); err != nil {
		f.Close()
		return nil, fmt.Errorf("starting the progress file: %w", err)
	}
	e := &Events{run: run, now: j.now, f: f}
	// The first line names the run, before anybody can see the file.
	e.Emit(progress.Event{Kind: progress.Stage, Stage: "start"})
	if err := os.Rename(tmp, filepath.Join(j.dir, progressFile)); err != nil {
		f.Close()
		return nil, fmt.Errorf("starting the progress file: %w", err)
	}
	return e, nil
}

// Emit appends one event. What cannot be written is dropped: a full disk ends
// a run where it needs the room, not here. See Err.
func (e *Events) Emit(ev progress.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := e.now()
	if ev.Kind == progress.Tick {
		complete := ev.Total > 0 && ev.Done >= ev.Total
		if ev.Stage == e.tickOf && now.Sub(e.lastTick) < tickEvery && !complete {
			return
		}
		e.lastTick, e.tickOf = now, ev.Stage
	}
	if e.size > maxProgress && ev.Kind != progress.End {
		return
	}
	if ev.Time.IsZero() {
		ev.Time = now.UTC()
	}
	ev.Run = e.run
	if len(ev.Text) > maxEventText {
		ev.Text = ev.Text[:maxEventText] + "…"
	}
	line, err := json.Marshal(ev)
	if err == nil {
		// One write, so that a follower sees whole lines, a killed writer aside.
		var n int
		n, err = e.f.Write(append(line, '\n'))
		e.size += n
	}
	if err != nil && e.err == nil {
		e.err = fmt.Errorf("writing progress: %w", err)
	}
}

// Err returns the first error of Emit.
func (e *Events) Err() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.err
}

// Close ends the writing. It does not emit End.
func (e *Events) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.f.Close()
}
