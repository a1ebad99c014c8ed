// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/upsplice/upsplice/hook/journal"
	"github.com/upsplice/upsplice/hook/outcome"
	"github.com/upsplice/upsplice/hook/report"
	"github.com/upsplice/upsplice/splice/splicefile"
)

var update = flag.Bool("update", false, "write the golden files anew")

var (
	old   = journal.Kernel{Release: "6.1.0-54-cloud-amd64", Version: "6.1.190-1"}
	newer = journal.Kernel{Release: "6.1.0-55-cloud-amd64", Version: "6.1.192-1"}
	third = journal.Kernel{Release: "6.1.0-56-cloud-amd64", Version: "6.1.192-2"}
)

func partly() *journal.Record {
	return &journal.Record{ID: "3f9c2a00", ShortID: "3f9c2a", From: old, To: newer, State: journal.Live, Outcome: outcome.PartlyLive,
		Targets: []string{"vmlinux", "ext4", "nf_tables"}, LiveFunctions: 591, LiveGroups: 473, DeferredGroups: 93}
}

func whole() *journal.Record {
	r := partly()
	r.Outcome, r.LiveGroups, r.DeferredGroups = outcome.Live, 566, 0
	return r
}

func ended(to journal.Kernel, o outcome.Outcome) *journal.Result {
	return &journal.Result{Outcome: o, Update: &journal.Update{From: old, To: to}, Message: []string{"a line"}}
}

func appliedAt(r *journal.Record, after time.Duration) *journal.Record {
	r.AppliedAt = time.Unix(0, 0).Add(after)
	return r
}

func finishedAt(r *journal.Result, after time.Duration) *journal.Result {
	r.FinishedAt = time.Unix(0, 0).Add(after)
	return r
}

// The forms of uname -r are an interface for scripts.
func TestUname(t *testing.T) {
	backport := partly()
	backport.From.Release, backport.From.Version = "6.12.115+deb12-cloud-amd64", "6.12.115-2~bpo12+1"
	for _, c := range []struct {
		name            string
		rec             *journal.Record
		running         string
		release         string
		version         string
		complete        bool
		withoutFraction string
	}{
		{"no splice", nil, old.Release, old.Release, "", true, old.Release},
		{"all of it", whole(), old.Release, newer.Release, newer.Version, true, newer.Release},
		{"a part", partly(), old.Release, "6.1.0-54-cloud-amd64+473/566", "6.1.190-1+473/566", false, old.Release},
		{"a release with a plus", backport, "6.12.115+deb12-cloud-amd64", "6.12.115+deb12-cloud-amd64+473/566", "6.12.115-2~bpo12+1+473/566", false, "6.12.115+deb12-cloud-amd64"},
	} {
		e := effectiveOf(c.running, c.rec)
		if e.Release != c.release || e.Version != c.version || e.Complete != c.complete {
			t.Errorf("%s: %+v", c.name, e)
		}
		if strings.Contains(e.Release, "/") == e.Complete {
			t.Errorf("%s: a slash says that a part is live: %q", c.name, e.Release)
		}
		cmd := exec.Command("sh", "-c", `printf %s "${r%+*/*}"`)
		cmd.Env = append(os.Environ(), "r="+e.Release)
		if out, err := cmd.Output(); err != nil || string(out) != c.withoutFraction {
			t.Errorf("%s: the documented expansion gives %q, %v", c.name, out, err)
		}
	}
}

