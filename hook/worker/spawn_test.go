// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

const childEnv = "WORKER_TEST_CHILD"

// TestMain lets the test binary be the programs that the tests start.
func TestMain(m *testing.M) {
	switch os.Getenv(childEnv) {
	case "":
		os.Exit(m.Run())
	case "worker":
		fmt.Println("worker at work")
		out := os.Args[1]
		// What the caller left behind is gone by the time the file appears.
		time.Sleep(300 * time.Millisecond)
		_ = os.WriteFile(out+".tmp", []byte(describeSelf()), 0o644)
		_ = os.Rename(out+".tmp", out)
		time.Sleep(time.Minute)
	case "caller":
		// apt's shell: starts a worker, says which, and waits to be killed.
		s, err := Spawn(context.Background(), Options{
			Argv:       []string{os.Args[0], os.Args[1]},
			Env:        append(Environ(), childEnv+"=worker"),
			SystemdDir: "/nonexistent",
		})
		fmt.Println(s.PID, err)
		time.Sleep(time.Minute)
	case "self":
		fmt.Print(describeSelf())
	case "family":
		// A program that leaves a child running.
		signal.Ignore(syscall.SIGTERM)
		cmd := exec.Command("sleep", "1000")
		err := cmd.Start()
		fmt.Println(cmd.Process.Pid, err)
		os.Stdout.Close()
		if len(os.Args) < 2 {
			time.Sleep(time.Minute)
		}
	}
}

// describeSelf is what a child sees of itself, a line each.
func describeSelf() string {
	var b strings.Builder
	sid, _ := unix.Getsid(0)
	fmt.Fprintf(&b, "session leader=%v\n", sid == os.Getpid())
	fmt.Fprintf(&b, "group leader=%v\n", unix.Getpgrp() == os.Getpid())
	fmt.Fprintf(&b, "uid=%d gid=%d\n", os.Getuid(), os.Getgid())
	groups, _ := os.Getgroups()
	fmt.Fprintf(&b, "groups=%v\n", groups)
	cwd, _ := os.Getwd()
	fmt.Fprintf(&b, "cwd=%s\n", cwd)
	nnp, _ := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	fmt.Fprintf(&b, "no_new_privs=%d\n", nnp)
	prio, _ := unix.Getpriority(unix.PRIO_PROCESS, 0)
	fmt.Fprintf(&b, "nice=%d\n", 20-prio)
	oom, _ := os.ReadFile("/proc/self/oom_score_adj")
	fmt.Fprintf(&b, "oom=%s\n", strings.TrimSpace(string(oom)))
	stdin, _ := os.Readlink("/proc/self/fd/0")
	fmt.Fprintf(&b, "stdin=%s\n", stdin)
	// A test of the caller left this one open for its children.
	_, err := os.Stat("/proc/self/fd/33")
	fmt.Fprintf(&b, "fd 33 open=%v\n", err == nil)
	for _, kv := range os.Environ() {
		fmt.Fprintf(&b, "env %s\n", kv)
	}
	return b.String()
}

func waitFor(t *testing.T, path string) string {
	t.Helper()
	for range 200 {
		if b, err := os.ReadFile(path); err == nil {
			return string(b)
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("%s does not come", path)
	return ""
}

func wantLines(t *testing.T, text string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains("\n"+text, "\n"+w+"\n") {
			t.Errorf("no line %q in\n%s", w, text)
		}
	}
}

func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(b), ") Z ")
}

func TestDetached(t *testing.T) {
	dir := t.TempDir()
	// A descriptor that the caller's caller left open, as apt does.
	if err := unix.Dup2(0, 33); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(33)
	out, log := filepath.Join(dir, "out"), filepath.Join(dir, "log", "worker.log")
	start := time.Now()
	s, err := Spawn(t.Context(), Options{
		Argv: []string{os.Args[0], out}, Env: append(Environ(), childEnv+"=worker"),
		LogFile: log, SystemdDir: filepath.Join(dir, "none"),
	})
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("starting took %s", took)
	}
	if s.How != Detached || s.PID <= 0 || s.Fallback != nil {
		t.Errorf("%+v", s)
	}
	if want := "detached process " + strconv.Itoa(s.PID); s.String() != want {
		t.Errorf("String is %q, want %q", s, want)
	}
	text := waitFor(t, out)
	defer func() { _ = syscall.Kill(s.PID, syscall.SIGKILL) }()
	wantLines(t, text, "session leader=true", "cwd=/", "stdin=/dev/null", "fd 33 open=false",
		"nice=10", "oom=500", "env HOME=/root")
	if strings.Contains(text, "env GOCACHE") || strings.Contains(text, "env TMPDIR") {
		t.Error("the environment of the caller came through")
	}
	if got := waitFor(t, log); got != "worker at work\n" {
		t.Errorf("the log has %q", got)
	}
}

