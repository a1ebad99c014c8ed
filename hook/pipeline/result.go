// SPDX-License-Identifier: Apache-2.0

package pipeline

import (
	"errors"
	"fmt"
	"time"

	"github.com/upsplice/upsplice/hook/journal"
	"github.com/upsplice/upsplice/hook/outcome"
	"github.com/upsplice/upsplice/hook/report"
	"github.com/upsplice/upsplice/hook/words"
)

// result says how an update ended, in the few lines that a person reads. rep is nil
// if nothing was built.
func (p *Pipeline) result(u journal.Update, rec journal.Record, rep *report.Report, took time.Duration, err error) journal.Result {
	r := journal.Result{Outcome: outcome.Of(err)}
	if rep != nil {
		r.Reasons = rep.Reasons()
	}
	later := u.To.Release + " takes effect at the next boot, as without upsplice"
	switch {
	case err != nil:
		r.Message = []string{fmt.Sprintf("%s after %s: %v", r.Outcome, words.Duration(took), err)}
		if r.Outcome != outcome.NothingToDo {
			r.Message = append(r.Message, later)
		}
	case rep == nil:
		r.Outcome = rec.Outcome
		r.Message = []string{fmt.Sprintf("splice %s for %s is live already", rec.ShortID, rec.To.Release)}
	case rep.Sums.Groups.Total == 0:
		r.Outcome = outcome.NothingToDo
		r.Message = []string{"nothing to do: " + nothing(rep, u.To.Version)}
	case rep.ID == "":
		r.Outcome = outcome.Refused
		r.Message = []string{fmt.Sprintf("nothing of %s can be live: %s", u.To.Version, rep.Why()), later}
	case p.dry(u):
		r.Outcome = outcome.Done
		r.Message = []string{fmt.Sprintf("dry run, after %s: %s would be live, %s; nothing was loaded", words.Duration(took),
			rep.Share(), words.Count(rep.Sums.Functions.Live, "function"))}
		if rep.Sums.Groups.Deferred > 0 {
			r.Message = append(r.Message, rep.Waits()+" (upsplice status --why)")
		}
		r.Message = append(r.Message, later)
	default:
		r.Outcome = rec.Outcome
		r.Message = rep.Summary(took)
	}
	return r
}

// nothing says why an update has no effect on the kernel that runs.
func nothing(rep *report.Report, version string) string {
	if rep.Sums.Groups.AtBoot > 0 {
		return fmt.Sprintf("all that %s changes in this kernel has done its work by the time the kernel has booted", version)
	}
	return fmt.Sprintf("none of the %s that %s changes is part of this kernel", words.Count(rep.Files, "file"), version)
}

// BuildError turns a build that made nothing into the error that its outcome is,
// for verbs that were asked for a splice.
func BuildError(s Step, b Built) error {
	if b.File != "" {
		return nil
	}
	what := "making a splice to " + s.To.SourceVersion
	if len(s.Patches) > 0 {
		what = "making a splice of " + words.Count(len(s.Patches), "patch")
	}
	rep := report.Make(report.Input{Groups: b.Groups})
	switch {
	case rep.Sums.Groups.Total == 0 && rep.Sums.Groups.AtBoot > 0:
		return &outcome.Error{Outcome: outcome.NothingToDo, What: what,
			Err: errors.New("all that it changes in this kernel has done its work by the time the kernel has booted: it has no live effect")}
	case rep.Sums.Groups.Total == 0:
		return &outcome.Error{Outcome: outcome.NothingToDo, What: what,
			Err: fmt.Errorf("none of the %s that it changes is part of this kernel", words.Count(b.Files, "file"))}
	}
	return &outcome.Error{Outcome: outcome.Refused, Check: "deferred", What: what, Err: errors.New(rep.Why())}
}
