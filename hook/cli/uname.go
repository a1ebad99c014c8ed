// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/upsplice/upsplice/hook/journal"
	"github.com/upsplice/upsplice/hook/live"
	"github.com/upsplice/upsplice/hook/outcome"
	"github.com/upsplice/upsplice/hook/pipeline"
)

// effective is the kernel whose code runs.
type effective struct {
	// Release is what uname -r prints, Version what uname -v does.
	Release string `json:"release"`
	Version string `json:"version"`
	// Complete: it is a kernel as it would boot, the distributed one or, with all that
	// the update changes for this kernel, the new one.
	Complete bool `json:"complete"`
	// Running and To are the booted kernel and the one that the live splice leads to,
	// of which Live of Total fixes are in.
	Running string `json:"running"`
	To      string `json:"to,omitempty"`
	Live    int    `json:"live"`
	Total   int    `json:"total"`
}

// effectiveOf names the kernel that a booted one is with a splice; rec is nil without
// one. The form is an interface, see unameLong.
func effectiveOf(running string, rec *journal.Record) effective {
	e := effective{Release: running, Running: running, Complete: true}
	if rec == nil {
		return e
	}
	e.To = rec.To.Release
	e.Live, e.Total = rec.LiveGroups, rec.LiveGroups+rec.DeferredGroups
	e.Release, e.Version = rec.To.Release, rec.To.Version
	if rec.Outcome != outcome.Live || rec.DeferredGroups > 0 {
		share := fmt.Sprintf("+%d/%d", e.Live, e.Total)
		e.Release, e.Version, e.Complete = running+share, rec.From.Version+share, false
	}
	return e
}

const unameLong = `uname -r prints the release whose code runs, in one of two forms:

  6.1.0-55-cloud-amd64          the code of that release: it is booted, or everything
                                that the update to it changes for this kernel is live
  6.1.0-54-cloud-amd64+473/566  the booted release with 473 of 566 fixes of an update

Only the second form has a slash. ${r%+*/*} of a shell is the release in both: the
booted one unless an update is live as a whole. -v prints the version of the source
package in the same forms; it is empty if no splice is live. --json has the parts.`

func (a *app) unameCommand() *cobra.Command {
	var release, version, all, asJSON bool
	c := &cobra.Command{
		Use:   "uname",
		Short: "Print the kernel version whose code runs",
		Long:  unameLong,
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			rec, ok, err := a.liveRecord()
			if err != nil {
				return err
			}
			e := effectiveOf(live.Host(0).Release(), nil)
			if ok {
				e = effectiveOf(e.Running, &rec)
			}
			switch {
			case asJSON:
				return a.printJSON(e)
			case all:
				fmt.Fprintln(a.out, e.Release, e.Version)
			case version:
				fmt.Fprintln(a.out, e.Version)
			default:
				fmt.Fprintln(a.out, e.Release)
			}
			return nil
		},
	}
	c.Flags().BoolVarP(&release, "release", "r", true, "print the release (default)")
	c.Flags().BoolVarP(&version, "version", "v", false, "print the version of the source package")
	c.Flags().BoolVarP(&all, "all", "a", false, "print both")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
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
