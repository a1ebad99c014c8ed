// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const settle = 100 * time.Millisecond

// machine is a /boot and a /lib/modules that are watched.
type machine struct {
	t             *testing.T
	boot, modules string
	seen          chan string
}

// start watches; poll is so long that only notifications count, unless the test
// is about looking without them.
func start(t *testing.T, poll time.Duration, prepare func(*machine)) *machine {
	t.Helper()
	dir := t.TempDir()
	m := &machine{t: t, boot: filepath.Join(dir, "boot"), modules: filepath.Join(dir, "modules"), seen: make(chan string, 100)}
	m.mkdir(m.boot)
	m.mkdir(m.modules)
	if prepare != nil {
		prepare(m)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- Watch(ctx, Options{BootDir: m.boot, ModulesDir: m.modules, Settle: settle, Poll: poll},
			func(release string) { m.seen <- release })
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Watch ended with %v", err)
		}
	})
	// A marker shows that the first look is over: what comes later is new.
	m.await("0.0-marker", func() {
		m.kernel("0.0-marker", "x")
	})
	return m
}

// await makes a change again and again until the watcher reports release.
func (m *machine) await(release string, change func()) {
	m.t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		change()
		select {
		case got := <-m.seen:
			if got != release {
				m.t.Fatalf("got %q, want %q", got, release)
			}
			m.quiet()
			return
		case <-time.After(10 * settle):
		case <-deadline:
			m.t.Fatalf("%q is not reported", release)
		}
	}
}

// quiet waits until nothing more is reported: a busy machine may have seen more
// than one change of await.
func (m *machine) quiet() {
	for {
		select {
		case <-m.seen:
		case <-time.After(5 * settle):
			return
		}
	}
}

func (m *machine) mkdir(path string) {
	m.t.Helper()
	if err := os.MkdirAll(path, 0o755); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) write(name, content string) {
	m.t.Helper()
	if err := os.WriteFile(filepath.Join(m.boot, name), []byte(content), 0o644); err != nil {
		m.t.Fatal(err)
	}
}

// kernel puts a whole kernel there, as dpkg does: by rename.
func (m *machine) kernel(release, content string) {
	m.t.Helper()
	m.mkdir(filepath.Join(m.modules, release))
	m.write("vmlinuz-"+release+".dpkg-new", content)
	m.rename("vmlinuz-"+release+".dpkg-new", "vmlinuz-"+release)
}

func (m *machine) rename(from, to string) {
	m.t.Helper()
	if err := os.Rename(filepath.Join(m.boot, from), filepath.Join(m.boot, to)); err != nil {
		m.t.Fatal(err)
	}
}

// want demands exactly these releases, in any order.
func (m *machine) want(releases ...string) {
	m.t.Helper()
	var got []string
	for range releases {
		select {
		case r := <-m.seen:
			got = append(got, r)
		case <-time.After(10 * time.Second):
		}
	}
	slices.Sort(got)
	slices.Sort(releases)
	if d := cmp.Diff(releases, got); d != "" {
		m.t.Errorf("reported (-want +got):\n%s", d)
	}
	m.wantNothing()
}

func (m *machine) wantNothing() {
	m.t.Helper()
	select {
	case r := <-m.seen:
		m.t.Errorf("%q is reported", r)
	case <-time.After(4 * settle):
	}
}

func TestNewKernels(t *testing.T) {
	m := start(t, time.Hour, func(m *machine) { m.kernel("6.1.0-55-cloud-amd64", "old") })
	m.kernel("6.1.0-56-cloud-amd64", "new")
	m.want("6.1.0-56-cloud-amd64")
	m.kernel("6.1.0-57-cloud-amd64", "a")
	m.kernel("6.12.3-200.fc41.x86_64", "b")
	m.want("6.1.0-57-cloud-amd64", "6.12.3-200.fc41.x86_64")
}

func TestReplacedContentUnderTheSameName(t *testing.T) {
	m := start(t, time.Hour, func(m *machine) { m.kernel("6.1.0-55-amd64", "old") })
	m.kernel("6.1.0-55-amd64", "rebuilt")
	m.want("6.1.0-55-amd64")
}

func TestRemovedAndInstalledAgain(t *testing.T) {
	m := start(t, time.Hour, func(m *machine) { m.kernel("6.1.0-55-amd64", "old") })
	m.kernel("6.1.0-56-amd64", "new")
	m.want("6.1.0-56-amd64")
	if err := os.Remove(filepath.Join(m.boot, "vmlinuz-6.1.0-56-amd64")); err != nil {
		t.Fatal(err)
	}
	m.wantNothing()
	m.kernel("6.1.0-56-amd64", "new")
	m.want("6.1.0-56-amd64")
}

