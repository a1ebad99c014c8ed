// SPDX-License-Identifier: Apache-2.0

package build

import (
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"
)

// reporter passes on progress, one event at a time, and times the stages.
type reporter struct {
	mu       sync.Mutex
	progress func(Event)
	timings  []Timing
}

func newReporter(progress func(Event)) *reporter { return &reporter{progress: progress} }

func (r *reporter) event(stage, text string, done, total int64) {
	if r.progress == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.progress(Event{Stage: stage, Text: text, Done: done, Total: total})
}

func (r *reporter) bytes(stage, text string, done int64) {
	if r.progress == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.progress(Event{Stage: stage, Text: text, Done: done, Unit: Bytes})
}

// time starts the clock of a stage; the result stops it.
func (r *reporter) time(stage string) func() {
	start, cpu := time.Now(), cpuSeconds()
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		wall, cpu := time.Since(start).Seconds(), cpuSeconds()-cpu
		// A stage may come twice: see examine and plainLines.
		for i := range r.timings {
			if t := &r.timings[i]; t.Stage == stage {
				t.Seconds += wall
				t.CPU += cpu
				return
			}
		}
		r.timings = append(r.timings, Timing{Stage: stage, Seconds: wall, CPU: cpu})
	}
}

// cpuSeconds is the processor time of this process and of its children that have
// ended.
func cpuSeconds() float64 {
	var sum time.Duration
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var u syscall.Rusage
		if err := syscall.Getrusage(who, &u); err == nil {
			sum += time.Duration(u.Utime.Nano() + u.Stime.Nano())
		}
	}
	return sum.Seconds()
}

// named adds where the room is needed to the error of a full disk, which names a
// file that is gone again.
func named(cache string, err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("building in %s: no room left, up to 3 GB are needed: %w", cache, err)
	}
	return err
}
