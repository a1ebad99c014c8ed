// SPDX-License-Identifier: Apache-2.0

package pipeline

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/upsplice/upsplice/hook/journal"
	"github.com/upsplice/upsplice/hook/outcome"
	"github.com/upsplice/upsplice/plugins/backend"
	"github.com/upsplice/upsplice/splice/splicefile"
)

func testUpdate(to string) journal.Update {
	return update(kernelOf("1.0-1-cloud"), kernelOf(to), journal.TriggerApt)
}

// work enqueues an update and lets a worker do it.
func work(t testing.TB, w *world, boot, to string) journal.Result {
	t.Helper()
	p := w.pipeline(t, boot)
	if to != "" {
		if _, err := p.Journal.Enqueue(testUpdate(to)); err != nil {
			t.Fatal(err)
		}
	}
	lock, err := p.Journal.TryLock()
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Unlock()
	if err := p.Work(context.Background(), lock); err != nil {
		t.Fatal(err)
	}
	res, ok, err := p.Journal.Result()
	if err != nil || !ok {
		t.Fatalf("Result() = %v, %v", ok, err)
	}
	return res
}

func TestUpdateEndsAsItShould(t *testing.T) {
	blocked := []splicefile.Group{{Units: []string{"net/x.o"}, Reasons: []splicefile.Reason{{Code: "layout", What: "struct a", Detail: "it grew"}}}}
	mixed := append([]splicefile.Group{{Units: []string{"fs/a/b.o"}, Functions: []string{"f"}, Live: true}}, blocked...)
	bootOnly := []splicefile.Group{{Units: []string{"init/main.o"}, Boot: true}}
	for _, c := range []struct {
		name string
		set  func(*world)
		want outcome.Outcome
		text string
		live bool
	}{
		{"live", func(*world) {}, outcome.Live, "1 function of fs/a now runs the code of 1.0-2", true},
		{"partly", func(w *world) { w.groups = mixed }, outcome.PartlyLive, "1 waits for the next boot: 1 sees a changed data layout", true},
		{"all deferred", func(w *world) { w.groups, w.nofile = blocked, true }, outcome.Refused, "nothing of 1.0-2 can be live: 1 sees a changed data layout", false},
		{"boot code only", func(w *world) { w.groups, w.nofile = bootOnly, true }, outcome.NothingToDo, "has done its work", false},
		{"not in this build", func(w *world) { w.nofile = true }, outcome.NothingToDo, "none of the 1 file", false},
		{"kernel without livepatch", func(w *world) { w.fail["ready"] = refusal("livepatch") }, outcome.Refused, "livepatch", false},
		{"other build", func(w *world) { w.fail["check"] = refusal("build id") }, outcome.Refused, "build id", false},
		{"disk full", func(w *world) { w.fail["build"] = failed("building", syscall.ENOSPC) }, outcome.Failed, "no space left", false},
		{"mirror gone", func(w *world) {
			w.fail["fetch"] = &backend.Error{Kind: backend.Unavailable, What: "linux-source", Detail: "connection reset"}
		}, outcome.Failed, "connection reset", false},
		{"source nowhere", func(w *world) {
			w.fail["fetch"] = &backend.Error{Kind: backend.NotFound, What: "linux-source 1.0-1", Remedy: "keep a snapshot"}
		}, outcome.Failed, "keep a snapshot", false},
		{"backend broken", func(w *world) { w.fail["open"] = errors.New("checksum differs") }, outcome.Failed, "checksum differs", false},
		{"splice of another update", func(w *world) { w.other = true }, outcome.Refused, "splice file", false},
		{"transition stalls", func(w *world) { w.fail["apply"] = refusal("transition") }, outcome.Refused, "transition", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			c.set(w)
			res := work(t, w, "boot1", "1.0-2-cloud")
			if res.Outcome != c.want || !strings.Contains(strings.Join(res.Message, "\n"), c.text) {
				t.Errorf("result = %s %q, want %s with %q", res.Outcome, res.Message, c.want, c.text)
			}
			rec, ok, err := w.journal(t, "boot1").Current()
			if err != nil || ok != c.live {
				t.Errorf("Current() = %v, %v, %v, want live = %v", rec, ok, err, c.live)
			}
			if got := len(w.loaded()) > 0; got != c.live {
				t.Errorf("the kernel has %v loaded, want live = %v", w.loaded(), c.live)
			}
		})
	}
}

