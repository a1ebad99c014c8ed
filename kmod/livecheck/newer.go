// SPDX-License-Identifier: Apache-2.0

package livecheck

import (
	"bytes"
	"encoding/binary"
	"slices"
)

// The forms of the tables that kernels have since 6.2 (arch/x86/kernel/callthunks.c,
// apply_seal_endbr in alternative.c, include/asm/runtime-const.h).

// endbrPoison are the NOPs that stand where an endbr64 was, of older and newer kernels.
var endbrPoison = [][]byte{{0x66, 0x0f, 0x1f, 0x00}, {0x0f, 0x1f, 0x40, 0xd6}}

func (s site) endbr() bool {
	return s.same() || slices.ContainsFunc(endbrPoison, func(p []byte) bool { return bytes.Equal(s.have, p) })
}

// call: as compiled, or counted.
func (s site) call() bool { return s.same() || s.counted(s.orig) }

// counted: what is there is the call that code starts with, made to lead to the
// instructions before the function with which call depth tracking counts it. The
// kernel copies them from a template.
func (s site) counted(code []byte) bool {
	if len(code) < 5 || len(code) != len(s.have) {
		return false
	}
	target, ok := branch(code[:5], s.addr, opCall)
	if !ok {
		return false
	}
	start, end := s.f.Symbols("skl_call_thunk_template"), s.f.Symbols("skl_call_thunk_tail")
	if len(start) != 1 || len(end) != 1 || end[0] <= start[0] || end[0]-start[0] > maxPadding {
		return false
	}
	counted := branchTo(opCall, s.addr, target-(end[0]-start[0]))
	return bytes.Equal(s.have[:5], counted) && equalCode(s.have[5:], code[5:])
}

// maxPadding is more than compilers are asked to leave before a function.
const maxPadding = 64

// runtimePtr: the value of a variable that the boot code sets once.
func (s site) runtimePtr() bool {
	if s.same() {
		return true
	}
	value, ok := s.variable()
	return ok && bytes.Equal(s.have, binary.LittleEndian.AppendUint64(nil, value))
}

func (s site) runtimeShift() bool {
	if s.same() {
		return true
	}
	value, ok := s.variable()
	return ok && bytes.Equal(s.have, []byte{byte(value)})
}

// variable reads the variable that a constant comes from.
func (s site) variable() (uint64, bool) {
	if s.field.Target == 0 {
		return 0, false
	}
	return s.f.word(s.field.Target + s.f.Slide)
}
