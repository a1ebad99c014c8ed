// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/upsplice/upsplice/hook/apt"
	"github.com/upsplice/upsplice/hook/builder"
	"github.com/upsplice/upsplice/hook/config"
	"github.com/upsplice/upsplice/hook/journal"
	"github.com/upsplice/upsplice/hook/outcome"
	"github.com/upsplice/upsplice/hook/pipeline"
	"github.com/upsplice/upsplice/hook/progress"
	"github.com/upsplice/upsplice/hook/watch"
	"github.com/upsplice/upsplice/hook/worker"
	"github.com/upsplice/upsplice/plugins/backend"
)

// hookLimit is how long a package manager is held up at the most before dpkg runs.
const hookLimit = 30 * time.Second

func (a *app) hookCommand() *cobra.Command {
	hook := &cobra.Command{
		Use:   "hook",
		Short: "What package managers call",
		Args:  cobra.NoArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	var post, dry bool
	aptHook := &cobra.Command{
		Use:   "apt",
		Short: "Called by apt before (or, with --post, after) dpkg runs",
		Args:  cobra.ArbitraryArgs,
		// Whatever happens here is not apt's business: the status is always 0.
		PersistentPreRunE: func(*cobra.Command, []string) error { return nil },
		RunE: func(c *cobra.Command, _ []string) error {
			a.aptHook(c.Context(), post, dry)
			return nil
		},
	}
	aptHook.Flags().BoolVar(&post, "post", false, "show how the splice gets on")
	aptHook.Flags().BoolVar(&dry, "dry-run", false, "build the splice and say what would be live, load nothing")
	hook.AddCommand(aptHook)
	return hook
}

// aptHook never fails and, before dpkg, never takes long.
func (a *app) aptHook(ctx context.Context, post, dry bool) {
	defer func() {
		if r := recover(); r != nil {
			fmt.Fprintf(a.err, "%sthis is a fault in upsplice, the upgrade goes on: %v\n", progress.Prefix, r)
		}
	}()
	err := a.loadConfig()
	switch {
	case err != nil:
	case post:
		err = a.afterApt(ctx)
	default:
		timer := time.AfterFunc(hookLimit, func() {
			fmt.Fprintf(a.err, "%sno answer within %s, the upgrade goes on without a splice\n", progress.Prefix, hookLimit)
			os.Exit(0)
		})
		defer timer.Stop()
		err = a.beforeApt(ctx, dry)
	}
	if err != nil {
		fmt.Fprintf(a.err, "%s%v\n", progress.Prefix, err)
	}
}

func (a *app) loadConfig() (err error) {
	a.config, err = config.Load(a.configPath)
	return err
}

func (a *app) beforeApt(ctx context.Context, dry bool) error {
	in, err := apt.Open()
	if err != nil {
		return err
	}
	defer in.Close()
	t, err := apt.Parse(in)
	if err != nil {
		return err
	}
	packages := candidates(t.Changes())
	if !a.config.Enabled || len(packages) == 0 {
		return nil
	}
	p, err := a.pipeline(progress.SinkFunc(func(progress.Event) {}))
	if err != nil {
		return err
	}
	u, ok, err := p.Decide(ctx, packages, journal.TriggerApt)
	if err != nil || !ok {
		return err
	}
	fmt.Fprintf(a.err, "%s%s (%s) is newer than the running %s (%s)\n", progress.Prefix,
		u.To.Package, u.To.Version, u.From.Release, u.From.Version)
	if a.config.Policy == config.Off {
		fmt.Fprintf(a.err, "%sthe configuration says policy = \"off\": it takes effect at the next boot\n", progress.Prefix)
		return nil
	}
	u.DryRun = dry
	ticket, err := a.enqueue(ctx, p.Journal, u)
	if err != nil {
		return err
	}
	return p.Journal.Await(ticket)
}

// candidates are the packages that can be kernels. apt runs the hook for every
// transaction, and most have none: those need no backend.
func candidates(changes []apt.Change) []backend.Package {
	var out []backend.Package
	for _, c := range changes {
		if (c.Kind == apt.Install || c.Kind == apt.Upgrade) && strings.HasPrefix(c.Name, "linux-image-") {
			out = append(out, backend.Package{Name: c.Name, Arch: c.Arch, OldVersion: c.Old, NewVersion: c.New, Path: c.Path})
		}
	}
	return out
}

// enqueue leaves the update to a worker and starts one.
func (a *app) enqueue(ctx context.Context, j *journal.Journal, u journal.Update) (string, error) {
	ticket, err := j.Enqueue(u)
	if err != nil {
		return "", err
	}
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	started, err := worker.Spawn(ctx, worker.Options{
		Argv:    []string{self, "worker", "--config", a.configPath, "--state", a.stateDir, "--backends", a.backendDir},
		LogFile: logFile(),
	})
	if err != nil {
		return "", err
	}
	if started.Fallback != nil {
		fmt.Fprintf(a.err, "%s%v\n", progress.Prefix, started.Fallback)
	}
	fmt.Fprintf(a.err, "%sbuilding a splice beside the installation (upsplice status --follow)\n", progress.Prefix)
	return ticket, nil
}

// afterApt shows the run that beforeApt started. It waits on a terminal only.
func (a *app) afterApt(ctx context.Context) error {
	j, err := a.journal()
	if err != nil {
		return err
	}
	ticket, err := j.TakeAwaited()
	if err != nil || ticket == "" {
		return err
	}
	f, ok := a.err.(*os.File)
	if !ok || !progress.IsTerminal(f) || a.config.Wait <= 0 {
		if run, alive, ok, err := j.Run(); err == nil && ok && alive && run.Ticket == ticket {
			fmt.Fprintf(a.err, "%sthe splice is being made (stage %s); upsplice status tells how it ends\n", progress.Prefix, run.Stage)
			return nil
		}
		return a.showResult(j, ticket)
	}
	r := a.renderer()
	defer r.Close()
	waiting, cancel := context.WithTimeout(ctx, a.config.Wait)
	defer cancel()
	err = j.Follow(waiting, ticket, r.Emit)
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		r.Println("the splice is made in the background; upsplice status tells how it ends")
		return nil
	case errors.Is(err, journal.ErrInterrupted), errors.Is(err, journal.ErrNoWorker):
		r.Println(err.Error() + "; the update takes effect at the next boot")
		return nil
	}
	return err
}