func TestNewestRequestWins(t *testing.T) {
	w := newWorld(t)
	j := w.journal(t, "boot1")
	for _, to := range []string{"1.0-2-cloud", "1.0-3-cloud"} {
		if _, err := j.Enqueue(testUpdate(to)); err != nil {
			t.Fatal(err)
		}
	}
	work(t, w, "boot1", "")
	if diff := cmp.Diff([]string{"upsplice_1_0-3"}, w.loaded()); diff != "" {
		t.Errorf("loaded (-want +got):\n%s", diff)
	}
}

func TestRequestThatArrivesDuringABuildIsTheOneApplied(t *testing.T) {
	w := newWorld(t)
	applied := 0
	w.at = func(point string) {
		if point == "build" && applied == 0 {
			applied++
			if _, err := w.journal(t, "boot1").Enqueue(testUpdate("1.0-3-cloud")); err != nil {
				t.Error(err)
			}
		}
		if point == "apply" {
			applied++
		}
	}
	work(t, w, "boot1", "1.0-2-cloud")
	if diff := cmp.Diff([]string{"upsplice_1_0-3"}, w.loaded()); diff != "" || applied != 2 {
		t.Errorf("applied %d times; loaded (-want +got):\n%s", applied-1, diff)
	}
}

func TestSameUpdateTwiceIsDoneOnce(t *testing.T) {
	w := newWorld(t)
	work(t, w, "boot1", "1.0-2-cloud")
	w.fail["build"] = errors.New("must not be built again")
	if res := work(t, w, "boot1", "1.0-2-cloud"); res.Outcome != outcome.Live {
		t.Errorf("second result = %s %q", res.Outcome, res.Message)
	}
}

// TestKilledAtEveryPoint kills the worker with SIGKILL wherever it passes, and
// lets the next one find what is left.
func TestKilledAtEveryPoint(t *testing.T) {
	if at := os.Getenv("UPSPLICE_TEST_DIE"); at != "" {
		w := &world{dir: os.Getenv("UPSPLICE_TEST_DIR"), at: die(at), fail: map[string]error{}}
		work(t, w, "boot1", "1.0-2-cloud")
		t.Fatalf("the worker passed no point called %s", at)
	}
	for _, point := range []string{"open", "ready", "fetch", "build", "check", "apply", "applied", "reap"} {
		t.Run(point, func(t *testing.T) {
			w := newWorld(t)
			cmd := exec.Command(os.Args[0], "-test.run=^TestKilledAtEveryPoint$")
			cmd.Env = append(os.Environ(), "UPSPLICE_TEST_DIE="+point, "UPSPLICE_TEST_DIR="+w.dir)
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("worker was not killed at %s: %v\n%s", point, err, out)
			}
			res := work(t, w, "boot1", "")
			if res.Outcome != outcome.Live {
				t.Errorf("after the kill: %s %q", res.Outcome, res.Message)
			}
			if diff := cmp.Diff([]string{"upsplice_1_0-2"}, w.loaded()); diff != "" {
				t.Errorf("loaded (-want +got):\n%s", diff)
			}
			if rec, ok, err := w.journal(t, "boot1").Current(); err != nil || !ok || rec.State != journal.Live {
				t.Errorf("Current() = %+v, %v, %v", rec, ok, err)
			}
		})
	}
}

func TestBootAppliesAgainOrRetires(t *testing.T) {
	boot := func(t *testing.T, w *world, id, release string) error {
		p := w.pipeline(t, id)
		p.Kernel = &fakeKernel{w, release}
		lock, err := p.Journal.TryLock()
		if err != nil {
			t.Fatal(err)
		}
		defer lock.Unlock()
		return p.Boot(context.Background(), lock)
	}
	t.Run("old kernel", func(t *testing.T) {
		w := newWorld(t)
		work(t, w, "boot1", "1.0-2-cloud")
		_ = w.load() // a boot empties the kernel
		if err := boot(t, w, "boot2", "1.0-1-cloud"); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"upsplice_1_0-2"}, w.loaded()); diff != "" {
			t.Errorf("loaded (-want +got):\n%s", diff)
		}
		if rec, _, _ := w.journal(t, "boot2").Current(); rec.BootID != "boot2" {
			t.Errorf("record belongs to %s", rec.BootID)
		}
	})
	t.Run("old kernel, check refuses", func(t *testing.T) {
		w := newWorld(t)
		work(t, w, "boot1", "1.0-2-cloud")
		_ = w.load()
		w.fail["check"] = refusal("live memory")
		if err := boot(t, w, "boot2", "1.0-1-cloud"); outcome.Of(err) != outcome.Refused {
			t.Errorf("Boot() = %v", err)
		}
		if len(w.loaded()) != 0 {
			t.Errorf("loaded %v", w.loaded())
		}
	})
	t.Run("new kernel", func(t *testing.T) {
		w := newWorld(t)
		work(t, w, "boot1", "1.0-2-cloud")
		_ = w.load()
		if err := boot(t, w, "boot2", "1.0-2-cloud"); err != nil {
			t.Fatal(err)
		}
		if len(w.loaded()) != 0 {
			t.Errorf("loaded %v", w.loaded())
		}
		recs, err := w.journal(t, "boot2").Records()
		if err != nil || len(recs) != 1 || recs[0].State != journal.Retired {
			t.Errorf("Records() = %+v, %v", recs, err)
		}
	})
}

