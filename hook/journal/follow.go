// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"time"

	"github.com/upsplice/upsplice/hook/progress"
)

const (
	followPoll = 200 * time.Millisecond
	// How long a request may lie without a worker taking it: a transient unit on
	// a busy machine starts in seconds.
	startGrace = 30 * time.Second
	maxLine    = 64 << 10
)

// ErrInterrupted: the worker that was followed was killed.
var ErrInterrupted = errors.New("the worker was killed")

// ErrNoWorker: a request waits, and no worker comes for it.
var ErrNoWorker = errors.New("no worker has taken the request")

// Follow passes the events of the run in progress to fn until nothing runs or
// waits any more. With a ticket, the events of its run are passed on even if it
// has ended already. If nothing runs, it returns at once. It needs no lock.
func (j *Journal) Follow(ctx context.Context, ticket string, fn func(progress.Event)) error {
	return j.follow(ctx, ticket, fn, startGrace)
}

func (j *Journal) follow(ctx context.Context, ticket string, fn func(progress.Event), grace time.Duration) error {
	f := follower{j: j, fn: fn}
	defer f.close()
	run, alive, ok, err := j.Run()
	if err != nil {
		return err
	}
	// The file of a run that ended before anybody asked is not to be shown.
	if old := j.progressRun(); old != ticket && !(ok && alive && old == run.Ticket) {
		f.skip = old
	}
	tick := time.NewTicker(followPoll)
	defer tick.Stop()
	var waiting time.Duration
	for {
		// First who is at work, then what was written: a run that has ended by
		// now has written all.
		run, alive, ok, err := j.Run()
		if err != nil {
			return err
		}
		_, pending, err := j.Pending()
		if err != nil {
			return err
		}
		if err := f.drain(); err != nil {
			return err
		}
		switch {
		case ok && alive:
			waiting = 0
		case pending:
			if waiting += followPoll; waiting > grace {
				return ErrNoWorker
			}
		case ok && f.ended != run.Ticket:
			return ErrInterrupted
		default:
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// progressRun returns the run that the progress file belongs to.
func (j *Journal) progressRun() string {
	f, err := os.Open(j.path(progressFile))
	if err != nil {
		return ""
	}
	defer f.Close()
	line, err := bufio.NewReader(io.LimitReader(f, maxLine)).ReadBytes('\n')
	if err != nil {
		return ""
	}
	var e progress.Event
	if json.Unmarshal(line, &e) != nil {
		return ""
	}
	return e.Run
}

type follower struct {
	j     *Journal
	fn    func(progress.Event)
	skip  string // the run whose events are old
	ended string // the run whose End was seen
	f     *os.File
	part  []byte // a line that is not complete yet
}

func (f *follower) close() {
	if f.f != nil {
		f.f.Close()
	}
}

// drain passes on what was written since the last time, to the end of the file
// that was followed, then of the one that took its place.
func (f *follower) drain() error {
	for {
		if f.f == nil {
			file, err := os.Open(f.j.path(progressFile))
			if errors.Is(err, os.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			f.f = file
		}
		replaced, err := f.replaced()
		if err != nil {
			return err
		}
		if err := f.read(); err != nil {
			return err
		}
		if !replaced {
			return nil
		}
		f.f.Close()
		f.f, f.part = nil, nil
	}
}

func (f *follower) replaced() (bool, error) {
	now, err := os.Stat(f.j.path(progressFile))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	have, err := f.f.Stat()
	if err != nil {
		return false, err
	}
	return !os.SameFile(now, have), nil
}

func (f *follower) read() error {
	buf := make([]byte, 32<<10)
	for {
		n, err := f.f.Read(buf)
		f.part = append(f.part, buf[:n]...)
		for {
			i := bytes.IndexByte(f.part, '\n')
			if i < 0 {
				break
			}
			f.line(f.part[:i])
			f.part = f.part[i+1:]
		}
		if len(f.part) > maxLine {
			f.part = nil
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// line passes on one event. A line that is not one was torn by a full disk,
// and is left out.
func (f *follower) line(b []byte) {
	var e progress.Event
	if json.Unmarshal(b, &e) != nil || e.Run == "" {
		return
	}
	if e.Kind == progress.End {
		f.ended = e.Run
	}
	if e.Run != f.skip {
		f.fn(e)
	}
}
