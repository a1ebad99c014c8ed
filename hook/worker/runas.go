// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"os/user"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/upsplice/upsplice/hook/outcome"
)

// Account is a user that programs are run as.
type Account struct {
	Name     string
	UID, GID uint32
}

// Lookup returns the account of an unprivileged user. The error is an
// *outcome.Error: Failed if there is no such user, Refused if it is root.
func Lookup(name string) (Account, error) {
	what := "looking up the user " + name
	u, err := user.Lookup(name)
	if err != nil {
		return Account{}, &outcome.Error{
			Outcome: outcome.Failed, What: what, Err: err,
			Remedy: "reinstall the upsplice package, which makes the user, or set build_user",
		}
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return Account{}, &outcome.Error{Outcome: outcome.Failed, What: what, Err: err}
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return Account{}, &outcome.Error{Outcome: outcome.Failed, What: what, Err: err}
	}
	if uid == 0 || gid == 0 {
		return Account{}, &outcome.Error{
			Outcome: outcome.Refused, Check: "build user", What: what,
			Err:    errors.New("it has the rights of root"),
			Remedy: "set build_user to an unprivileged user",
		}
	}
	return Account{Name: name, UID: uint32(uid), GID: uint32(gid)}, nil
}

// RunOptions of RunAs.
type RunOptions struct {
	// Dir is the working directory; "" means /.
	Dir string
	// Env is added to the clean environment.
	Env []string
	// WaitDelay is how long output may be read after the program was killed; 0
	// means 5 s.
	WaitDelay time.Duration
}

// RunAs returns a command that runs as user, which must not be root, with a
// clean environment, no further groups and in a process group of its own. The
// group is killed when ctx is done, the program when this process dies. Start it
// with Start or Run to have also no_new_privs and limits. A process that is not
// root can only run as itself.
func RunAs(ctx context.Context, user string, opt RunOptions, argv ...string) (*exec.Cmd, error) {
	account, err := Lookup(user)
	if err != nil {
		return nil, err
	}
	if len(argv) == 0 {
		return nil, errors.New("running a program: no program named")
	}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = opt.Dir
	if cmd.Dir == "" {
		cmd.Dir = "/"
	}
	cmd.Env = append([]string{
		"PATH=" + defaultPath, "HOME=/nonexistent", "USER=" + account.Name,
		"LOGNAME=" + account.Name, "LC_ALL=C.UTF-8",
	}, opt.Env...)
	cmd.WaitDelay = opt.WaitDelay
	if cmd.WaitDelay == 0 {
		cmd.WaitDelay = 5 * time.Second
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return killGroup(cmd.Process) }
	switch os.Geteuid() {
	case 0:
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: account.UID, Gid: account.GID}
	case int(account.UID):
	default:
		return nil, &outcome.Error{
			Outcome: outcome.Failed, What: "running " + argv[0] + " as " + account.Name,
			Err: syscall.EPERM, Remedy: "run upsplice as root",
		}
	}
	return cmd, nil
}

// killGroup kills the process group that p leads.
func killGroup(p *os.Process) error {
	err := syscall.Kill(-p.Pid, syscall.SIGKILL)
	if err == syscall.ESRCH {
		return os.ErrProcessDone
	}
	return err
}

// Start starts cmd so that neither it nor its children can gain privileges
// (no_new_privs), and within limits.
func Start(cmd *exec.Cmd, limits Limits) error {
	var err error
	Confined(func() {
		if err = cmd.Start(); err == nil {
			if err = setLimits(cmd, limits); err != nil {
				_ = killGroup(cmd.Process)
				_ = cmd.Wait()
			}
		}
	})
	return err
}

// Run is Start, then Wait; what the program left running in its process group
// is killed.
func Run(cmd *exec.Cmd, limits Limits) error {
	if err := Start(cmd, limits); err != nil {
		return err
	}
	err := cmd.Wait()
	if cmd.SysProcAttr != nil && cmd.SysProcAttr.Setpgid {
		// The kernel does not give the number to another process as long as the
		// group has members.
		_ = killGroup(cmd.Process)
	}
	return err
}

// confined is a thread that has no_new_privs and lives as long as the process.
// Both matter: a child inherits the attribute from the thread that forks it, and
// its parent-death signal comes when that thread ends, which for other threads
// is up to the Go runtime.
var confined = sync.OnceValue(func() chan<- func() {
	work := make(chan func())
	go func() {
		runtime.LockOSThread()
		// Only a kernel before 3.5 refuses.
		_ = unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
		for f := range work {
			f()
		}
	}()
	return work
})

// Confined runs f on a thread whose children cannot gain privileges, for
// callers that start a process through a library. f must not wait for another
// Confined.
func Confined(f func()) {
	done := make(chan struct{})
	confined() <- func() {
		defer close(done)
		f()
	}
	<-done
}