func TestOnlyKernels(t *testing.T) {
	m := start(t, time.Hour, nil)
	for _, name := range []string{
		"initrd.img-6.1.0-56-amd64", "config-6.1.0-56-amd64", "vmlinuz", "vmlinuz-", "vmlinuz-6",
		"vmlinuz-0-rescue-0123456789abcdef", "vmlinuz-6.1.0-56-amd64.dpkg-new", "vmlinuz-6.1.0-56-amd64.dpkg-tmp",
		"vmlinuz-6.1.0-56-amd64;5f3e8d01", "vmlinuz-6.1.0-56-amd64.old", "vmlinuz-6.1.0-56-amd64~", "vmlinuz-6.1 x",
	} {
		m.write(name, "x")
	}
	m.mkdir(filepath.Join(m.boot, "vmlinuz-6.1.0-58-amd64"))
	m.mkdir(filepath.Join(m.modules, "6.1.0-56-amd64"))
	m.write("vmlinuz-6.1.0-57-amd64", "") // no content yet
	m.wantNothing()
}

// The clock is the test's own: how long a write takes on a busy machine does not
// matter.
func TestAFileBeingWrittenSettles(t *testing.T) {
	boot := t.TempDir()
	var got []string
	w := newWatcher(Options{BootDir: boot, ModulesDir: "-", Settle: time.Second}, func(r string) { got = append(got, r) })
	w.known = w.scan()
	now := time.Unix(1000, 0)
	path := filepath.Join(boot, "vmlinuz-6.1.0-56-amd64")
	content := ""
	for range 5 {
		content += "more"
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		if !w.look(now) {
			t.Error("a file being written has settled")
		}
		now = now.Add(2 * time.Second)
	}
	if len(got) > 0 {
		t.Fatalf("%q is reported while it is written", got)
	}
	// The last look was the first at this content.
	if !w.look(now.Add(-1500*time.Millisecond)) || len(got) > 0 {
		t.Errorf("settled after half a second: %q", got)
	}
	for range 3 {
		if w.look(now) {
			t.Error("a file that stays has not settled")
		}
	}
	if d := cmp.Diff([]string{"6.1.0-56-amd64"}, got); d != "" {
		t.Errorf("reported (-want +got):\n%s", d)
	}
}

func TestModulesBelongToAKernel(t *testing.T) {
	m := start(t, time.Hour, nil)
	m.write("vmlinuz-6.1.0-56-amd64", "x")
	m.wantNothing()
	m.mkdir(filepath.Join(m.modules, "6.1.0-56-amd64"))
	m.want("6.1.0-56-amd64")
}

func TestDirectoryReplaced(t *testing.T) {
	m := start(t, 2*settle, func(m *machine) { m.kernel("6.1.0-55-amd64", "old") })
	// Renamed away, as for another file system; then a new one.
	if err := os.Rename(m.boot, m.boot+".away"); err != nil {
		t.Fatal(err)
	}
	m.wantNothing()
	m.mkdir(m.boot)
	m.kernel("6.1.0-56-amd64", "new")
	m.want("6.1.0-56-amd64")
	// The new one is watched as well.
	m.kernel("6.1.0-57-amd64", "new")
	m.want("6.1.0-57-amd64")
}

func TestDirectoryGoneForAWhile(t *testing.T) {
	m := start(t, 2*settle, func(m *machine) { m.kernel("6.1.0-55-amd64", "old") })
	if err := os.Rename(m.boot, m.boot+".away"); err != nil {
		t.Fatal(err)
	}
	m.wantNothing()
	// A /boot that is mounted again has nothing new.
	if err := os.Rename(m.boot+".away", m.boot); err != nil {
		t.Fatal(err)
	}
	m.wantNothing()
	if err := os.RemoveAll(m.boot); err != nil {
		t.Fatal(err)
	}
	m.wantNothing()
	m.mkdir(m.boot)
	m.kernel("6.1.0-56-amd64", "new")
	m.want("6.1.0-56-amd64")
}

func TestNothingThereAtTheBeginning(t *testing.T) {
	dir := t.TempDir()
	boot := filepath.Join(dir, "boot")
	seen := make(chan string, 10)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- Watch(ctx, Options{BootDir: boot, ModulesDir: "-", Settle: settle, Poll: settle},
			func(r string) { seen <- r })
	}()
	time.Sleep(2 * settle)
	if err := os.Mkdir(boot, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(boot, "vmlinuz-6.1.0-56-amd64"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	select {
	case r := <-seen:
		if r != "6.1.0-56-amd64" {
			t.Errorf("%q is reported", r)
		}
	case <-time.After(20 * time.Second):
		t.Error("nothing is reported")
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
