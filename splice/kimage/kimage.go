// SPDX-License-Identifier: Apache-2.0

// Package kimage opens a shipped kernel image (vmlinuz) as the thing that the
// engine compares objects with: its bytes at their link addresses, its symbols,
// its exports, its types and its tables of self-modifying sites.
//
// Nothing but the image is needed: symbols come from the kallsyms tables inside
// it, because distributions do not ship System.map or a vmlinux with symbols.
package kimage

import (
	"io"
)

// Image is an opened kernel image, or a shipped module linked against one. It is
// safe for concurrent use.
type Image struct {
	Name     string // "vmlinux", or the module's name as /proc/modules has it: "virtio_blk"
	Release  string // from the banner, e.g. "6.1.0-55-cloud-amd64"
	Banner   string // linux_banner without the newline
	BuildID  string // lower-case hex of the GNU build id note
	Vmlinux  []byte // the extracted ELF file with the relocation list behind it; Open takes it too
	Sections []Section
	Symbols  []Symbol // in kallsyms order, the order sympos counts in
	Exports  map[string]Export
	Sites    []Site // sorted by Addr, then Kind

	// Entries counts the entries of each table, those that announce nothing
	// (zero padding) excepted. Alternatives that overlap are one site.
	Entries map[SiteKind]int

	// EntrySize is the size of an entry of each table in bytes. What stands first in
	// an entry says where the site is.
	EntrySize map[SiteKind]int

	// Slid lists the fields that the boot code adds the KASLR slide to, or
	// subtracts it from, sorted by Addr. It is nil if the image has no such list. Of a
	// module it is the fields of Relocs that hold an address.
	Slid []Slid

	// The rest is for modules only, see OpenModule.

	Vermagic string   // modinfo, without "vermagic="
	Depends  []string // modinfo: the modules that it needs
	Imports  []Import // sorted by Name
	// Relocs are the fields of the module that its loader fills, sorted by Addr.
	Relocs []ModuleReloc

	alloc  []Section // Sections with an address, sorted by it
	byName map[string]int32
	next   []int32  // index of the next symbol of the same name, -1 at the end
	byAddr []Symbol // sorted by address; those of a module that Symbols does not have too

	lay    func() (*layouts, error)
	thunks func() thunks
	nops   [][]byte // index n: the kernel's NOP of n bytes

	altFlags int // offset of the flags in an entry of .altinstructions, 0 if there are none

	vmlinux  *Image          // of a module
	ownBTF   []byte          // of a module
	unstable map[string]bool // names whose position changes once a module has been started
}

// Section is one allocated section of vmlinux.
type Section struct {
	Name string
	Addr uint64
	Size uint64
	Data []byte // nil for .bss and the like
	Exec bool
}

// Symbol is one kallsyms entry.
type Symbol struct {
	Name string
	Addr uint64 // link address; per-cpu symbols are small absolute numbers
	Kind byte   // nm letter: T, t, D, d, B, b, R, r, A, W …
}

// Export is one EXPORT_SYMBOL of vmlinux.
type Export struct {
	Addr      uint64
	CRC       uint32 // of CONFIG_MODVERSIONS; HasCRC says whether the kernel has it
	HasCRC    bool
	GPLOnly   bool
	Namespace string
}

// Import is a symbol that a module takes from vmlinux or from another module.
type Import struct {
	Name   string
	Object string // "vmlinux" or the module that exports it, "" if that is not known
	// Addr is that of the vmlinux image, or a made-up one that no other symbol has.
	Addr   uint64
	Sympos int // its position in the kallsyms of vmlinux if the name is ambiguous there, else 0
}

// ModuleReloc is a field of a module that its loader fills.
type ModuleReloc struct {
	Addr   uint64 // link address of the field
	Len    int    // 4 or 8
	PCRel  bool   // counts from the field's own address
	Signed bool   // 4 bytes that are sign-extended to an address (R_X86_64_32S)
	Object string // where the symbol is: "vmlinux", this module's or another module's name
	Symbol string // imported, or of a per-cpu variable; "" for a place in a section of this module
	Sympos int    // of a Symbol of vmlinux whose name is ambiguous, else 0
	// Section and Offset: the place in this module that the field refers to.
	Section string
	Offset  uint64
	Addend  int64
}

// SiteKind says which table of the kernel announces that the kernel rewrites a site.
type SiteKind string

// The tables of x86-64 (arch/x86/kernel/vmlinux.lds.S, include/asm-generic/vmlinux.lds.h).
const (
	SiteMcount      SiteKind = "mcount"      // __mcount_loc
	SiteReturn      SiteKind = "return"      // .return_sites
	SiteRetpoline   SiteKind = "retpoline"   // .retpoline_sites
	SiteStaticCall  SiteKind = "static_call" // .static_call_sites
	SiteJumpLabel   SiteKind = "jump_label"  // __jump_table
	SiteAlternative SiteKind = "alternative" // .altinstructions
	SiteParavirt    SiteKind = "paravirt"    // .parainstructions
	SiteSMPLock     SiteKind = "smp_lock"    // .smp_locks
)

