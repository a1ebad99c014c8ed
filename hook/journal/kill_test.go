// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/renameio/v2"

	"github.com/upsplice/upsplice/hook/outcome"
	"github.com/upsplice/upsplice/hook/progress"
)

const childEnv = "JOURNAL_TEST_CHILD"

func TestMain(m *testing.M) {
	if stage := os.Getenv(childEnv); stage != "" {
		if err := child(os.Args[1], stage); err != nil {
			fmt.Println("child:", err)
			os.Exit(1)
		}
		fmt.Println("ready")
		time.Sleep(time.Hour)
	}
	os.Exit(m.Run())
}

// child is a worker that comes as far as stage.
func child(dir, stage string) error {
	j, err := Open(Options{Dir: dir, BootID: bootA})
	if err != nil {
		return err
	}
	l, err := j.TryLock()
	if err != nil {
		return err
	}
	if stage == "locked" {
		return nil
	}
	if stage == "taking" {
		// Take, up to the removal of the request.
		req, _, err := j.Pending()
		if err != nil {
			return err
		}
		_, err = l.begin(req.Ticket, req.Update, "start")
		return err
	}
	if _, _, err := l.Take("start"); err != nil {
		return err
	}
	ev, err := l.Events()
	if err != nil {
		return err
	}
	ev.Emit(progress.Event{Kind: progress.Note, Text: "at work"})
	switch stage {
	case "taken":
		return nil
	case "writing":
		f, err := renameio.NewPendingFile(j.path(resultFile), renameio.WithTempDir(j.path(tmpDir)))
		if err != nil {
			return err
		}
		_, err = f.WriteString(`{"version":1,"da`)
		return err
	case "random":
		fmt.Println("ready")
		for i := 0; ; i++ {
			r := Record{ID: fmt.Sprint("r", i%3), State: Building, LiveFunctions: i}
			if err := errors.Join(l.SetStage(fmt.Sprint(i)), l.Put(r), l.PutLive(r)); err != nil {
				return err
			}
			if _, err := j.Enqueue(update("next")); err != nil {
				return err
			}
		}
	}
	state := State(stage)
	if err := l.SetStage(stage); err != nil {
		return err
	}
	return l.Put(Record{ID: "s", State: state, BootID: bootA})
}

// startChild returns a worker that has come as far as stage.
func startChild(t *testing.T, dir, stage string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0], dir)
	cmd.Env = append(os.Environ(), childEnv+"="+stage)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	ok(t, err)
	ok(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "ready\n" {
		t.Fatalf("the child says %q, %v", line, err)
	}
	return cmd
}

func TestKilledWorker(t *testing.T) {
	for _, tc := range []struct {
		stage            string
		run              bool // a run was going on
		pending          bool // the request is still there
		record, applying bool // left of the splice
		discarded        bool
	}{
		{stage: "locked", pending: true},
		{stage: "taking", run: true, pending: true},
		{stage: "taken", run: true},
		{stage: "writing", run: true},
		{stage: "building", run: true, discarded: true},
		{stage: "built", run: true, record: true},
		{stage: "applying", run: true, record: true, applying: true},
		{stage: "live", run: true, record: true},
	} {
		t.Run(tc.stage, func(t *testing.T) {
			dir := t.TempDir()
			j := open(t, dir, bootA)
			ticket := must[string](t)(j.Enqueue(update("r1")))
			cmd := startChild(t, dir, tc.stage)
			if _, err := j.TryLock(); !errors.Is(err, ErrBusy) {
				t.Fatalf("the child does not have the lock: %v", err)
			}
			if _, alive, found, err := j.Run(); err != nil || found != tc.run || alive != tc.run {
				t.Errorf("before the kill: found %v, alive %v, %v", found, alive, err)
			}
			ok(t, cmd.Process.Kill())
			_ = cmd.Wait()

			if _, alive, found, err := j.Run(); err != nil || found != tc.run || alive {
				t.Errorf("after the kill: found %v, alive %v, %v", found, alive, err)
			}
			l := lock(t, j)
			// A recovery that is killed, or forgets, finds the same again.
			for range 2 {
				rec := must[Recovery](t)(l.Recover())
				if (rec.Run != nil) != tc.run {
					t.Fatalf("run: %+v", rec.Run)
				}
				if rec.Run != nil && (rec.Run.Ticket != ticket || rec.Run.Update != update("r1") || rec.Run.PID != cmd.Process.Pid) {
					t.Errorf("run: %+v", rec.Run)
				}
				if rec.Rebooted {
					t.Error("there was no reboot")
				}
				if (len(rec.Applying) == 1) != tc.applying {
					t.Errorf("applying: %+v", rec.Applying)
				}
				if (len(rec.Discarded) == 1) != tc.discarded {
					t.Errorf("discarded: %+v", rec.Discarded)
				}
				tc.discarded = false // once
			}
			if _, found, err := j.Pending(); err != nil || found != tc.pending {
				t.Errorf("pending: %v, %v", found, err)
			}
			if _, found, err := j.Record("s"); err != nil || found != tc.record {
				t.Errorf("record: %v, %v", found, err)
			}
			if left, err := os.ReadDir(filepath.Join(dir, tmpDir)); err != nil || len(left) != 0 {
				t.Errorf("left in tmp: %v, %v", left, err)
			}

			// The next run takes over.
			if tc.pending {
				if run, found, err := l.Take("start"); err != nil || !found || run.Ticket != ticket {
					t.Fatalf("%+v, %v, %v", run, found, err)
				}
			} else {
				rec := must[Recovery](t)(l.Recover())
				ok(t, l.Abandon(*rec.Run, Result{Outcome: outcome.Failed, Message: []string{"killed"}}))
				if res, _, err := j.Result(); err != nil || res.Run != ticket {
					t.Errorf("result: %+v, %v", res, err)
				}
				if rec := must[Recovery](t)(l.Recover()); rec.Run != nil {
					t.Errorf("an abandoned run is found again: %+v", rec.Run)
				}
			}
		})
	}
}

