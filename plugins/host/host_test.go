// SPDX-License-Identifier: Apache-2.0

package host

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/upsplice/upsplice/distro/osrelease"
	"github.com/upsplice/upsplice/plugins/backend"
)

func open(t *testing.T, opt Options) *Backend {
	t.Helper()
	b, err := Open(t.Context(), "test", opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func TestOpenAndFetch(t *testing.T) {
	opt := mode(install(t), "good")
	b := open(t, opt)
	dir := t.TempDir()
	var progress []backend.Progress
	m, err := b.Fetch(t.Context(), backend.FetchRequest{Dir: dir, Want: []backend.Want{backend.WantSource}},
		func(p backend.Progress) { progress = append(progress, p) })
	if err != nil {
		t.Fatal(err)
	}
	if m.SourceArchive != filepath.Join(dir, "source.tar.xz") {
		t.Errorf("materials %+v", m)
	}
	// Thinned out, but the last one always arrives.
	if n := len(progress); n == 0 || n > 500 || progress[n-1].Done != 1000 {
		t.Errorf("%d progress messages, last %+v", n, progress[max(n-1, 0)])
	}
	pid, _ := strconv.Atoi(b.proc.Load().ID())
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("the backend still runs after Close: %v", err)
	}
	if left, _ := os.ReadDir(opt.TempDir); len(left) != 0 {
		t.Errorf("Close leaves %v", left)
	}
	if err := b.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

func TestRefused(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(t *testing.T, dir string)
		want  string
	}{
		"wrong checksum": {func(t *testing.T, dir string) {
			f, err := os.OpenFile(filepath.Join(dir, "test"), os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			f.WriteString("x")
			f.Close()
		}, "checksum was recorded"},
		"no checksum": {func(t *testing.T, dir string) {
			os.WriteFile(filepath.Join(dir, Checksums), nil, 0o644)
		}, "has no checksum"},
		"no checksums": {func(t *testing.T, dir string) { os.Remove(filepath.Join(dir, Checksums)) }, "does not exist"},
		"writable": {func(t *testing.T, dir string) {
			os.Chmod(filepath.Join(dir, "test"), 0o775)
		}, "test can be written by others"},
		"writable checksums": {func(t *testing.T, dir string) {
			os.Chmod(filepath.Join(dir, Checksums), 0o666)
		}, Checksums + " can be written by others"},
		"writable directory": {func(t *testing.T, dir string) { os.Chmod(dir, 0o777) }, "can be written by others"},
		"symlink": {func(t *testing.T, dir string) {
			os.Rename(filepath.Join(dir, "test"), filepath.Join(dir, "other"))
			os.Symlink("other", filepath.Join(dir, "test"))
		}, "is no regular file"},
	} {
		t.Run(name, func(t *testing.T) {
			opt := mode(install(t), "good")
			c.spoil(t, opt.Dir)
			_, err := Open(t.Context(), "test", opt)
			var ue *UntrustedError
			if !errors.As(err, &ue) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want an UntrustedError with %q", err, c.want)
			}
		})
	}
}

func TestWrongOwner(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("only root can give a file away")
	}
	for _, name := range []string{"test", Checksums, "."} {
		opt := mode(install(t), "good")
		if err := os.Chown(filepath.Join(opt.Dir, name), 65534, 65534); err != nil {
			t.Fatal(err)
		}
		_, err := Open(t.Context(), "test", opt)
		var ue *UntrustedError
		if !errors.As(err, &ue) || !strings.Contains(err.Error(), "does not belong to user 0") {
			t.Errorf("%s of another owner: error %v, want an UntrustedError", name, err)
		}
	}
}

func TestNoBackend(t *testing.T) {
	opt := install(t)
	for _, name := range []string{"fedora", "../test", "", Checksums} {
		_, err := Open(t.Context(), name, opt)
		var ne *NoBackendError
		if !errors.As(err, &ne) {
			t.Errorf("Open(%q): error %v, want a NoBackendError", name, err)
		}
	}
}

func TestOpenSystem(t *testing.T) {
	opt := mode(install(t), "good")
	for _, system := range []osrelease.Release{{ID: "test"}, {ID: "derived", IDLike: []string{"nothing", "test"}}} {
		b, err := OpenSystem(t.Context(), system, opt)
		if err != nil {
			t.Fatal(err)
		}
		b.Close()
	}
	_, err := OpenSystem(t.Context(), osrelease.Release{ID: "other"}, opt)
	var ne *NoBackendError
	if !errors.As(err, &ne) || ne.Name != "other" {
		t.Errorf("error %v, want a NoBackendError", err)
	}
	names, err := List(opt)
	if err != nil || len(names) != 1 || names[0] != "test" {
		t.Errorf("List = %v, %v", names, err)
	}
}

func TestDoesNotStart(t *testing.T) {
	for m, want := range map[string]string{
		"mute":            "timeout",
		"dead on arrival": "exit status 3: cannot find my things",
		"foreign socket":  "it listens at unix /run/other.sock",
		"chatty":          "starting it",
	} {
		t.Run(m, func(t *testing.T) {
			opt := mode(install(t), m)
			opt.Limits = Limits{Start: time.Second, Close: time.Second}
			start := time.Now()
			_, err := Open(t.Context(), "test", opt)
			var be *backend.Error
			if !errors.As(err, &be) || be.Kind != backend.Internal || !strings.Contains(err.Error(), want) {
				t.Errorf("error %v, want one with %q", err, want)
			}
			if d := time.Since(start); d > 20*time.Second {
				t.Errorf("it took %v", d)
			}
			if left, _ := os.ReadDir(opt.TempDir); len(left) != 0 {
				t.Errorf("Open leaves %v", left)
			}
		})
	}
}

