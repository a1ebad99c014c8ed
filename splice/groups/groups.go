// SPDX-License-Identifier: Apache-2.0

// Package groups finds the smallest sets of changes that have to go live together,
// and those causes to defer one that only the text of the sources shows.
//
// Changes are joined where one needs the other, not where one merely mentions the
// other: a function that calls another one with the same prototype before and after
// does not need that one's change. A group that is too large loses fixes, one that
// is too small puts half a fix live; where the text leaves a choice, it is joined.
//
// # Shadow variables
//
// A group that needs a new member of a long-lived type is deferred with the code
// "member". To put it live, the member would have to live beside the object, in a
// shadow variable keyed by the object's address. What that would take: every use of
// the member in the group is a plain read or a plain assignment through a pointer to
// the type (no address taken, no bit field, no sizeof, not under a condition of the
// preprocessor); all functions that free the type are in the group or call one that
// is, so that the shadow can be freed with it (kfree, kmem_cache_free and
// kfree_rcu of a pointer to the type, over all files that mention it); the reads
// have a default for objects made before (the value that the allocation gives, zero
// for kzalloc and __GFP_ZERO); and the reads stand nowhere where the lookup, which
// takes a hash bucket's lock, is not allowed (NMI, the tracer itself). Graph.Needs
// lists the members with their users, which is where such a rewrite would begin.
package groups

import "github.com/upsplice/upsplice/splice/freeze"

// Group is the smallest set of changes that have to go live together.
type Group struct {
	Entities []*freeze.Entity // in the order of the list that was given
	// Reasons say why it has to be deferred, as far as the text shows. If there are
	// none, nothing speaks against it.
	Reasons []Reason
	// Boot: all its code runs only at boot, or when a module is loaded or removed.
	// There is nothing to put live.
	Boot bool
	// Types are types that both kernels have and that may take the new form, because
	// no object of them outlives a call: all functions that use them must go live
	// with the group, those without a change of text included. Users are the files
	// that mention these types.
	Types []*freeze.Entity
	Users []string
}

// Code says whether the group changes code or data at all: one of types that stay
// as they are, declarations, includes and comments has nothing to put live.
func (g *Group) Code() bool {
	for _, e := range g.Entities {
		if isCode(e) {
			return true
		}
	}
	return false
}

// Reason is a named cause of a deferral. The codes are those of splicefile.Reason.
type Reason struct {
	Entity *freeze.Entity
	Code   string
	What   string // the function, type, macro or variable
	Detail string // one sentence
}

// Codes of reasons.
const (
	CodeBalance  = "balance"
	CodeLocks    = "locks"
	CodeConstant = "constant"
	CodeRunning  = "always-running"
	CodeInit     = "init"
	CodeMember   = "member"
	CodeType     = "type"
	CodeData     = "data"
)

// Edge says why two entities are in one group.
type Edge struct {
	From, To *freeze.Entity // From needs To
	Why      Why
	Name     string // the name that joins them
}

// Why is the kind of an edge.
type Why string

// Kinds of edges.
const (
	WhyNew       Why = "newly refers to"
	WhyDropped   Why = "no longer refers to"
	WhySignature Why = "uses what has another signature"
	WhyMember    Why = "uses a member that is new, gone or of another type"
	WhyConstant  Why = "uses another value"
	WhyInvoked   Why = "is a macro that names it"
	WhyPrototype Why = "declares it"
	WhyMoved     Why = "moved to"
	WhyFile      Why = "includes the new or removed file"
	WhyPointer   Why = "has the signature of the function pointer"
	WhyLock      Why = "takes the lock that the other no longer takes"
	WhyBalance   Why = "takes what the other gives back"
	WhyShort     Why = "uses the type that takes the new form"
	WhyCaller    Why = "joined by the caller"
)

// Options give more to look at than the changes.
type Options struct {
	// Text returns a file of the old tree, or of the new one; "" if it is not
	// there. Without it, functions that run always or only at boot are recognised
	// only if the changes show it.
	Text func(file string, post bool) string
	// Mentions lists, for each of the tags, the files that mention it in either tree:
	// all that can be compiled for this kernel, headers included. It is called once.
	// Without it, no type takes the new form.
	Mentions func(tags []string) map[string][]string
}

// Make joins changes along the edges of need.
func Make(list []*freeze.Entity) []*Group { return New(list, Options{}).Groups() }
