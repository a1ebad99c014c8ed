// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/upsplice/upsplice/hook/journal"
	"github.com/upsplice/upsplice/hook/live"
	"github.com/upsplice/upsplice/hook/outcome"
	"github.com/upsplice/upsplice/hook/pipeline"
	"github.com/upsplice/upsplice/hook/report"
	"github.com/upsplice/upsplice/hook/words"
)

// statusVersion is that of the JSON form, its field "status". It changes when a field
// goes or changes its meaning; new fields do not change it.
const statusVersion = 1

type status struct {
	Version   int              `json:"status"`
	Running   journal.Kernel   `json:"running"`
	Uptime    int64            `json:"uptime_seconds,omitempty"`
	Effective effective        `json:"effective"`
	NextBoot  nextBoot         `json:"next_boot"`
	Splice    *journal.Record  `json:"splice,omitempty"`
	Others    []other          `json:"other_livepatches"`
	Waiting   []waiting        `json:"transition_waits_for,omitempty"`
	Run       *journal.Run     `json:"run,omitempty"`
	Last      *journal.Result  `json:"last,omitempty"`
	Records   []journal.Record `json:"splices"`
	// Report is that of the live splice or, if there is none, of the last run; with
	// --why.
	Report *report.Report `json:"report,omitempty"`
}