func TestTimeLimits(t *testing.T) {
	opt := mode(install(t), "hang")
	opt.Limits = Limits{Call: 300 * time.Millisecond, Idle: 300 * time.Millisecond, Close: 200 * time.Millisecond}
	b := open(t, opt)
	_, err := b.Kernels(t.Context(), nil)
	var te *TimeoutError
	if !errors.As(err, &te) || te.Call != "kernels" || te.Idle {
		t.Errorf("Kernels: %v, want a TimeoutError", err)
	}
	_, err = b.Fetch(t.Context(), backend.FetchRequest{Dir: t.TempDir()}, nil)
	if !errors.As(err, &te) || te.Call != "fetch" || !te.Idle {
		t.Errorf("Fetch: %v, want a TimeoutError for being idle", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err = b.Fetch(ctx, backend.FetchRequest{Dir: t.TempDir()}, func(backend.Progress) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled Fetch: %v", err)
	}
	start := time.Now()
	b.Close()
	if d := time.Since(start); d > 10*time.Second {
		t.Errorf("closing a hanging backend took %v", d)
	}
}

func TestCrash(t *testing.T) {
	b := open(t, mode(install(t), "crash"))
	_, err := b.Kernels(t.Context(), nil)
	var be *backend.Error
	if !errors.As(err, &be) || be.Kind != backend.Internal {
		t.Errorf("error %v, want one of kind internal", err)
	}
	// The process's end is noticed a moment after the connection's.
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if _, err = b.Describe(t.Context()); strings.Contains(err.Error(), "panic: out of cheese") {
			return
		}
	}
	t.Errorf("error %v does not say how the process ended", err)
}

func TestFlood(t *testing.T) {
	var log lockedBuffer
	opt := mode(install(t), "flood")
	opt.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug - 4}))
	opt.Limits.Fetch = 2 * time.Second
	b := open(t, opt)
	_, err := b.Kernels(t.Context(), nil)
	if err == nil || !strings.Contains(err.Error(), "kernels") {
		t.Errorf("Kernels: %v, want a refusal", err)
	}
	n := 0
	_, err = b.Fetch(t.Context(), backend.FetchRequest{Dir: t.TempDir()}, func(p backend.Progress) {
		n++
		if len(p.Text) > maxName {
			t.Errorf("progress text of %d bytes", len(p.Text))
		}
	})
	var te *TimeoutError
	if !errors.As(err, &te) {
		t.Errorf("Fetch: %v, want a TimeoutError", err)
	}
	if n > 100 {
		t.Errorf("%d progress messages in 2 s", n)
	}
	if size := log.Len(); size > 2*maxLog {
		t.Errorf("the log has %d bytes", size)
	}
}

func TestEndsChildren(t *testing.T) {
	b := open(t, mode(install(t), "child"))
	ctx, cancel := context.WithCancel(t.Context())
	pid := 0
	b.Fetch(ctx, backend.FetchRequest{Dir: t.TempDir()}, func(p backend.Progress) {
		pid, _ = strconv.Atoi(p.Text)
		cancel()
	})
	if pid == 0 || syscall.Kill(pid, 0) != nil {
		t.Fatalf("there is no child %d", pid)
	}
	b.Close()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat"); err != nil || strings.Contains(string(data), ") Z ") {
			return
		}
	}
	t.Errorf("child %d lives on after Close", pid)
}

func TestRunsAsAnotherUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("only root can start a process as another user")
	}
	opt := mode(install(t), "good")
	opt.Credential = &Credential{UID: 65534, GID: 65533}
	b := open(t, opt)
	k, err := b.Installed(t.Context(), "6.1.0-1-amd64")
	if err != nil || k.Version != "65534-65533" {
		t.Errorf("the backend runs as %s, %v", k.Version, err)
	}
	// It can only write where that user may.
	_, err = b.Fetch(t.Context(), backend.FetchRequest{Dir: t.TempDir(), Want: []backend.Want{backend.WantSource}}, nil)
	if err == nil || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("writing to root's directory: %v", err)
	}
}

func TestEnvironment(t *testing.T) {
	t.Setenv("SECRET_OF_THE_HOST", "x")
	t.Setenv("DPKG_FRONTEND_LOCKED", "true")
	t.Setenv("http_proxy", "http://proxy:3128")
	opt := mode(install(t), "print environment")
	opt.Home = "/somewhere"
	d, err := open(t, opt).Backend.(*limited).next.(*validated).next.Describe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"SECRET_OF_THE_HOST", "DPKG_FRONTEND_LOCKED"} {
		if strings.Contains(d.Version, bad) {
			t.Errorf("%s reaches the backend", bad)
		}
	}
	for _, good := range []string{"http_proxy=http://proxy:3128", "HOME=/somewhere", "LANG=C.UTF-8", "PATH=/usr"} {
		if !strings.Contains(d.Version, good) {
			t.Errorf("%s is missing in %s", good, d.Version)
		}
	}
}

func TestErrorsAreCleaned(t *testing.T) {
	_, err := open(t, mode(install(t), "error")).Kernels(t.Context(), nil)
	want := backend.Error{Kind: backend.NotFound, What: "x?[31m", Detail: "d", Remedy: "r"}
	var be *backend.Error
	if !errors.As(err, &be) || *be != want {
		t.Errorf("error %#v, want %#v", err, want)
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Len()
}