func TestUndo(t *testing.T) {
	w := newWorld(t)
	work(t, w, "boot1", "1.0-2-cloud")
	undo := func() error {
		p := w.pipeline(t, "boot1")
		lock, err := p.Journal.TryLock()
		if err != nil {
			t.Fatal(err)
		}
		defer lock.Unlock()
		_, err = p.Undo(context.Background(), lock, "")
		return err
	}
	if err := undo(); err != nil || len(w.loaded()) != 0 {
		t.Errorf("Undo() = %v, loaded %v", err, w.loaded())
	}
	if err := undo(); outcome.Of(err) != outcome.NothingToDo {
		t.Errorf("second Undo() = %v", err)
	}
}

// TestUndoOfWhatIsSwitching: a worker was killed while the tasks were switching, and
// they still are.
func TestUndoOfWhatIsSwitching(t *testing.T) {
	w := newWorld(t)
	work(t, w, "boot1", "1.0-2-cloud")
	p := w.pipeline(t, "boot1")
	lock, err := p.Journal.TryLock()
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Unlock()
	rec, ok, err := p.Journal.Current()
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	rec.State = journal.Applying
	if err := errors.Join(lock.Put(rec), w.load(w.loaded()[0]+"~")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := p.Recover(context.Background(), lock); err != nil {
			t.Fatal(err)
		}
		if got, ok, err := p.Journal.Record(rec.ID); err != nil || !ok || got.State != journal.Applying {
			t.Fatalf("after Recover: %+v, %v, %v", got, ok, err)
		}
	}
	if got, err := p.Undo(context.Background(), lock, ""); err != nil || got.State != journal.Undone || len(w.loaded()) != 0 {
		t.Errorf("Undo() = %+v, %v, loaded %v", got, err, w.loaded())
	}
}

func TestDecide(t *testing.T) {
	for _, c := range []struct {
		name string
		pkgs []string
		want string
	}{
		{"new ABI", []string{"linux-image-1.0-2-cloud"}, "1.0-2-cloud"},
		{"newest of several", []string{"linux-image-1.0-3-cloud", "linux-image-1.0-2-cloud"}, "1.0-3-cloud"},
		{"older", []string{"linux-image-1.0-0-cloud"}, ""},
		{"the running one", []string{"linux-image-1.0-1-cloud"}, ""},
		{"no kernel", []string{"bash"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var pkgs []backend.Package
			for _, n := range c.pkgs {
				pkgs = append(pkgs, backend.Package{Name: n})
			}
			u, ok, err := newWorld(t).pipeline(t, "boot1").Decide(context.Background(), pkgs, journal.TriggerApt)
			if err != nil || ok != (c.want != "") || u.To.Release != c.want {
				t.Errorf("Decide() = %+v, %v, %v, want %q", u, ok, err, c.want)
			}
		})
	}
}

func TestLanded(t *testing.T) {
	p := newWorld(t).pipeline(t, "boot1")
	for release, want := range map[string]bool{"1.0-2-cloud": true, "1.0-1-cloud": false, "1.0-0-cloud": false} {
		u, ok, err := p.Landed(context.Background(), release)
		if err != nil || ok != want || ok && (u.To.Release != release || u.Trigger != journal.TriggerWatch) {
			t.Errorf("Landed(%s) = %+v, %v, %v, want %v", release, u, ok, err, want)
		}
	}
}

func TestReadSpliceDoesNotWaitForAPipe(t *testing.T) {
	path := t.TempDir() + "/pipe.splice"
	if err := syscall.Mkfifo(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadSplice(path); outcome.Of(err) != outcome.Refused {
		t.Errorf("ReadSplice(a pipe) = %v", err)
	}
}
