// SPDX-License-Identifier: Apache-2.0

package reach

import (
	"slices"

	"github.com/upsplice/upsplice/splice/clex"
)

// scanner reads the sources of units: all names that they mention, without order.
type scanner struct {
	names *interner
	seen  map[uint32]use
}

func (s *scanner) parse(text string) *file {
	clear(s.seen)
	b := &builder{names: s.names, file: &file{}}
	b.hash.SetSeed(keySeed)
	l := clex.NewLexer(text)
	t := l.Next()
	var last clex.Token
	mention := func(t clex.Token) {
		if t.Kind == clex.Ident && !clex.Keyword(t.Text) {
			id := s.names.id(t.Text)
			u := use(id) << useShift
			if last.Is("->") || last.Is(".") {
				u |= onlyMember
			}
			if old, ok := s.seen[id]; ok {
				u &= old
			}
			s.seen[id] = u
		}
		last = t
	}
	for t.Kind != clex.EOF {
		if !t.First || !t.Is("#") {
			mention(t)
			t = l.Next()
			continue
		}
		var toks []clex.Token
		for t = l.Next(); t.Kind != clex.EOF && !t.First; t = l.Next() {
			toks = append(toks, t)
		}
		if len(toks) == 0 {
			continue
		}
		for _, d := range toks {
			mention(d)
		}
		switch toks[0].Text {
		case "include", "include_next":
			b.Include(toks[1:], false, nil)
		case "define":
			b.Macro(false, toks[1:], nil)
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
