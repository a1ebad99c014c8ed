// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/upsplice/upsplice/hook/outcome"
	"github.com/upsplice/upsplice/hook/pipeline"
	"github.com/upsplice/upsplice/hook/progress"
	"github.com/upsplice/upsplice/hook/rehearse"
	"github.com/upsplice/upsplice/kmod/vm"
)

func (a *app) rehearseCommand() *cobra.Command {
	var opt rehearse.Options
	var asJSON bool
	c := &cobra.Command{
		Use:   "rehearse FILE",
		Short: "Try a splice in a virtual machine that runs its kernel",
		Long: "rehearse boots the kernel that the splice is for in QEMU, applies it there after all\n" +
			"checks, uses the machine, undoes, applies again and undoes, and then does so again\n" +
			"and again under load. It ends with \"refused\" if anything is wrong: a step that fails,\n" +
			"a message of the kernel that means trouble, a slab cache that grows. Root is not needed.",
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.rehearse(c.Context(), args[0], opt, asJSON)
		},
	}
	f := c.Flags()
	f.BoolVar(&asJSON, "json", false, "print JSON")
	f.StringVar(&opt.Image, "image", "", "kernel image `file` (default: the installed one, else what the backend fetches)")
	f.StringVar(&opt.Modules, "modules", "", "module `directory` of that kernel")
	f.StringVar(&opt.Exec, "exec", "", "a static program or shell `script` to run there while the splice is live")
	f.IntVar(&opt.Rounds, "rounds", 5, "how often to apply, use and undo under load")
	return c
}

// rehearsalCommand is the init of the virtual machine.
func (a *app) rehearsalCommand() *cobra.Command {
	return &cobra.Command{
		Use:               rehearse.GuestVerb,
		Hidden:            true,
		Args:              cobra.NoArgs,
		PersistentPreRunE: func(*cobra.Command, []string) error { return nil },
		RunE:              func(c *cobra.Command, _ []string) error { return rehearse.Guest(c.Context()) },
	}
}

func (a *app) rehearse(ctx context.Context, path string, opt rehearse.Options, asJSON bool) error {
	r := a.renderer()
	defer r.Close()
	var err error
	if opt.Splice, err = pipeline.ReadSplice(path); err != nil {
		return err
	}
	if opt.Rounds < 0 {
		return &outcome.Error{Outcome: outcome.Usage, What: "reading the command line", Err: errors.New("--rounds is negative")}
	}
	if err := a.findImage(ctx, r, &opt); err != nil {
		return err
	}
	if opt.Program, err = os.Executable(); err != nil {
		return err
	}
	opt.Deadline = a.config.TransitionTimeout
	opt.Step = func(s rehearse.Step) {
		state := "ok"
		if !s.OK {
			state = "FAILED"
		}
		line := fmt.Sprintf("%-6s %6.1f s  %s", state, s.Seconds, s.Name)
		if s.Detail != "" {
			line += ": " + s.Detail
		}
		r.Println(line)
		for _, l := range s.Output {
			r.Println("                  | " + l)
		}
	}
	rep, err := rehearse.Run(ctx, opt)
	var tool *vm.MissingToolError
	var image *rehearse.ImageError
	switch {
	case errors.As(err, &tool):
		return &outcome.Error{Outcome: outcome.Failed, What: "rehearsing", Err: err}
	case errors.As(err, &image):
		return &outcome.Error{Outcome: outcome.Failed, What: "rehearsing", Err: err}
	case err != nil:
		return &outcome.Error{Outcome: outcome.Failed, What: "rehearsing " + path, Err: err}
	}
	r.Close()
	if asJSON {
		if err := a.printJSON(rep); err != nil {
			return err
		}
	} else {
		for _, l := range rep.Log {
			a.printf("kernel log  %s\n", l)
		}
		for _, s := range rep.Slabs {
			a.printf("slab grows  %s: %d, %d, %d objects\n", s.Cache, s.Before, s.Middle, s.After)
		}
	}
	if !rep.OK {
		if asJSON {
			return silent(outcome.Refused)
		}
		return &outcome.Error{Outcome: outcome.Refused, Check: "rehearsal", What: "rehearsing " + path, Err: failedStep(rep)}
	}
	if !asJSON {
		a.printf("upsplice: the rehearsal of %s on %s went well (%.0f s, %s)\n", rep.Splice[:min(6, len(rep.Splice))], rep.Kernel, rep.Seconds, rep.Accelerator)
	}
	return nil
}

func failedStep(rep *rehearse.Report) error {
	for _, s := range rep.Steps {
		if !s.OK {
			return fmt.Errorf("%s: %s", s.Name, s.Detail)
		}
	}
	if len(rep.Log) > 0 {
		return errors.New("the kernel did not survive: " + rep.Log[0])
	}
	return errors.New("the guest did not end well")
}

// findImage fills what the command line left open: from where kernels are installed,
// else from the backend.
func (a *app) findImage(ctx context.Context, sink progress.Sink, opt *rehearse.Options) error {
	release := opt.Splice.Manifest.From.Release
	if release == "" || strings.ContainsAny(release, "/\x00") || strings.HasPrefix(release, ".") {
		return &outcome.Error{Outcome: outcome.Refused, Check: "splice file", What: "looking for the kernel image", Err: fmt.Errorf("%q is not a release", release)}
	}
	if opt.Modules == "" {
		opt.Modules = firstOf("/lib/modules/"+release, "/usr/lib/modules/"+release)
	}
	if opt.Image == "" {
		opt.Image = firstOf("/boot/vmlinuz-"+release, "/usr/lib/modules/"+release+"/vmlinuz", "/lib/modules/"+release+"/vmlinuz")
	}
	if opt.Image != "" {
		return nil
	}
	p, err := a.pipeline(sink)
	if err != nil {
		return err
	}
	m, err := p.Image(ctx, release)
	if err != nil {
		return &outcome.Error{Outcome: outcome.Failed, What: "looking for the image of " + release, Err: err,
			Remedy: "install the kernel, or name its files with --image and --modules"}
	}
	opt.Image = m.Image
	if opt.Modules == "" {
		opt.Modules = m.Modules
	}
	return nil
}

func firstOf(paths ...string) string {
	for _, p := range paths {
		if _, err := os.Stat(p); err == nil {
			return p
		}
	}
	return ""
}
