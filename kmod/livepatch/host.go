// SPDX-License-Identifier: Apache-2.0

package livepatch

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// errNoDevice is what reading a sysfs file gives whose livepatch is going away.
const errNoDevice = unix.ENODEV

func host() *System {
	return &System{
		Root: "/",
		// init_module takes the bytes that were checked; a file could be another one by now.
		Load:   func(module []byte, params string) error { return unix.InitModule(module, params) },
		Unload: func(name string) error { return unix.DeleteModule(name, unix.O_NONBLOCK) },
		Prod:   prod,
	}
}

// stillUsed: delete_module found references (EAGAIN with O_NONBLOCK) or a module
// that is still in its init (EBUSY).
func stillUsed(err error) bool { return errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EBUSY) }

// refusals says what an errno of init_module or of a write to enabled means
// (init_module(2), kernel/module/main.c, kernel/livepatch/core.c).
var refusals = []struct {
	errno  unix.Errno
	reason Reason
	remedy string
}{
	{unix.EBUSY, Busy, "another livepatch is in its transition; try again when no file transition below /sys/kernel/livepatch holds 1"},
	{unix.EPERM, Forbidden, "needs CAP_SYS_MODULE, kernel lockdown none and kernel.modules_disabled 0; the kernel log has the reason"},
	{unix.EKEYREJECTED, Signature, "the kernel wants a signature by a key that it knows (module.sig_enforce or lockdown); the kernel log says what this one lacks"},
	{unix.ENOKEY, Signature, "the kernel wants modules signed with a key that it knows"},
	{unix.EBADMSG, Signature, "the signature of the module is broken"},
	{unix.ENOEXEC, WrongKernel, "the module was made for another kernel; the kernel log has the reason"},
	{unix.ENOENT, WrongKernel, "the kernel lacks a symbol that the module needs; the kernel log names it"},
	{unix.EEXIST, Busy, "a module of this name is being loaded by somebody else"},
	{unix.EINVAL, Rejected, "the kernel log has the reason"},
}

func refusal(name string, err error) error {
	for _, r := range refusals {
		if errors.Is(err, r.errno) {
			return &RefusedError{Patch: name, Reason: r.reason, Remedy: r.remedy, Err: err}
		}
	}
	return fmt.Errorf("loading livepatch %s: %w", name, err)
}
