// SPDX-License-Identifier: Apache-2.0

// Package freeze cuts the difference of two source trees into entities, the items
// at the top level of C files, and makes the tree between the two: the functions
// of the new one, the types of the old one. Code compiled from it uses the data
// layouts of the kernel that runs.
//
// Where the conditions around a change are the same in both trees, what is between
// them is compared item by item; a group of conditions that only one tree has is
// one item. Two items of the same kind and name under the same conditions are one
// entity, and so are those that define the same name in another way (a macro that
// became a function, a function that has a second form now). White space and
// comments are no difference: where nothing else differs, the old text is taken.
package freeze

import "context"

// Kind is what an entity is.
type Kind uint8

// Kinds of entities.
const (
	Function    Kind = iota // with its body, a macro that makes one included (SYSCALL_DEFINE)
	Macro                   // #define or #undef
	Type                    // struct, union, enum with their members; typedef
	Data                    // variable or constant table
	Declaration             // prototype, extern
	Invocation              // a macro called at the top level: EXPORT_SYMBOL, module_init, DEFINE_MUTEX; #pragma, #error, asm
	Include                 // an #include line
	Whole                   // a whole file that cannot be cut, or that one tree does not have
)

// Entity is an item at the top level of a file that the two trees do not have alike.
// A group of conditions that only one of them has is one entity, of the kind that
// most items in it have.
type Entity struct {
	File  string // slash separated, from the root of the tree
	Kind  Kind
	Names []string // what it defines, declares or is given, the first for people; the constants of an enum, too
	// Pre and Post are its text with the comment in front of it, "" in the tree that
	// has not got it.
	Pre, Post string
	// Local: no other file can mean it (static in a .c file, macro or type of a .c file).
	Local bool
	// PreRefs and PostRefs are the names that the two texts mention, sorted, without
	// keywords and without its own Names.
	PreRefs, PostRefs []string
	// With are the entities that can only be old together with this one: a function
	// and its declarations if what they declare differs, both ends of what moved from
	// one file to another.
	With []*Entity

	old, new bool                 // in which trees it is
	frozen   bool                 // a type differs
	headed   bool                 // more than a function's body differs
	heads    [2]string            // what is declared, until that is known
	parts    [2]map[string]string // texts of the types that it has in each tree, by their names
}

// Source is the difference of two trees, cut into entities.
type Source struct {
	Entities []*Entity // by file, and in a file in the order of the new one

	pre, post string
	files     []*merged
	others    []string
	named     map[string][]*Entity
}

// Read compares the changed files of two prepared trees, given by their paths: those
// of tree.Delta.Files that are kept. What is no .c and no .h file has no entities
// and is taken as the new tree has it.
func Read(ctx context.Context, pre, post string, files []string) (*Source, error) {
	return read(ctx, pre, post, files)
}

// Named returns the entities that define a name.
func (s *Source) Named(name string) []*Entity { return s.named[name] }
