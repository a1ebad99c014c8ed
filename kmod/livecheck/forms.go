// SPDX-License-Identifier: Apache-2.0

package livecheck

import (
	"bytes"
	"encoding/binary"
	"strings"
)

// site is one announced place.
type site struct {
	f          *function
	addr       uint64 // live
	orig, have []byte // of the field's length
	field      Field
}

// forms says of each kind whether the bytes are among the known forms. What the
// kernel writes is in arch/x86/kernel/{alternative,static_call,jump_label,ftrace,
// paravirt}.c; where the present state of the kernel decides (static calls,
// paravirt), it is read and only its form is accepted.
var forms = map[string]func(site) bool{
	KindMcount:     site.mcount,
	KindReturn:     site.ret,
	KindRetpoline:  site.retpoline,
	KindStaticCall: site.staticCall,
	KindJumpLabel:  site.jumpLabel,
	KindParavirt:   site.paravirt,
	KindSMPLock:    site.smpLock,
	KindCall:       site.call,
	KindEndbr:      site.endbr,
	KindPtr:        site.runtimePtr,
	KindShift:      site.runtimeShift,
}

const (
	opCall = 0xe8
	opJmp  = 0xe9
	opJmp8 = 0xeb
	int3   = 0xcc
	nop1   = 0x90
)

var (
	nop2    = []byte{0x66, 0x90}
	nop5    = []byte{0x0f, 0x1f, 0x44, 0x00, 0x00}
	retOnly = []byte{0xc3, int3, int3, int3, int3}
	// Two encodings of "xor %eax, %eax" in five bytes, of older and newer kernels.
	zeroAX = [][]byte{{0x2e, 0x2e, 0x2e, 0x31, 0xc0}, {0x66, 0x66, 0x48, 0x31, 0xc0}}
)

func (s site) same() bool { return bytes.Equal(s.have, s.orig) }

// branch returns the live target if b, standing at addr, is op with a 32-bit displacement.
func branch(b []byte, addr uint64, op byte) (target uint64, ok bool) {
	if len(b) != 5 || b[0] != op {
		return 0, false
	}
	return addr + 5 + uint64(int64(int32(binary.LittleEndian.Uint32(b[1:])))), true
}

// branchTo makes op with a 32-bit displacement to target.
func branchTo(op byte, addr, target uint64) []byte {
	return binary.LittleEndian.AppendUint32([]byte{op}, uint32(target-addr-5))
}

func (s site) is(target uint64, names ...string) bool {
	for _, n := range names {
		for _, a := range s.f.Symbols(n) {
			if a == target {
				return true
			}
		}
	}
	return false
}

// mcount: the call as compiled, switched off, or going to a tracer. Tracers that
// livepatch uses are trampolines outside of the kernel's text.
func (s site) mcount() bool {
	if s.same() || bytes.Equal(s.have, nop5) {
		return true
	}
	target, ok := branch(s.have, s.addr, opCall)
	if !ok {
		return false
	}
	outside := target < s.f.TextStart || target >= s.f.TextEnd
	return outside || s.is(target, "ftrace_caller", "ftrace_regs_caller")
}

// returnThunks are the thunks that mitigations send returns to.
var returnThunks = []string{
	"__x86_return_thunk", "retbleed_return_thunk", "zen_return_thunk",
	"srso_return_thunk", "srso_alias_return_thunk", "its_return_thunk", "call_depth_return_thunk",
}

func (s site) ret() bool { return s.same() || s.returns(s.have) }

// returns: a plain return, or a jump to a return thunk.
func (s site) returns(b []byte) bool {
	if bytes.Equal(b, retOnly) {
		return true
	}
	target, ok := branch(b, s.addr, opJmp)
	return ok && s.is(target, returnThunks...)
}

func (s site) smpLock() bool { return len(s.have) == 1 && (s.have[0] == 0xf0 || s.have[0] == 0x3e) }

// jumpLabel: a NOP of the length of the site, or the jump to the one target.
func (s site) jumpLabel() bool {
	target := s.field.Target + s.f.Slide
	switch len(s.have) {
	case 2:
		return bytes.Equal(s.have, nop2) || s.have[0] == opJmp8 && s.addr+2+uint64(int64(int8(s.have[1]))) == target
	case 5:
		return bytes.Equal(s.have, nop5) || bytes.Equal(s.have, branchTo(opJmp, s.addr, target))
	}
	return false
}

// staticCall: as compiled, to the trampoline; or in the form for the function
// that its key holds now (struct static_call_key starts with it).
func (s site) staticCall() bool {
	if s.same() {
		return true
	}
	if s.field.Target == 0 {
		return false
	}
	// The lowest bits of a key's address in the table are flags.
	fn, ok := s.f.word(s.field.Target&^3 + s.f.Slide)
	if !ok {
		return false
	}
	switch {
	case len(s.orig) == 5 && s.orig[0] == opCall:
		call := branchTo(opCall, s.addr, fn)
		switch {
		case fn == 0:
			return bytes.Equal(s.have, nop5)
		case s.is(fn, "__static_call_return0"):
			// Where calls are counted, the kernel does not see which function it is.
			return bytes.Equal(s.have, zeroAX[0]) || bytes.Equal(s.have, zeroAX[1]) || s.counted(call)
		}
		return bytes.Equal(s.have, call) || s.counted(call)
	case len(s.orig) == 5 && s.orig[0] == opJmp:
		if fn == 0 {
			return s.returns(s.have)
		}
		return bytes.Equal(s.have, branchTo(opJmp, s.addr, fn))
	case len(s.orig) == 6 && s.orig[0] == 0x0f && s.orig[1]&0xf0 == 0x80:
		// A conditional tail call: only its target changes.
		target, ok := branch(s.have[1:], s.addr+1, s.orig[1])
		if !ok || s.have[0] != 0x0f {
			return false
		}
		if fn == 0 {
			return s.is(target, append([]string{"__static_call_return"}, returnThunks...)...)
		}
		return target == fn
	}
	return false
}

