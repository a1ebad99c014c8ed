// SPDX-License-Identifier: Apache-2.0

// Package livepatch writes the kernel module that carries a splice: a livepatch
// module as Documentation/livepatch/module-elf-format.rst describes it, made
// without kbuild, ld or modpost. Everything that depends on the kernel version
// (struct sizes and offsets, symbol CRCs) is read from the image.
//
// What goes into the module, beside the functions asked for: their .cold parts;
// strings, constants and __func__, of which a copy is as good; data that
// Unit.Resolve says to copy, with all they refer to; and the entries of the
// special sections that are about the copied code. All else is referred to where
// it is in the running kernel.
//
// # Targets
//
// vmlinux and each module that is patched have a klp_object of their own. What code
// of a module refers to in that module, and in others that this depends on, is
// filled in by the livepatch core whenever the module is loaded, from
// .klp.rela.MODULE sections: our own module never depends on one that may not be
// there. The kernel does that after it has processed the special sections, so none
// of these can refer to a module; what becomes of their entries is said where they
// are handled. Code that is used from several targets must not refer to a module.
//
// Each module has the callbacks of kmod/cfiles/support before those of its units:
// they refuse a module of another build, and where the kernel does not do it
// (before Linux 6.3) they clear what was filled in when the module goes, without
// which it could not be loaded again.
//
// # Addresses of vmlinux
//
// What vmlinux exports is an ordinary undefined symbol. All else of it is referred to
// by its distance from one export, as the image has it: for a livepatch symbol each the
// kernel would take seconds (see fixed). For this the kernel must be the very build of
// the image. Whoever loads the module makes sure of that first; the module's init
// function compares the build id once more, before anything of the kernel is changed,
// and ends with ENOEXEC if it is another one.
//
// # Addresses of functions
//
// A call from the module to a function that it replaces goes to the new function.
// Any other use of the address of such a function means the replaced one, to
// which ftrace is attached: what is stored (in a timer, a work item, a table of
// operations) leads to the new code as long as the splice is applied, to the old
// code afterwards, and outlives the module. It is also the address that the rest of
// the kernel compares with.
//
// The address of a new function can only be in the module. Nobody can tell who
// still knows it when the splice has been undone, so a module that uses such an
// address for anything but a direct call has no exit function: the kernel never
// unloads it, a timer that comes late finds its code, and the memory stays in use
// until the next boot. Module.Pinned says so. The alternative, to forget nothing
// and unload nonetheless, would be a crash at some later time.
package livepatch

import (
	"github.com/upsplice/upsplice/splice/kimage"
	"github.com/upsplice/upsplice/splice/object"
)

// Source says where a symbol that the new code refers to is.
type Source int

const (
	Copied   Source = iota // defined in the post object and copied into the module with its section
	Exported               // exported by vmlinux: an ordinary undefined symbol with its CRC
	Running                // local to the running kernel: a livepatch symbol
)

// Resolution is where one post symbol is found.
type Resolution struct {
	Source Source
	// Object is "vmlinux" or, with Running, a module's name: the unit's own target, or
	// one that this depends on. What a module exports is Running too.
	Object string
	Name   string // Exported, Running: name in kallsyms
	Sympos int    // Running: 0 if the name is unique in Object, else 1-based
}

// Function is one function of the post object that goes into the module.
type Function struct {
	Post      *object.Symbol
	OldName   string // the function it replaces, "" for a new one
	OldSympos int    // 0 if OldName is unique
}

// Unit is what is taken from one post object.
type Unit struct {
	Name      string // "fs/ext4/mballoc.o"
	Target    string // what it is part of: "vmlinux", or a module's name as in /proc/modules
	Post      *object.Object
	Functions []Function
	// Resolve says where each symbol referred to from the functions, or from what
	// is copied with them, is. An error refuses the unit and names the symbol.
	Resolve func(*object.Symbol) (Resolution, error)
	// Callbacks are functions of Post that run when Target is patched or unpatched.
	// They are among Functions.
	Callbacks []Callback
}

// Callback is a function that the livepatch core calls for a target
// (Documentation/livepatch/callbacks.rst).
type Callback struct {
	When     string // PrePatch and so on
	Function *object.Symbol
}

// When callbacks run: the names of the members of struct klp_callbacks.
const (
	PrePatch    = "pre_patch"
	PostPatch   = "post_patch"
	PreUnpatch  = "pre_unpatch"
	PostUnpatch = "post_unpatch"
)

// Input of Write.
type Input struct {
	Name     string // of the module: "upsplice_3f9c2a"
	Vermagic string // of the kernel's modules; without the "vermagic=" prefix
	Image    *kimage.Image
	Modules  map[string]*kimage.Image // by name: every module that is a Unit's Target
	Units    []Unit
	Replace  bool // atomic replace of earlier livepatches
	// Support is kmod/cfiles/support/target.c, compiled for the kernel as a unit of a
	// module is. Without it units of modules are refused.
	Support *object.Object
}

// Module is a written livepatch module.
type Module struct {
	Data []byte
	// Pinned: the module cannot be unloaded, because something may still use the
	// address of a new function after the livepatch is disabled.
	Pinned bool
	Notes  []string // what behaves in another way than in vmlinux, for people
}

// MaxSections is how many sections a module may have. The kernel keeps a copy of a
// livepatch's section headers, 64 bytes each, in one piece of physical memory
// (copy_module_elf in kernel/module/livepatch.c); the allocator has no more than 4 MB in
// one piece at best, and on a machine that is long up often less. A function makes
// 2.6 sections: its own, that of its relocations, its share of data.
const MaxSections = 16000

// Write returns the bytes of the module. The same input gives the same bytes.
//
// What a unit has that a module cannot carry ends in an UnsupportedError, more than
// one module can carry (some 6,000 functions) in a TooLargeError; other
// errors are about the input as a whole: a name, the vermagic, types that the
// image lacks.
func Write(in Input) (Module, error) { return write(in) }
