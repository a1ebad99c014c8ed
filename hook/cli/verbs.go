// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/upsplice/upsplice/hook/config"
	"github.com/upsplice/upsplice/hook/journal"
	"github.com/upsplice/upsplice/hook/live"
	"github.com/upsplice/upsplice/hook/outcome"
	"github.com/upsplice/upsplice/hook/pipeline"
	"github.com/upsplice/upsplice/splice/splicefile"
)

func (a *app) applyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "apply FILE",
		Short: "Put a .splice file live",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.locked(c.Context(), func(ctx context.Context, p *pipeline.Pipeline, lock *journal.Lock) error {
				f, err := pipeline.ReadSplice(args[0])
				if err != nil {
					return err
				}
				if _, err := p.Recover(ctx, lock); err != nil {
					return err
				}
				rec, err := p.ApplySplice(ctx, lock, f)
				if err != nil {
					return err
				}
				a.printf("%s%s is live: %d functions\n", "upsplice: ", rec.ShortID, rec.LiveFunctions)
				if rec.Outcome == outcome.PartlyLive {
					return silent(outcome.PartlyLive)
				}
				return nil
			})
		},
	}
}

func (a *app) undoCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "undo [ID]",
		Short: "Take the live splice, or the one called ID, out of the kernel",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			id := ""
			if len(args) > 0 {
				id = args[0]
			}
			return a.locked(c.Context(), func(ctx context.Context, p *pipeline.Pipeline, lock *journal.Lock) error {
				rec, err := p.Undo(ctx, lock, id)
				if err != nil {
					return err
				}
				a.printf("upsplice: %s is undone: the kernel runs the code of %s\n", rec.ShortID, rec.From.Version)
				return nil
			})
		},
	}
}

func (a *app) showCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "show FILE|ID",
		Short: "Show what a splice contains",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			path := args[0]
			if _, err := os.Stat(path); err != nil {
				j, err := a.journal()
				if err != nil {
					return err
				}
				rec, err := (&pipeline.Pipeline{Journal: j}).FindRecord(j, args[0])
				if err != nil {
					return err
				}
				path = rec.File
			}
			f, err := pipeline.ReadSplice(path)
			if err != nil {
				return err
			}
			m := f.Manifest
			if asJSON {
				return a.printJSON(m)
			}
			a.printManifest(m)
			a.printGroups(m.Groups)
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print the manifest as JSON")
	return c
}

func (a *app) printManifest(m splicefile.Manifest) {
	a.printf("splice      %s\n", m.ID)
	if len(m.Patches) > 0 {
		a.printf("kernel      %s   %s   build id %s\n", m.From.Release, m.From.Version, m.From.BuildID)
		if m.Description != "" {
			a.printf("description %s\n", m.Description)
		}
		for _, p := range m.Patches {
			fuzz := ""
			if p.Fuzz > 0 {
				fuzz = fmt.Sprintf(", %d hunks with fuzz", p.Fuzz)
			}
			a.printf("patch       %s, sha256 %s%s\n", p.Name, p.SHA256, fuzz)
		}
	} else {
		a.printf("from        %s   %s   build id %s\n", m.From.Release, m.From.Version, m.From.BuildID)
		a.printf("to          %s   %s\n", m.To.Release, m.To.Version)
		a.printf("vendor      %d of %d new functions are those of the shipped image\n", m.PostMatch.Matched, m.PostMatch.Total)
	}
	a.printf("compiler    %s\n", m.Compiler)
	for _, t := range m.Targets {
		a.printf("target      %s   build id %s\n", t.Name, t.BuildID)
	}
	for _, mod := range m.Modules {
		stays := ""
		if mod.Pinned {
			stays = ", stays loaded when undone"
		}
		a.printf("module      %s, %d bytes, sha256 %s%s\n", mod.Name, mod.Size, mod.SHA256, stays)
	}
	for _, n := range m.Notes {
		a.printf("note        %s\n", n)
	}
}

func (a *app) unameCommand() *cobra.Command {
	var release, version, all bool
	c := &cobra.Command{
		Use:   "uname",
		Short: "Print the kernel version whose code runs",
		Long:  "uname -r prints the release whose code runs: that of the live splice if it contains\neverything that its update changes for this kernel, else that of the booted kernel.",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			k := live.Host(0)
			rel, ver := k.Release(), ""
			rec, ok, err := a.liveRecord()
			if err != nil {
				return err
			}
			if ok {
				ver = rec.From.Version
				if rec.Outcome == outcome.Live {
					rel, ver = rec.To.Release, rec.To.Version
				}
			}
			switch {
			case all:
				fmt.Fprintln(a.out, rel, ver)
			case version:
				fmt.Fprintln(a.out, ver)
			default:
				fmt.Fprintln(a.out, rel)
			}
			return nil
		},
	}
	c.Flags().BoolVarP(&release, "release", "r", true, "print the release (default)")
	c.Flags().BoolVarP(&version, "version", "v", false, "print the version of the source package")
	c.Flags().BoolVarP(&all, "all", "a", false, "print both")
	return c
}

