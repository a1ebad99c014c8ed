// SPDX-License-Identifier: Apache-2.0

// Package freeze cuts the difference of two source trees into entities, the items
// at the top level of C files, and makes the tree between the two: the functions
// of the new one, the types of the old one. Code compiled from it uses the data
// layouts of the kernel that runs.
package freeze

// Kind is what an entity is.
type Kind uint8

// Kinds of entities.
const (
	Function    Kind = iota // with its body, a macro that makes one included (SYSCALL_DEFINE)
	Macro                   // #define or #undef
	Type                    // struct, union, enum with their members; typedef
	Data                    // variable or constant table
	Declaration             // prototype, extern
	Invocation              // a macro called at the top level: EXPORT_SYMBOL, module_init, DEFINE_MUTEX
	Include                 // an #include line
	Whole                   // a whole file that cannot be cut, or that one tree does not have
)

// Entity is an item at the top level of a file that the two trees do not have alike.
type Entity struct {
	File  string // slash separated, from the root of the tree
	Kind  Kind
	Names []string // what it defines, declares or is given, the first for people
	// Pre and Post are its text with the comment in front of it, "" in the tree that
	// has not got it.
	Pre, Post string
	// Local: no other file can mean it (static in a .c file, macro or type of a .c file).
	Local bool
	// PreRefs and PostRefs are the names that the two texts mention, sorted, without
	// keywords and without its own Names.
	PreRefs, PostRefs []string
}