func TestKilledAnywhere(t *testing.T) {
	for range 12 {
		dir := t.TempDir()
		j := open(t, dir, bootA)
		must[string](t)(j.Enqueue(update("r1")))
		cmd := startChild(t, dir, "random")
		time.Sleep(time.Duration(rand.IntN(60)) * time.Millisecond)
		ok(t, cmd.Process.Kill())
		_ = cmd.Wait()
		l := lock(t, j)
		rec := must[Recovery](t)(l.Recover())
		if len(rec.Damaged) > 0 {
			t.Errorf("damaged by a kill: %q", rec.Damaged)
		}
		if rec.Run == nil {
			t.Error("the run is lost")
		}
		recs := must[[]Record](t)(j.Records())
		for _, r := range recs {
			if r.State == Building {
				t.Errorf("%s is still being built", r.ID)
			}
		}
		if left, err := os.ReadDir(filepath.Join(dir, tmpDir)); err != nil || len(left) != 0 {
			t.Errorf("left in tmp: %v, %v", left, err)
		}
	}
}

func TestRecoveryAfterAReboot(t *testing.T) {
	dir := t.TempDir()
	must[string](t)(open(t, dir, bootA).Enqueue(update("r1")))
	cmd := startChild(t, dir, "applying")
	ok(t, cmd.Process.Kill())
	_ = cmd.Wait()
	j := open(t, dir, bootB)
	rec := must[Recovery](t)(lock(t, j).Recover())
	if rec.Run == nil || !rec.Rebooted || len(rec.Applying) != 1 || rec.Applying[0].BootID != bootA {
		t.Errorf("%+v", rec)
	}
}

// A PID that another process has by now, or had in another boot, is not the
// worker.
func TestPIDOfAnotherProcess(t *testing.T) {
	j := open(t, t.TempDir(), bootA)
	l := lock(t, j)
	run := must[Run](t)(l.Begin(update("r1"), "build"))
	for name, change := range map[string]func(*Run){
		"start time": func(r *Run) { r.PIDStart++ },
		"boot":       func(r *Run) { r.BootID = bootB },
		"no process": func(r *Run) { r.PID = 1 << 30 },
	} {
		other := run
		change(&other)
		ok(t, j.write(j.path(runFile), other))
		if _, alive, found, err := j.Run(); err != nil || !found || alive {
			t.Errorf("%s: found %v, alive %v, %v", name, found, alive, err)
		}
	}
}

func TestZombieIsNotAlive(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, bootA)
	must[string](t)(j.Enqueue(update("r1")))
	cmd := startChild(t, dir, "taken")
	ok(t, cmd.Process.Kill())
	// Not waited for: the entry in /proc stays, in state Z.
	stat := fmt.Sprintf("/proc/%d/stat", cmd.Process.Pid)
	for range 100 {
		if b, err := os.ReadFile(stat); err == nil && strings.Contains(string(b), ") Z ") {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if _, err := os.Stat(stat); err != nil {
		t.Fatal(err)
	}
	if _, alive, found, err := j.Run(); err != nil || !found || alive {
		t.Errorf("found %v, alive %v, %v", found, alive, err)
	}
}
