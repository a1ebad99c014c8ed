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
	// Numbers are not kept with the names that code mentions: it may have any.
	number bool
}

// way is a pattern that makes the word from others. Code can go it if it reaches
// one of the macros with that pattern.
type way struct {
	group int32 // of macros; noGroup for those that join their parameters alone
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

	joins map[uint32]bool // macros that join parameters with each other

	words []word
	known map[wordKey]int32
	root  map[uint32]int32    // changed name to its word
	by    map[uint32][]uint32 // name to the changed ones that it may be a part of

	closure map[uint32][][]piece // of reached
	sorted  []string             // names
	results map[*entity][]uint32 // of made
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
		p.by, p.closure = make(map[uint32][]uint32), make(map[uint32][][]piece)
		p.joins = make(map[uint32]bool)
		p.results = make(map[*entity][]uint32)
	}
	for _, r := range e.pastes {
		p.pattern(e.defs[0], r)
		if !slices.ContainsFunc(r, func(x piece) bool { return x != 0 }) {
			p.joins[e.defs[0]] = true
		}
	}
}

// close finds the macros that hand their parameters to one that joins them
// ("#define PASTE(a, b) PASTE_(a, b)"). What other macros hand to those can be
// anything in their text.
func (p *paster) close(macros []*entity) {
	uses := func(e *entity) bool {
		return slices.ContainsFunc(e.uses, func(u use) bool { return p.joins[u.name()] })
	}
	for grew := true; grew; {
		grew = false
		for _, e := range macros {
			if e.params > 1 && !p.joins[e.defs[0]] && uses(e) {
				p.joins[e.defs[0]] = true
				grew = true
			}
		}
	}
	for _, e := range macros {
		if !uses(e) {
			continue
		}
		for _, u := range e.uses {
			if n := u.name(); !p.joins[n] {
				p.pattern(e.defs[0], []piece{piece(n), 0})
				p.pattern(e.defs[0], []piece{0, piece(n)})
			}
		}
	}
}

// pattern notes what a macro joins.
func (p *paster) pattern(macro uint32, r []piece) {
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
	if !slices.Contains(p.of[macro], g) {
		p.of[macro] = append(p.of[macro], g)
	}
}

// rules finds out how the changed names can be made.
func (p *paster) rules(s *solver) {
	if len(p.patterns) == 0 {
		return
	}
	for i, st := range s.states {
		id := uint32(i)
		if st == nil || !s.fine(st) {
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
	size := func(n int32) int {
		if p.words[n].number {
			return 0
		}
		return p.words[n].size
	}
	return slices.MaxFunc(w.words, func(a, b int32) int { return cmp.Compare(size(a), size(b)) })
}

// word returns the number of a word.
func (p *paster) word(s *solver, text string, depth int) int32 {
	key := wordKey{text, depth}
	if w, ok := p.known[key]; ok {
		return w
	}
	known, names := s.f.table.ids, s.f.table.names
	w := word{name: known[text], size: len(text), number: strings.Trim(text, "0123456789") == ""}
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
		if p.words[w].name == 0 && !p.words[w].number && len(p.words[w].ways) == 0 {
			return nil, false
		}
		words = append(words, w)
	}
	return words, true
}

// can says whether code can have a word.
func (p *paster) can(x *expander, w int32) bool {
	if n := p.words[w].name; p.words[w].number || n != 0 && x.has(n) {
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
		if way.group == noGroup && !x.joins || way.group != noGroup && x.groups[way.group] != x.now {
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
	if out, ok := p.results[e]; ok {
		return out
	}
	names := s.f.table.names
	var out []uint32
	var text []byte
	for _, m := range e.invoked {
		for _, pattern := range p.reached(s, m) {
			for _, a := range e.args {
				text = text[:0]
				for _, x := range pattern {
					if x == 0 {
						x = piece(a)
					}
					text = append(text, names[x]...)
				}
				if id, ok := s.f.table.ids[string(text)]; ok {
					out = append(out, id)
				}
			}
		}
	}
	slices.Sort(out)
	out = slices.Compact(out)
	p.results[e] = out
	return out
}

// reached are the patterns of all macros that a macro can expand to, and those
// that come from handing what one pasted to another.
func (p *paster) reached(s *solver, macro uint32) [][]piece {
	if list, ok := p.closure[macro]; ok {
		return list
	}
	seen := map[uint32]bool{macro: true}
	queue := []uint32{macro}
	groups := make(map[int32]bool)
	for i := 0; i < len(queue); i++ {
		for _, g := range p.of[queue[i]] {
			groups[g] = true
		}
		for _, n := range s.bodies.of(queue[i]) {
			if !seen[n] {
				seen[n] = true
				queue = append(queue, n)
			}
		}
	}
	if p.sorted == nil {
		p.sorted = slices.Clone(s.f.table.names)
		slices.Sort(p.sorted)
	}
	var list [][]piece
	for g := range groups {
		list = append(list, p.patterns[g])
	}
	for _, outer := range list[:len(list):len(list)] {
		for g := range groups {
			var both []piece
			for _, x := range outer {
				if x == 0 {
					both = append(both, p.patterns[g]...)
				} else {
					both = append(both, x)
				}
			}
			if p.begin(s, both) {
				list = append(list, both)
			}
		}
	}
	p.closure[macro] = list
	return list
}

// begin says whether some name begins as a pattern does.
func (p *paster) begin(s *solver, pattern []piece) bool {
	text := ""
	for _, x := range pattern {
		if x == 0 {
			break
		}
		text += s.f.table.names[x]
	}
	i, _ := slices.BinarySearch(p.sorted, text)
	return i < len(p.sorted) && strings.HasPrefix(p.sorted[i], text)
}
