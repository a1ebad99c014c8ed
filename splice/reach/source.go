// SPDX-License-Identifier: Apache-2.0

package reach

import "slices"

// scanner reads the sources of units: all names that they mention, without order.
type scanner struct {
	names *interner
	seen  map[uint32]use
}

func (s *scanner) parse(text string) *file {
	clear(s.seen)
	b := &builder{names: s.names, file: &file{}}
	b.hash.SetSeed(keySeed)
	l := newLexer(text)
	t := l.next()
	var last token
	mention := func(t token) {
		if t.kind == tokIdent && !keyword(t.text) {
			id := s.names.id(t.text)
			u := use(id) << useShift
			if last.is("->") || last.is(".") {
				u |= onlyMember
			}
			if old, ok := s.seen[id]; ok {
				u &= old
			}
			s.seen[id] = u
		}
		last = t
	}
	for t.kind != tokEOF {
		if !t.first || !t.is("#") {
			mention(t)
			t = l.next()
			continue
		}
		var toks []token
		for t = l.next(); t.kind != tokEOF && !t.first; t = l.next() {
			toks = append(toks, t)
		}
		if len(toks) == 0 {
			continue
		}
		for _, d := range toks {
			mention(d)
		}
		switch toks[0].text {
		case "include", "include_next":
			b.include(toks[1:], false, nil)
		case "define":
			b.macro(false, toks[1:], nil)
		}
	}
	f := b.file
	// Of the macros only those that join names are needed.
	f.ents = slices.Clip(slices.DeleteFunc(f.ents, func(e entity) bool { return len(e.pastes) == 0 }))
	f.mentions = make([]use, 0, len(s.seen))
	for _, u := range s.seen {
		f.mentions = append(f.mentions, u)
	}
	slices.Sort(f.mentions)
	return f
}
