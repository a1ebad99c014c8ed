// SPDX-License-Identifier: Apache-2.0

package pipeline

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/upsplice/upsplice/hook/config"
	"github.com/upsplice/upsplice/hook/journal"
	"github.com/upsplice/upsplice/hook/outcome"
	"github.com/upsplice/upsplice/hook/report"
	"github.com/upsplice/upsplice/splice/build"
	"github.com/upsplice/upsplice/splice/splicefile"
)

// configured is work with another configuration.
func configured(t *testing.T, w *world, u journal.Update, set func(*config.Config)) journal.Result {
	t.Helper()
	p := w.pipeline(t, "boot1")
	set(&p.Config)
	if _, err := p.Journal.Enqueue(u); err != nil {
		t.Fatal(err)
	}
	lock, err := p.Journal.TryLock()
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Unlock()
	if err := p.Work(context.Background(), lock); err != nil {
		t.Fatal(err)
	}
	res, _, err := p.Journal.Result()
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func TestDryRunLoadsNothing(t *testing.T) {
	asked := testUpdate("1.0-2-cloud")
	asked.DryRun = true
	for name, c := range map[string]struct {
		u   journal.Update
		dry bool
	}{"asked for": {asked, false}, "configured": {testUpdate("1.0-2-cloud"), true}} {
		w := newWorld(t)
		w.groups = []splicefile.Group{
			{Units: []string{"fs/a/b.o"}, Functions: []string{"f"}, Live: true},
			{Units: []string{"net/x.o"}, Reasons: []splicefile.Reason{{Code: "member", What: "struct a.b"}}},
		}
		w.at = func(point string) {
			if point == "apply" || point == "check" {
				t.Errorf("%s: %s", name, point)
			}
		}
		// A machine whose kernel cannot take a splice can still be told what one would do.
		w.fail["ready"] = refusal("livepatch")
		res := configured(t, w, c.u, func(cfg *config.Config) { cfg.DryRun = c.dry })
		want := "1 of 2 fixes would be live, 1 function; nothing was loaded\n1 waits for the next boot: 1 needs a new struct member"
		if text := strings.Join(res.Message, "\n"); res.Outcome != outcome.Done || !strings.Contains(text, want) {
			t.Errorf("%s: %s %q", name, res.Outcome, text)
		}
		if r, ok, err := LastReport(w.journal(t, "boot1")); err != nil || !ok || r.Sums.Groups.Live != 1 {
			t.Errorf("%s: LastReport() = %+v, %v, %v", name, r, ok, err)
		}
		if len(w.loaded()) > 0 {
			t.Errorf("%s: loaded %v", name, w.loaded())
		}
		if _, ok, err := w.journal(t, "boot1").Current(); ok || err != nil {
			t.Errorf("%s: Current() = %v, %v", name, ok, err)
		}
	}
}

func TestPolicyOff(t *testing.T) {
	w := newWorld(t)
	w.fail["build"] = errors.New("must not be built")
	res := configured(t, w, testUpdate("1.0-2-cloud"), func(c *config.Config) { c.Policy = config.Off })
	if text := strings.Join(res.Message, "\n"); res.Outcome != outcome.Refused || !strings.Contains(text, `policy = "off"`) {
		t.Errorf("%s %q", res.Outcome, text)
	}
}

// What the configuration says reaches the engine, and the report.
func TestPolicyReachesTheEngine(t *testing.T) {
	for _, c := range []struct {
		name string
		set  func(*config.Config)
		want build.Policy
		said report.Policy
	}{
		{"default", func(*config.Config) {}, build.Policy{Allow: []string{}, Deny: []string{}},
			report.Policy{Policy: "all", Allow: []string{}, Deny: []string{}, Modules: "installed"}},
		{"all of it", func(c *config.Config) {
			c.Policy, c.Modules, c.Allow, c.Deny = config.Fixes, config.Loaded, []string{"fs"}, []string{":do_exit"}
		}, build.Policy{Allow: []string{"fs"}, Deny: []string{":do_exit"}, Fixes: true, Modules: []string{"ext4", "nf_tables"}},
			report.Policy{Policy: "fixes", Allow: []string{"fs"}, Deny: []string{":do_exit"}, Modules: "loaded", Loaded: []string{"ext4", "nf_tables"}}},
	} {
		w := newWorld(t)
		p := w.pipeline(t, "boot1")
		c.set(&p.Config)
		var req build.Request
		p.Builder = recordingBuilder{got: &req}
		step := Step{From: kernelOf("1.0-1-cloud"), To: kernelOf("1.0-2-cloud")}
		if _, err := p.Make(context.Background(), &step); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.want, req.Policy); diff != "" {
			t.Errorf("%s: for the engine (-want +got):\n%s", c.name, diff)
		}
		if diff := cmp.Diff(c.said, step.Policy); diff != "" {
			t.Errorf("%s: for the report (-want +got):\n%s", c.name, diff)
		}
	}
	w := newWorld(t)
	w.fail["modules"] = errors.New("reading /proc/modules: x")
	if res := configured(t, w, testUpdate("1.0-2-cloud"), func(c *config.Config) { c.Modules = config.Loaded }); res.Outcome != outcome.Failed {
		t.Errorf("without a list of modules: %s %q", res.Outcome, res.Message)
	}
}

// The report of a run is kept with its splice; a damaged one is not believed.
func TestReportIsKept(t *testing.T) {
	w := newWorld(t)
	work(t, w, "boot1", "1.0-2-cloud")
	j := w.journal(t, "boot1")
	rec, ok, err := j.Current()
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	f, err := ReadSplice(rec.File)
	if err != nil {
		t.Fatal(err)
	}
	r := ReportOf(j, f.Manifest)
	if r.Policy == nil || r.ID != rec.ID || r.Units != 1 || r.Sums.Groups.Live != 1 {
		t.Errorf("the report is not that of the run: %+v", r)
	}
	if err := os.WriteFile(reportFile(j, rec.ID), []byte(`{"report":1,"groups":[{"number":9}]}`), 0o644); err != nil {
		t.Fatal(err)
	}
	if r := ReportOf(j, f.Manifest); r.Policy != nil || r.ID != rec.ID || r.Sums.Groups.Live != 1 {
		t.Errorf("with a damaged file: %+v", r)
	}
	w = newWorld(t)
	w.nofile = true
	w.groups = []splicefile.Group{{Units: []string{"net/x.o"}, Reasons: []splicefile.Reason{{Code: "member"}}}}
	work(t, w, "boot1", "1.0-2-cloud")
	if r, ok, err := LastReport(w.journal(t, "boot1")); err != nil || !ok || r.Sums.Groups.Deferred != 1 {
		t.Errorf("LastReport() = %+v, %v, %v", r, ok, err)
	}
}
