// SPDX-License-Identifier: Apache-2.0

package build

import (
	"debug/elf"

	"github.com/upsplice/upsplice/splice/match"
	"github.com/upsplice/upsplice/splice/objdiff"
	"github.com/upsplice/upsplice/splice/object"
)

// family is the changed units of one target. What one of them no longer has
// another may have now.
type family struct {
	members []*candidate
	owner   map[*object.Symbol]*candidate // of every symbol of the old objects
}

// families puts the compared units together and tells them what moved between them.
func families(list []*candidate) []*family {
	byTarget := make(map[string]*family)
	var all []*family
	for _, c := range list {
		if c.diff == nil {
			continue
		}
		f := byTarget[c.pair.pre.Target]
		if f == nil {
			f = &family{owner: make(map[*object.Symbol]*candidate)}
			byTarget[c.pair.pre.Target] = f
			all = append(all, f)
		}
		c.family = f
		f.members = append(f.members, c)
		for _, s := range c.pre.Symbols {
			f.owner[s] = c
		}
	}
	for _, f := range all {
		results := make([]*objdiff.Result, len(f.members))
		for i, c := range f.members {
			results[i] = c.diff
		}
		objdiff.Join(results)
	}
	return all
}

// kin are the other units whose old code or data lives on in c.
func (c *candidate) kin() []*candidate {
	var list []*candidate
	for _, changes := range [][]objdiff.Change{c.diff.Functions, c.diff.Data} {
		for _, f := range changes {
			if o := c.family.owner[f.Pre]; f.Moved && o != nil && o != c {
				list = append(list, o)
			}
		}
	}
	for _, s := range c.referred() {
		if o := c.family.owner[c.diff.Twin[s]]; o != nil && o != c {
			list = append(list, o)
		}
	}
	return list
}

// function is where a function of the old code is in the running kernel.
func (c *candidate) function(pre *object.Symbol) (match.Found, bool) {
	o := c.family.owner[pre]
	if o == nil || o.found == nil {
		return match.Found{}, false
	}
	f, ok := o.found.Found[pre]
	return f, ok
}

// address is where a symbol of the old code is in the running kernel.
func (c *candidate) address(pre *object.Symbol) (uint64, bool) {
	if f, ok := c.function(pre); ok {
		return f.Addr, true
	}
	o := c.family.owner[pre]
	if o == nil || o.found == nil {
		return 0, false
	}
	addr, ok := o.found.Addr[pre]
	return addr, ok
}

// wanted is what has to be found in the running kernel.
type wanted struct {
	functions map[*object.Symbol]bool
	data      map[*object.Symbol]bool
}

func (w wanted) add(s *object.Symbol) {
	switch {
	case s == nil:
	case s.Type != elf.STT_FUNC:
		w.data[s] = true
	case s.Section != nil:
		w.functions[s] = true
	}
}

// want collects it: the functions to be replaced, and all that the new code refers to.
func (f *family) want() wanted {
	w := wanted{map[*object.Symbol]bool{}, map[*object.Symbol]bool{}}
	for _, c := range f.members {
		if c.settled() {
			continue
		}
		for _, fn := range c.diff.Functions {
			if fn.Pre != nil && fn.Post != nil {
				w.functions[fn.Pre] = true
			}
		}
		for _, s := range c.referred() {
			w.add(c.diff.Twin[s])
		}
	}
	return w
}
