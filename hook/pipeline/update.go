// SPDX-License-Identifier: Apache-2.0

package pipeline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"

	"github.com/upsplice/upsplice/hook/journal"
	"github.com/upsplice/upsplice/hook/outcome"
	"github.com/upsplice/upsplice/hook/progress"
	"github.com/upsplice/upsplice/hook/report"
	"github.com/upsplice/upsplice/hook/words"
	"github.com/upsplice/upsplice/plugins/backend"
	"github.com/upsplice/upsplice/splice/splicefile"
)

// Work takes requests from the queue until none waits. The caller holds the lock.
// What goes wrong with a request is its result, not an error of Work.
func (p *Pipeline) Work(ctx context.Context, lock *journal.Lock) error {
	interrupted, err := p.Recover(ctx, lock)
	if err != nil {
		return err
	}
	for {
		run, ok, err := lock.Take("starting")
		if err != nil {
			return err
		}
		if !ok {
			if interrupted == nil {
				return nil
			}
			// Nothing newer waits, so what the killed worker left is done again.
			if run, err = lock.Begin(interrupted.Update, "starting"); err != nil {
				return err
			}
		}
		interrupted = nil
		if err := p.work(ctx, lock, run); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

func (p *Pipeline) work(ctx context.Context, lock *journal.Lock, run journal.Run) error {
	events, err := lock.Events()
	if err != nil {
		return err
	}
	sub := *p
	sub.Sink = progress.Tee(events, stager{lock, p.Sink})
	res := sub.update(ctx, lock, run.Update)
	for _, line := range res.Message {
		sub.note("%s", line)
	}
	sub.Sink.Emit(progress.Event{Kind: progress.End, Outcome: string(res.Outcome)})
	events.Close()
	return lock.Finish(res)
}

// stager notes each stage in the journal, for whoever finds the run interrupted.
type stager struct {
	lock *journal.Lock
	next progress.Sink
}

func (s stager) Emit(e progress.Event) {
	if e.Kind == progress.Stage {
		// The stage is for people; a disk that is full says so elsewhere.
		_ = s.lock.SetStage(e.Stage)
	}
	s.next.Emit(e)
}

// update does one request and says how it ended.
func (p *Pipeline) update(ctx context.Context, lock *journal.Lock, u journal.Update) journal.Result {
	start := p.now()
	rec, rep, err := p.makeLive(ctx, lock, u)
	if rep != nil {
		// It is for people: the update does not depend on it.
		if saveErr := saveReport(lock.Journal(), rep, rec.State == journal.Live); saveErr != nil {
			p.note("the report is not kept: %v", saveErr)
		}
	}
	return p.result(u, rec, rep, p.now().Sub(start), err)
}

// dry: nothing is to be loaded.
func (p *Pipeline) dry(u journal.Update) bool { return u.DryRun || p.Config.DryRun }

// makeLive builds and applies. The report is there if something was built, with an
// error of what came then or without.
func (p *Pipeline) makeLive(ctx context.Context, lock *journal.Lock, u journal.Update) (journal.Record, *report.Report, error) {
	var none journal.Record
	if err := p.off("updating " + u.From.Release); err != nil {
		return none, nil, err
	}
	if err := p.Kernel.Ready(); err != nil && !p.dry(u) {
		return none, nil, err
	}
	if running := p.Kernel.Release(); u.From.Release != running {
		return none, nil, &outcome.Error{Outcome: outcome.Refused, Check: "running kernel",
			What: "updating " + u.From.Release, Err: fmt.Errorf("the kernel that runs is %s", running)}
	}
	if rec, ok, err := p.alreadyLive(lock.Journal(), u); err != nil || ok {
		return rec, nil, err
	}
	step, built, err := p.build(ctx, u)
	if err != nil {
		return none, nil, err
	}
	if built.File == "" {
		return none, Account(step, built, nil), nil
	}
	f, err := ReadSplice(built.File)
	if err != nil {
		return none, nil, err
	}
	rep := Account(step, built, f)
	if p.dry(u) {
		return none, rep, nil
	}
	// The newest request wins: a splice for an older one would be replaced at once.
	if _, waiting, err := lock.Journal().Pending(); err == nil && waiting {
		return none, rep, &outcome.Error{Outcome: outcome.NothingToDo, What: "applying the splice",
			Err: errors.New("a newer update has arrived")}
	}
	if m := f.Manifest; m.From.Release != u.From.Release || m.To.Release != u.To.Release {
		return none, rep, &outcome.Error{Outcome: outcome.Refused, Check: "splice file", What: "reading " + built.File,
			Err: fmt.Errorf("it leads from %s to %s", m.From.Release, m.To.Release)}
	}
	rec, err := p.ApplySplice(ctx, lock, f)
	return rec, rep, err
}

// alreadyLive finds the splice of the same update in force: package managers and
// people repeat themselves.
func (p *Pipeline) alreadyLive(j *journal.Journal, u journal.Update) (journal.Record, bool, error) {
	rec, ok, err := j.Current()
	if err != nil || !ok || rec.BootID != j.BootID() || rec.From.Release != u.From.Release || rec.To.Release != u.To.Release || rec.To.Version != u.To.Version {
		return journal.Record{}, false, err
	}
	f, err := ReadSplice(rec.File)
	if err != nil {
		// A damaged file says nothing about the kernel: make the splice again.
		return journal.Record{}, false, nil
	}
	live, err := p.Kernel.IsLive(f)
	return rec, live, err
}

// build opens the backend once for all that it is asked.
func (p *Pipeline) build(ctx context.Context, u journal.Update) (Step, Built, error) {
	b, err := p.Open(ctx)
	if err != nil {
		return Step{}, Built{}, err
	}
	defer b.Close()
	step, err := p.step(ctx, b, u)
	if err != nil {
		return step, Built{}, err
	}
	built, err := p.make(ctx, b, &step)
	return step, built, err
}

// step asks the backend again for what the queue keeps only names of.
func (p *Pipeline) step(ctx context.Context, b Backend, u journal.Update) (Step, error) {
	from, err := b.Installed(ctx, u.From.Release)
	if err != nil {
		return Step{}, failed("looking for the package of the kernel "+u.From.Release, err)
	}
	to := u.To
	kernels, err := b.Kernels(ctx, []backend.Package{{Name: to.Package, Arch: u.Arch, NewVersion: to.Version, Path: existing(to.Path)}})
	if err != nil {
		return Step{}, failed("looking for the kernel "+to.Release, err)
	}
	for _, k := range kernels {
		if k.Release == to.Release {
			return Step{From: from, To: k}, nil
		}
	}
	k, err := find(ctx, b, to.Release, u.Flavour)
	return Step{From: from, To: k}, err
}

// existing returns path if the file is still there: package managers delete what
// they have installed.
func existing(path string) string {
	if _, err := os.Stat(path); err != nil {
		return ""
	}
	return path
}

// ApplySplice stores f and puts it live in the place of the splice before it.
func (p *Pipeline) ApplySplice(ctx context.Context, lock *journal.Lock, f *splicefile.File) (journal.Record, error) {
	if err := p.Kernel.Ready(); err != nil {
		return journal.Record{}, err
	}
	p.stage("check", "comparing the running kernel with what the splice expects")
	if err := p.Kernel.Check(f); err != nil {
		return journal.Record{}, err
	}
	rec, err := p.store(lock, f)
	if err != nil {
		return journal.Record{}, failed("storing the splice", err)
	}
	if live, err := p.Kernel.IsLive(f); err != nil {
		return rec, failed("asking the kernel for its livepatches", err)
	} else if live {
		return p.settled(lock, rec, f)
	}
	p.stage("apply", "applying %s: %s", rec.ShortID, words.Count(rec.LiveFunctions, "function"))
	p.noteReplaced(lock.Journal(), f.Manifest)
	rec.State = journal.Applying
	rec.BootID = lock.Journal().BootID()
	if err := lock.Put(rec); err != nil {
		return rec, failed("writing the journal", err)
	}
	if err := p.Kernel.Apply(ctx, f, p.Sink); err != nil {
		rec.State = journal.Failed
		if putErr := lock.Put(rec); putErr != nil {
			err = errors.Join(err, putErr)
		}
		return rec, err
	}
	// What the splice has replaced is out of use already; a module that is not yet
	// free is taken at the next opportunity.
	_ = p.Kernel.Reap()
	return p.settled(lock, rec, f)
}

// noteReplaced says what patches come or go with the splice before this one. Between
// updates of the distribution nothing does: each has all that the one before it has.
func (p *Pipeline) noteReplaced(j *journal.Journal, m splicefile.Manifest) {
	old, ok, err := j.Current()
	if err != nil || !ok || old.ID == m.ID || old.BootID != j.BootID() || len(m.Patches) == 0 && old.From != old.To {
		return
	}
	p.note("%s takes the place of %s: what only that one changes ends", shortID(m.ID), old.ShortID)
}

// settled writes down that the kernel has the splice in force.
func (p *Pipeline) settled(lock *journal.Lock, rec journal.Record, f *splicefile.File) (journal.Record, error) {
	rec.State = journal.Live
	rec.BootID = lock.Journal().BootID()
	rec.Outcome = report.Ends(f.Manifest.Groups)
	if err := lock.PutLive(rec); err != nil {
		return rec, failed("writing the journal", err)
	}
	return rec, nil
}

// store keeps the splice with the journal, where the build user cannot change it.
func (p *Pipeline) store(lock *journal.Lock, f *splicefile.File) (journal.Record, error) {
	m := f.Manifest
	path := filepath.Join(lock.Journal().Dir(), "splices", m.ID+".splice")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return journal.Record{}, err
	}
	t, err := renameio.NewPendingFile(path, renameio.WithPermissions(0o644))
	if err != nil {
		return journal.Record{}, err
	}
	defer t.Cleanup()
	if err := splicefile.Write(t, f); err != nil {
		return journal.Record{}, err
	}
	if err := t.CloseAtomicallyReplace(); err != nil {
		return journal.Record{}, err
	}
	groups, err := json.Marshal(m.Groups)
	if err != nil {
		return journal.Record{}, err
	}
	sums := report.OfSplice(m).Sums
	rec := journal.Record{
		ID: m.ID, ShortID: shortID(m.ID), File: path, State: journal.Built,
		From:          journal.Kernel{Release: m.From.Release, Version: m.From.Version},
		To:            journal.Kernel{Release: m.To.Release, Version: m.To.Version},
		LiveFunctions: sums.Functions.Live, LiveGroups: sums.Groups.Live, DeferredGroups: sums.Groups.Deferred,
		Groups: groups,
	}
	for _, t := range m.Targets {
		rec.Targets = append(rec.Targets, t.Name)
	}
	return rec, lock.Put(rec)
}

// shortID is the beginning of an ID that people use.
func shortID(id string) string {
	return id[:min(len(id), 6)]
}
