// SPDX-License-Identifier: Apache-2.0

// Package compile replays kbuild's compile lines with -ffunction-sections
// -fdata-sections and passes the objects through objtool. Results are cached by
// the content of all that went in.
package compile

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/upsplice/upsplice/splice/kbuild"
)

// Compiler compiles units of one output directory.
type Compiler struct {
	Output *kbuild.Output
	Cache  string // directory of cached objects, "" for a place in the output directory
	Jobs   int    // at once; 0: number of CPUs

	// Generator makes headers that units include and no package has, from the source
	// of the running kernel; Output if it is nil.
	Generator *kbuild.Output

	// NoDebug leaves the debug information out: for objects of which only the code
	// counts, in three quarters of the time.
	NoDebug bool

	// AllTypes puts all types that a unit declares into the debug information, used or
	// not, as the proof of package layout wants them.
	AllTypes bool

	// Frozen is for sources between two trees: what the compiler only warns of where
	// types do not fit is an error, and the output of a unit that does not compile is
	// that of a second run, which says all errors, and where they stand in the files
	// whatever lines.LayoutUnless put in.
	Frozen bool

	tools   sync.Mutex
	tool    *toolchain // once found
	digests digests
}

// Object is a compiled unit.
type Object struct {
	Unit kbuild.Unit
	Path string   // of the .o
	Deps []string // files it was compiled from, relative to the source tree or, with prefix "O:", to the output directory
}

// Error is a unit that did not compile. Unit is empty if no unit can be compiled,
// because a tool is missing.
type Error struct {
	Unit   string
	Stage  string // "compiler", "objtool"
	Output string // what the tool said, at most 64 KiB
	Err    error
}

func (e *Error) Error() string {
	var b strings.Builder
	if e.Unit != "" {
		fmt.Fprintf(&b, "compiling %s: ", e.Unit)
	}
	fmt.Fprintf(&b, "%s: %v", e.Stage, e.Err)
	if line := firstError(e.Output); line != "" {
		fmt.Fprintf(&b, ": %s", line)
	}
	return b.String()
}

func (e *Error) Unwrap() error { return e.Err }

// firstError picks the line of a tool's output that says most.
func firstError(output string) string {
	lines := strings.Split(strings.TrimSpace(output), "\n")
	for _, l := range lines {
		if strings.Contains(l, "error:") {
			return l
		}
	}
	return lines[0]
}

// Units compiles units in parallel. done is called, never concurrently, as each
// finishes. The error joins one *Error for each unit that failed; the other
// objects are returned all the same, in the order of units. A full disk is an
// error that wraps syscall.ENOSPC.
func (c *Compiler) Units(ctx context.Context, units []kbuild.Unit, done func(kbuild.Unit)) ([]Object, error) {
	return c.units(ctx, units, done)
}

// Version returns the first line of `CC --version`.
func (c *Compiler) Version(ctx context.Context) (string, error) { return c.version(ctx) }
