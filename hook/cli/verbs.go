// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/upsplice/upsplice/hook/config"
	"github.com/upsplice/upsplice/hook/journal"
	"github.com/upsplice/upsplice/hook/outcome"
	"github.com/upsplice/upsplice/hook/pipeline"
	"github.com/upsplice/upsplice/hook/progress"
	"github.com/upsplice/upsplice/hook/words"
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
				a.printf("%s%s is live: %s\n", progress.Prefix, rec.ShortID, words.Count(rec.LiveFunctions, "function"))
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
				a.printf("%s%s is undone: the kernel runs the code of %s\n", progress.Prefix, rec.ShortID, rec.From.Version)
				return nil
			})
		},
	}
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
