// SPDX-License-Identifier: Apache-2.0

package reach

import (
	"hash/maphash"
	"slices"
	"strings"

	"github.com/upsplice/upsplice/splice/clex"
)

type kind uint8

const (
	kindMacro  kind = iota
	kindCode        // function with a body, initialised data: whatever it mentions becomes code
	kindDecl        // prototype, declaration, typedef without members
	kindType        // struct, union or enum with its members
	kindInvoke      // a macro is called at the top level
	kindOpen        // asm, pragma, or not understood: can be part of every unit that includes it
)

// use is a mention of a name: its number, and flags.
type use uint32

const (
	onlyPointer use = 1 << iota // each mention is followed by a star
	onlyMember                  // each mention comes after -> or .
	onlyInner                   // each mention is within parentheses or braces: of a declaration, none says what it declares
	useShift    = 3
)

func (u use) name() uint32 { return uint32(u >> useShift) }

// entity is one top-level item of a file.
type entity struct {
	kind    kind
	enum    bool // of kindType
	attrs   bool // of an enum: it has attributes, which may make it smaller than an int
	key     uint64
	defs    []uint32
	tags    []uint32 // types that it defines
	uses    []use    // without those of members
	conds   []uint32 // names in the conditions around it
	members []member
	tail    uint64   // key of what is around the members
	invoked []uint32 // macros of kindInvoke
	args    []uint32 // single names that the macros are given
	pastes  [][]piece
	params  int // of a macro
}

// member is a member of a struct or a constant of an enum, those of nested ones
// in one list.
type member struct {
	names    []uint32
	uses     []use
	key      uint64
	start    int32 // index of the first member of the outermost nested struct around it
	bits     bool  // bit field
	computed bool  // constant of an enum with a value other than a small number
}

// piece is an operand in a row of ## operators; a parameter is 0.
type piece uint32

// file is what is kept of a parsed file.
type file struct {
	includes []include
	ents     []entity
	mentions []use // sources only: all names, sorted
}

type include struct {
	name   string
	quoted bool
	inside bool
	key    uint64
	at     int // number of entities before it
}

// builder makes a file's entities. It is a sink.
type builder struct {
	names  *interner
	file   *file
	hash   maphash.Hash
	list   []use
	called map[uint32]bool // macros with parameters that the file defines
}

var keySeed = maphash.MakeSeed()

func parse(names *interner, text string) *file {
	b := &builder{names: names, file: &file{}}
	b.hash.SetSeed(keySeed)
	clex.Split(text, b)
	return b.file
}

func (b *builder) key(parts ...[]clex.Token) uint64 {
	b.hash.Reset()
	for _, toks := range parts {
		for _, t := range toks {
			b.hash.WriteString(t.Text)
			b.hash.WriteByte(' ')
		}
		b.hash.WriteByte('\n')
	}
	return b.hash.Sum64()
}

// Directive and Stray are for those who want to know where things stand.
func (b *builder) Directive([]clex.Token, bool) {}

// Stray is of no concern here.
func (b *builder) Stray([]clex.Token) {}

func (b *builder) under(conds []clex.Condition) (parts [][]clex.Token, names []uint32) {
	for _, c := range conds {
		if c.Guard {
			continue
		}
		parts = append(parts, c.Toks)
		for _, t := range c.Toks[1:] {
			if t.Kind == clex.Ident && t.Text != "defined" {
				names = append(names, b.names.id(t.Text))
			}
		}
	}
	return parts, names
}

func (b *builder) Macro(undef bool, toks []clex.Token, conds []clex.Condition) {
	if len(toks) == 0 || toks[0].Kind != clex.Ident {
		return
	}
	parts, names := b.under(conds)
	e := entity{kind: kindMacro, conds: names, defs: []uint32{b.names.id(toks[0].Text)}}
	if undef {
		parts = append(parts, []clex.Token{{Text: "undef"}})
	}
	e.key = b.key(append(parts, toks)...)
	e.uses = b.uses(toks[1:])
	e.pastes, e.params = b.pastes(toks)
	if e.params > 0 {
		if b.called == nil {
			b.called = make(map[uint32]bool)
		}
		b.called[e.defs[0]] = true
	}
	// A macro that stands for a file's name: the file may be included through it.
	if n := includeName(toks[1:]); n.name != "" {
		n.inside = true
		b.file.includes = append(b.file.includes, n)
	}
	b.file.ents = append(b.file.ents, e)
}

func (b *builder) Include(toks []clex.Token, inside bool, conds []clex.Condition) {
	parts, _ := b.under(conds)
	n := includeName(toks)
	n.inside = n.inside || inside
	n.key = b.key(append(parts, toks)...)
	n.at = len(b.file.ents)
	b.file.includes = append(b.file.includes, n)
}