func TestNextBoot(t *testing.T) {
	rep := report.Make(report.Input{From: splicefile.Kernel{Release: old.Release}, To: splicefile.Kernel{Version: newer.Version}, Groups: []splicefile.Group{
		{Files: []string{"a.c"}, Reasons: []splicefile.Reason{{Code: "member", What: "struct a.b"}}},
		{Files: []string{"b.c"}, Reasons: []splicefile.Reason{{Code: "member", What: "struct a.b"}}},
	}})
	patched := whole()
	patched.To = old
	for _, c := range []struct {
		name   string
		splice *journal.Record
		last   *journal.Result
		rep    *report.Report
		want   nextBoot
	}{
		{"nothing is known", nil, nil, nil, nextBoot{Changes: changesUnknown, Text: "no newer kernel is known"}},
		{"all is live", whole(), ended(newer, outcome.Live), nil, nextBoot{Kernel: &newer, Changes: changesNothing, Text: "would change nothing: all that it changes for this kernel is live"}},
		{"a part is live", partly(), ended(newer, outcome.PartlyLive), rep,
			nextBoot{Kernel: &newer, Changes: changesSome, Fixes: 93, Deferred: rep.Deferred, Text: "would change 93 more fixes: 2 need new struct members"}},
		{"patches of one's own", patched, nil, nil, nextBoot{Kernel: &old, Changes: changesNothing, Text: "the splice is applied again"}},
		{"refused", nil, ended(newer, outcome.Refused), rep,
			nextBoot{Kernel: &newer, Changes: changesAll, Fixes: 2, Deferred: rep.Deferred, Text: "would change 2 fixes: nothing of it is live"}},
		{"failed", nil, ended(newer, outcome.Failed), nil, nextBoot{Kernel: &newer, Changes: changesAll, Text: "would put all of it in force: nothing of it is live"}},
		{"does not reach this kernel", nil, ended(newer, outcome.NothingToDo), nil, nextBoot{Kernel: &newer, Changes: changesNothing, Text: "would change nothing that this kernel runs"}},
		{"a later one has failed", whole(), ended(third, outcome.Failed), nil,
			nextBoot{Kernel: &third, Changes: changesAll, Text: "would put all of it in force: what is live is of 6.1.192-1"}},
		{"undone", nil, ended(newer, outcome.PartlyLive), nil, nextBoot{Kernel: &newer, Changes: changesAll, Text: "would put all of it in force: nothing of it is live"}},
		{"applied by hand since then", appliedAt(whole(), time.Hour), finishedAt(ended(third, outcome.Failed), time.Minute), nil,
			nextBoot{Kernel: &newer, Changes: changesNothing, Text: "would change nothing: all that it changes for this kernel is live"}},
		{"a run of another boot", nil, &journal.Result{Outcome: outcome.Failed, Update: &journal.Update{From: newer, To: third}}, nil,
			nextBoot{Changes: changesUnknown, Text: "no newer kernel is known"}},
	} {
		if c.want.Deferred == nil {
			c.want.Deferred = []report.Deferral{}
		}
		got := next(status{Running: old, Splice: c.splice, Last: c.last}, c.rep)
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

// The JSON form is an interface: a change of the file is one that programs notice.
func TestStatusForms(t *testing.T) {
	s := status{Version: statusVersion, Running: old, Uptime: 41 * 86400, Splice: partly(), Last: ended(newer, outcome.PartlyLive), Records: []journal.Record{}}
	s.Splice.AppliedAt = time.Date(2026, 11, 20, 23, 11, 0, 0, time.Local)
	s.Effective = effectiveOf(old.Release, s.Splice)
	s.NextBoot = next(s, nil)
	var b bytes.Buffer
	s.print(&b, false)
	golden(t, "status.txt", b.Bytes())
	s.Last.Reasons = []string{"a.c: f: why"}
	for _, c := range []struct {
		rep  *report.Report
		want string
	}{
		{nil, "a.c: f: why"},
		{report.Make(report.Input{Groups: []splicefile.Group{{Units: []string{"b.o"}, Reasons: []splicefile.Reason{{Code: "member", What: "struct s.m", Detail: "is not there"}}}}}), "b.o: struct s.m: is not there"},
	} {
		b.Reset()
		s.Report = c.rep
		if s.print(&b, true); !strings.Contains(b.String(), c.want) {
			t.Errorf("%q is missing in\n%s", c.want, b.String())
		}
	}
	s.Report, s.Last.Reasons = nil, nil
	s.Splice.AppliedAt = time.Date(2026, 11, 20, 23, 11, 0, 0, time.UTC)
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "status.json", append(text, '\n'))
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got; go test -update writes it anew):\n%s", name, diff)
	}
}
