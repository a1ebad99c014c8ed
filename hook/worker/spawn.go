// SPDX-License-Identifier: Apache-2.0

// Package worker starts the processes of upsplice: the worker that outlives
// the package manager, and the unprivileged programs that it uses.
package worker

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// How is the way in which a worker was started.
type How string

const (
	// Unit: a transient systemd unit.
	Unit How = "systemd unit"
	// Detached: a process in a session of its own.
	Detached How = "detached process"
)

// A build in the background is to be felt as little as possible, and is the
// first thing to go when memory runs out: the next update makes it again.
const (
	niceness = 10
	oomScore = 500
)

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Environ returns the environment in which a worker runs, whoever starts it.
// It has nothing of the caller's.
func Environ() []string {
	return []string{"PATH=" + defaultPath, "HOME=/root", "LC_ALL=C.UTF-8"}
}

// Options of Spawn.
type Options struct {
	// Argv is the program, an absolute path, and its arguments.
	Argv []string
	// Env is the whole environment; nil means Environ().
	Env []string
	// LogFile takes standard output and error, appended; "" means nowhere.
	LogFile string
	// Unit is the unit's name; "" means one that is not in use.
	Unit string
	// SystemdDir exists where systemd runs; "" means /run/systemd/system.
	SystemdDir string
	// SystemdRun is the program; "" means systemd-run in PATH.
	SystemdRun string
	// Timeout is how long systemd-run may take; 0 means 10 s.
	Timeout time.Duration
}

// Started says how a worker runs.
type Started struct {
	How  How
	Unit string // with Unit
	PID  int    // with Detached
	// Fallback is why systemd was not used although it runs; nil otherwise.
	Fallback error
}

// String names the worker: "systemd unit upsplice-worker-x.service".
func (s Started) String() string {
	if s.How == Unit {
		return fmt.Sprintf("%s %s", s.How, s.Unit)
	}
	return fmt.Sprintf("%s %d", s.How, s.PID)
}

// Spawn starts a worker that survives the end of its caller, of the terminal
// and of the caller's process group, and returns at once. Where systemd runs it
// is a unit of its own, else, or if that fails, a detached process. ctx bounds
// the starting, not the worker.
func Spawn(ctx context.Context, opt Options) (Started, error) {
	if len(opt.Argv) == 0 || !filepath.IsAbs(opt.Argv[0]) {
		return Started{}, fmt.Errorf("starting a worker: %q does not begin with an absolute path", opt.Argv)
	}
	// A file that is not there would only be noticed inside the unit.
	if _, err := exec.LookPath(opt.Argv[0]); err != nil {
		return Started{}, fmt.Errorf("starting a worker: %w", err)
	}
	if opt.Env == nil {
		opt.Env = Environ()
	}
	if opt.SystemdDir == "" {
		opt.SystemdDir = "/run/systemd/system"
	}
	if opt.SystemdRun == "" {
		opt.SystemdRun = "systemd-run"
	}
	if opt.Timeout == 0 {
		opt.Timeout = 10 * time.Second
	}
	if opt.Unit == "" {
		opt.Unit = "upsplice-worker-" + strings.ToLower(rand.Text()[:8])
	}
	if !strings.HasSuffix(opt.Unit, ".service") {
		opt.Unit += ".service"
	}
	if opt.LogFile != "" {
		if err := os.MkdirAll(filepath.Dir(opt.LogFile), 0o755); err != nil {
			// Work without a log is better than no work.
			opt.LogFile = ""
		}
	}

	var fallback error
	// sd_booted(3): this directory is how programs ask whether systemd runs.
	if st, err := os.Lstat(opt.SystemdDir); err == nil && st.IsDir() {
		if fallback = spawnUnit(ctx, opt); fallback == nil {
			return Started{How: Unit, Unit: opt.Unit}, nil
		}
	}
	if err := ctx.Err(); err != nil {
		return Started{}, fmt.Errorf("starting a worker: %w", errors.Join(err, fallback))
	}
	pid, err := spawnDetached(opt)
	if err != nil {
		return Started{}, fmt.Errorf("starting a worker: %w", errors.Join(err, fallback))
	}
	return Started{How: Detached, PID: pid, Fallback: fallback}, nil
}

func spawnUnit(ctx context.Context, opt Options) error {
	program, err := exec.LookPath(opt.SystemdRun)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, opt.Timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, unitArgs(opt)...)
	cmd.Dir = "/"
	// Only the manager's address, in case it is not the usual one.
	cmd.Env = Environ()
	if bus, ok := os.LookupEnv("DBUS_SYSTEM_BUS_ADDRESS"); ok {
		cmd.Env = append(cmd.Env, "DBUS_SYSTEM_BUS_ADDRESS="+bus)
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return killGroup(cmd.Process) }
	// A child that left the group could keep the pipe open for ever.
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		if text := firstLine(out.String()); text != "" {
			return fmt.Errorf("%s: %w: %s", filepath.Base(program), err, text)
		}
		return fmt.Errorf("%s: %w", filepath.Base(program), err)
	}
	return nil
}

func unitArgs(opt Options) []string {
	args := []string{
		"--no-block", "--collect", "--quiet", "--system",
		"--unit=" + opt.Unit,
		"--description=upsplice: kernel update in the background",
		fmt.Sprintf("--property=Nice=%d", niceness),
		fmt.Sprintf("--property=OOMScoreAdjust=%d", oomScore),
		"--property=IOSchedulingPriority=7",
		"--property=WorkingDirectory=/",
		// A stop at shutdown lets the worker note where it was, and then ends
		// its compilers too.
		"--property=KillMode=mixed",
		"--property=TimeoutStopSec=20s",
	}
	if opt.LogFile != "" {
		args = append(args,
			"--property=StandardOutput=append:"+opt.LogFile,
			"--property=StandardError=append:"+opt.LogFile)
	}
	for _, kv := range opt.Env {
		args = append(args, "--setenv="+kv)
	}
	// systemd expands variables in a command line by itself.
	args = append(args, "--")
	for _, a := range opt.Argv {
		args = append(args, strings.ReplaceAll(a, "$", "$$"))
	}
	return args
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line
}
