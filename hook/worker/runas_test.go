// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/upsplice/upsplice/hook/outcome"
)

// testUser is an unprivileged user that every system has.
const testUser = "nobody"

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("only root can run programs as another user")
	}
}

// self returns this test binary as an unprivileged program; the directory that
// go test keeps it in may be root's alone, so it is copied.
func self(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "upsplice-runas")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	path := dir + "/program"
	if err := os.WriteFile(path, b, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRunAs(t *testing.T) {
	needRoot(t)
	t.Setenv("SECRET", "x")
	account, err := Lookup(testUser)
	if err != nil {
		t.Fatal(err)
	}
	cmd, err := RunAs(t.Context(), testUser, RunOptions{Dir: "/tmp", Env: []string{childEnv + "=self", "MORE=1"}}, self(t))
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	cmd.Stdout = &out
	// The race detector maps terabytes of address space; so do not limit that
	// to less.
	if err := Run(cmd, Limits{Memory: 1 << 60, FileSize: 12345, CPU: 1500 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	wantLines(t, out.String(),
		fmt.Sprintf("uid=%d gid=%d", account.UID, account.GID), "groups=[]", "group leader=true",
		"session leader=false", "cwd=/tmp", "no_new_privs=1", "env MORE=1", "env USER="+testUser)
	if strings.Contains(out.String(), "env SECRET") {
		t.Error("the environment of the caller came through")
	}
}

// The limits are set just after the start; a program that reads them at once
// could see the old ones, so these are read of one that waits.
func TestLimits(t *testing.T) {
	needRoot(t)
	cmd, err := RunAs(t.Context(), testUser, RunOptions{}, "sleep", "1000")
	if err != nil {
		t.Fatal(err)
	}
	if err := Start(cmd, Limits{Memory: 1 << 40, FileSize: 12345, CPU: 1500 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, line := range strings.Split(string(b), "\n") {
		if len(line) > 26 {
			got[strings.TrimSpace(line[:26])] = strings.Join(strings.Fields(line[26:]), " ")
		}
	}
	for name, want := range map[string]string{
		"Max address space": "1099511627776 1099511627776 bytes",
		"Max file size":     "12345 12345 bytes",
		"Max cpu time":      "2 2 seconds",
	} {
		if got[name] != want {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
	_ = cmd.Cancel()
	_ = cmd.Wait()
}

// family starts a program with a child of its own and returns both.
func family(t *testing.T, ctx context.Context, args ...string) (cmd *exec.Cmd, child int) {
	t.Helper()
	cmd, err := RunAs(ctx, testUser, RunOptions{Env: []string{childEnv + "=family"}}, append([]string{self(t)}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := Start(cmd, Limits{}); err != nil {
		t.Fatal(err)
	}
	var childErr string
	if _, err := fmt.Fscan(out, &child, &childErr); err != nil || childErr != "<nil>" {
		t.Fatalf("%d %s: %v", child, childErr, err)
	}
	if !alive(child) {
		t.Fatal("the child is not there")
	}
	return cmd, child
}

func gone(pid int) bool {
	for range 100 {
		if !alive(pid) {
			return true
		}
		time.Sleep(20 * time.Millisecond)
	}
	return false
}

func TestCancelKillsTheGroup(t *testing.T) {
	needRoot(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cmd, child := family(t, ctx)
	cancel()
	if err := cmd.Wait(); !errors.Is(err, context.Canceled) && err == nil {
		t.Errorf("Wait: %v", err)
	}
	if !gone(cmd.Process.Pid) || !gone(child) {
		t.Error("a part of the group is still there")
	}
}

func TestRunLeavesNothingBehind(t *testing.T) {
	needRoot(t)
	cmd, err := RunAs(t.Context(), testUser, RunOptions{Env: []string{childEnv + "=family"}}, self(t), "end")
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd.Stdout = w
	if err := Run(cmd, Limits{}); err != nil {
		t.Fatal(err)
	}
	w.Close()
	var child int
	if _, err := fmt.Fscan(r, &child); err != nil {
		t.Fatal(err)
	}
	if !gone(child) {
		t.Error("the program's child is still there")
		_ = syscall.Kill(child, syscall.SIGKILL)
	}
}

// A program does not outlive the upsplice that started it.
func TestParentDeath(t *testing.T) {
	needRoot(t)
	if os.Getenv("PARENT_TEST_CHILD") != "" {
		cmd, _ := family(t, context.Background())
		fmt.Println("program", cmd.Process.Pid)
		time.Sleep(time.Minute)
		return
	}
	parent := exec.Command(os.Args[0], "-test.run=^TestParentDeath$", "-test.v")
	parent.Env = append(os.Environ(), "PARENT_TEST_CHILD=1")
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	pid := 0
	for pid == 0 {
		var word string
		if _, err := fmt.Fscan(out, &word); err != nil {
			t.Fatal(err)
		}
		if word == "program" {
			_, _ = fmt.Fscan(out, &pid)
		}
	}
	// The thread that forked it lives on while the parent does.
	time.Sleep(300 * time.Millisecond)
	if !alive(pid) {
		t.Error("the program is gone before its parent")
	}
	_ = parent.Process.Kill()
	_ = parent.Wait()
	if !gone(pid) {
		t.Error("the program is still there")
		_ = syscall.Kill(-pid, syscall.SIGKILL)
	}
}

func TestRunAsRefuses(t *testing.T) {
	_, err := RunAs(t.Context(), "no-such-user-here", RunOptions{}, "true")
	if outcome.Of(err) != outcome.Failed || !strings.Contains(err.Error(), "reinstall the upsplice package") {
		t.Errorf("a missing user: %v", err)
	}
	_, err = RunAs(t.Context(), "root", RunOptions{}, "true")
	if e, ok := errors.AsType[*outcome.Error](err); !ok || e.Outcome != outcome.Refused || e.Check != "build user" {
		t.Errorf("root: %v", err)
	}
	if _, err = RunAs(t.Context(), testUser, RunOptions{}); err == nil {
		t.Error("no program is accepted")
	}
}

func TestStartReportsTheError(t *testing.T) {
	needRoot(t)
	cmd, err := RunAs(t.Context(), testUser, RunOptions{}, "/nonexistent/program")
	if err != nil {
		t.Fatal(err)
	}
	if err := Run(cmd, Limits{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want a missing file", err)
	}
	// And the thread still works.
	ran := false
	Confined(func() { ran = true })
	if !ran {
		t.Error("Confined did not run its function")
	}
}
