// SPDX-License-Identifier: Apache-2.0

// Package reach says which units of a configuration can be affected by changed
// headers, and by changed sources that units include. It compares headers entity
// by entity (macros, functions, types, declarations), follows the names of those
// that differ through all headers that units can see, and looks for them in the
// sources. It errs on the side of naming too much: a unit that is not named
// compiles to the same code from both trees.
//
// A change of a type's size or members counts wherever code can have a value or
// a pointer of the type at hand, whichever member it uses; Reason.Layout tells
// these units apart.
//
// What generated headers say is taken to be the same for both trees, and so is what
// assembly defines with .macro in strings.
package reach

import (
	"context"

	"github.com/upsplice/upsplice/splice/kbuild"
)

// Trees are the two source trees. Files that are links of the same inode in both
// are not compared.
type Trees struct {
	Pre, Post string
	Output    string // output directory that both are compiled in; "" if there is none: generated headers are not read then
	// OldStays is for callers to whom a unit that is not named costs nothing, because
	// its old code goes on running: that a header includes one more, which changes
	// code only where a name gets another meaning by it, is then not taken as a change.
	OldStays bool
}

// Change is how a header differs.
type Change struct {
	Header string   `json:"header"`
	Names  []string `json:"names"`           // macros, functions, types, members, constants, data that differ, are new or gone; sorted
	Whole  bool     `json:"whole,omitempty"` // something without a name differs: everything that includes the header

	effects  []effect
	includes []string // lines that differ
}

// class says which mentions of a name count.
type class uint8

const (
	classMacro class = iota // all
	classPlain              // function or datum: not a member of that name, and only in code
	classConst              // constant: not a member of that name
	classType               // where its size or members can matter
	classMoved              // member: its type counts, not its name
)

// effect is a name that changed.
type effect struct {
	name  string
	class class
}

// Changes compares the given headers of both trees, apart from comments, white
// space and line numbers. Headers without a difference that matters are left out.
// A header that one tree does not have is compared with an empty one.
func Changes(ctx context.Context, t Trees, headers []string) ([]Change, error) {
	return changes(ctx, t, headers)
}

// Reason says why a unit is affected.
type Reason struct {
	Header string   `json:"header"`          // that changed
	Names  []string `json:"names,omitempty"` // what the unit mentions of it, directly or through other headers, at most maxNames; none if it is enough to include the header
	// Layout says that the unit is named only because types have another size or
	// other members: it compiles to the same code where their layouts are kept.
	Layout bool `json:"layout,omitempty"`
}

// maxNames bounds Reason.Names.
const maxNames = 5

// Units returns the units that changed headers can affect, by their objects.
// Source paths and options of the units may be those of either tree.
func Units(ctx context.Context, t Trees, units []kbuild.Unit, changes []Change) (map[string][]Reason, error) {
	return affected(ctx, t, units, changes)
}

// Sources returns the units that include one of the given files, which are
// sources but no units themselves ("#include "rt.c""), directly or through other
// files: objects to files. It serves for headers too, where their names are not
// to be looked at.
func Sources(ctx context.Context, t Trees, units []kbuild.Unit, files []string) (map[string][]string, error) {
	return including(ctx, t, units, files)
}
