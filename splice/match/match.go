// SPDX-License-Identifier: Apache-2.0

// Package match does run-pre matching (Arnold and Kaashoek, "Ksplice: Automatic
// Rebootless Kernel Updates", EuroSys 2009, section 4.3): it finds each function
// of a pre object in a kernel image by comparing bytes, reads the address of
// every symbol back out of the relocated fields, and demands that exactly one
// candidate remains and that all addresses agree.
//
// The comparison is with the image as it was linked, which nothing has rewritten
// yet, so every byte outside of relocated fields must be equal.
package match

import (
	"github.com/upsplice/upsplice/splice/kimage"
	"github.com/upsplice/upsplice/splice/object"
)

// Found is one function of the object at its place in the image.
type Found struct {
	Symbol *object.Symbol
	Addr   uint64 // link address
	Size   uint64 // in the image, which may have shorter jumps than the object
	Name   string // its name in kallsyms
	Sympos int    // 1-based among equals; see Image.Sympos
	Unique bool   // no other kallsyms entry has the name
	Relocs int    // relocations that agreed
}

// Report is the result of matching one object.
type Report struct {
	// Found has every function of the object that was found, wanted or not.
	Found map[*object.Symbol]Found
	// Addr is the link address of every symbol that the found functions, the
	// constants they refer to and their entries in the kernel's tables imply
	// (functions and data, undefined symbols included), all uses agreeing. A section
	// symbol stands for the start of its section. The address of a per-cpu symbol is
	// its small offset.
	Addr map[*object.Symbol]uint64
	// Failed names every wanted function that was not found, and why.
	Failed []Mismatch
}

// Mismatch says which function did not match and where. It is an error.
type Mismatch struct {
	Function   string
	Offset     int64  // of the first differing byte in the best candidate, -1 if there was no candidate
	Addr       uint64 // link address of that candidate
	Want, Have []byte // from Offset on: of the object, of the image
	Candidates int    // how many places have a fitting name in kallsyms
	Reason     string
}

func (m Mismatch) Error() string { return m.error() }

// Functions matches the wanted functions of o, which must be in symbol table order
// as object.Read leaves it and have been through objtool, with the image. All other
// functions of o are matched too: they help to decide between candidates, and what
// they say about an address must agree.
//
// The error is not about functions, which are in Failed, but about what cannot be
// matched at all: another architecture, an undefined symbol among want.
func Functions(o *object.Object, img *kimage.Image, want []*object.Symbol) (*Report, error) {
	return functions(o, img, want)
}

// Expectation says how a function must look in live memory. Addresses are link
// addresses: KASLR adds one slide to all of them.
type Expectation struct {
	// Object is the module that the function is in, "" for vmlinux. Section is the
	// module's section that Addr then counts from: the loader puts each section
	// where it likes.
	Object  string `json:"object,omitempty"`
	Section string `json:"section,omitempty"`

	Name   string  `json:"name"`
	Sympos int     `json:"sympos"`
	Addr   uint64  `json:"addr"`
	Bytes  []byte  `json:"bytes"`            // of the image
	Fields []Field `json:"fields,omitempty"` // in order of Off
}

// Field is a part of the function that the boot code or the running kernel may
// rewrite. The bytes of the image there are always a possible content; a field
// says what else is. Fields may overlap: an alternative with a paravirtual call or
// a lock prefix inside. Then either one of the alternative's contents is there as
// a whole, or every other field has a content of its own and the rest is as in
// Bytes.
//
// Kind, and what the other members mean for it:
//
//	mcount       Len 5. Image: call __fentry__. Else the 5-byte NOP or a call of an ftrace trampoline.
//	return       Len 5. Image: jmp to a return thunk, whose address is Target. Else a jmp to another one, or ret and int3.
//	retpoline    Len 5 or 6: the call or jmp with its CS prefix. Image: branch to the thunk at Target, which says the register. Else the indirect branch, also behind an lfence, or a branch to another thunk for the register.
//	static_call  Len 5, or 6 for a conditional jump. Target: address of the key (struct static_call_key). Else a call or jmp to the function that the key holds, the 5-byte NOP, xor %eax,%eax with prefixes, ret or a jmp to a return thunk.
//	jump_label   Len 2 or 5. Target: where the jmp leads; the content is that jmp or the NOP of Len bytes.
//	alternative  Len: all bytes that entries for this place cover. Alts: all other contents that any set of CPU features leads to, padded and moved to their place; nil: only the image's.
//	paravirt     Len: the patch site. Image: indirect call or jmp. Else a direct one, padded with NOPs, or NOPs only.
//	smp_lock     Len 1. Image: f0 (lock). Else 3e.
//	abs32        Len 4. Plus slide.
//	abs64        Len 8. Plus slide.
//	rel32-       Len 4. Minus slide: PC-relative to a per-cpu address.
//	ref32        Len 4, in modules. The low half of what Ref says, which it stands for.
//	ref64        Len 8, in modules. What Ref says.
//	refpc32      Len 4, in modules. What Ref says, minus the address of the field.
//	refpc64      Len 8, the same.
//
// In a module Addr is an offset in Section, and Target is 0: of a jump label Ref says
// where it leads, of a static call where the key is, of others what Target would be.
// All ref fields are filled before anything else is compared.
//
// Contents in Alts hold link addresses in PC-relative fields within the kernel's
// text, which no slide changes, and in AltFields.
type Field struct {
	Off    int      `json:"off"` // in the function
	Len    int      `json:"len"`
	Kind   string   `json:"kind"` // a kimage.SiteKind or kimage.SlidKind
	Target uint64   `json:"target,omitempty"`
	Alts   [][]byte `json:"alts,omitempty"`
	// AltFields are the parts of Alts that depend on the slide, in order of Alt and Off.
	AltFields []AltField `json:"alt_fields,omitempty"`
	Ref       *Ref       `json:"ref,omitempty"`
}

// AltField is a part of an alternative's content that depends on the slide.
type AltField struct {
	Alt  int    `json:"alt"`           // which of Alts
	Off  int    `json:"off"`           // in it
	Kind string `json:"kind"`          // a kimage.SlidKind, in a module of the ref kinds
	Ref  *Ref   `json:"ref,omitempty"` // of a ref kind
}

// Ref is what the module loader writes into a field: the address of a symbol or of
// a place in a section of a module, plus Addend.
type Ref struct {
	Object  string `json:"object"`            // "vmlinux" or a module's name
	Symbol  string `json:"symbol,omitempty"`  // of Object, in kallsyms
	Sympos  int    `json:"sympos,omitempty"`  // position of Symbol in kallsyms; 0: the name is unique
	Section string `json:"section,omitempty"` // of Object, if there is no symbol
	Offset  uint64 `json:"offset,omitempty"`  // in Section
	Addend  int64  `json:"addend,omitempty"`
}

// Expect describes found functions of o for the check against live memory, in order
// of address. Which fields depend on the slide is the image's own list: an image
// without one (CONFIG_RELOCATABLE=n) is not moved.
func Expect(img *kimage.Image, _ *object.Object, found []Found) []Expectation {
	return expect(img, found)
}
