// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/upsplice/upsplice/hook/outcome"
	"github.com/upsplice/upsplice/hook/progress"
)

// withUmask runs f under a umask, which belongs to the whole process: no test
// of this package is parallel.
func withUmask(t *testing.T, mask int, f func()) {
	t.Helper()
	old := syscall.Umask(mask)
	defer syscall.Umask(old)
	f()
}

// tmpfs mounts a file system of the given size in a new directory.
func tmpfs(t *testing.T, size string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("mounting needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Fatalf("mounting a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// files returns the journal's files with something in each.
func files(t *testing.T, j *Journal) []string {
	t.Helper()
	l := lock(t, j)
	must[Run](t)(l.Begin(update("r0"), "build"))
	ok(t, l.Finish(Result{Outcome: outcome.Live}))
	must[string](t)(j.Enqueue(update("r1")))
	ok(t, j.Await("ticket"))
	ok(t, l.Put(Record{ID: "x", State: Live}))
	must[Run](t)(l.Begin(update("r2"), "build"))
	l.Unlock()
	return []string{
		j.path(queueFile), j.path(runFile), j.path(resultFile), j.path(awaitedFile),
		j.path(spliceDir, "x.json"),
	}
}

// readAll reads everything and returns the first error.
func readAll(j *Journal) error {
	_, _, e1 := j.Pending()
	_, _, _, e2 := j.Run()
	_, _, e3 := j.Result()
	_, e4 := j.Records()
	return errors.Join(e1, e2, e3, e4)
}

func TestTornFiles(t *testing.T) {
	for n := range files(t, open(t, t.TempDir(), bootA)) {
		for _, content := range []string{
			"", "{", "null", "[]", `"x"`, `{"version":1}`, `{"version":1,"data":null}`,
			`{"version":0,"data":{}}`, `{"version":-1,"data":{}}`, `{"version":1,"data":7}`, "\x00\x00\x00\x00",
			`{"version":1,"data":{"ticket":"`,
		} {
			j := open(t, t.TempDir(), bootA)
			path := files(t, j)[n]
			name := filepath.Base(path)
			ok(t, os.WriteFile(path, []byte(content), 0o644))
			if name != awaitedFile {
				if err := readAll(j); !isCorrupt(err) || !strings.Contains(err.Error(), path) {
					t.Errorf("%s with %q: got %v, want a CorruptError with its path", name, content, err)
				}
			}
			// A hook can leave its request whatever state the rest is in.
			if _, err := j.Enqueue(update("r3")); err != nil {
				t.Errorf("%s with %q: Enqueue: %v", name, content, err)
			}
			l := lock(t, j)
			rec, err := l.Recover()
			if err != nil {
				t.Errorf("%s with %q: Recover: %v", name, content, err)
				continue
			}
			if name != queueFile && (len(rec.Damaged) != 1 || rec.Damaged[0] != path) {
				// `"x"` is what awaited.json may hold, but not without an envelope.
				t.Errorf("%s with %q: set aside %q", name, content, rec.Damaged)
			}
			if err := readAll(j); err != nil {
				t.Errorf("%s with %q: after Recover: %v", name, content, err)
			}
			if run, found, err := l.Take("start"); err != nil || !found || run.Update.To.Release != "r3" {
				t.Errorf("%s with %q: Take: %+v, %v, %v", name, content, run.Update, found, err)
			}
			l.Unlock()
		}
	}
}

func TestRecordOfAnotherName(t *testing.T) {
	j := open(t, t.TempDir(), bootA)
	l := lock(t, j)
	ok(t, l.Put(Record{ID: "x", State: Live}))
	ok(t, os.Rename(j.path(spliceDir, "x.json"), j.path(spliceDir, "y.json")))
	if _, err := j.Records(); !isCorrupt(err) {
		t.Errorf("got %v, want a CorruptError", err)
	}
}

func TestNewerVersionIsRefused(t *testing.T) {
	for n := range files(t, open(t, t.TempDir(), bootA)) {
		j := open(t, t.TempDir(), bootA)
		path := files(t, j)[n]
		content := []byte(`{"version":2,"data":{"something":"new"}}`)
		ok(t, os.WriteFile(path, content, 0o644))
		l := lock(t, j)
		_, err := l.Recover()
		if outcome.Of(err) != outcome.Refused {
			t.Errorf("%s: got %v, want a refusal", path, err)
			continue
		}
		ve, ok := errors.AsType[*VersionError](err)
		if !ok || ve.Have != 2 || ve.Known != 1 || ve.Path != path {
			t.Errorf("%s: %#v", path, ve)
		}
		if !strings.Contains(err.Error(), "install the newer upsplice") {
			t.Errorf("no remedy in %q", err)
		}
		l.Unlock()
		switch filepath.Base(path) {
		case queueFile:
			_, err = j.Enqueue(update("r9"))
		case awaitedFile:
			_, err = j.TakeAwaited()
		default:
			err = readAll(j)
		}
		if !isVersion(err) {
			t.Errorf("%s: got %v, want a VersionError", path, err)
		}
		if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, content) {
			t.Errorf("%s was changed: %q, %v", path, now, err)
		}
	}
}

func TestFullDisk(t *testing.T) {
	dir := tmpfs(t, "256k")
	j := open(t, filepath.Join(dir, "state"), bootA)
	l := lock(t, j)
	ok(t, l.PutLive(Record{ID: "x", LiveFunctions: 7}))
	ticket := must[string](t)(j.Enqueue(update("r1")))
	run, _, err := l.Take("build")
	ok(t, err)
	ev := must[*Events](t)(l.Events())

	fill(t, filepath.Join(dir, "fill"))

	if err := l.PutLive(Record{ID: "y"}); !errors.Is(err, syscall.ENOSPC) || outcome.Of(err) != outcome.Failed {
		t.Errorf("Put: got %v, want a full disk", err)
	}
	if _, err := j.Enqueue(update("r2")); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Enqueue: got %v, want a full disk", err)
	}
	if err := l.SetStage("apply"); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("SetStage: got %v, want a full disk", err)
	}
	for range 100 {
		ev.Emit(progress.Event{Kind: progress.Note, Text: strings.Repeat("x", 4000)})
	}
	if err := ev.Err(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Events: got %v, want a full disk", err)
	}
	// What was there is there.
	if cur, found, err := j.Current(); err != nil || !found || cur.ID != "x" || cur.LiveFunctions != 7 {
		t.Errorf("current: %+v, %v, %v", cur, found, err)
	}
	if r, alive, found, err := j.Run(); err != nil || !found || !alive || r.Ticket != run.Ticket || r.Stage != "build" {
		t.Errorf("run: %+v, %v, %v", r, found, err)
	}
	if err := l.Finish(Result{Outcome: outcome.Failed}); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Finish: got %v, want a full disk", err)
	}
	if _, _, found, _ := j.Run(); found {
		t.Error("a run that ended on a full disk looks interrupted")
	}

	ok(t, os.Remove(filepath.Join(dir, "fill")))
	if rec := must[Recovery](t)(l.Recover()); !rec.Clean() {
		t.Errorf("left after a full disk: %+v", rec)
	}
	if left, err := os.ReadDir(j.path(tmpDir)); err != nil || len(left) != 0 {
		t.Errorf("left in tmp: %v, %v", left, err)
	}
	if again := must[string](t)(j.Enqueue(update("r2"))); again == ticket {
		t.Error("the ticket is used again")
	}
}

