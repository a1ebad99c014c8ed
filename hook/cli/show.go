// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/upsplice/upsplice/hook/pipeline"
	"github.com/upsplice/upsplice/hook/words"
	"github.com/upsplice/upsplice/splice/splicefile"
)

func (a *app) showCommand() *cobra.Command {
	var asJSON bool
	var html string
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
			j, err := a.journal()
			if err != nil {
				return err
			}
			rep, is := pipeline.ReportOf(j, m), would
			if rec, ok, err := a.liveRecord(); err == nil && ok && rec.ID == m.ID {
				is = ""
			}
			if html != "" {
				return a.writeHTML(html, rep, is)
			}
			a.printManifest(m)
			if a.quiet {
				return nil
			}
			return rep.Body(a.out, is)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print the manifest as JSON")
	c.Flags().StringVar(&html, "html", "", "write the report as an HTML page to `file` (-: standard output)")
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
				fuzz = fmt.Sprintf(", %s with fuzz", words.Count(p.Fuzz, "hunk"))
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
		a.printf("module      %s, %s, sha256 %s%s\n", mod.Name, words.Count(int(mod.Size), "byte"), mod.SHA256, stays)
	}
}