// Site is one place in the text that the running kernel may have rewritten. The
// bytes of the image are always a possible content too. Sites of different kinds
// may overlap: a paravirtual call inside an alternative, for example.
type Site struct {
	Addr uint64 // link address of the first byte that may differ
	Kind SiteKind

	// Len is the number of bytes that may differ:
	//
	//   mcount       5: call __fentry__
	//   return       5: jmp to a return thunk
	//   retpoline    the call or jmp to a thunk with a CS prefix, if it has one: 5 or 6; a conditional jump: 6
	//   static_call  5: call or jmp; a conditional tail call: 6
	//   jump_label   2 or 5: jmp or NOP
	//   alternative  the range that the entries of the table for this place cover together
	//   paravirt     what the table says
	//   smp_lock     1: the lock prefix
	//   call         5: call of Target
	//   endbr        4: endbr64
	//   runtime_ptr  8: an immediate operand
	//   runtime_shift 1: an immediate operand
	Len int

	// Target is for jump_label the link address that the jmp goes to, for
	// static_call that of the key, for return and retpoline that of the thunk which
	// the image calls there, for call that of the function, for runtime_ptr and
	// runtime_shift that of the variable whose value is written there; else 0.
	Target uint64

	// Key is the link address of the static key of a jump_label, else 0.
	Key uint64

	// Alts is for alternative every content of the range, other than that of the
	// image, that any combination of CPU features leads to, at the site's own
	// address (PC-relative fields recomputed) and padded to Len. It is nil if they are
	// too many.
	Alts [][]byte
	// AltSlid has for each of Alts the fields in it that depend on the KASLR slide,
	// nil if none of them has any.
	AltSlid [][]AltSlid
}

// AltSlid is a field in one content of an alternative that depends on the KASLR slide.
type AltSlid struct {
	Off  int
	Kind SlidKind
}

// Slid is a field that depends on the KASLR slide (arch/x86/tools/relocs.c).
type Slid struct {
	Addr uint64 // link address of the field
	Kind SlidKind
}

// SlidKind says what the boot code does to the field.
type SlidKind string

// The lists of the image.
const (
	SlidAbs32    SlidKind = "abs32"  // 4 bytes, plus slide
	SlidAbs64    SlidKind = "abs64"  // 8 bytes, plus slide
	SlidNegRel32 SlidKind = "rel32-" // 4 bytes, minus slide: PC-relative to a per-cpu address
)

// Len returns the number of bytes of the field.
func (k SlidKind) Len() int {
	if k == SlidAbs64 {
		return 8
	}
	return 4
}

// Open extracts and parses a vmlinuz (bzImage) or a bare vmlinux of size bytes.
// Errors name the part of the image that could not be read.
func Open(r io.ReaderAt, size int64) (*Image, error) { return open(r, size) }

// At returns n bytes at link address addr, or nil if they are not inside one section with contents.
func (im *Image) At(addr uint64, n int) []byte { return im.at(addr, n) }

// Lookup returns the symbols called name in kallsyms order.
func (im *Image) Lookup(name string) []Symbol { return im.lookup(name) }

// Sympos returns the livepatch position of the symbol called name at addr: 1-based
// among the symbols of that name, 0 if there is none. ambiguous is true if more
// than one symbol has the name. In a module, a symbol whose position changes when the
// loader frees what only the start needs has none.
func (im *Image) Sympos(name string, addr uint64) (pos int, ambiguous bool) {
	return im.sympos(name, addr)
}

// SymbolAt returns the symbols whose address is exactly addr, in a module imported
// ones too.
func (im *Image) SymbolAt(addr uint64) []Symbol { return im.symbolAt(addr) }

// SitesIn returns the sites in [addr, addr+n).
func (im *Image) SitesIn(addr uint64, n int) []Site { return im.sitesIn(addr, n) }

// SlidIn returns the fields that start in [addr, addr+n) and depend on the KASLR slide.
func (im *Image) SlidIn(addr uint64, n int) []Slid { return im.slidIn(addr, n) }

// SymbolAfter returns the first address above addr that a symbol has, 0 if there is none.
func (im *Image) SymbolAfter(addr uint64) uint64 { return im.symbolAfter(addr) }

// BTF returns the contents of the .BTF section, nil if the image has none.
func (im *Image) BTF() []byte { return im.btf() }

// Struct returns the size of a C struct of the kernel and the offsets of its
// members, those of anonymous members included, in bytes, as BTF has them.
func (im *Image) Struct(name string) (size int, members map[string]int, ok bool) {
	l, err := im.lay()
	if err != nil {
		return 0, nil, false
	}
	r, err := l.of(name)
	return r.size, r.fields, err == nil
}
