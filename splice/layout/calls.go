// SPDX-License-Identifier: Apache-2.0

package layout

import (
	"maps"
	"slices"
	"strings"
)

// calls compares the prototypes of the functions that live functions refer to and
// that keep running.
func (p *prover) calls() {
	found := map[string]*Violation{}
	for f := range p.live {
		for name := range p.q.Post.reached(sourceName(f)) {
			if p.liveNames[name] || p.q.Together[name] {
				continue
			}
			kind, detail := p.call(name)
			if kind == "" {
				continue
			}
			if found[name] == nil {
				found[name] = &Violation{Kind: kind, Name: name, Detail: detail}
			}
			found[name].Functions = append(found[name].Functions, f)
		}
	}
	for _, v := range found {
		p.proof.Violations = append(p.proof.Violations, *v)
	}
}

// call compares the prototype of one function with what runs.
func (p *prover) call(name string) (kind, difference string) {
	post, pre := p.q.Post, p.q.Pre
	own, old := post.types.funcs[name], pre.types.funcs[name]
	if len(own) == 0 {
		return "", "" // no function of C, or the compiler's own
	}
	var run []Type
	if post.external[name] || len(old) == 0 {
		// Functions of other units can have the same name.
		run = p.q.Running.funcs[name]
	}
	if len(old)+len(run) == 0 {
		if post.defined[name] {
			return KindUnknown, "new, but it does not go live"
		}
		return KindUnknown, "called by new code only: its prototype in the running kernel is not known"
	}
	if len(old) == 0 && len(run) > 1 {
		return KindUnknown, "the running kernel has several functions of this name, the old object none"
	}
	p.proof.Compared++
	return p.prototypes(own, old, run, KindPrototype)
}

func (p *prover) prototypes(own, old, run []Type, kind string) (string, string) {
	if i := stranger(own, old); i >= 0 && len(old) > 0 {
		return kind, shorten(old[0].Members) + " became " + shorten(own[i].Members)
	}
	if i := stranger(own, run); i >= 0 && len(run) > 0 {
		return kind, shorten(run[0].Members) + " of the running kernel became " + shorten(own[i].Members)
	}
	return "", ""
}

func shorten(s string) string {
	if len(s) > 160 {
		return s[:160] + "..."
	}
	return s
}

// replaced compares the prototypes of live functions with those that they take the
// place of, unless no old code calls them.
func (p *prover) replaced() {
	for f := range p.live {
		name := sourceName(f)
		own, old := p.q.Post.types.funcs[name], p.q.Pre.types.funcs[name]
		var run []Type
		if p.q.Post.external[name] {
			run = p.q.Running.funcs[name]
		}
		kind, difference := p.prototypes(own, old, run, KindReplaced)
		if len(old)+len(run) > 0 {
			p.proof.Compared++
		}
		if kind == "" || p.q.Together[name] {
			continue
		}
		if callers := p.oldCallers(name); len(callers) > 0 || p.q.Pre.external[name] || p.q.Post.external[name] {
			if p.q.Pre.external[name] || p.q.Post.external[name] {
				callers = append(callers, "other units")
			}
			p.proof.Violations = append(p.proof.Violations, Violation{Kind: kind, Name: name,
				Detail: difference + ", called by " + shorten(strings.Join(callers, ", ")), Functions: []string{f}})
		}
	}
}

// oldCallers are the functions and data of the old object that refer to a function
// and stay.
func (p *prover) oldCallers(name string) []string {
	var callers []string
	for _, from := range slices.Sorted(maps.Keys(p.q.Pre.refs)) {
		if p.q.Pre.refs[from][name] && from != name && !p.liveNames[from] {
			callers = append(callers, from)
		}
	}
	return callers
}

// clones looks for calls between old and new code of functions whose parameters
// the compiler may have changed: those are alike on both sides only if one of the
// sides is the same code as before.
func (p *prover) clones() {
	changed := func(name string) bool {
		return p.q.Changed == nil || slices.ContainsFunc(p.q.Changed, func(s string) bool { return sourceName(s) == name })
	}
	for f := range p.live {
		name := sourceName(f)
		if clone(f) && !strings.HasSuffix(f, ".cold") {
			for _, from := range p.oldCallers(name) {
				if p.q.Pre.data[from] {
					continue // what has its address taken keeps its parameters
				}
				if changed(from) {
					p.clone(name, from+" stays as it is and calls it", f)
				}
			}
		}
		for to := range p.q.Post.refs[name] {
			if p.liveNames[to] || !changed(to) || !slices.ContainsFunc(p.q.Post.symbols[to], clone) {
				continue
			}
			p.clone(to, "stays as it is", f)
		}
	}
}

func (p *prover) clone(name, why, function string) {
	p.proof.Violations = append(p.proof.Violations, Violation{Kind: KindClone, Name: name,
		Detail: why + ": the compiler may have changed its parameters", Functions: []string{function}})
}
