// SPDX-License-Identifier: Apache-2.0

package reach

import (
	"cmp"
	"slices"
	"strings"
)

// maxDepth is how many macros, each pasting what the one before it pasted, are
// followed. SYSCALL_DEFINE takes two.
const maxDepth = 3

// word is a text that code can have as one name: because it mentions it, or by
// pasting.
type word struct {
	name uint32 // 0: no file has it
	ways []way
	size int // bytes
}

// way is a pattern that makes the word from others. Code can go it if it reaches
// one of the macros with that pattern.
type way struct {
	group int32 // of macros; none for parameters alone: nearly all code reaches such a macro
	words []int32
}

const noGroup = -1

// paster knows what all macros paste.
type paster struct {
	patterns [][]piece          // by group
	group    map[string]int32   // pattern to group
	of       map[uint32][]int32 // macro to the groups it is in
	begins   map[uint32][]int32 // first operand to groups
	ends     map[uint32][]int32 // last operand to groups that begin with a parameter
	open     []int32            // groups that begin and end with a parameter, and have a literal in between

	words []word
	known map[wordKey]int32
	root  map[uint32]int32    // changed name to its word
	by    map[uint32][]uint32 // name to the changed ones that it may be a part of

	closure map[uint32][]int32
}

type wordKey struct {
	text  string
	depth int
}

func (p *paster) add(e *entity) {
	if p.group == nil {
		p.group, p.of = make(map[string]int32), make(map[uint32][]int32)
		p.begins, p.ends = make(map[uint32][]int32), make(map[uint32][]int32)
		p.known, p.root = make(map[wordKey]int32), make(map[uint32]int32)
		p.by, p.closure = make(map[uint32][]uint32), make(map[uint32][]int32)
	}
	for _, r := range e.pastes {
		var key strings.Builder
		for _, x := range r {
			key.Write([]byte{byte(x), byte(x >> 8), byte(x >> 16), byte(x >> 24)})
		}
		g, ok := p.group[key.String()]
		if !ok {
			g = int32(len(p.patterns))
			p.group[key.String()] = g
			p.patterns = append(p.patterns, r)
			first, last := uint32(r[0]), uint32(r[len(r)-1])
			switch {
			case first != 0:
				p.begins[first] = append(p.begins[first], g)
			case last != 0:
				p.ends[last] = append(p.ends[last], g)
			case slices.ContainsFunc(r, func(x piece) bool { return x != 0 }):
				p.open = append(p.open, g)
			}
		}
		if !slices.Contains(p.of[e.defs[0]], g) {
			p.of[e.defs[0]] = append(p.of[e.defs[0]], g)
		}
	}
}

// rules finds out how the changed names can be made.
func (p *paster) rules(s *solver) {
	if len(p.patterns) == 0 {
		return
	}
	for i, st := range s.states {
		id := uint32(i)
		if st == nil {
			continue
		}
		if _, ok := p.root[id]; ok {
			continue
		}
		w := p.word(s, s.f.table.names[id], maxDepth)
		p.root[id] = w
		leaves := make(map[uint32]bool)
		for _, way := range p.words[w].ways {
			p.leaves(p.longest(way), leaves)
		}
		for l := range leaves {
			p.by[l] = append(p.by[l], id)
		}
	}
}

// leaves collects names of which code has to mention one to have the word.
func (p *paster) leaves(w int32, into map[uint32]bool) {
	if n := p.words[w].name; n != 0 {
		into[n] = true
	}
	for _, way := range p.words[w].ways {
		p.leaves(p.longest(way), into)
	}
}

// longest is the word of a way that the fewest can have.
func (p *paster) longest(w way) int32 {
	return slices.MaxFunc(w.words, func(a, b int32) int { return cmp.Compare(p.words[a].size, p.words[b].size) })
}

// word returns the number of a word.
func (p *paster) word(s *solver, text string, depth int) int32 {
	key := wordKey{text, depth}
	if w, ok := p.known[key]; ok {
		return w
	}
	known, names := s.f.table.ids, s.f.table.names
	w := word{name: known[text], size: len(text)}
	try := func(g int32) {
		for _, parts := range fit(names, p.patterns[g], text) {
			if len(parts) == 0 {
				continue // the literal itself, which the macro mentions
			}
			if words, ok := p.all(s, parts, depth-1); ok {
				w.ways = append(w.ways, way{g, words})
			}
		}
	}
	for i := 1; i < len(text) && depth > 0; i++ {
		if id, ok := known[text[:i]]; ok {
			for _, g := range p.begins[id] {
				try(g)
			}
		}
		if id, ok := known[text[i:]]; ok {
			for _, g := range p.ends[id] {
				try(g)
			}
		}
		if depth == maxDepth {
			if words, ok := p.all(s, []string{text[:i], text[i:]}, min(depth-1, 1)); ok {
				w.ways = append(w.ways, way{noGroup, words})
			}
		}
	}
	if depth == maxDepth {
		for _, g := range p.open {
			try(g)
		}
	}
	at := int32(len(p.words))
	p.words = append(p.words, w)
	p.known[key] = at
	return at
}

