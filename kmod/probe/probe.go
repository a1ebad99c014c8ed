// SPDX-License-Identifier: Apache-2.0

// Package probe finds out what the running kernel can do. Answers are
// three-valued: "don't know" is never taken for "no", nor for "go ahead".
package probe

import "io/fs"

// Answer of a probe.
type Answer int

const (
	Unknown Answer = iota // it could not be found out
	Yes
	No
)

// Finding is an answer with what it rests on.
type Finding struct {
	Answer Answer
	Detail string // "kernel lockdown is integrity", "/proc/kcore: permission denied"
	Remedy string // what an administrator can do where the answer is in the way, may be empty
}

// Kernel is what the probes found.
type Kernel struct {
	Release        string
	BuildID        string  // lower-case hex, "" if unreadable
	Livepatch      Finding // CONFIG_LIVEPATCH and its sysfs
	UnsignedModule Finding // an unsigned module can be loaded: lockdown, module.sig_enforce, modules_disabled
	SignedModule   Finding // one that is signed with a key that the kernel trusts can be: modules_disabled
	Kallsyms       Finding // real addresses in /proc/kallsyms
	Kcore          Finding // text readable through /proc/kcore
}

// Run probes the system whose /proc and /sys are below root ("proc/…", "sys/…", "boot/…").
func Run(root fs.FS) Kernel { return run(root) }

func (a Answer) String() string {
	switch a {
	case Yes:
		return "yes"
	case No:
		return "no"
	}
	return "unknown"
}
