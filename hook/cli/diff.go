// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/upsplice/upsplice/hook/outcome"
	"github.com/upsplice/upsplice/splice/objdiff"
	"github.com/upsplice/upsplice/splice/object"
)

func (a *app) diffCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "diff PRE.o POST.o",
		Short: "Compare two objects as the engine does",
		Long: "diff compares two relocatable objects of one unit, compiled with -ffunction-sections\n" +
			"-fdata-sections. Exit codes: 0 changed, 3 unchanged, 4 refused, 1 error.",
		Args: cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			res, err := diffFiles(args[0], args[1])
			if err != nil {
				if asJSON {
					_ = a.printJSON(struct {
						Outcome objdiff.Outcome `json:"outcome"`
						Error   string          `json:"error"`
					}{objdiff.Error, err.Error()})
				}
				return &outcome.Error{Outcome: outcome.Failed, What: "comparing the objects", Err: err}
			}
			if asJSON {
				if err := a.printJSON(res); err != nil {
					return err
				}
			} else {
				a.printDiff(res)
			}
			switch res.Outcome {
			case objdiff.Unchanged:
				return silent(outcome.NothingToDo)
			case objdiff.Refused:
				return silent(outcome.Refused)
			}
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func diffFiles(prePath, postPath string) (*objdiff.Result, error) {
	pre, err := object.ReadFile(prePath)
	if err != nil {
		return nil, err
	}
	post, err := object.ReadFile(postPath)
	if err != nil {
		return nil, err
	}
	return objdiff.Compare(pre, post)
}

func (a *app) printDiff(res *objdiff.Result) {
	a.printf("%s\n", res.Outcome)
	for _, list := range []struct {
		what    string
		changes []objdiff.Change
	}{{"function", res.Functions}, {"data", res.Data}, {"at boot", res.Boot}} {
		for _, c := range list.changes {
			a.printf("%-8s %-8s %s", c.Kind, list.what, c.Name)
			if c.Why != "" {
				a.printf(" (%s)", c.Why)
			}
			a.printf("\n")
		}
	}
	for _, c := range res.Callbacks {
		a.printf("callback %-11s %s\n", c.When, c.Function.Name)
	}
	for _, n := range res.Ignored {
		a.printf("ignored  %s\n", n)
	}
	for _, n := range res.Taken {
		a.printf("taken    %s\n", n)
	}
	for _, r := range res.Refusals {
		a.printf("refused  %s: %s\n", strings.TrimSpace(r.Section+" "+r.Symbol), r.Reason)
	}
}
