// SPDX-License-Identifier: Apache-2.0

// Package vmtest boots a shipped kernel with a tiny system in QEMU and runs
// something in it, for tests and for the demonstration. The machine itself is that
// of package vm.
package vmtest

import "github.com/upsplice/upsplice/kmod/vm"

// The parts of package vm that tests use.
type (
	Machine          = vm.Machine
	Disk             = vm.Disk
	Result           = vm.Result
	MissingToolError = vm.MissingToolError
	TimeoutError     = vm.TimeoutError
)
