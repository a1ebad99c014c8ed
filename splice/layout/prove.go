// SPDX-License-Identifier: Apache-2.0

package layout

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Question is what Prove answers: may these functions of a unit run in that kernel?
type Question struct {
	// Pre and Post are the unit compiled from the running kernel's source and the
	// unit that goes live, both with AllTypes. Pre is nil for a unit that the running
	// kernel does not have.
	Pre, Post *Object

	// Running is what the kernel itself says, for a module with the module's own
	// types. nil if it says nothing.
	Running *Types

	// Live are the symbols of Post's functions that go live, new ones included.
	Live []string

	// Changed are the symbols of functions that the compiler made other code of, live
	// or not. nil: it may be any of them.
	Changed []string

	// Together are functions of this and of other units that may be called although
	// the running kernel has them with another prototype, or not at all: they go live
	// as well, with all that calls them in the running kernel.
	Together map[string]bool

	// Allowed are types ("struct ext4_buddy") that may differ: somebody else has shown
	// that no value of them is shared by old and new code.
	Allowed map[string]bool

	// Source returns Post's source as the preprocessor (-E) leaves it. It is called
	// only if something differs, to find out which functions cannot use it. nil, or
	// an error: all functions count as using it.
	Source func() ([]byte, error)
}

// The kinds of violations.
const (
	KindType      = "type"      // a type has another layout
	KindName      = "name"      // a new type has the name of one that is something else
	KindVariable  = "variable"  // a datum has another type, or became or ceased to be per-CPU
	KindPrototype = "prototype" // a function that is called has another prototype
	KindReplaced  = "replaced"  // a function that goes live has another prototype, and old code calls it
	KindClone     = "clone"     // old and new code may differ in what they pass to a part or variant of a function
	KindUnknown   = "unknown"   // neither the kernel nor Pre knows the function or datum
)

// Violation is a reason why functions must not go live.
type Violation struct {
	Kind      string
	Name      string   // "struct foo", "foo"; "function.foo" of static data in functions
	Detail    string   // for people
	Functions []string // of Live, that it concerns, sorted
}

func (v Violation) String() string { return fmt.Sprintf("%s %s: %s", v.Kind, v.Name, v.Detail) }

// Proof is the answer. There is one if there are no violations.
type Proof struct {
	Violations []Violation // sorted by kind and name
	Compared   int         // types, prototypes and data compared with what runs
	PreOnly    []string    // types that the kernel's own information does not have: only compared with Pre
	SourceErr  error       // of Source
}

// Blocked are the functions of Live that have violations, with the first of each.
func (p *Proof) Blocked() map[string]Violation {
	blocked := map[string]Violation{}
	for _, v := range p.Violations {
		for _, f := range v.Functions {
			if _, ok := blocked[f]; !ok {
				blocked[f] = v
			}
		}
	}
	return blocked
}

// ErrIncomplete is what an error of Prove about an object without AllTypes wraps.
var ErrIncomplete = errors.New("the object does not tell all types: compile it with " + AllTypes)

// Prove compares what functions that go live believe about data and calls with
// what the running kernel does.
//
// A function uses whatever its source can name, directly or through what it calls
// in the unit. To be able to miss nothing, all types, constants and data that the
// unit declares are compared, whether or not anything seems to use them: a cast
// leaves no trace in the debug information of a function, and sizeof and offsetof
// leave none in that of the unit (therefore AllTypes). Most often nothing differs
// and all is said. What differs counts for each function that can name it, see
// Question.Source, and for all of them if the source is not at hand.
//
// Each type must be one that Pre has under this name, and one that the kernel has,
// where they have the name. So a new type may contain old ones, which are compared,
// but no old one can contain a new one. Direct calls are told from relocations, and
// calls through pointers by the type of the pointer.
//
// Constants that are macros, and what assembly assumes, have no types: they show as
// other code, not here.
func Prove(q Question) (*Proof, error) {
	p := &prover{q: q, live: map[string]bool{}, liveNames: map[string]bool{}, proof: &Proof{}}
	if !q.Post.complete {
		return nil, fmt.Errorf("new object: %w", ErrIncomplete)
	}
	if q.Pre == nil {
		p.q.Pre = &Object{types: &Types{}, complete: true}
	} else if !q.Pre.complete {
		return nil, fmt.Errorf("old object: %w", ErrIncomplete)
	}
	if q.Running == nil {
		p.q.Running = &Types{}
	}
	for _, f := range q.Live {
		name := sourceName(f)
		if len(q.Post.symbols[name]) == 0 {
			return nil, fmt.Errorf("the new object has no function %s", f)
		}
		p.live[f], p.liveNames[name] = true, true
	}
	p.types()
	p.data()
	p.calls()
	p.replaced()
	p.clones()
	p.finish()
	return p.proof, nil
}

type prover struct {
	q         Question
	live      map[string]bool // symbols
	liveNames map[string]bool // the same by name in the source

	// what differs and may be used by any function
	open  []Violation
	proof *Proof
}

