// SPDX-License-Identifier: Apache-2.0

// Package objdiff compares two relocatable objects of one unit, pre and post,
// both compiled with -ffunction-sections -fdata-sections, and says which
// functions and data differ. Comparison is section by section with relocations
// normalised: what a relocation means counts, not how the compiler numbered it.
package objdiff

import (
	"encoding/json"
	"strings"

	"github.com/upsplice/upsplice/splice/object"
)

// Outcome is the overall result; the numbers are the exit codes of `upsplice diff`.
type Outcome string

const (
	Changed   Outcome = "changed"
	Unchanged Outcome = "unchanged"
	Refused   Outcome = "refused" // differs in a way that the engine does not put live
	Error     Outcome = "error"
)

// ChangeKind says how a function or datum differs.
type ChangeKind string

const (
	KindChanged ChangeKind = "changed"
	KindNew     ChangeKind = "new"
	KindRemoved ChangeKind = "removed"
)

// Change is one function or datum that differs.
type Change struct {
	Name string         `json:"name"`
	Kind ChangeKind     `json:"kind"`
	Pre  *object.Symbol `json:"-"` // nil for KindNew
	Post *object.Symbol `json:"-"` // nil for KindRemoved
	// Why names the first difference found, for people: "contents differ at 0x1c",
	// "reference at 0x20 is to b instead of a".
	Why     string `json:"why,omitempty"`
	Section string `json:"section,omitempty"` // of Post, of Pre for KindRemoved
	// Fentry: ftrace can redirect the function. That of Pre, of Post for KindNew. A
	// changed function without it, which no refusal names, is reached by replaced
	// functions only: it goes along as if it were new.
	Fentry bool `json:"fentry,omitempty"`
	// Parent is the function that this one was split off from (.cold, .part), if
	// that one changes with it. A .cold part is never redirected itself: it goes
	// along as if it were new.
	Parent string `json:"parent,omitempty"`
	// Moved: Pre belongs to the pre object of another unit, see Join.
	Moved bool `json:"moved,omitempty"`
}

// Redirected says that the running function is to be redirected to the new one.
// Other functions with a Post go along without taking the place of any.
func (c Change) Redirected() bool { return c.Kind == KindChanged && c.Fentry }

// Callback is a function that the author of a patch wants to be called when the
// target is patched or unpatched.
type Callback struct {
	When     string         // "pre_patch", "post_patch", "pre_unpatch" or "post_unpatch"
	Function *object.Symbol // of post, among Result.Functions
}

// MarshalJSON gives the name of the function.
func (c Callback) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		When     string `json:"when"`
		Function string `json:"function"`
	}{c.When, c.Function.Name})
}

// Refusal is a difference that the engine does not put live.
type Refusal struct {
	Section string `json:"section,omitempty"`
	Symbol  string `json:"symbol,omitempty"`
	Reason  string `json:"reason"`
}

// Blocks says that the refusal keeps the whole unit from going live. Those that
// start with "init:" do not: their code or data is never used again after boot.
func (r Refusal) Blocks() bool { return !strings.HasPrefix(r.Reason, "init:") }

// Result is what Compare found. Lists are sorted by name.
type Result struct {
	Outcome   Outcome   `json:"outcome"`
	Functions []Change  `json:"functions"`
	Data      []Change  `json:"data"`
	Taken     []string  `json:"taken"` // sections and symbols that have to go along with the changed and new functions
	Refusals  []Refusal `json:"refusals"`
	// Boot are functions and data that differ and are used only at boot, when a
	// module is loaded or when it is unloaded. They are in no other list, and each
	// has a Refusal that does not block.
	Boot []Change `json:"boot"`
	// Callbacks are at most one of each kind, in the order in which Callback.When
	// lists them. Other units of the target may have some too.
	Callbacks []Callback `json:"callbacks"`
	// Ignored are the functions and sections whose differences custom code says to
	// ignore. They are in no other list, and the new code uses what runs.
	Ignored []string `json:"ignored"`

	// Twin maps each symbol of post to the symbol of pre that stands for the
	// same thing: itself a static local correlated through the code that refers
	// to it, never by its number. A post symbol without a twin is new.
	// After Join it may be a symbol of another unit's pre object.
	Twin map[*object.Symbol]*object.Symbol `json:"-"`

	// for Join
	pre, post *side                   // nil if nothing is new or removed
	unknown   []*object.Symbol        // of post, not defined in it and without a twin
	fentry    map[*object.Symbol]bool // functions of pre that ftrace can redirect
}

// Struct is what has to be known of a type of the kernel.
type Struct struct {
	Size    int            // bytes
	Members map[string]int // offset of each member, bytes
}

// CompareWith compares pre with post. It returns an error only for objects that it
// cannot make sense of; differences that cannot go live are Refusals. An object
// without contents stands for a unit that one of the kernels does not have.
//
// types, which may be nil, are the kernel's types by name, as its BTF has them.
// Where it has alt_instr, bug_entry, exception_table_entry, jump_entry,
// static_call_site or paravirt_patch_site, the entries of the tables must be such;
// else the relocations of the objects show how long the entries are.
func CompareWith(pre, post *object.Object, types map[string]Struct) (*Result, error) {
	return compare(pre, post, types)
}

// Compare is CompareWith without the kernel's types.
func Compare(pre, post *object.Object) (*Result, error) { return compare(pre, post, nil) }