func includeName(toks []clex.Token) include {
	switch {
	case len(toks) == 1 && toks[0].Kind == clex.String && len(toks[0].Text) > 2:
		name := strings.Trim(toks[0].Text, `"`)
		if strings.HasSuffix(name, ".h") || strings.HasSuffix(name, ".c") || strings.HasSuffix(name, ".S") {
			return include{name: name, quoted: true}
		}
		return include{name: name, quoted: true, inside: true}
	case len(toks) >= 3 && toks[0].Is("<") && toks[len(toks)-1].Is(">"):
		var name strings.Builder
		for _, t := range toks[1 : len(toks)-1] {
			name.WriteString(t.Text)
		}
		return include{name: name.String()}
	}
	return include{}
}

func (b *builder) Entity(toks []clex.Token, conds []clex.Condition, open bool) {
	parts, names := b.under(conds)
	e := entity{conds: names}
	e.key = b.key(append(parts, toks)...)
	b.classify(&e, toks, open)
	if e.kind == kindDecl && len(e.defs)+len(e.tags) == 0 {
		if len(toks) <= 3 || toks[0].Text == "static_assert" || toks[0].Text == "_Static_assert" {
			return // a forward declaration, or nothing
		}
		e.kind = kindOpen
	}
	b.file.ents = append(b.file.ents, e)
}

func (b *builder) classify(e *entity, toks []clex.Token, open bool) {
	if open || toks[0].Text == "asm" || toks[0].Text == "__asm__" {
		e.kind = kindOpen
		e.uses = b.uses(toks)
		return
	}
	if toks[0].Text == "static_assert" || toks[0].Text == "_Static_assert" {
		e.kind = kindDecl
		return
	}
	if from, to := clex.Aggregate(toks); to > 0 {
		b.typ(e, toks, from, to)
		return
	}
	e.kind = kindDecl
	e.uses = b.uses(toks)
	end := len(toks)
	for i, depth := 0, 0; i < len(toks); i++ {
		switch t := toks[i]; {
		case t.Is("(") || t.Is("["):
			depth++
		case t.Is(")") || t.Is("]"):
			depth--
		case t.Is("{"):
			if end == len(toks) {
				end = i
			}
			e.kind = kindCode
		case t.Is("=") && depth == 0, strings.HasPrefix(t.Text, "typeof"), strings.HasPrefix(t.Text, "__typeof"):
			e.kind = kindCode
		}
	}
	if toks[0].Kind == clex.Ident && !clex.Keyword(toks[0].Text) && len(toks) > 1 && toks[1].Is("(") && !clex.Attribute(toks[0].Text) {
		e.kind = kindInvoke
	}
	declared := b.declared(toks[:end], e)
	if e.kind == kindCode && end < len(toks) {
		// A function may have a name that looks like that of a macro.
		declared = append(declared, e.invoked...)
		slices.Sort(declared)
		declared = slices.Compact(declared)
	}
	if toks[0].Text == "typedef" {
		e.tags = declared
	} else {
		e.defs = declared
	}
	if (e.kind == kindInvoke || e.kind == kindCode) && len(e.defs)+len(e.tags) == 0 {
		e.kind = kindOpen
	}
}

// uses collects the names that the tokens mention.
func (b *builder) uses(toks []clex.Token) []use {
	list := b.list[:0]
	depth, typeofs := 0, 0 // open brackets, and of them those of typeof
	for i, t := range toks {
		switch {
		case t.Is("(") || t.Is("{"):
			if i > 0 && depth == typeofs && strings.HasPrefix(strings.TrimLeft(toks[i-1].Text, "_"), "typeof") {
				typeofs++
			}
			depth++
		case t.Is(")") || t.Is("}"):
			depth = max(0, depth-1)
			typeofs = min(typeofs, depth)
		}
		if t.Kind != clex.Ident || clex.Keyword(t.Text) {
			continue
		}
		u := use(b.names.id(t.Text)) << useShift
		j := i + 1
		for j < len(toks) && clex.Qualifier(toks[j].Text) {
			j++
		}
		if j < len(toks) && toks[j].Is("*") {
			u |= onlyPointer
		}
		if i > 0 && (toks[i-1].Is("->") || toks[i-1].Is(".")) {
			u |= onlyMember
		}
		if depth > typeofs {
			u |= onlyInner
		}
		list = append(list, u)
	}
	b.list = list
	return compactUses(list)
}

func compactUses(list []use) []use {
	slices.Sort(list)
	out := list[:0]
	for _, u := range list {
		if n := len(out); n > 0 && out[n-1].name() == u.name() {
			out[n-1] &= u // a flag holds if it does for each mention
			continue
		}
		out = append(out, u)
	}
	return slices.Clone(out)
}

// declared returns what a declaration declares.
func (b *builder) declared(toks []clex.Token, e *entity) []uint32 {
	d := clex.Declared(toks, func(name string) bool { return b.called[b.names.id(name)] })
	ids := make([]uint32, len(d.Names))
	for i, n := range d.Names {
		ids[i] = b.names.id(n)
	}
	for _, n := range d.Args {
		e.args = append(e.args, b.names.id(n))
	}
	for _, n := range d.Invoked {
		e.invoked = append(e.invoked, b.names.id(n))
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}
