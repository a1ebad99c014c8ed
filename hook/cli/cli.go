// SPDX-License-Identifier: Apache-2.0

// Package cli is the command line of upsplice: it parses arguments, builds the
// pipeline, and prints.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/upsplice/upsplice/hook/builder"
	"github.com/upsplice/upsplice/hook/config"
	"github.com/upsplice/upsplice/hook/journal"
	"github.com/upsplice/upsplice/hook/live"
	"github.com/upsplice/upsplice/hook/outcome"
	"github.com/upsplice/upsplice/hook/pipeline"
	"github.com/upsplice/upsplice/hook/progress"
)

// Version is set when the program is linked.
var Version = "0.1.0-dev"

// app is one run of the program.
type app struct {
	in         io.Reader
	out, err   io.Writer
	quiet      bool
	configPath string
	stateDir   string
	backendDir string
	config     config.Config
}

// Main runs the program and returns its exit code.
func Main(args []string, in io.Reader, out, errw io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	a := &app{in: in, out: out, err: errw}
	root := a.root()
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errw)
	err := root.ExecuteContext(ctx)
	if err != nil && !errors.Is(err, errSilent) {
		fmt.Fprintf(errw, "%s%v\n", progress.Prefix, err)
	}
	return outcome.ExitCode(err)
}

// errSilent ends a command whose error has been shown or must not be.
var errSilent = errors.New("")

// silent keeps the outcome of err and hides its text.
func silent(o outcome.Outcome) error {
	return &outcome.Error{Outcome: o, Err: errSilent}
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "upsplice",
		Short:         "Put kernel updates live while they install",
		Long:          "upsplice applies kernel updates to the running kernel while the package manager\ninstalls them for the next boot.\n\nExit codes:\n" + codes(),
		Version:       Version,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
		PersistentPreRunE: func(*cobra.Command, []string) error {
			return a.loadConfig()
		},
	}
	f := root.PersistentFlags()
	f.BoolVarP(&a.quiet, "quiet", "q", false, "print nothing but errors")
	f.StringVar(&a.configPath, "config", config.DefaultPath, "configuration `file`")
	f.StringVar(&a.stateDir, "state", journal.DefaultDir, "state `directory`")
	f.StringVar(&a.backendDir, "backends", defaultBackends, "backend `directory`")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		return &outcome.Error{Outcome: outcome.Usage, What: "reading the command line", Err: err, Remedy: "see upsplice --help"}
	})
	root.AddCommand(
		a.statusCommand(), a.planCommand(), a.createCommand(), a.applyCommand(), a.undoCommand(),
		a.showCommand(), a.unameCommand(), a.prepareCommand(), a.diffCommand(), a.hookCommand(),
		a.rehearseCommand(), a.rehearsalCommand(), a.watchCommand(), a.bootCommand(), a.configCommand(), a.workerCommand(), a.buildCommand(),
	)
	usageArgs(root)
	return root
}

// usageArgs makes wrong arguments a usage outcome in every command.
func usageArgs(c *cobra.Command) {
	if check := c.Args; check != nil {
		c.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return &outcome.Error{Outcome: outcome.Usage, What: "reading the command line", Err: err, Remedy: "see " + c.CommandPath() + " --help"}
			}
			return nil
		}
	}
	for _, sub := range c.Commands() {
		usageArgs(sub)
	}
}

func codes() string {
	var b strings.Builder
	for _, r := range outcome.Table() {
		fmt.Fprintf(&b, "  %d  %-14s %s\n", r.ExitCode, r.Outcome, r.Meaning)
	}
	return b.String()
}

func (a *app) journal() (*journal.Journal, error) {
	return journal.Open(journal.Options{Dir: a.stateDir})
}

// renderer shows events on standard error, so that --json has standard output
// for itself.
func (a *app) renderer() *progress.Renderer {
	if f, ok := a.err.(*os.File); ok {
		return progress.ForFile(f, a.quiet)
	}
	return progress.New(progress.Options{W: a.err, Quiet: a.quiet})
}

func (a *app) pipeline(sink progress.Sink) (*pipeline.Pipeline, error) {
	j, err := a.journal()
	if err != nil {
		return nil, err
	}
	kernel := live.Host(a.config.TransitionTimeout)
	kernel.SignKey, kernel.SignCert = a.config.SignKey, a.config.SignCert
	return &pipeline.Pipeline{
		Config:  a.config,
		Journal: j,
		Kernel:  kernel,
		Builder: &builder.Builder{User: a.config.BuildUser},
		Open:    a.openBackend,
		Sink:    sink,
	}, nil
}

// locked runs f under the lock of the one worker.
func (a *app) locked(ctx context.Context, f func(context.Context, *pipeline.Pipeline, *journal.Lock) error) error {
	if err := needRoot(); err != nil {
		return err
	}
	r := a.renderer()
	defer r.Close()
	p, err := a.pipeline(r)
	if err != nil {
		return err
	}
	lock, err := p.Journal.TryLock()
	if errors.Is(err, journal.ErrBusy) {
		r.Println("waiting for another upsplice to finish")
		lock, err = p.Journal.Lock(ctx)
	}
	if err != nil {
		return err
	}
	defer lock.Unlock()
	return f(ctx, p, lock)
}

func needRoot() error {
	if os.Geteuid() == 0 {
		return nil
	}
	return &outcome.Error{Outcome: outcome.Failed, What: "changing the running kernel", Err: errors.New("root is needed"), Remedy: "use sudo"}
}

func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.out)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

func (a *app) printf(format string, arg ...any) {
	if !a.quiet {
		fmt.Fprintf(a.out, format, arg...)
	}
}