// all returns the numbers of words, false if one of them cannot be had.
func (p *paster) all(s *solver, parts []string, depth int) ([]int32, bool) {
	var words []int32
	for _, part := range parts {
		w := p.word(s, part, depth)
		if p.words[w].name == 0 && len(p.words[w].ways) == 0 {
			return nil, false
		}
		words = append(words, w)
	}
	return words, true
}

// can says whether code can have a word.
func (p *paster) can(x *expander, w int32) bool {
	if n := p.words[w].name; n != 0 && x.has(n) {
		return true
	}
	if a := x.answers[w]; a.now == x.now {
		return a.can
	}
	can := p.pasted(x, w)
	x.answers[w] = answer{x.now, can}
	return can
}

// answer is what can found out about a word.
type answer struct {
	now uint32
	can bool
}

// pasted says whether code can make a word.
func (p *paster) pasted(x *expander, w int32) bool {
	for _, way := range p.words[w].ways {
		if way.group != noGroup && x.groups[way.group] != x.now {
			continue
		}
		if !slices.ContainsFunc(way.words, func(part int32) bool { return !p.can(x, part) }) {
			return true
		}
	}
	return false
}

// fit fits a name to a pattern: what the parameters have to be, for each way to do
// so. Empty ones are left out.
func fit(names []string, pieces []piece, name string) [][]string {
	if len(pieces) == 0 {
		if name == "" {
			return [][]string{nil}
		}
		return nil
	}
	if pieces[0] != 0 {
		rest, ok := strings.CutPrefix(name, names[pieces[0]])
		if !ok {
			return nil
		}
		return fit(names, pieces[1:], rest)
	}
	var out [][]string
	if len(pieces) == 1 {
		if name == "" {
			return [][]string{nil} // an empty argument
		}
		return [][]string{{name}}
	}
	for i := 0; i <= len(name); i++ {
		for _, w := range fit(names, pieces[1:], name[i:]) {
			if i > 0 {
				w = append([]string{name[:i]}, w...)
			}
			out = append(out, w)
		}
	}
	return out
}

// made are the names that an invocation at the top level makes from its arguments.
func (p *paster) made(s *solver, e *entity) []uint32 {
	if len(e.invoked) == 0 || len(e.args) == 0 || len(p.patterns) == 0 {
		return nil
	}
	names := s.f.table.names
	var out []uint32
	words := make([]string, 0, len(e.args))
	for _, a := range e.args {
		words = append(words, names[a])
	}
	have := make(map[string]bool)
	for depth := 0; depth < maxDepth && len(words) > 0; depth++ {
		var next []string
		for _, m := range e.invoked {
			for _, at := range p.reached(s, m) {
				for _, w := range words {
					text := ""
					for _, x := range p.patterns[at] {
						if x == 0 {
							text += w
						} else {
							text += names[x]
						}
					}
					if !have[text] && len(have) < 100_000 {
						have[text] = true
						next = append(next, text)
						if id, ok := s.f.table.ids[text]; ok {
							out = append(out, id)
						}
					}
				}
			}
		}
		words = next
		if depth == 0 && len(words) > 1000 {
			break
		}
	}
	return out
}

// reached are the patterns of all macros that a macro can expand to.
func (p *paster) reached(s *solver, macro uint32) []int32 {
	if list, ok := p.closure[macro]; ok {
		return list
	}
	seen := map[uint32]bool{macro: true}
	queue := []uint32{macro}
	for i := 0; i < len(queue); i++ {
		for _, n := range s.bodies.of(queue[i]) {
			if !seen[n] {
				seen[n] = true
				queue = append(queue, n)
			}
		}
	}
	var list []int32
	for _, m := range queue {
		list = append(list, p.of[m]...)
	}
	slices.Sort(list)
	list = slices.Compact(list)
	p.closure[macro] = list
	return list
}
