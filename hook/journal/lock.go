// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/upsplice/upsplice/hook/progress"
)

// Often enough that a queued worker starts at once for a person, seldom enough
// that one that waits for minutes costs nothing.
const lockPoll = 100 * time.Millisecond

// ErrBusy: another worker holds the lock.
var ErrBusy = errors.New("another upsplice is at work")

// Lock is the right to change the journal and the kernel. It ends with Unlock
// or with the process, however that dies. It is for one goroutine.
type Lock struct {
	j   *Journal
	f   *os.File
	run *Run
}

// Lock waits until no other process has the lock, or until ctx is done.
func (j *Journal) Lock(ctx context.Context) (*Lock, error) {
	tick := time.NewTicker(lockPoll)
	defer tick.Stop()
	for {
		l, err := j.TryLock()
		if !errors.Is(err, ErrBusy) {
			return l, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", ErrBusy, context.Cause(ctx))
		case <-tick.C:
		}
	}
}

// TryLock takes the lock or returns ErrBusy.
func (j *Journal) TryLock() (*Lock, error) {
	if err := j.mkdir(); err != nil {
		return nil, err
	}
	// Go opens files close-on-exec, so no compiler started by a worker that was
	// killed keeps the lock.
	f, err := os.OpenFile(j.path(lockFile), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("locking the journal: %w", err)
	}
	if err := flock(f, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if err == unix.EWOULDBLOCK {
			return nil, ErrBusy
		}
		return nil, fmt.Errorf("locking the journal: %w", err)
	}
	return &Lock{j: j, f: f}, nil
}

// Unlock gives the lock back.
func (l *Lock) Unlock() { l.f.Close() }

// Journal returns the journal that is locked.
func (l *Lock) Journal() *Journal { return l.j }

// Put writes r in the place of the record with its ID.
func (l *Lock) Put(r Record) error {
	path, err := l.j.recordPath(r.ID)
	if err != nil {
		return err
	}
	if !r.State.valid() {
		return fmt.Errorf("writing %s: unknown state %q", path, r.State)
	}
	return l.j.write(path, r)
}

// PutLive writes r as the one splice that is live: in this boot, from now, in
// the place of every other live one, which is retired. Between the two writes
// Current already returns r.
func (l *Lock) PutLive(r Record) error {
	r.State, r.BootID, r.AppliedAt = Live, l.j.boot, l.j.now().UTC()
	if err := l.Put(r); err != nil {
		return err
	}
	recs, err := l.j.Records()
	if err != nil {
		return err
	}
	for _, o := range recs {
		if o.State == Live && o.ID != r.ID {
			o.State = Retired
			if err := l.Put(o); err != nil {
				return err
			}
		}
	}
	return nil
}

// Delete forgets the record with this ID. The .splice file is the caller's.
func (l *Lock) Delete(id string) error {
	path, err := l.j.recordPath(id)
	if err != nil {
		return err
	}
	return remove(path)
}

// Take turns the request that waits into the run of this process; false if
// none waits. The request is only removed when the run is written, so a worker
// that is killed in between leaves both, and nothing is lost.
func (l *Lock) Take(stage string) (Run, bool, error) {
	unlock, err := l.j.lockQueue()
	if err != nil {
		return Run{}, false, err
	}
	defer unlock()
	req, ok, err := l.j.Pending()
	if err != nil || !ok {
		return Run{}, false, err
	}
	run, err := l.begin(req.Ticket, req.Update, stage)
	if err != nil {
		return Run{}, false, err
	}
	return run, true, remove(l.j.path(queueFile))
}

// Begin starts a run that did not wait in the queue.
func (l *Lock) Begin(u Update, stage string) (Run, error) {
	return l.begin(newTicket(), u, stage)
}

func (l *Lock) begin(ticket string, u Update, stage string) (Run, error) {
	pid := os.Getpid()
	start, err := l.j.startTime(pid)
	if err != nil {
		return Run{}, err
	}
	run := Run{
		Ticket: ticket, PID: pid, PIDStart: start, BootID: l.j.boot,
		Stage: stage, StartedAt: l.j.now().UTC(), Update: u,
	}
	if err := l.j.write(l.j.path(runFile), run); err != nil {
		return Run{}, err
	}
	l.run = &run
	return run, nil
}

var errNoRun = errors.New("no run was begun under this lock")

// SetStage notes what the run does now, for whoever finds it interrupted.
func (l *Lock) SetStage(stage string) error {
	if l.run == nil {
		return errNoRun
	}
	run := *l.run
	run.Stage = stage
	if err := l.j.write(l.j.path(runFile), run); err != nil {
		return err
	}
	l.run = &run
	return nil
}

// Finish ends the run: r becomes the last result, with the run's ticket,
// update and times, and the run is over.
func (l *Lock) Finish(r Result) error {
	if l.run == nil {
		return errNoRun
	}
	r.Run, r.StartedAt, r.FinishedAt = l.run.Ticket, l.run.StartedAt, l.j.now().UTC()
	if r.Update == nil {
		r.Update = &l.run.Update
	}
	// Also without room for the result the run is over, and must not be found
	// as an interrupted one.
	err := l.j.write(l.j.path(resultFile), r)
	err = errors.Join(err, remove(l.j.path(runFile)))
	l.run = nil
	return err
}

// Events starts the progress file of the run. Close it before Finish, after an
// End event.
func (l *Lock) Events() (*Events, error) {
	if l.run == nil {
		return nil, errNoRun
	}
	return newEvents(l.j, l.run.Ticket)
}

var _ progress.Sink = (*Events)(nil)
