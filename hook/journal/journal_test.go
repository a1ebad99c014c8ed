// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/upsplice/upsplice/hook/outcome"
)

const (
	bootA = "aaaaaaaa-0000-0000-0000-000000000000"
	bootB = "bbbbbbbb-0000-0000-0000-000000000000"
)

// clock advances by a second at each look, so that times differ.
func clock() func() time.Time {
	var mu sync.Mutex
	now := time.Date(2026, 11, 20, 23, 0, 0, 0, time.UTC)
	return func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		now = now.Add(time.Second)
		return now
	}
}

func open(t *testing.T, dir, boot string) *Journal {
	t.Helper()
	j, err := Open(Options{Dir: dir, BootID: boot, Now: clock()})
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func lock(t *testing.T, j *Journal) *Lock {
	t.Helper()
	l, err := j.TryLock()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Unlock)
	return l
}

func must[T any](t *testing.T) func(v T, err error) T {
	t.Helper()
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func update(to string) Update {
	return Update{
		From:    Kernel{Release: "6.1.0-55-cloud-amd64", Version: "6.1.192-1"},
		To:      Kernel{Release: to, Version: "6.1.192-2", Package: "linux-image-" + to, Path: "/a/b.deb"},
		Flavour: "cloud-amd64", Arch: "amd64", Trigger: TriggerApt,
	}
}

func TestReadingCreatesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	j := open(t, dir, bootA)
	if _, ok, err := j.Current(); ok || err != nil {
		t.Errorf("Current: %v, %v", ok, err)
	}
	if _, ok, err := j.Result(); ok || err != nil {
		t.Errorf("Result: %v, %v", ok, err)
	}
	if _, ok, err := j.Pending(); ok || err != nil {
		t.Errorf("Pending: %v, %v", ok, err)
	}
	if _, _, ok, err := j.Run(); ok || err != nil {
		t.Errorf("Run: %v, %v", ok, err)
	}
	if err := j.Follow(t.Context(), "", nil); err != nil {
		t.Errorf("Follow: %v", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the state directory was made: %v", err)
	}
}

func TestRecords(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, bootA)
	l := lock(t, j)
	first := Record{
		ID: "3f9c2a00", ShortID: "3f9c2a", File: "/var/lib/x.splice",
		From: update("").From, To: update("r1").To, State: Built,
		Outcome: outcome.PartlyLive, Targets: []string{"vmlinux", "ext4"},
		LiveFunctions: 591, LiveGroups: 473, DeferredGroups: 93,
		Groups: json.RawMessage(`[{"a":1}]`),
	}
	ok(t, l.Put(first))
	got, found, err := j.Record("3f9c2a00")
	if err != nil || !found {
		t.Fatalf("%v, %v", found, err)
	}
	if d := cmp.Diff(first, got); d != "" {
		t.Errorf("a record changes on the disk (-want +got):\n%s", d)
	}
	if _, found, _ := j.Current(); found {
		t.Error("a splice that was only built is current")
	}
	ok(t, l.PutLive(first))
	second := Record{ID: "77aa", ShortID: "77aa", State: Applying}
	ok(t, l.Put(second))
	cur, _, err := j.Current()
	ok(t, err)
	if cur.ID != first.ID || cur.BootID != bootA || cur.AppliedAt.IsZero() {
		t.Errorf("current is %+v", cur)
	}
	ok(t, l.PutLive(second))
	cur, _, err = j.Current()
	ok(t, err)
	if cur.ID != second.ID {
		t.Errorf("current is %s", cur.ID)
	}
	if old, _, err := j.Record(first.ID); err != nil || old.State != Retired {
		t.Errorf("the replaced splice is %q, %v", old.State, err)
	}

	recs := must[[]Record](t)(j.Records())
	if len(recs) != 2 || recs[0].ID != second.ID {
		t.Errorf("the newest is not first: %+v", recs)
	}
	if recs := must[[]Record](t)(j.Find("3f")); len(recs) != 1 || recs[0].ID != first.ID {
		t.Errorf("Find: %+v", recs)
	}
	ok(t, l.Delete(first.ID))
	ok(t, l.Delete(first.ID))
	if _, found, err := j.Record(first.ID); found || err != nil {
		t.Errorf("a deleted record: %v, %v", found, err)
	}
	// In the next boot the record is still there, with the boot it is of.
	if cur, found, err := open(t, dir, bootB).Current(); !found || err != nil || cur.BootID != bootA {
		t.Errorf("after a reboot: %+v, %v, %v", cur, found, err)
	}
}

