// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Recovery is what the last worker left behind.
type Recovery struct {
	// Run is what it was doing when it was killed; nil if it ended in order. It
	// stays in the journal until Begin, Take or Abandon, so that a recovery that
	// is itself killed finds it again.
	Run *Run
	// Rebooted: Run belongs to an earlier boot.
	Rebooted bool
	// Applying are splices of which only the kernel knows whether they are live.
	// The caller looks and puts each in another state.
	Applying []Record
	// Discarded are splices that were being built; their records are gone. The
	// caller removes their files.
	Discarded []Record
	// Damaged are files that could not be read; they now have the suffix
	// ".damaged".
	Damaged []string
}

// Clean tells whether there was nothing to recover.
func (r Recovery) Clean() bool {
	return r.Run == nil && len(r.Applying) == 0 && len(r.Discarded) == 0 && len(r.Damaged) == 0
}

// Recover finds out what a killed worker was doing and cleans up after it. It
// is the first thing to do under a lock. It may be repeated.
func (l *Lock) Recover() (Recovery, error) {
	var rec Recovery
	if err := l.cleanFiles(&rec); err != nil {
		return Recovery{}, err
	}
	run, _, ok, err := l.j.Run()
	if err != nil {
		return Recovery{}, err
	}
	// The process may even be alive, but it does not have the lock, and so is
	// not at work any more.
	if ok && l.run == nil {
		rec.Run, rec.Rebooted = &run, run.BootID != l.j.boot
	}
	recs, err := l.j.Records()
	if err != nil {
		return Recovery{}, err
	}
	for _, r := range recs {
		switch r.State {
		case Building:
			if err := l.Delete(r.ID); err != nil {
				return Recovery{}, err
			}
			rec.Discarded = append(rec.Discarded, r)
		case Applying:
			rec.Applying = append(rec.Applying, r)
		}
	}
	return rec, nil
}

// Abandon makes the interrupted run, found by Recover, end with r, for a
// caller that does not do it again.
func (l *Lock) Abandon(run Run, r Result) error {
	l.run = &run
	return l.Finish(r)
}

// cleanFiles removes half-written files and sets aside unreadable ones. The
// queue's lock keeps out a hook that is just writing a request.
func (l *Lock) cleanFiles(rec *Recovery) error {
	unlock, err := l.j.lockQueue()
	if err != nil {
		return err
	}
	defer unlock()
	if err := emptyDir(l.j.path(tmpDir)); err != nil {
		return err
	}
	for path, v := range map[string]any{
		l.j.path(queueFile):   new(Request),
		l.j.path(runFile):     new(Run),
		l.j.path(resultFile):  new(Result),
		l.j.path(awaitedFile): new(string),
	} {
		_, err := read(path, v)
		if err := l.setAside(path, err, rec); err != nil {
			return err
		}
	}
	entries, err := os.ReadDir(l.j.path(spliceDir))
	if err != nil {
		return fmt.Errorf("reading the journal: %w", err)
	}
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok {
			continue
		}
		_, _, err := l.j.Record(id)
		if err := l.setAside(l.j.path(spliceDir, e.Name()), err, rec); err != nil {
			return err
		}
	}
	return nil
}

// setAside renames a corrupt file; any other error is returned.
func (l *Lock) setAside(path string, err error, rec *Recovery) error {
	if err == nil {
		return nil
	}
	if !isCorrupt(err) {
		return err
	}
	if err := os.Rename(path, path+".damaged"); err != nil {
		return fmt.Errorf("setting aside a damaged file: %w", err)
	}
	rec.Damaged = append(rec.Damaged, path)
	return syncDir(filepath.Dir(path))
}

func emptyDir(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("cleaning up: %w", err)
	}
	for _, e := range entries {
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cleaning up: %w", err)
		}
	}
	return nil
}