// paravirt: as compiled, an indirect call through a slot of pv_ops; or in the
// form for the function that the slot holds now.
func (s site) paravirt() bool {
	if s.same() {
		return true
	}
	now := s.paravirtNow()
	return now != nil && (equalCode(s.have, now) || s.counted(now))
}

// paravirtNow returns what the kernel makes of the original, nil if that cannot be told.
func (s site) paravirtNow() []byte {
	var slot uint64
	le := binary.LittleEndian
	switch {
	case len(s.orig) >= 6 && s.orig[0] == 0xff && s.orig[1] == 0x15: // call *slot(%rip)
		slot = s.addr + 6 + uint64(int64(int32(le.Uint32(s.orig[2:]))))
	case len(s.orig) >= 7 && s.orig[0] == 0xff && s.orig[1] == 0x14 && s.orig[2] == 0x25: // call *slot
		slot = uint64(int64(int32(le.Uint32(s.orig[3:]))))
	default:
		return nil
	}
	fn, ok := s.f.word(slot)
	if !ok {
		return nil
	}
	out := bytes.Repeat([]byte{nop1}, len(s.orig))
	switch {
	case fn == 0:
		bugs := append(s.f.Symbols("paravirt_BUG"), s.f.Symbols("BUG_func")...)
		if len(bugs) != 1 {
			return nil
		}
		fn = bugs[0]
	case s.is(fn, "_paravirt_nop", "nop_func"):
		return out
	}
	copy(out, branchTo(opCall, s.addr, fn))
	return out
}

// registers in the order of their numbers in instructions.
var registers = strings.Fields("rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15")

// retpoline: as compiled, a branch to the thunk of a register; or the indirect
// branch itself, or one to a thunk that does the same with other mitigations.
func (s site) retpoline() bool {
	if s.same() {
		return true
	}
	prefix, orig := 0, s.orig
	if len(orig) == 6 && orig[0] == 0x2e {
		prefix, orig = 1, orig[1:]
	}
	if len(orig) != 5 || orig[0] != opCall && orig[0] != opJmp {
		return false // conditional jumps to thunks come from clang only
	}
	op := orig[0]
	thunk, _ := branch(orig, s.addr+uint64(prefix), op)
	reg := -1
	for i, r := range registers {
		if s.is(thunk, "__x86_indirect_thunk_"+r) {
			reg = i
			break
		}
	}
	if reg < 0 {
		return false
	}
	for _, fence := range [][]byte{nil, {0x0f, 0xae, 0xe8}} {
		if b := indirect(fence, op, reg, len(s.orig)); b != nil && equalCode(s.have, b) {
			return true
		}
	}
	if !bytes.Equal(s.have[:prefix], s.orig[:prefix]) {
		return false
	}
	target, ok := branch(s.have[prefix:], s.addr+uint64(prefix), op)
	if !ok {
		return false
	}
	if s.is(target, "__x86_indirect_call_thunk_"+registers[reg], "__x86_indirect_jump_thunk_"+registers[reg]) {
		return true
	}
	// Thunks against ITS are made at boot wherever there is room: what counts is
	// that they jump to the same register.
	jump := indirect(nil, opJmp, reg, 0)
	code := make([]byte, len(jump))
	return s.f.read(code, target) && bytes.Equal(code, jump)
}

// indirect makes "call *reg" or "jmp *reg; int3" after a fence, filled with NOPs
// to n bytes; nil if it does not fit. An n of 0 means the bare instruction.
func indirect(fence []byte, op byte, reg, n int) []byte {
	b := bytes.Clone(fence)
	if reg >= 8 {
		b = append(b, 0x41)
	}
	modrm := byte(0xd0)
	if op == opJmp {
		modrm = 0xe0
	}
	b = append(b, 0xff, modrm+byte(reg&7))
	if n == 0 {
		return b
	}
	if op == opJmp && len(b) < n {
		b = append(b, int3)
	}
	if len(b) > n {
		return nil
	}
	return append(b, bytes.Repeat([]byte{nop1}, n-len(b))...)
}

// sameJump: the kernel shortens a jump in a replacement where the target is near
// enough, and rewrites a return in it as elsewhere.
func (s site) sameJump(alt []byte) bool {
	if len(alt) < 5 || alt[0] != opJmp {
		return false
	}
	target, _ := branch(alt[:5], s.addr, opJmp)
	if s.is(target, returnThunks...) {
		return s.returns(s.have[:5]) && equalCode(s.have[5:], alt[5:])
	}
	short := bytes.Repeat([]byte{nop1}, len(alt))
	short[0], short[1] = opJmp8, byte(target-s.addr-2)
	copy(short[5:], alt[5:])
	return s.addr+2+uint64(int64(int8(short[1]))) == target && equalCode(s.have, short)
}

// word reads a pointer of the running kernel.
func (f *function) word(addr uint64) (uint64, bool) {
	var b [8]byte
	if !f.read(b[:], addr) {
		return 0, false
	}
	return binary.LittleEndian.Uint64(b[:]), true
}

func (f *function) read(b []byte, addr uint64) bool {
	n, err := f.Text.ReadAt(b, int64(addr))
	if n < len(b) {
		f.unread = err
		return false
	}
	return true
}
