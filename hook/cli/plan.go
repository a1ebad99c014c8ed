// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"os"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"

	"github.com/upsplice/upsplice/hook/outcome"
	"github.com/upsplice/upsplice/hook/pipeline"
	"github.com/upsplice/upsplice/hook/report"
	"github.com/upsplice/upsplice/splice/splicefile"
)

func (a *app) planCommand() *cobra.Command {
	var in inputs
	c := &cobra.Command{
		Use:   "plan [[FROM] TO]",
		Short: "Say what an update would put live, without doing it",
		Long: "plan builds the splice from the kernel release FROM (default: the running one) to TO\n" +
			"(default: the newest of its flavour) and says what would be live, what would wait and\n" +
			"why, and what is not part of this build. It loads nothing and needs no root.",
		Args: cobra.MaximumNArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			switch len(args) {
			case 1:
				in.to = args[0]
			case 2:
				in.from, in.to = args[0], args[1]
			}
			return a.create(c.Context(), in)
		},
	}
	c.Flags().StringVar(&in.html, "html", "", "write the report as an HTML page to `file` (-: standard output)")
	c.Flags().BoolVar(&in.json, "json", false, "print JSON")
	return c
}

// would is how a report says that nothing of it is live yet.
const would = "would be "

// planned writes the files, prints the plan, and says how the command ends.
func (a *app) planned(in inputs, step pipeline.Step, built pipeline.Built) error {
	end := pipeline.BuildError(step, built)
	var f *splicefile.File
	if built.File != "" {
		var err error
		if f, err = pipeline.ReadSplice(built.File); err != nil {
			return err
		}
	}
	rep := pipeline.Account(step, built, f)
	if f != nil && in.output != "" {
		data, err := os.ReadFile(built.File)
		if err == nil {
			err = renameio.WriteFile(in.output, data, 0o644)
		}
		if err != nil {
			return &outcome.Error{Outcome: outcome.Failed, What: "writing " + in.output, Err: err}
		}
	}
	if err := a.writeHTML(in.html, rep, would); err != nil {
		return err
	}
	switch {
	case in.json:
		if err := a.printJSON(rep); err != nil {
			return err
		}
		if end != nil {
			return silent(outcome.Of(end))
		}
	case in.html == "-":
	default:
		a.printReport(rep, would)
		if f != nil {
			a.printf("splice      %s\n", rep.ID)
		}
		if f != nil && in.output != "" {
			a.printf("written     %s\n", in.output)
		}
	}
	if end == nil && rep.Outcome == outcome.PartlyLive && in.output == "" {
		return silent(outcome.PartlyLive)
	}
	return end
}

func (a *app) printReport(rep *report.Report, would string) {
	if !a.quiet {
		// Whoever reads may have gone.
		_ = rep.Text(a.out, would)
	}
}

// writeHTML writes the report to a file, if one is asked for.
func (a *app) writeHTML(file string, rep *report.Report, would string) error {
	if file == "" {
		return nil
	}
	var page bytes.Buffer
	err := rep.HTML(&page, would)
	switch {
	case err != nil:
	case file == "-":
		_, err = a.out.Write(page.Bytes())
	default:
		err = renameio.WriteFile(file, page.Bytes(), 0o644)
	}
	if err != nil {
		return &outcome.Error{Outcome: outcome.Failed, What: "writing " + file, Err: err}
	}
	return nil
}