// fill writes a file until the disk is full to the last page.
func fill(t *testing.T, path string) {
	t.Helper()
	f := must[*os.File](t)(os.Create(path))
	defer f.Close()
	page := make([]byte, 4096)
	for {
		if _, err := f.Write(page); err != nil {
			if !errors.Is(err, syscall.ENOSPC) {
				t.Fatal(err)
			}
			return
		}
	}
}

func TestReadOnlyDirectory(t *testing.T) {
	dir := tmpfs(t, "1m")
	j := open(t, filepath.Join(dir, "state"), bootA)
	func() {
		l := lock(t, j)
		defer l.Unlock()
		ok(t, l.PutLive(Record{ID: "x"}))
	}()
	ok(t, unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	if cur, found, err := j.Current(); err != nil || !found || cur.ID != "x" {
		t.Errorf("current: %+v, %v, %v", cur, found, err)
	}
	if _, err := j.Enqueue(update("r1")); !errors.Is(err, syscall.EROFS) {
		t.Errorf("Enqueue: got %v, want a read-only file system", err)
	}
	if _, err := j.TryLock(); !errors.Is(err, syscall.EROFS) {
		t.Errorf("TryLock: got %v, want a read-only file system", err)
	}
	if err := j.Follow(t.Context(), "", nil); err != nil {
		t.Errorf("Follow: %v", err)
	}
	fresh := open(t, filepath.Join(dir, "other"), bootA)
	if _, err := fresh.Enqueue(update("r1")); !errors.Is(err, syscall.EROFS) {
		t.Errorf("a new directory: got %v, want a read-only file system", err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"version":1,"data":{"id":"x","state":"live","groups":[1],"applied_at":"2026-11-20T23:00:00Z"}}`))
	f.Add([]byte(`{"version":2,"data":{}}`))
	f.Add([]byte(`{"version":1,"data":{"run":"t","update":{"from":{},"to":{}}}}`))
	f.Add([]byte("{"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, v := range []any{new(Record), new(Result), new(Request), new(Run), new(string)} {
			err := decode("x", b, v)
			if err != nil && !isCorrupt(err) && !isVersion(err) {
				t.Errorf("%v is of no known kind", err)
			}
		}
	})
}
