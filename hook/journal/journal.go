// SPDX-License-Identifier: Apache-2.0

// Package journal keeps what upsplice must know after it was killed or the
// machine was switched off: the splices, the request that waits, what the
// worker is doing, and how the last run ended.
//
// Everything lies in one directory:
//
//	splices/ID.json  a Record for each splice
//	queue.json       the Request that waits; the newest wins
//	run.json         the Run in progress
//	result.json      the last Result
//	awaited.json     the ticket whose result a person waits for
//	progress.jsonl   the events of the run, a line each
//	lock             flock of the one worker
//	queue.lock       flock for a change of queue.json
//	tmp/             files being written
//
// Files are replaced as a whole by fsync and rename, so a reader sees the old
// or the new content. The JSON files have a "version"; one of a newer version
// is refused, never rewritten. Reading needs no lock and no root.
package journal

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// DefaultDir is where the state of the machine is.
const DefaultDir = "/var/lib/upsplice"

const (
	spliceDir    = "splices"
	tmpDir       = "tmp"
	queueFile    = "queue.json"
	runFile      = "run.json"
	resultFile   = "result.json"
	awaitedFile  = "awaited.json"
	progressFile = "progress.jsonl"
	lockFile     = "lock"
	queueLock    = "queue.lock"
)

// Options say where a Journal is. The zero value is the machine's own.
type Options struct {
	// Dir is the state directory; "" means DefaultDir.
	Dir string
	// Proc is where procfs is mounted; "" means /proc.
	Proc string
	// BootID names the current boot; "" means that of the kernel.
	BootID string
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Journal is the state directory. It may be used by many goroutines and
// processes at once.
type Journal struct {
	dir, proc, boot string
	now             func() time.Time
}

// Open returns the journal in opt.Dir. It creates nothing: a person without
// privileges may look at a machine's state.
func Open(opt Options) (*Journal, error) {
	j := &Journal{dir: opt.Dir, proc: opt.Proc, boot: opt.BootID, now: opt.Now}
	if j.dir == "" {
		j.dir = DefaultDir
	}
	if j.proc == "" {
		j.proc = "/proc"
	}
	if j.now == nil {
		j.now = time.Now
	}
	if j.boot == "" {
		b, err := os.ReadFile(filepath.Join(j.proc, "sys/kernel/random/boot_id"))
		if err != nil {
			return nil, fmt.Errorf("reading the boot id: %w", err)
		}
		j.boot = strings.TrimSpace(string(b))
	}
	return j, nil
}

// Dir returns the state directory.
func (j *Journal) Dir() string { return j.dir }

// BootID names the current boot.
func (j *Journal) BootID() string { return j.boot }

func (j *Journal) path(elem ...string) string {
	return filepath.Join(append([]string{j.dir}, elem...)...)
}

// A record's file name is made of its id, and an id can come from a .splice.
var validID = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$`)

func (j *Journal) recordPath(id string) (string, error) {
	if !validID.MatchString(id) {
		return "", fmt.Errorf("splice id %q is not made of letters, digits, '.', '_' and '-'", id)
	}
	return j.path(spliceDir, id+".json"), nil
}

// Records returns all splices, the newest first. Records that were never
// applied come first, then by AppliedAt, then by ID.
func (j *Journal) Records() ([]Record, error) {
	entries, err := os.ReadDir(j.path(spliceDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the journal: %w", err)
	}
	var recs []Record
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok {
			continue
		}
		r, ok, err := j.Record(id)
		if err != nil {
			return nil, err
		}
		if ok {
			recs = append(recs, r)
		}
	}
	slices.SortFunc(recs, func(a, b Record) int {
		if a.AppliedAt.IsZero() != b.AppliedAt.IsZero() {
			if a.AppliedAt.IsZero() {
				return -1
			}
			return 1
		}
		if c := b.AppliedAt.Compare(a.AppliedAt); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return recs, nil
}

// Record returns the splice with exactly this ID; false if there is none.
func (j *Journal) Record(id string) (Record, bool, error) {
	path, err := j.recordPath(id)
	if err != nil {
		return Record{}, false, err
	}
	var r Record
	ok, err := read(path, &r)
	if err == nil && ok && (r.ID != id || !r.State.valid()) {
		err = &CorruptError{Path: path, Err: fmt.Errorf("id %q in state %q", r.ID, r.State)}
	}
	return r, ok && err == nil, err
}

// Find returns the splices whose ID begins with prefix, newest first: none,
// the one that is meant, or several.
func (j *Journal) Find(prefix string) ([]Record, error) {
	recs, err := j.Records()
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(recs, func(r Record) bool { return !strings.HasPrefix(r.ID, prefix) }), nil
}

// Current returns the splice that was last put live and not taken back; false
// if there is none. If its BootID is not that of the journal, the machine was
// rebooted since, and the kernel does not have it.
func (j *Journal) Current() (Record, bool, error) {
	recs, err := j.Records()
	if err != nil {
		return Record{}, false, err
	}
	for _, r := range recs {
		if r.State == Live {
			return r, true, nil
		}
	}
	return Record{}, false, nil
}

// Result returns how the last run ended; false if none has.
func (j *Journal) Result() (Result, bool, error) {
	var r Result
	ok, err := read(j.path(resultFile), &r)
	return r, ok, err
}

// Enqueue leaves an update for the worker in the place of the one that waits,
// if any, and returns the ticket of its run.
func (j *Journal) Enqueue(u Update) (ticket string, err error) {
	unlock, err := j.lockQueue()
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, _, err := j.Pending(); isVersion(err) {
		return "", err
	}
	r := Request{Ticket: newTicket(), At: j.now().UTC(), Update: u}
	if err := j.write(j.path(queueFile), r); err != nil {
		return "", err
	}
	return r.Ticket, nil
}

// Pending returns the request that waits; false if there is none.
func (j *Journal) Pending() (Request, bool, error) {
	var r Request
	ok, err := read(j.path(queueFile), &r)
	return r, ok, err
}

// Await notes that a person waits for the run of this ticket.
func (j *Journal) Await(ticket string) error {
	return j.write(j.path(awaitedFile), ticket)
}

// TakeAwaited returns the ticket noted by Await and forgets it; "" if there is
// none, so that a result is shown once.
func (j *Journal) TakeAwaited() (string, error) {
	var ticket string
	_, err := read(j.path(awaitedFile), &ticket)
	if isVersion(err) {
		return "", err
	}
	if rmErr := remove(j.path(awaitedFile)); rmErr != nil {
		return "", rmErr
	}
	return ticket, err
}

// Run returns what a worker is doing; ok is false if none is and none was
// interrupted. alive tells whether the process is still there: if not, it was
// killed, and the next Recover deals with it.
func (j *Journal) Run() (run Run, alive, ok bool, err error) {
	ok, err = read(j.path(runFile), &run)
	if err != nil || !ok {
		return Run{}, false, false, err
	}
	return run, j.alive(run), true, nil
}

// newTicket returns a name that no other run has: the time would do for
// people, but two requests can fall into one clock tick.
func newTicket() string { return rand.Text() }

func (j *Journal) lockQueue() (unlock func(), err error) {
	if err := j.mkdir(); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(j.path(queueLock), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("locking the queue: %w", err)
	}
	// The lock is held for the time of one small write, so waiting is fine.
	if err := flock(f, unix.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("locking the queue: %w", err)
	}
	return func() { f.Close() }, nil
}

func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		if err != unix.EINTR {
			return err
		}
	}
}

func (j *Journal) mkdir() error {
	if err := os.MkdirAll(filepath.Dir(j.dir), 0o755); err != nil {
		return fmt.Errorf("making the state directory: %w", err)
	}
	for _, d := range []string{j.dir, j.path(spliceDir), j.path(tmpDir)} {
		err := os.Mkdir(d, 0o755)
		if err == nil {
			// Hooks run under any umask, and status is for everybody.
			err = os.Chmod(d, 0o755)
		}
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("making the state directory: %w", err)
		}
	}
	return nil
}