// liveRecord returns the splice that is live in this boot. The journal alone is
// not believed: the kernel must still list its modules.
func (a *app) liveRecord() (journal.Record, bool, error) {
	j, err := a.journal()
	if err != nil {
		return journal.Record{}, false, err
	}
	rec, ok, err := j.Current()
	if err != nil || !ok || rec.BootID != j.BootID() {
		return rec, false, err
	}
	f, err := pipeline.ReadSplice(rec.File)
	if err != nil {
		return rec, false, err
	}
	on, err := live.Host(0).IsLive(f)
	return rec, on, err
}

func (a *app) prepareCommand() *cobra.Command {
	var release string
	c := &cobra.Command{
		Use:   "prepare",
		Short: "Fetch and prepare what a splice of the running kernel would need",
		Long:  "prepare fetches the running kernel's source while the archive still has it, and does in\nadvance what does not depend on the update. It runs after installation and each boot.",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			r := a.renderer()
			defer r.Close()
			p, err := a.pipeline(r)
			if err != nil {
				return err
			}
			return p.Prepare(c.Context(), release)
		},
	}
	c.Flags().StringVar(&release, "kernel", "", "kernel `release` (default: the running one)")
	return c
}

func (a *app) configCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "config",
		Short:  "Print a configuration file with every key at its default",
		Args:   cobra.NoArgs,
		Hidden: true,
		// The configuration at hand may be the broken one.
		PersistentPreRunE: func(*cobra.Command, []string) error { return nil },
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprint(a.out, config.Example())
			return err
		},
	}
}

// status

type status struct {
	Running   journal.Kernel   `json:"running"`
	Effective journal.Kernel   `json:"effective"`
	Splice    *journal.Record  `json:"splice,omitempty"`
	Others    []other          `json:"other_livepatches"`
	Waiting   []waiting        `json:"transition_waits_for,omitempty"`
	Run       *journal.Run     `json:"run,omitempty"`
	Last      *journal.Result  `json:"last,omitempty"`
	Records   []journal.Record `json:"splices"`
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
			s, err := a.status()
			if err != nil {
				return err
			}
			if onlyLive && s.Splice == nil {
				return silent(outcome.NothingToDo)
			}
			if asJSON {
				return a.printJSON(s)
			}
			a.printStatus(s, reasons)
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().BoolVarP(&follow, "follow", "f", false, "show the progress of the run under way until it ends")
	c.Flags().BoolVar(&reasons, "why", false, "say why each deferred change waits")
	c.Flags().BoolVar(&onlyLive, "live", false, "exit with \"nothing to do\" if no splice is live")
	return c
}

func (a *app) status() (status, error) {
	j, err := a.journal()
	if err != nil {
		return status{}, err
	}
	s := status{Running: journal.Kernel{Release: live.Host(0).Release()}}
	s.Effective = s.Running
	rec, ok, err := a.liveRecord()
	if err != nil {
		return s, err
	}
	if s.Others, s.Waiting, err = kernelState(live.Host(0)); err != nil {
		return s, err
	}
	if ok {
		s.Splice, s.Running.Version = &rec, rec.From.Version
		s.Effective = s.Running
		if rec.Outcome == outcome.Live {
			s.Effective = rec.To
		}
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
	s.Records, err = j.Records()
	return s, err
}

func (a *app) printStatus(s status, reasons bool) {
	if a.quiet {
		return
	}
	w := tabwriter.NewWriter(a.out, 0, 0, 3, ' ', 0)
	defer w.Flush()
	fmt.Fprintf(w, "running\t%s\t%s\n", s.Running.Release, s.Running.Version)
	if s.Splice == nil {
		fmt.Fprintf(w, "effective\t%s\tno splice is live\n", s.Effective.Release)
	} else {
		fmt.Fprintf(w, "effective\t%s\t%d of %d fixes, %d functions\n", s.Splice.To.Release,
			s.Splice.LiveGroups, s.Splice.LiveGroups+s.Splice.DeferredGroups, s.Splice.LiveFunctions)
		fmt.Fprintf(w, "splice\t%s\tapplied %s\n", s.Splice.ShortID, s.Splice.AppliedAt.Local().Format("2006-01-02 15:04"))
		if s.Splice.DeferredGroups > 0 {
			fmt.Fprintf(w, "next boot\t%s\twould change %d more\n", s.Splice.To.Release, s.Splice.DeferredGroups)
		}
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
		if reasons {
			for _, line := range s.Last.Reasons {
				fmt.Fprintf(w, "\t%s\n", line)
			}
		}
	}
	if reasons && s.Splice != nil {
		var groups []splicefile.Group
		if json.Unmarshal(s.Splice.Groups, &groups) == nil {
			for _, line := range pipeline.Reasons(groups) {
				fmt.Fprintf(w, "\t%s\n", line)
			}
		}
	}
}

func (a *app) follow(ctx context.Context) error {
	j, err := a.journal()
	if err != nil {
		return err
	}
	r := a.renderer()
	defer r.Close()
	err = j.Follow(ctx, "", r.Emit)
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// logFile takes what the worker prints.
func logFile() string { return filepath.Join("/var/log/upsplice", "worker.log") }
