// SPDX-License-Identifier: Apache-2.0

// Package kbuild asks the kernel's own build system which units a configuration
// has, which target each belongs to and how it is compiled. It runs `make -n`
// in an output directory seeded from the distribution's header and kbuild
// packages: nothing is built.
package kbuild

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// Materials are the unpacked packages that an output directory is seeded from.
type Materials struct {
	Release string // KERNELRELEASE
	Arch    string // kernel's name, "x86"
	Source  string // prepared source tree
	Headers string // usr/src/linux-headers-RELEASE: .config, include, arch/*/include, Module.symvers
	Kbuild  string // usr/lib/linux-kbuild-X: scripts and tools/objtool
	CC      string // compiler command, "gcc-12"
}

// Output is a seeded output directory.
type Output struct {
	Dir string
	Materials
}

// Seed makes the output directory dir, which must not exist.
func Seed(ctx context.Context, dir string, m Materials) (*Output, error) { return seed(ctx, dir, m) }

// Unit is one translation unit as kbuild compiles it.
type Unit struct {
	Object string   `json:"object"` // "fs/ext4/mballoc.o"
	Source string   `json:"source"` // "fs/ext4/mballoc.c", relative to the source tree
	Target string   `json:"target"` // Vmlinux, Elsewhere, or the module "fs/btrfs/btrfs"
	Args   []string `json:"args"`   // compiler command line, to be run in the output directory

	// Objtool says whether kbuild passes the object through objtool; directories
	// and files can opt out (OBJECT_FILES_NON_STANDARD).
	Objtool bool `json:"objtool"`
}

// Targets that are no modules.
const (
	Vmlinux   = "vmlinux"
	Elsewhere = "elsewhere" // boot code, the vDSO, the EFI stub: compiled beside the kernel, linked into something else
)

// Query asks kbuild for the given targets ("fs/ext4/mballoc.o", "fs/ext4/"), or
// for the whole kernel if there are none. The result is sorted by Object and without
// host tools. Targets that are not part of this configuration are simply not in
// the result; a Source of a generated file has the prefix "O:" and is relative to
// the output directory.
//
// An *IncompleteError comes with the units that could be listed.
func (o *Output) Query(ctx context.Context, targets ...string) ([]Unit, error) {
	return o.query(ctx, targets)
}

// ObjtoolArgs returns how the objects of this configuration are passed through
// objtool: the path of the command and its options, nil where it is not used.
// Objects of modules take "--module" in addition. The options contain "--link"
// where kbuild runs objtool on the linked whole only.
func (o *Output) ObjtoolArgs(ctx context.Context) ([]string, error) { return o.objtool(ctx) }

// Generate makes a file that a unit includes, that a program of the kernel writes and
// that no package has, by kbuild's own rule. It stays in the output directory. A
// *GenerateError says that kbuild does not make a file of that name for the unit.
func (o *Output) Generate(ctx context.Context, u Unit, include string) error {
	var first error
	for _, name := range places(u, include) {
		err := o.generate(ctx, name)
		var none *GenerateError
		if err == nil || !errors.As(err, &none) {
			return err
		}
		if first == nil {
			first = err
		}
	}
	return first
}

// IncompleteError says that kbuild could not list every unit.
type IncompleteError struct {
	Messages []string // what make said, at most 20
}

func (e *IncompleteError) Error() string {
	return fmt.Sprintf("listing units: make could not list all of them: %s", strings.Join(e.Messages, "; "))
}