func (a *app) showResult(j *journal.Journal, ticket string) error {
	res, ok, err := j.Result()
	if err != nil || !ok || res.Run != ticket {
		return err
	}
	for _, line := range res.Message {
		fmt.Fprintf(a.err, "%s%s\n", progress.Prefix, line)
	}
	return nil
}

func (a *app) watchCommand() *cobra.Command {
	var boot string
	c := &cobra.Command{
		Use:   "watch",
		Short: "Notice kernels that are installed past the package manager's hooks",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := needRoot(); err != nil {
				return err
			}
			log := slog.New(slog.NewTextHandler(a.err, nil))
			err := watch.Watch(c.Context(), watch.Options{BootDir: boot, Log: log}, func(release string) {
				if err := a.landed(c.Context(), release); err != nil {
					log.WarnContext(c.Context(), "kernel not handled", "release", release, "error", err)
				}
			})
			if errors.Is(err, context.Canceled) {
				return nil
			}
			return err
		},
	}
	c.Flags().StringVar(&boot, "boot", "", "`directory` where kernels land (default: /boot)")
	return c
}

func (a *app) landed(ctx context.Context, release string) error {
	if !a.config.Enabled || a.config.Policy == config.Off {
		return nil
	}
	p, err := a.pipeline(a.renderer())
	if err != nil {
		return err
	}
	u, ok, err := p.Landed(ctx, release)
	if err != nil || !ok {
		return err
	}
	if known, err := handled(p.Journal, u); err != nil || known {
		return err
	}
	_, err = a.enqueue(ctx, p.Journal, u)
	return err
}

// handled tells whether the package manager's hook has seen to the same update:
// it waits, is being worked on, or has ended in this boot.
func handled(j *journal.Journal, u journal.Update) (bool, error) {
	same := func(o journal.Update) bool {
		return o.To.Release == u.To.Release && o.To.Version == u.To.Version && o.From.Release == u.From.Release
	}
	if req, ok, err := j.Pending(); err != nil || ok && same(req.Update) {
		return ok, err
	}
	if run, alive, ok, err := j.Run(); err != nil || ok && alive && same(run.Update) {
		return ok, err
	}
	res, ok, err := j.Result()
	if err != nil || !ok || res.Update == nil {
		return false, err
	}
	return same(*res.Update) && res.Outcome != outcome.Failed, nil
}

func (a *app) bootCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "boot",
		Short:  "Apply the splice of the running kernel again, or retire it",
		Args:   cobra.NoArgs,
		Hidden: true,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.locked(c.Context(), func(ctx context.Context, p *pipeline.Pipeline, lock *journal.Lock) error {
				return p.Boot(ctx, lock)
			})
		},
	}
}

func (a *app) workerCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "worker",
		Short:  "Do what waits in the queue",
		Args:   cobra.NoArgs,
		Hidden: true,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.locked(c.Context(), func(ctx context.Context, p *pipeline.Pipeline, lock *journal.Lock) error {
				return p.Work(ctx, lock)
			})
		},
	}
}

func (a *app) buildCommand() *cobra.Command {
	return &cobra.Command{
		Use:               builder.Verb,
		Short:             "Build a splice; run as the build user",
		Args:              cobra.NoArgs,
		Hidden:            true,
		PersistentPreRunE: func(*cobra.Command, []string) error { return nil },
		RunE: func(c *cobra.Command, _ []string) error {
			return builder.Serve(c.Context(), a.in, a.out)
		},
	}
}
