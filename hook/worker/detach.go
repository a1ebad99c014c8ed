// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// spawnDetached starts a process in a session of its own: without a controlling
// terminal, so that no hangup reaches it, and outside the caller's process
// group, so that no signal to that does.
func spawnDetached(opt Options) (pid int, err error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	out := null
	if opt.LogFile != "" {
		if f, err := os.OpenFile(opt.LogFile, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640); err == nil {
			defer f.Close()
			out = f
		}
	}
	if err := closeInherited(); err != nil {
		return 0, err
	}
	cmd := exec.Command(opt.Argv[0], opt.Argv[1:]...)
	cmd.Env, cmd.Dir = opt.Env, "/"
	cmd.Stdin, cmd.Stdout, cmd.Stderr = null, out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	pid = cmd.Process.Pid
	stepBack(pid)
	// The caller usually ends first; if it lives on, it must not keep a zombie,
	// which would look like a worker.
	go func() { _ = cmd.Wait() }()
	return pid, nil
}

// stepBack makes the session of pid give way to everything else. None of it is
// needed for the work, so errors are dropped: containers forbid some.
func stepBack(pid int) {
	// The group, since the process may have threads by now.
	_ = unix.Setpriority(unix.PRIO_PGRP, pid, niceness)
	const whoPgrp, classBestEffort, lowest = 2, 2 << 13, 7 // ioprio_set(2)
	_, _, _ = unix.Syscall(unix.SYS_IOPRIO_SET, whoPgrp, uintptr(pid), classBestEffort|lowest)
	_ = os.WriteFile(filepath.Join("/proc", strconv.Itoa(pid), "oom_score_adj"), []byte(strconv.Itoa(oomScore)), 0o644)
}

// closeInherited keeps the descriptors that this process got from its caller
// from its children. apt passes its pipe on, and whoever runs apt with a pipe on
// some other descriptor would wait for the worker to end.
func closeInherited() error {
	err := unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC)
	if err == nil {
		return nil
	}
	// Kernels before 5.11 do not know the call or the flag.
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
	return nil
}
