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
	// Object is the module that the function is in, "" for the kernel itself. Section
	// is the module's section that Addr then counts from.
	Object, Section string

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
	// AltFields are the parts of Alts that depend on where the kernel is.
	AltFields []AltField
	// Ref is for the ref kinds, and in modules what Target is elsewhere.
	Ref *Ref
}

// AltField is a part of one of Alts that depends on where the kernel is.
type AltField struct {
	Alt, Off int
	Kind     string // KindAbs32, KindAbs64 or KindRel32Fixed, in modules one of the ref kinds
	Ref      *Ref
}

// Ref is an address of the running kernel: that of a symbol, or of a place in a
// section of a loaded module, plus Addend.
type Ref struct {
	Object  string // "vmlinux" or a module's name
	Symbol  string // in kallsyms
	Sympos  int    // position of Symbol, 0 if it must be the only one of its name
	Section string // of Object, if there is no Symbol
	Offset  uint64 // in Section
	Addend  int64
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

	// Of modules, whose loader fills these fields with what Ref says.
	KindRef32   = "ref32"   // low half of it, which stands for all of it
	KindRef64   = "ref64"   // all of it
	KindRefPC32 = "refpc32" // counted from the field
	KindRefPC64 = "refpc64" // the same in 8 bytes
)

// Kernel is the live side.
type Kernel struct {
	Text               io.ReaderAt                // live memory; offset is the virtual address
	Slide              uint64                     // KASLR: live address minus link address of the text
	Symbols            func(name string) []uint64 // live addresses in kallsyms order
	TextEnd, TextStart uint64                     // live bounds of the core kernel text

	// InModule is Symbols of a loaded module. It is needed for CheckModules only.
	InModule func(module, name string) []uint64

	section func(module, section string) (uint64, error) // where a loaded module's section is
}

// NewKernel describes the running kernel by its symbols and its memory. The slide
// comes from where the first expected function is; without one it is 0 and only
// modules can be checked.
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

// Check compares every expectation with k; those of modules are for CheckModules. The first mismatch is returned as a
// *Mismatch; so is a function whose memory cannot be read.
func Check(k Kernel, exp []Expectation) error { return check(k, exp) }
