// SPDX-License-Identifier: Apache-2.0

package pipeline

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/upsplice/upsplice/hook/journal"
	"github.com/upsplice/upsplice/hook/outcome"
	"github.com/upsplice/upsplice/hook/report"
	"github.com/upsplice/upsplice/hook/words"
	"github.com/upsplice/upsplice/splice/splicefile"
)

// Recover brings journal and kernel together again after a worker was killed, and
// returns the run that it did not finish, if that belongs to this boot. It is the
// first thing to do under the lock.
func (p *Pipeline) Recover(ctx context.Context, lock *journal.Lock) (*journal.Run, error) {
	r, err := lock.Recover()
	if err != nil {
		return nil, err
	}
	for _, path := range r.Damaged {
		p.note("the journal file %s was damaged and has been set aside", path)
	}
	for _, rec := range r.Discarded {
		if err := os.Remove(rec.File); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		_ = os.Remove(reportFile(lock.Journal(), rec.ID))
	}
	for _, rec := range r.Applying {
		if err := p.settle(lock, rec); err != nil {
			return nil, err
		}
	}
	if r.Run == nil {
		return nil, nil
	}
	if r.Rebooted {
		// The kernel it was for may not be the one that runs now; the boot and the
		// next upgrade see to what is needed.
		return nil, lock.Abandon(*r.Run, journal.Result{Outcome: outcome.Failed,
			Message: []string{fmt.Sprintf("the machine went down while the splice was in stage %q", r.Run.Stage)}})
	}
	return r.Run, nil
}

// settle asks the kernel whether a splice is live that was being applied when the
// worker was killed.
func (p *Pipeline) settle(lock *journal.Lock, rec journal.Record) error {
	live := false
	if rec.BootID == lock.Journal().BootID() {
		f, err := ReadSplice(rec.File)
		if err == nil {
			live, err = p.Kernel.IsLive(f)
		}
		if err != nil {
			return fmt.Errorf("finding out whether splice %s is live: %w", rec.ShortID, err)
		}
		if live {
			rec.Outcome = report.Ends(f.Manifest.Groups)
			return lock.PutLive(rec)
		}
		held, err := p.Kernel.Holds(f)
		if err != nil {
			return fmt.Errorf("finding out whether splice %s is in the kernel: %w", rec.ShortID, err)
		}
		if held {
			// Its tasks are still switching: nobody knows yet how that ends.
			return nil
		}
	}
	rec.State = journal.Failed
	return lock.Put(rec)
}

// Undo takes a splice back: the one that id begins with, or the live one.
func (p *Pipeline) Undo(ctx context.Context, lock *journal.Lock, id string) (journal.Record, error) {
	if _, err := p.Recover(ctx, lock); err != nil {
		return journal.Record{}, err
	}
	rec, err := p.FindRecord(lock.Journal(), id)
	if err != nil {
		return rec, err
	}
	f, err := ReadSplice(rec.File)
	if err != nil {
		return rec, err
	}
	held, err := p.Kernel.Holds(f)
	if err != nil {
		return rec, failed("asking the kernel for its livepatches", err)
	}
	if held {
		p.stage("undo", "taking back %s: %s", rec.ShortID, words.Count(rec.LiveFunctions, "function"))
		if err := p.Kernel.Undo(ctx, f, p.Sink); err != nil {
			return rec, err
		}
	}
	wasLive := rec.State == journal.Live && rec.BootID == lock.Journal().BootID()
	if rec.State == journal.Live || held {
		rec.State = journal.Undone
		if err := lock.Put(rec); err != nil {
			return rec, failed("writing the journal", err)
		}
	}
	if !held && !wasLive {
		return rec, &outcome.Error{Outcome: outcome.NothingToDo, What: "undoing " + rec.ShortID, Err: errors.New("it is not live")}
	}
	return rec, nil
}

// FindRecord returns the splice whose ID begins with id, or, if id is empty, the live
// one, or the one that was being applied when a worker was killed.
func (p *Pipeline) FindRecord(j *journal.Journal, id string) (journal.Record, error) {
	if id == "" {
		rec, ok, err := j.Current()
		if err == nil && !ok {
			rec, ok, err = applying(j)
		}
		if err == nil && !ok {
			err = &outcome.Error{Outcome: outcome.NothingToDo, What: "looking for a live splice", Err: errors.New("there is none")}
		}
		return rec, err
	}
	recs, err := j.Find(id)
	switch {
	case err != nil:
		return journal.Record{}, err
	case len(recs) == 0:
		return journal.Record{}, &outcome.Error{Outcome: outcome.Usage, What: "looking for splice " + id,
			Err: errors.New("there is none of that id"), Remedy: "upsplice status lists them"}
	case len(recs) > 1:
		return journal.Record{}, &outcome.Error{Outcome: outcome.Usage, What: "looking for splice " + id,
			Err: errors.New("several ids begin with that"), Remedy: "give more of the id"}
	}
	return recs[0], nil
}

// applying returns a splice of this boot whose tasks are still switching.
func applying(j *journal.Journal) (journal.Record, bool, error) {
	recs, err := j.Records()
	if err != nil {
		return journal.Record{}, false, err
	}
	for _, r := range recs {
		if r.State == journal.Applying && r.BootID == j.BootID() {
			return r, true, nil
		}
	}
	return journal.Record{}, false, nil
}

// Boot is what happens early in each boot: the splice of the kernel that runs is
// applied again after the same checks; one that led to the kernel that runs now,
// or that belongs to another, is retired.
func (p *Pipeline) Boot(ctx context.Context, lock *journal.Lock) error {
	if _, err := p.Recover(ctx, lock); err != nil {
		return err
	}
	rec, ok, err := lock.Journal().Current()
	if err != nil || !ok || rec.BootID == lock.Journal().BootID() {
		return err
	}
	if rec.From.Release != p.Kernel.Release() {
		rec.State = journal.Retired
		if err := lock.Put(rec); err != nil {
			return failed("writing the journal", err)
		}
		p.note("%s runs now; splice %s for %s is retired", p.Kernel.Release(), rec.ShortID, rec.From.Release)
		return nil
	}
	var f *splicefile.File
	if f, err = ReadSplice(rec.File); err != nil {
		return err
	}
	rec, err = p.ApplySplice(ctx, lock, f)
	if err != nil {
		return err
	}
	p.note("splice %s is live again: %s", rec.ShortID, ReportOf(lock.Journal(), f.Manifest).Effect())
	return nil
}