func TestBadRecordsAreNotWritten(t *testing.T) {
	l := lock(t, open(t, t.TempDir(), bootA))
	for _, id := range []string{"", ".", "..", "../x", "a/b", ".hidden", "a b", strings.Repeat("x", 200)} {
		if err := l.Put(Record{ID: id, State: Built}); err == nil {
			t.Errorf("id %q is accepted", id)
		}
	}
	if err := l.Put(Record{ID: "x", State: "odd"}); err == nil {
		t.Error("an unknown state is accepted")
	}
}

// Between the two writes of PutLive there are two live records.
func TestTwoLiveRecordsAfterAKill(t *testing.T) {
	j := open(t, t.TempDir(), bootA)
	l := lock(t, j)
	ok(t, l.Put(Record{ID: "old", State: Live, AppliedAt: time.Unix(100, 0)}))
	ok(t, l.Put(Record{ID: "new", State: Live, AppliedAt: time.Unix(200, 0)}))
	if cur, _, err := j.Current(); err != nil || cur.ID != "new" {
		t.Errorf("current is %q, %v", cur.ID, err)
	}
}

func TestNewestRequestWins(t *testing.T) {
	j := open(t, t.TempDir(), bootA)
	first := must[string](t)(j.Enqueue(update("r1")))
	second := must[string](t)(j.Enqueue(update("r2")))
	if first == second {
		t.Error("two requests have one ticket")
	}
	l := lock(t, j)
	run, found, err := l.Take("start")
	if err != nil || !found {
		t.Fatalf("%v, %v", found, err)
	}
	if run.Ticket != second || run.Update != update("r2") || run.PID != os.Getpid() {
		t.Errorf("took %+v", run)
	}
	if _, found, err := l.Take("start"); found || err != nil {
		t.Errorf("the queue is not empty: %v, %v", found, err)
	}
	// One that comes while the worker works waits.
	third := must[string](t)(j.Enqueue(update("r3")))
	if req, found, err := j.Pending(); !found || err != nil || req.Ticket != third {
		t.Errorf("pending: %+v, %v, %v", req, found, err)
	}
}

func TestConcurrentEnqueue(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, bootA)
	var wg sync.WaitGroup
	var mu sync.Mutex
	tickets := map[string]string{}
	for i := range 20 {
		wg.Go(func() {
			to := fmt.Sprint("r", i)
			ticket, err := open(t, dir, bootA).Enqueue(update(to))
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			tickets[ticket] = to
		})
	}
	l := lock(t, j)
	taken := 0
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	take := func() bool {
		run, found, err := l.Take("start")
		if err != nil {
			t.Fatal(err)
		}
		if found {
			taken++
			ok(t, l.Finish(Result{Outcome: outcome.Live}))
			mu.Lock()
			defer mu.Unlock()
			// The ticket may not have been noted by its goroutine yet.
			if to, known := tickets[run.Ticket]; known && to != run.Update.To.Release {
				t.Errorf("ticket of %s has the update of %s", to, run.Update.To.Release)
			}
		}
		return found
	}
	for waiting := true; waiting; {
		select {
		case <-done:
			waiting = false
		default:
			take()
		}
	}
	for take() {
	}
	if taken == 0 || taken > 20 {
		t.Errorf("%d of 20 requests were taken", taken)
	}
	if len(tickets) != 20 {
		t.Errorf("%d tickets", len(tickets))
	}
	if left, err := os.ReadDir(filepath.Join(dir, tmpDir)); err != nil || len(left) != 0 {
		t.Errorf("left in tmp: %v, %v", left, err)
	}
}

