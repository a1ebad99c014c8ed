// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"fmt"
	"math"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"
)

// Limits of a program; 0 means none.
type Limits struct {
	// Memory is the address space in bytes.
	Memory uint64
	// FileSize is the largest file that it may write, in bytes.
	FileSize uint64
	// CPU is the processor time, rounded up to whole seconds.
	CPU time.Duration
}

// setLimits limits a program that was just started, on the confined thread.
func setLimits(cmd *exec.Cmd, l Limits) error {
	set := map[int]uint64{}
	if l.Memory > 0 {
		set[unix.RLIMIT_AS] = l.Memory
	}
	if l.FileSize > 0 {
		set[unix.RLIMIT_FSIZE] = l.FileSize
	}
	if l.CPU > 0 {
		set[unix.RLIMIT_CPU] = uint64(math.Ceil(l.CPU.Seconds()))
	}
	if len(set) == 0 {
		return nil
	}
	if cmd.SysProcAttr != nil && cmd.SysProcAttr.Credential != nil {
		restore, err := realUser(cmd.SysProcAttr.Credential.Uid, cmd.SysProcAttr.Credential.Gid)
		if err != nil {
			return fmt.Errorf("limiting a program: %w", err)
		}
		defer restore()
	}
	for resource, value := range set {
		err := unix.Prlimit(cmd.Process.Pid, resource, &unix.Rlimit{Cur: value, Max: value}, nil)
		// A program that has ended already needs no limit.
		if err != nil && err != unix.ESRCH {
			return fmt.Errorf("limiting a program: %w", err)
		}
	}
	return nil
}

// realUser gives this thread the real, not the effective, user and group of a
// program. prlimit(2) goes by those, or by CAP_SYS_RESOURCE, which root lacks in
// many containers. The raw calls change one thread; those of package syscall
// change all.
func realUser(uid, gid uint32) (restore func(), err error) {
	const keep = ^uintptr(0)
	ruid, rgid := unix.Getuid(), unix.Getgid()
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(gid), keep, keep); errno != 0 {
		return nil, errno
	}
	back := func() {
		_, _, _ = unix.RawSyscall(unix.SYS_SETRESUID, uintptr(ruid), keep, keep)
		_, _, _ = unix.RawSyscall(unix.SYS_SETRESGID, uintptr(rgid), keep, keep)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), keep, keep); errno != 0 {
		back()
		return nil, errno
	}
	return back, nil
}
