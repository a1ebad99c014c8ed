// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/upsplice/upsplice/hook/apt"
	"github.com/upsplice/upsplice/hook/journal"
	"github.com/upsplice/upsplice/hook/outcome"
	"github.com/upsplice/upsplice/plugins/backend"
)

func TestCandidates(t *testing.T) {
	got := candidates([]apt.Change{
		{Name: "bash", Kind: apt.Upgrade, New: "5"},
		{Name: "linux-image-6.1.0-56-cloud-amd64", Kind: apt.Install, New: "6.1.192-2", Arch: "amd64", Path: "/x.deb"},
		{Name: "linux-image-6.1.0-50-cloud-amd64", Kind: apt.Removal, Old: "6.1.176-1"},
		{Name: "linux-image-6.1.0-55-cloud-amd64", Kind: apt.Reinstall, Old: "6.1.192-1", New: "6.1.192-1"},
		{Name: "linux-image-6.1.0-54-cloud-amd64", Kind: apt.Downgrade, Old: "2", New: "1"},
		{Name: "linux-image-cloud-amd64", Kind: apt.Upgrade, Old: "6.1.192-1", New: "6.1.192-2", Arch: "amd64"},
	})
	want := []backend.Package{
		{Name: "linux-image-6.1.0-56-cloud-amd64", Arch: "amd64", NewVersion: "6.1.192-2", Path: "/x.deb"},
		{Name: "linux-image-cloud-amd64", Arch: "amd64", OldVersion: "6.1.192-1", NewVersion: "6.1.192-2"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("candidates (-want +got):\n%s", diff)
	}
}

// What apt's hook has seen to, the watcher leaves alone.
func TestHandled(t *testing.T) {
	j, err := journal.Open(journal.Options{Dir: t.TempDir(), BootID: "boot1"})
	if err != nil {
		t.Fatal(err)
	}
	u := journal.Update{From: journal.Kernel{Release: "1"}, To: journal.Kernel{Release: "2", Version: "2-1"}}
	other := u
	other.To.Version = "2-2"
	check := func(when string, want bool) {
		t.Helper()
		if got, err := handled(j, u); err != nil || got != want {
			t.Errorf("%s: handled() = %v, %v, want %v", when, got, err, want)
		}
		if got, err := handled(j, other); err != nil || got {
			t.Errorf("%s: handled(another update) = %v, %v", when, got, err)
		}
	}
	check("at first", false)
	if _, err := j.Enqueue(u); err != nil {
		t.Fatal(err)
	}
	check("waiting", true)
	lock, err := j.TryLock()
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Unlock()
	if _, ok, err := lock.Take("building"); err != nil || !ok {
		t.Fatal(ok, err)
	}
	check("running", true)
	if err := lock.Finish(journal.Result{Outcome: outcome.Live}); err != nil {
		t.Fatal(err)
	}
	check("done", true)
	if _, err := lock.Begin(u, "building"); err != nil {
		t.Fatal(err)
	}
	if err := lock.Finish(journal.Result{Outcome: outcome.Failed}); err != nil {
		t.Fatal(err)
	}
	check("failed", false)
}

// Ctrl-C at the end of apt ends the waiting, not the work.
func TestFollowEndsWithItsContext(t *testing.T) {
	dir := t.TempDir()
	j, err := journal.Open(journal.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	lock, err := j.TryLock()
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Unlock()
	run, err := lock.Begin(journal.Update{To: journal.Kernel{Release: "2"}}, "building")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	a := &app{in: strings.NewReader(""), out: io.Discard, err: io.Discard, stateDir: dir}
	if err := a.follow(ctx); err != nil {
		t.Errorf("follow() = %v", err)
	}
	if now, alive, ok, err := j.Run(); err != nil || !ok || !alive || now.Ticket != run.Ticket {
		t.Errorf("Run() = %+v, %v, %v, %v", now, alive, ok, err)
	}
}