// A worker outlives a caller whose whole process group is killed and whose
// terminal hangs up.
func TestDetachedSurvives(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	ptm, pts := pty(t)
	cmd := exec.Command(os.Args[0], out)
	cmd.Env = append(os.Environ(), childEnv+"=caller")
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdin = pts
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pts.Close()
	var pid int
	var spawnErr string
	if _, err := fmt.Fscan(pipe, &pid, &spawnErr); err != nil || spawnErr != "<nil>" {
		t.Fatalf("%d %s: %v", pid, spawnErr, err)
	}
	defer func() { _ = syscall.Kill(pid, syscall.SIGKILL) }()
	// Closing the master hangs the terminal up.
	ptm.Close()
	if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); err != nil && err != syscall.ESRCH {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	wantLines(t, waitFor(t, out), "session leader=true")
	if !alive(pid) {
		t.Error("the worker is gone")
	}
}

func pty(t *testing.T) (ptm, pts *os.File) {
	t.Helper()
	ptm, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	fd := int(ptm.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	pts, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return ptm, pts
}

// script writes an executable shell script.
func script(t *testing.T, body string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "systemd-run")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSystemdRun(t *testing.T) {
	dir := t.TempDir()
	run := script(t, `printf '%s\n' "$@" > `+dir+`/args; env > `+dir+`/env`)
	// Found by its name, as on a real machine.
	t.Setenv("PATH", filepath.Dir(run)+":"+os.Getenv("PATH"))
	t.Setenv("DPKG_FRONTEND_LOCKED", "true")
	s, err := Spawn(t.Context(), Options{
		Argv: []string{"/bin/true", "hook", "a b", "$HOME"}, Env: []string{"A=1 2", "B="},
		LogFile: filepath.Join(dir, "log"), Unit: "upsplice-worker-7", SystemdDir: dir,
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := (Started{How: Unit, Unit: "upsplice-worker-7.service"}); s != want {
		t.Errorf("got %+v, want %+v", s, want)
	}
	if got := s.String(); got != "systemd unit upsplice-worker-7.service" {
		t.Errorf("String is %q", got)
	}
	args := waitFor(t, dir+"/args")
	wantLines(t, args, "--no-block", "--collect", "--unit=upsplice-worker-7.service",
		"--property=Nice=10", "--property=OOMScoreAdjust=500", "--setenv=A=1 2", "--setenv=B=",
		"--property=StandardOutput=append:"+dir+"/log", "--property=StandardError=append:"+dir+"/log")
	_, command, _ := strings.Cut(args, "\n--\n")
	if d := cmp.Diff("/bin/true\nhook\na b\n$$HOME\n", command); d != "" {
		t.Errorf("the command (-want +got):\n%s", d)
	}
	if env := waitFor(t, dir+"/env"); strings.Contains(env, "DPKG_FRONTEND_LOCKED") {
		t.Error("apt's variables reach systemd-run")
	}
}

func TestUnitNamesDiffer(t *testing.T) {
	opt := Options{Argv: []string{"/bin/true"}, SystemdDir: t.TempDir(), SystemdRun: script(t, "exit 0")}
	a, err := Spawn(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	b, err := Spawn(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	if a.Unit == b.Unit {
		t.Errorf("both are %s", a.Unit)
	}
}

func TestFallback(t *testing.T) {
	for _, tc := range []struct{ name, run, want string }{
		{"fails", script(t, "echo 'Failed to connect to bus' >&2; echo more; exit 1"), "exit status 1: Failed to connect to bus"},
		{"hangs", script(t, "sleep 100"), "deadline exceeded"},
		{"missing", "/nonexistent/systemd-run", "no such file"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "out")
			s, err := Spawn(t.Context(), Options{
				Argv: []string{os.Args[0], out}, Env: append(Environ(), childEnv+"=worker"),
				SystemdDir: t.TempDir(), SystemdRun: tc.run, Timeout: 300 * time.Millisecond,
			})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = syscall.Kill(s.PID, syscall.SIGKILL) }()
			if s.How != Detached || s.Fallback == nil || !strings.Contains(s.Fallback.Error(), tc.want) {
				t.Errorf("got %s, fallback %v; want %q", s, s.Fallback, tc.want)
			}
			wantLines(t, waitFor(t, out), "session leader=true")
		})
	}
}

func TestSpawnRefuses(t *testing.T) {
	for _, argv := range [][]string{nil, {"true"}, {"./true"}, {"/nonexistent/upsplice"}, {"/etc/passwd"}} {
		if s, err := Spawn(t.Context(), Options{Argv: argv, SystemdDir: "/nonexistent"}); err == nil {
			t.Errorf("%q was started: %s", argv, s)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := Spawn(ctx, Options{Argv: []string{"/bin/true"}, SystemdDir: "/nonexistent"})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}