// types compares all types of the new object.
func (p *prover) types() {
	for key, own := range p.q.Post.types.byName {
		pre, run := p.q.Pre.types.byName[key], p.q.Running.byName[key]
		if p.q.Allowed[key] {
			continue
		}
		switch {
		case len(pre) == 0 && len(run) == 0:
			p.newType(key)
			continue
		case len(run) == 0 && !strings.HasPrefix(key, constantKey):
			p.proof.PreOnly = append(p.proof.PreOnly, key)
		case len(pre) == 0 && len(run) > 1:
			p.open = append(p.open, Violation{Kind: KindType, Name: key, Detail: "the running kernel has several types of this name, the old object none"})
			continue
		}
		p.proof.Compared++
		p.compare(KindType, key, own, pre, run)
	}
}

// compare notes a difference from either side, if that side knows the name.
func (p *prover) compare(kind, key string, own, pre, run []Type) {
	for _, side := range []struct {
		types []Type
		what  string
	}{{pre, ""}, {run, " in the running kernel"}} {
		if len(side.types) == 0 {
			continue
		}
		if i := stranger(own, side.types); i >= 0 {
			p.open = append(p.open, Violation{Kind: kind, Name: key, Detail: detail(side.types[0], own[i]) + side.what})
			return
		}
	}
}

// newType refuses a new type with the tag of one that is something else.
func (p *prover) newType(key string) {
	word, name, _ := strings.Cut(key, " ")
	for _, other := range []string{"struct", "union", "enum"} {
		if (word != "struct" && word != "union" && word != "enum") || other == word {
			continue
		}
		old := other + " " + name
		if len(p.q.Pre.types.byName[old]) > 0 || len(p.q.Running.byName[old]) > 0 {
			p.open = append(p.open, Violation{Kind: KindName, Name: key, Detail: "was " + old})
		}
	}
}

// data compares the types of all data that the new object declares, and that old and
// new code can share: constants of one unit are what they are in the unit that is
// compiled, and names with a number of the preprocessor's mean nothing.
func (p *prover) data() {
	post, pre := p.q.Post, p.q.Pre
	for name, own := range post.types.vars {
		if own := name[strings.LastIndexByte(name, '.')+1:]; strings.Contains(own, "__UNIQUE_ID") ||
			post.defined[name] && !post.external[name] && !post.writable[own] {
			continue
		}
		old := pre.types.vars[name]
		var run []Type
		if post.external[name] || post.percpu[name] {
			run = p.q.Running.vars[name] // BTF has per-CPU variables
		}
		if len(old)+len(run) == 0 {
			if !post.defined[name] {
				p.unknown(name, own)
			}
			continue
		}
		p.proof.Compared++
		if post.defined[name] && pre.defined[name] && post.percpu[name] != pre.percpu[name] {
			p.open = append(p.open, Violation{Kind: KindVariable, Name: name, Detail: "per-CPU in one of old and new code only"})
			continue
		}
		p.compare(KindVariable, name, settle(own, old, run), old, run)
	}
}

// settle gives arrays without a bound, which fit all arrays of their elements,
// the bound that is known.
func settle(own []Type, known ...[]Type) []Type {
	own = slices.Clone(own)
	for i, t := range own {
		rest, ok := strings.CutPrefix(t.Members, "[0]")
		if !ok {
			continue
		}
		for _, k := range slices.Concat(known...) {
			if _, elem, ok := strings.Cut(k.Members, "]"); ok && elem == rest && k.Members[0] == '[' {
				own[i] = k
			}
		}
	}
	return own
}

// unknown is a datum elsewhere that the old code does not know.
func (p *prover) unknown(name string, own []Type) {
	v := Violation{Kind: KindUnknown, Name: name, Detail: "declared in new code only: its type in the running kernel is not known"}
	for f := range p.live {
		if p.q.Post.reached(sourceName(f))[name] {
			v.Functions = append(v.Functions, f)
		}
	}
	if len(v.Functions) > 0 {
		p.proof.Violations = append(p.proof.Violations, v)
	} else if slices.ContainsFunc(own, func(t Type) bool { return strings.HasPrefix(t.Members, "[") && !strings.HasPrefix(t.Members, "[0]") }) {
		p.open = append(p.open, v) // its length may have become a constant
	}
}

// finish finds out which functions can use what differs.
func (p *prover) finish() {
	var source *source
	if len(p.open) > 0 && p.q.Source != nil {
		text, err := p.q.Source()
		if err == nil {
			source, err = readSource(text)
		}
		p.proof.SourceErr = err
	}
	keys := map[string]bool{}
	for _, v := range p.open {
		keys[v.Name] = true
	}
	users := map[string][]string{}
	for _, f := range slices.Sorted(maps.Keys(p.live)) {
		used := keys
		if names, ok := source.names(sourceName(f)); ok {
			used = p.q.Post.uses(names, keys)
		}
		for key := range used {
			users[key] = append(users[key], f)
		}
	}
	for _, v := range p.open {
		if v.Functions = users[v.Name]; len(v.Functions) > 0 {
			p.proof.Violations = append(p.proof.Violations, v)
		}
	}
	for i := range p.proof.Violations {
		slices.Sort(p.proof.Violations[i].Functions)
	}
	slices.SortFunc(p.proof.Violations, func(a, b Violation) int {
		return strings.Compare(a.Kind+" "+a.Name+" "+a.Detail, b.Kind+" "+b.Name+" "+b.Detail)
	})
	slices.Sort(p.proof.PreOnly)
}
