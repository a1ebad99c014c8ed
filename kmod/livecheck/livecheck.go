// SPDX-License-Identifier: Apache-2.0

// Package livecheck compares functions of the running kernel with what their
// shipped image says, accepting at announced sites only the known forms of what
// the kernel writes there.
package livecheck

import (
	"io"

	"github.com/upsplice/upsplice/kmod/kallsyms"
)

// Expectation says how one function must look. Addresses are link addresses.
type Expectation struct {
	Name   string
	Sympos int // 1-based among equal names in /proc/kallsyms order
	Addr   uint64
	Bytes  []byte
	Fields []Field
}

// Field is a part that may differ, and how. Fields may overlap: a paravirt call
// is often the original code of an alternative.
type Field struct {
	Off, Len int
	Kind     string   // see the Kind constants
	Target   uint64   // jump label: where it jumps to; static call: its key; call: the function; runtime constant: the variable
	Alts     [][]byte // alternative: the replacements, padded with NOPs, as if they had been linked at this place
	// AltFields are the parts of Alts that KASLR changes.
	AltFields []AltField
}

// AltField is a part of one of Alts that KASLR changes.
type AltField struct {
	Alt, Off int
	Kind     string // KindAbs32, KindAbs64 or KindRel32Fixed
}

// The kinds of fields: one for each table in which x86-64 kernels announce what
// they rewrite, and three for what moving the kernel (KASLR) changes.
const (
	KindMcount      = "mcount"
	KindReturn      = "return"
	KindRetpoline   = "retpoline"
	KindStaticCall  = "static_call"
	KindJumpLabel   = "jump_label"
	KindAlternative = "alternative"
	KindParavirt    = "paravirt"
	KindSMPLock     = "smp_lock"
	KindCall        = "call"
	KindEndbr       = "endbr"
	KindPtr         = "runtime_ptr"
	KindShift       = "runtime_shift"
	KindAbs32       = "abs32"  // low half of an address: grows by the slide
	KindAbs64       = "abs64"  // address: grows by the slide
	KindRel32Fixed  = "rel32-" // relative to something that does not move, as per-cpu data: shrinks by the slide
)

// Kernel is the live side.
type Kernel struct {
	Text               io.ReaderAt                // live memory; offset is the virtual address
	Slide              uint64                     // KASLR: live address minus link address of the text
	Symbols            func(name string) []uint64 // live addresses in kallsyms order
	TextEnd, TextStart uint64                     // live bounds of the core kernel text
}

// NewKernel describes the running kernel by its symbols and its memory. The slide
// comes from where the first expected function is.
func NewKernel(syms *kallsyms.Table, memory io.ReaderAt, exp []Expectation) (Kernel, error) {
	return newKernel(syms, memory, exp)
}

// Mismatch is the error of Check.
type Mismatch struct {
	Function   string
	Offset     int    // of the first byte that is not explained, -1 if the function was not found or could not be read
	Want, Have []byte // from Offset on
	Reason     string
	Err        error // of reading memory, may be nil
}

// Unwrap returns Err.
func (m *Mismatch) Unwrap() error { return m.Err }

func (m *Mismatch) Error() string { return m.error() }

// Check compares every expectation with k. The first mismatch is returned as a
// *Mismatch; so is a function whose memory cannot be read.
func Check(k Kernel, exp []Expectation) error { return check(k, exp) }
