// SPDX-License-Identifier: Apache-2.0

package pipeline

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"

	"github.com/upsplice/upsplice/hook/journal"
	"github.com/upsplice/upsplice/hook/outcome"
	"github.com/upsplice/upsplice/hook/report"
	"github.com/upsplice/upsplice/plugins/backend"
	"github.com/upsplice/upsplice/splice/splicefile"
)

// Account is the report of what was built for a step. f is its splice, nil if
// nothing goes live.
func Account(s Step, b Built, f *splicefile.File) *report.Report {
	in := report.Input{
		Outcome: outcome.Of(BuildError(s, b)), From: splicefileKernel(s.From), To: splicefileKernel(s.To),
		Description: s.Description, Policy: s.Policy, Groups: b.Groups, Sources: b.Sources,
		Files: b.Files, Hunks: b.Hunks, Units: b.Units, Fuzz: b.Fuzz, Notes: b.Notes, Stages: b.Stages,
	}
	for _, p := range s.Patches {
		in.Patches = append(in.Patches, filepath.Base(p))
	}
	for _, c := range s.Changes {
		in.Changes = append(in.Changes, report.Change{Text: c.Text, CVEs: c.CVEs})
	}
	if f != nil {
		in.ID, in.Functions, in.Outcome = f.Manifest.ID, f.Manifest.Functions, report.Ends(b.Groups)
	}
	return report.Make(in)
}

func splicefileKernel(k backend.Kernel) splicefile.Kernel {
	return splicefile.Kernel{Release: k.Release, Version: k.SourceVersion, Arch: k.Arch}
}

// lastReport is the name of the report of a run that put nothing live.
const lastReport = "last"

// maxReport limits the file of a report: the groups and the CVEs of an update take
// some MB.
const maxReport = 64 << 20

func reportFile(j *journal.Journal, id string) string {
	return filepath.Join(j.Dir(), "reports", id+".json")
}

// saveReport keeps a report, for status and show: with the splice if that is live, else
// as that of the last run.
func saveReport(j *journal.Journal, r *report.Report, live bool) error {
	id := lastReport
	if live {
		id = r.ID
	}
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	path := reportFile(j, id)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return renameio.WriteFile(path, data, 0o644)
}

// ReportOf returns the report of a splice: that of the run which made it if there is
// one, with the CVEs of its changelog, else what its manifest says.
func ReportOf(j *journal.Journal, m splicefile.Manifest) *report.Report {
	if r, ok, err := readReport(j, m.ID); err == nil && ok {
		return r
	}
	return report.OfSplice(m)
}

// LastReport is that of the last run that built something and put nothing live.
func LastReport(j *journal.Journal) (*report.Report, bool, error) { return readReport(j, lastReport) }

func readReport(j *journal.Journal, id string) (*report.Report, bool, error) {
	f, err := os.Open(reportFile(j, id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxReport+1))
	if err != nil {
		return nil, false, err
	}
	if len(data) > maxReport {
		return nil, false, fmt.Errorf("reading %s: more than %d bytes", f.Name(), maxReport)
	}
	r, err := report.Read(data)
	if err != nil {
		return nil, false, fmt.Errorf("reading %s: %w", f.Name(), err)
	}
	return r, true, nil
}