func TestRunAndResult(t *testing.T) {
	j := open(t, t.TempDir(), bootA)
	l := lock(t, j)
	if err := l.SetStage("build"); err == nil {
		t.Error("a stage without a run")
	}
	if err := l.Finish(Result{}); err == nil {
		t.Error("an end without a run")
	}
	begun := must[Run](t)(l.Begin(update("r1"), "fetch"))
	ok(t, l.SetStage("build"))
	run, alive, found, err := j.Run()
	if err != nil || !found || !alive {
		t.Fatalf("%v, %v, %v", alive, found, err)
	}
	if run.Stage != "build" || run.Ticket != begun.Ticket || run.BootID != bootA {
		t.Errorf("%+v", run)
	}
	ok(t, l.Finish(Result{Outcome: outcome.Refused, Message: []string{"a", "b"}, Reasons: []string{"c"}}))
	if _, _, found, err := j.Run(); found || err != nil {
		t.Errorf("the run is not over: %v, %v", found, err)
	}
	res, found, err := j.Result()
	if err != nil || !found {
		t.Fatalf("%v, %v", found, err)
	}
	u := update("r1")
	want := Result{
		Run: begun.Ticket, Outcome: outcome.Refused, Message: []string{"a", "b"}, Reasons: []string{"c"},
		Update: &u, StartedAt: begun.StartedAt, FinishedAt: res.FinishedAt,
	}
	if d := cmp.Diff(want, res); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	if !res.FinishedAt.After(res.StartedAt) {
		t.Errorf("finished at %s, started at %s", res.FinishedAt, res.StartedAt)
	}
}

func TestAwaitedIsTakenOnce(t *testing.T) {
	j := open(t, t.TempDir(), bootA)
	if got := must[string](t)(j.TakeAwaited()); got != "" {
		t.Errorf("somebody waits for %q", got)
	}
	ok(t, j.Await("x1"))
	ok(t, j.Await("x2"))
	if got := must[string](t)(j.TakeAwaited()); got != "x2" {
		t.Errorf("took %q", got)
	}
	if got := must[string](t)(j.TakeAwaited()); got != "" {
		t.Errorf("took %q again", got)
	}
}

func TestLockKeepsOthersOut(t *testing.T) {
	j := open(t, t.TempDir(), bootA)
	l := must[*Lock](t)(j.TryLock())
	if _, err := j.TryLock(); !errors.Is(err, ErrBusy) {
		t.Errorf("got %v, want ErrBusy", err)
	}
	got := make(chan error, 1)
	go func() {
		l2, err := j.Lock(t.Context())
		if err == nil {
			l2.Unlock()
		}
		got <- err
	}()
	select {
	case err := <-got:
		t.Fatalf("the lock was had twice: %v", err)
	case <-time.After(3 * lockPoll):
	}
	l.Unlock()
	if err := <-got; err != nil {
		t.Error(err)
	}
}

func TestModeIsNotLeftToTheUmask(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	withUmask(t, 0o077, func() {
		j := open(t, dir, bootA)
		l := lock(t, j)
		ok(t, l.Put(Record{ID: "x", State: Built}))
	})
	for path, want := range map[string]os.FileMode{
		dir: 0o755 | os.ModeDir, filepath.Join(dir, spliceDir): 0o755 | os.ModeDir,
		filepath.Join(dir, spliceDir, "x.json"): 0o644,
	} {
		st, err := os.Stat(path)
		if err != nil || st.Mode() != want {
			t.Errorf("%s: %v, %v; want %v", path, st.Mode(), err, want)
		}
	}
}

func TestParseStat(t *testing.T) {
	rest := " S" + strings.Repeat(" 1", 18) + " 4711 99 98"
	for _, comm := range []string{"(bash)", "(a b)", "(x) R 1 (y)", "()"} {
		got, err := parseStat([]byte("12 " + comm + rest))
		if err != nil || got != 4711 {
			t.Errorf("%s: %d, %v", comm, got, err)
		}
	}
	for _, bad := range []string{"", "12 bash", "12 (bash) S 1 2", "12 (b) Z" + rest[2:], "12 (b) S" + strings.Repeat(" x", 30)} {
		if got, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q gives %d", bad, got)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	b, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte("1 (a) S)"))
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = parseStat(b) })
}
