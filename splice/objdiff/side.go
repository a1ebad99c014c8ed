// SPDX-License-Identifier: Apache-2.0

package objdiff

import (
	"debug/elf"

	"github.com/upsplice/upsplice/splice/object"
)

// side is one of the two objects with what was found out about it.
type side struct {
	obj   *object.Object
	types map[string]Struct
	index *object.Index
	class map[*object.Section]sectionClass
	code  []*object.Symbol // functions and other named code, aliases once
	data  []*object.Symbol // named data, aliases once

	bodies  map[*object.Symbol]*body
	entries map[*object.Symbol][]entry        // of the special sections, by the function they are about
	stray   map[string][]entry                // entries about code without a name, by section
	fentry  map[*object.Symbol]bool           // functions that ftrace can hook
	prefix  map[*object.Symbol]*object.Symbol // what stands in front of a function and belongs to it
	alone   map[*object.Section]*object.Symbol
	used    map[*object.Symbol]bool  // symbols that named code or data refers to
	reached map[*object.Section]bool // sections that a relocation of live code or data refers to without naming a symbol
}

func newSide(o *object.Object, types map[string]Struct) (*side, error) {
	s := &side{
		obj: o, types: types, index: object.NewIndex(o), class: map[*object.Section]sectionClass{},
		bodies: map[*object.Symbol]*body{}, entries: map[*object.Symbol][]entry{}, stray: map[string][]entry{},
		fentry: map[*object.Symbol]bool{}, prefix: map[*object.Symbol]*object.Symbol{}, alone: map[*object.Section]*object.Symbol{}, used: map[*object.Symbol]bool{}, reached: map[*object.Section]bool{},
	}
	for _, sec := range o.Sections {
		s.class[sec] = classify(sec)
		if in := s.index.In(sec); len(in) > 0 {
			s.alone[sec] = s.canonical(in[0])
			for _, sym := range in {
				if s.canonical(sym) != s.alone[sec] {
					s.alone[sec] = nil
					break
				}
			}
		}
	}
	for _, sym := range o.Symbols {
		if sym.Section == nil || sym.Type == elf.STT_SECTION || sym.Type == elf.STT_FILE || s.canonical(sym) != sym {
			continue
		}
		switch s.class[sym.Section] {
		case classCode:
			if f := s.behindPrefix(sym); f != nil {
				s.prefix[f] = sym
			} else if sym.Size > 0 {
				s.code = append(s.code, sym)
			}
		case classData:
			s.data = append(s.data, sym)
		}
	}
	if err := s.check(); err != nil {
		return nil, err
	}
	if err := s.readSpecials(); err != nil {
		return nil, err
	}
	for _, list := range [][]*object.Symbol{s.code, s.data} {
		for _, sym := range list {
			s.noteReached(s.fields(sym))
		}
	}
	return s, nil
}

// behindPrefix returns the function that sym stands in front of.
func (s *side) behindPrefix(sym *object.Symbol) *object.Symbol {
	name, ok := prefixed(sym.Name)
	if !ok {
		return nil
	}
	for _, f := range s.index.In(sym.Section) {
		if f.Name == name && f.Value == sym.Value+sym.Size {
			return s.canonical(f)
		}
	}
	return nil
}

func (s *side) noteReached(refs []ref) {
	for _, r := range refs {
		for _, t := range r.targets {
			switch t.kind {
			case toContents:
				s.reached[t.sec] = true
			case toSymbol:
				s.used[t.sym] = true
			}
		}
	}
}

// canonical returns the one of several symbols at one place that stands for all.
func (s *side) canonical(sym *object.Symbol) *object.Symbol {
	if sym.Section == nil || sym.Type == elf.STT_SECTION {
		return sym
	}
	if c := s.index.Covering(sym.Section, sym.Value); c != nil && c.Value == sym.Value && (c.Size == sym.Size || sym.Size == 0) {
		return c
	}
	return sym
}

// isCode says that a symbol is defined in a section of code.
func (s *side) isCode(sym *object.Symbol) bool {
	return sym.Section != nil && s.class[sym.Section] == classCode
}

// gaps returns the parts of a section that no symbol names, padding excepted.
func (s *side) gaps(sec *object.Section) []*body {
	var list []*body
	add := func(from, to uint64) {
		if from >= to {
			return
		}
		b := s.region(sec, from, to)
		if len(b.refs) == 0 && padding(sec, b.data) {
			return
		}
		list = append(list, b)
	}
	if sec.Data == nil {
		return nil
	}
	var end uint64
	for _, sym := range s.index.In(sec) {
		if s.canonical(sym) != sym {
			continue // its bytes are not compared with it
		}
		add(end, sym.Value)
		end = max(end, sym.Value+sym.Size)
	}
	add(end, sec.Size)
	return list
}