func (a *app) statusCommand() *cobra.Command {
	var asJSON, follow, reasons, onlyLive bool
	c := &cobra.Command{
		Use:   "status",
		Short: "Say what runs, what is live and what waits for the next boot",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if follow {
				return a.follow(c.Context())
			}
			s, err := a.status(reasons)
			if err != nil {
				return err
			}
			if onlyLive && s.Splice == nil {
				return silent(outcome.NothingToDo)
			}
			if asJSON {
				return a.printJSON(s)
			}
			if !a.quiet {
				s.print(a.out, reasons)
			}
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().BoolVarP(&follow, "follow", "f", false, "show the progress of the run under way until it ends")
	c.Flags().BoolVar(&reasons, "why", false, "say why each deferred change waits; with --json, add the whole report")
	c.Flags().BoolVar(&onlyLive, "live", false, "exit with \"nothing to do\" if no splice is live")
	return c
}

func (a *app) status(why bool) (status, error) {
	j, err := a.journal()
	if err != nil {
		return status{}, err
	}
	k := live.Host(0)
	s := status{Version: statusVersion, Running: journal.Kernel{Release: k.Release()}, Uptime: int64(k.Uptime().Seconds())}
	rec, ok, err := a.liveRecord()
	if err != nil {
		return s, err
	}
	if s.Others, s.Waiting, err = kernelState(k); err != nil {
		return s, err
	}
	if ok {
		s.Splice, s.Running.Version = &rec, rec.From.Version
	}
	if run, alive, ok, err := j.Run(); err != nil {
		return s, err
	} else if ok && alive {
		s.Run = &run
	}
	if last, ok, err := j.Result(); err != nil {
		return s, err
	} else if ok {
		s.Last = &last
	}
	if s.Records, err = j.Records(); err != nil {
		return s, err
	}
	s.Effective = effectiveOf(s.Running.Release, s.Splice)
	rep := statusReport(j, s)
	s.NextBoot = next(s, rep)
	if why {
		s.Report = rep
	}
	return s, nil
}

// statusReport is the report of what is live, else of the last run. It is for people:
// without it status says less.
func statusReport(j *journal.Journal, s status) *report.Report {
	if s.Splice != nil {
		f, err := pipeline.ReadSplice(s.Splice.File)
		if err != nil {
			return nil
		}
		return pipeline.ReportOf(j, f.Manifest)
	}
	rep, ok, err := pipeline.LastReport(j)
	if err != nil || !ok || s.Last == nil || s.Last.Update == nil || rep.To.Version != s.Last.Update.To.Version || rep.From.Release != s.Running.Release {
		return nil
	}
	return rep
}

// changes is what a reboot would change.
type changes string

const (
	changesNothing changes = "nothing" // of the code that this kernel runs
	changesSome    changes = "some"    // what waits
	changesAll     changes = "all"     // the whole update
	changesUnknown changes = "unknown" // no update is known
)

// nextBoot says whether a reboot would still change anything, and what. The kernel is
// the newest that upsplice knows of; what a boot loader picks is not asked.
type nextBoot struct {
	Kernel   *journal.Kernel   `json:"kernel,omitempty"`
	Changes  changes           `json:"changes"`
	Fixes    int               `json:"fixes"` // how many; 0 with "all" if they were not counted
	Deferred []report.Deferral `json:"deferred"`
	Text     string            `json:"text"` // for people
}

// next finds out what a reboot would change. rep may be nil.
func next(s status, rep *report.Report) nextBoot {
	n := nextBoot{Changes: changesUnknown, Deferred: []report.Deferral{}, Text: "no newer kernel is known"}
	if rep != nil {
		n.Deferred = rep.Deferred
	}
	last := s.Last
	if last != nil && (last.Update == nil || last.Update.From.Release != s.Running.Release ||
		s.Splice != nil && last.FinishedAt.Before(s.Splice.AppliedAt)) {
		last = nil
	}
	if sp := s.Splice; sp != nil && (last == nil || last.Update.To.Version == sp.To.Version) {
		n.Kernel = &sp.To
		n.Fixes = sp.DeferredGroups
		switch {
		case sp.From.Release == sp.To.Release && sp.From.Version == sp.To.Version:
			n.Changes, n.Text = changesNothing, "the splice is applied again"
		case n.Fixes > 0:
			n.Changes, n.Text = changesSome, fmt.Sprintf("would change %d more %s", n.Fixes, words.Plural(n.Fixes, "fix"))
			if rep != nil {
				n.Text += ": " + rep.Why()
			}
		default:
			n.Changes, n.Text = changesNothing, "would change nothing: all that it changes for this kernel is live"
		}
		return n
	}
	if last == nil {
		return n
	}
	n.Kernel = &last.Update.To
	n.Changes, n.Text = changesAll, "would put all of it in force: nothing of it is live"
	if s.Splice != nil {
		n.Text = "would put all of it in force: what is live is of " + s.Splice.To.Version
	}
	switch {
	case last.Outcome == outcome.NothingToDo:
		n.Changes, n.Text = changesNothing, "would change nothing that this kernel runs"
	case rep != nil && s.Splice == nil:
		n.Fixes = rep.Sums.Groups.Total
		n.Text = fmt.Sprintf("would change %s: nothing of it is live", words.Count(n.Fixes, "fix"))
	}
	return n
}

func (s status) print(out io.Writer, why bool) {
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	defer w.Flush()
	running := s.Running.Version
	if s.Uptime > 0 {
		running = strings.TrimPrefix(running+", up "+since(time.Duration(s.Uptime)*time.Second), ", ")
	}
	fmt.Fprintf(w, "running\t%s\t%s\n", s.Running.Release, running)
	if sp := s.Splice; sp == nil {
		fmt.Fprintf(w, "effective\t%s\tno splice is live\n", s.Effective.Release)
	} else {
		fmt.Fprintf(w, "effective\t%s\t%d of %s, %s\n", sp.To.Release,
			s.Effective.Live, words.Count(s.Effective.Total, "fix"), words.Count(sp.LiveFunctions, "function"))
		fmt.Fprintf(w, "splice\t%s\tapplied %s%s\n", sp.ShortID, sp.AppliedAt.Local().Format("2006-01-02 15:04"), targets(sp.Targets))
	}
	if n := s.NextBoot; n.Kernel != nil {
		fmt.Fprintf(w, "next boot\t%s\t%s\n", n.Kernel.Release, n.Text)
	}
	printKernelState(w, s.Others, s.Waiting)
	if s.Run != nil {
		fmt.Fprintf(w, "at work\t%s\tstage %s (upsplice status --follow)\n", s.Run.Update.To.Release, s.Run.Stage)
	}
	if s.Last != nil {
		for i, line := range s.Last.Message {
			head := "last run"
			if i > 0 {
				head = ""
			}
			fmt.Fprintf(w, "%s\t%s\n", head, line)
		}
	}
	if !why {
		return
	}
	var lines []string
	switch {
	case s.Report != nil:
		lines = s.Report.Reasons()
	case s.Last != nil:
		lines = s.Last.Reasons
	}
	for _, line := range lines {
		fmt.Fprintf(w, "\t%s\n", line)
	}
}

// targets says what a splice changes: ", vmlinux and 36 modules".
func targets(names []string) string {
	modules, parts := len(names), []string{}
	if modules > 0 && names[0] == "vmlinux" {
		modules--
		parts = append(parts, names[0])
	}
	if modules > 0 {
		parts = append(parts, words.Count(modules, "module"))
	}
	if len(parts) == 0 {
		return ""
	}
	return ", " + strings.Join(parts, " and ")
}

// since gives a time of hours and days as people do.
func since(d time.Duration) string {
	switch {
	case d < 2*time.Hour:
		return words.Count(int(d.Minutes()), "minute")
	case d < 48*time.Hour:
		return words.Count(int(d.Hours()), "hour")
	}
	return words.Count(int(d.Hours()/24), "day")
}
