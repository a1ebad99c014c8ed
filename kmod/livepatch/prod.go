// SPDX-License-Identifier: Apache-2.0

package livepatch

import (
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// stopWait is how long a thread gets to stop. One that sleeps does so at once; one
// that does not has begun to do something else, and so needs no prodding.
const stopWait = 50 * time.Millisecond

// prod makes sleeping threads of user space pass the kernel's exit, where a task
// changes sides: they are seized and interrupted as by a debugger, which wakes them
// without a signal being delivered, and let go again. What they slept in is
// restarted by the kernel. It is what the kernel's own fake signal does, only
// sooner. Threads that may not be traced, or are, are left to that.
func prod(threads []int) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		// Only the thread that seized may let go. It is not given back to the runtime:
		// when it ends, the kernel lets go of whatever it still holds. The main thread
		// never ends, so that it only waits here for another.
		runtime.LockOSThread()
		if unix.Gettid() == os.Getpid() {
			prod(threads)
			runtime.UnlockOSThread()
			return
		}
		for _, tid := range threads {
			prodOne(tid)
		}
	}()
	<-done
}

func prodOne(tid int) {
	// A thread of ours cannot be traced by us; the runtime ignores a stray SIGURG.
	if unix.Tgkill(os.Getpid(), tid, unix.SIGURG) == nil {
		return
	}
	if unix.PtraceSeize(tid) != nil {
		return
	}
	if unix.PtraceInterrupt(tid) != nil {
		return
	}
	for end := time.Now().Add(stopWait); ; time.Sleep(time.Millisecond) {
		var status unix.WaitStatus
		got, err := unix.Wait4(tid, &status, unix.WNOHANG|unix.WALL, nil)
		if err != nil && err != unix.EINTR {
			return
		}
		if got == tid {
			if status.Stopped() {
				deliver(tid, status)
			}
			return
		}
		if time.Now().After(end) {
			return
		}
	}
}

// deliver lets a stopped thread go. It may have stopped for a signal of somebody
// else that came at the same moment, which then goes on its way with it.
func deliver(tid int, status unix.WaitStatus) {
	signal := 0
	// The stop of PTRACE_INTERRUPT is an event, and so is that of a group.
	if status>>16 == 0 {
		signal = int(status.StopSignal())
	}
	_, _, _ = unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_DETACH, uintptr(tid), 0, uintptr(signal), 0, 0)
}
