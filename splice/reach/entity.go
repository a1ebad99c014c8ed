// SPDX-License-Identifier: Apache-2.0

package reach

import (
	"hash/maphash"
	"slices"
	"strings"
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
	split(text, b)
	return b.file
}

func (b *builder) key(parts ...[]token) uint64 {
	b.hash.Reset()
	for _, toks := range parts {
		for _, t := range toks {
			b.hash.WriteString(t.text)
			b.hash.WriteByte(' ')
		}
		b.hash.WriteByte('\n')
	}
	return b.hash.Sum64()
}

func (b *builder) under(conds []condition) (parts [][]token, names []uint32) {
	for _, c := range conds {
		if c.guard {
			continue
		}
		parts = append(parts, c.toks)
		for _, t := range c.toks[1:] {
			if t.kind == tokIdent && t.text != "defined" {
				names = append(names, b.names.id(t.text))
			}
		}
	}
	return parts, names
}

func (b *builder) macro(undef bool, toks []token, conds []condition) {
	if len(toks) == 0 || toks[0].kind != tokIdent {
		return
	}
	parts, names := b.under(conds)
	e := entity{kind: kindMacro, conds: names, defs: []uint32{b.names.id(toks[0].text)}}
	if undef {
		parts = append(parts, []token{{text: "undef"}})
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

func (b *builder) include(toks []token, inside bool, conds []condition) {
	parts, _ := b.under(conds)
	n := includeName(toks)
	n.inside = n.inside || inside
	n.key = b.key(append(parts, toks)...)
	n.at = len(b.file.ents)
	b.file.includes = append(b.file.includes, n)
}

func includeName(toks []token) include {
	switch {
	case len(toks) == 1 && toks[0].kind == tokString && len(toks[0].text) > 2:
		name := strings.Trim(toks[0].text, `"`)
		if strings.HasSuffix(name, ".h") || strings.HasSuffix(name, ".c") || strings.HasSuffix(name, ".S") {
			return include{name: name, quoted: true}
		}
		return include{name: name, quoted: true, inside: true}
	case len(toks) >= 3 && toks[0].is("<") && toks[len(toks)-1].is(">"):
		var name strings.Builder
		for _, t := range toks[1 : len(toks)-1] {
			name.WriteString(t.text)
		}
		return include{name: name.String()}
	}
	return include{}
}

func (b *builder) entity(toks []token, conds []condition, open bool) {
	parts, names := b.under(conds)
	e := entity{conds: names}
	e.key = b.key(append(parts, toks)...)
	b.classify(&e, toks, open)
	if e.kind == kindDecl && len(e.defs)+len(e.tags) == 0 {
		if len(toks) <= 3 || toks[0].text == "static_assert" || toks[0].text == "_Static_assert" {
			return // a forward declaration, or nothing
		}
		e.kind = kindOpen
	}
	b.file.ents = append(b.file.ents, e)
}

func (b *builder) classify(e *entity, toks []token, open bool) {
	if open || toks[0].text == "asm" || toks[0].text == "__asm__" {
		e.kind = kindOpen
		e.uses = b.uses(toks)
		return
	}
	if toks[0].text == "static_assert" || toks[0].text == "_Static_assert" {
		e.kind = kindDecl
		return
	}
	if from, to := aggregate(toks); to > 0 {
		b.typ(e, toks, from, to)
		return
	}
	e.kind = kindDecl
	e.uses = b.uses(toks)
	end := len(toks)
	for i, depth := 0, 0; i < len(toks); i++ {
		switch t := toks[i]; {
		case t.is("(") || t.is("["):
			depth++
		case t.is(")") || t.is("]"):
			depth--
		case t.is("{"):
			if end == len(toks) {
				end = i
			}
			e.kind = kindCode
		case t.is("=") && depth == 0, strings.HasPrefix(t.text, "typeof"), strings.HasPrefix(t.text, "__typeof"):
			e.kind = kindCode
		}
	}
	if toks[0].kind == tokIdent && !keyword(toks[0].text) && len(toks) > 1 && toks[1].is("(") && !attribute(toks[0].text) {
		e.kind = kindInvoke
	}
	declared := b.declared(toks[:end], e)
	if e.kind == kindCode && end < len(toks) {
		// A function may have a name that looks like that of a macro.
		declared = append(declared, e.invoked...)
		slices.Sort(declared)
		declared = slices.Compact(declared)
	}
	if toks[0].text == "typedef" {
		e.tags = declared
	} else {
		e.defs = declared
	}
	if (e.kind == kindInvoke || e.kind == kindCode) && len(e.defs)+len(e.tags) == 0 {
		e.kind = kindOpen
	}
}

// aggregate finds the braces of a struct, union or enum that is defined here.
func aggregate(toks []token) (from, to int) {
	for i, t := range toks {
		if t.is("{") {
			if opensBody(toks[:i]) {
				return 0, 0
			}
			head := false
			for j := range toks[:i] {
				if toks[j].is("=") {
					return 0, 0
				}
				head = head || toks[j].text == "struct" || toks[j].text == "union" || toks[j].text == "enum"
			}
			if !head {
				return 0, 0
			}
			return i, closing(toks, i)
		}
	}
	return 0, 0
}

// closing is the index of the brace that closes the one at i, or the last index.
func closing(toks []token, i int) int {
	depth := 0
	for j := i; j < len(toks); j++ {
		if toks[j].is("{") {
			depth++
		} else if toks[j].is("}") {
			if depth--; depth == 0 {
				return j
			}
		}
	}
	return len(toks) - 1
}

// declared returns what a declaration declares. It may name too much: an
// attribute that it does not know.
func (b *builder) declared(toks []token, e *entity) []uint32 {
	toks = code(toks)
	var ids []uint32
	add := func(name string) {
		if !basic(name) {
			ids = append(ids, b.names.id(name))
		}
	}
	depth, value, skip := 0, false, -1
	// Without a type in front it is no function that is declared, but a macro called.
	calls, call := true, false
	for i, t := range toks {
		if attribute(t.text) && depth == 0 && skip < 0 && i+1 < len(toks) && toks[i+1].is("(") {
			skip = 0 // the parentheses after it
			continue
		}
		if skip >= 0 {
			if t.is("(") {
				skip++
			} else if t.is(")") {
				skip--
			}
			if skip == 0 {
				skip = -1
			}
			continue
		}
		next := token{kind: tokPunct, text: ";"}
		if i+1 < len(toks) {
			next = toks[i+1]
		}
		if depth == 0 && t.kind == tokIdent && !keyword(t.text) && !basic(t.text) {
			call = next.is("(") && (calls || t.text == strings.ToUpper(t.text))
			calls = call
		} else if depth == 0 && (keyword(t.text) && !storage(t.text) || t.is("*")) {
			calls = false
		}
		switch {
		case t.is("(") || t.is("[") || t.is("{"):
			depth++
		case t.is(")") || t.is("]") || t.is("}"):
			depth--
		case t.is("=") && depth == 0:
			value = true
		case t.is(",") && depth == 0:
			value = false
		case value || t.kind != tokIdent || keyword(t.text):
		case depth == 1 && i > 1 && (toks[i-1].is("*") || toks[i-1].is("(")) && (next.is(")") || next.is("(") || next.is("[")) && starred(toks[:i]):
			add(t.text) // (*name)
		case depth == 1 && i > 1 && toks[i-1].is("(") && next.is(")") && i+2 < len(toks) && toks[i+2].is("("):
			add(t.text) // (name)(parameters)
		case depth == 1 && call && (next.is(",") || next.is(")")) && (toks[i-1].is("(") || toks[i-1].is(",")):
			// The only name in an argument. A macro for each item of a list is not
			// what is defined.
			if !strings.HasSuffix(t.text, "_t") && !basic(t.text) && !b.called[b.names.id(t.text)] {
				ids = append(ids, b.names.id(t.text))
				e.args = append(e.args, b.names.id(t.text))
			}
		case depth != 0:
		case i > 0 && (toks[i-1].text == "struct" || toks[i-1].text == "union" || toks[i-1].text == "enum"):
		case next.is("("):
			if call {
				e.invoked = append(e.invoked, b.names.id(t.text))
			}
			if i > 0 && t.text != strings.ToUpper(t.text) {
				add(t.text)
			}
		case next.kind == tokPunct && strings.Contains(";,[=:)", next.text):
			add(t.text)
		case next.kind == tokIdent && strings.HasPrefix(next.text, "__"):
			if !strings.HasSuffix(t.text, "_t") {
				add(t.text)
			}
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// starred says whether the tokens end in an open parenthesis and stars.
func starred(toks []token) bool {
	for i := len(toks) - 1; i >= 0; i-- {
		switch {
		case toks[i].is("("):
			return i < len(toks)-1
		case !toks[i].is("*") && !qualifier(toks[i].text):
			return false
		}
	}
	return false
}

// uses collects the names that the tokens mention.
func (b *builder) uses(toks []token) []use {
	list := b.list[:0]
	depth, typeofs := 0, 0 // open brackets, and of them those of typeof
	for i, t := range toks {
		switch {
		case t.is("(") || t.is("{"):
			if i > 0 && depth == typeofs && strings.HasPrefix(strings.TrimLeft(toks[i-1].text, "_"), "typeof") {
				typeofs++
			}
			depth++
		case t.is(")") || t.is("}"):
			depth = max(0, depth-1)
			typeofs = min(typeofs, depth)
		}
		if t.kind != tokIdent || keyword(t.text) {
			continue
		}
		u := use(b.names.id(t.text)) << useShift
		j := i + 1
		for j < len(toks) && qualifier(toks[j].text) {
			j++
		}
		if j < len(toks) && toks[j].is("*") {
			u |= onlyPointer
		}
		if i > 0 && (toks[i-1].is("->") || toks[i-1].is(".")) {
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

func qualifier(name string) bool {
	switch name {
	case "const", "volatile", "restrict", "__restrict", "__user", "__rcu", "__iomem", "__percpu", "__force", "__kernel":
		return true
	}
	return false
}

func keyword(name string) bool {
	switch name {
	case "auto", "break", "case", "char", "const", "continue", "default", "do", "double", "else", "enum", "extern", "float",
		"for", "goto", "if", "inline", "int", "long", "register", "return", "short", "signed", "sizeof", "static", "struct",
		"switch", "typedef", "union", "unsigned", "void", "volatile", "while", "asm", "typeof", "defined", "elif", "endif",
		"ifdef", "ifndef", "__attribute__", "__VA_ARGS__", "__inline", "__inline__", "__extension__", "_Bool":
		return true
	}
	return false
}

func storage(name string) bool {
	switch name {
	case "static", "extern", "inline", "__inline", "__inline__", "const", "register", "auto":
		return true
	}
	return false
}

// basic names types that a declaration never defines itself but in the few
// headers that define nothing else.
func basic(name string) bool {
	switch name {
	case "u8", "u16", "u32", "u64", "s8", "s16", "s32", "s64", "__u8", "__u16", "__u32", "__u64", "__s8", "__s16", "__s32",
		"__s64", "bool", "__init", "__exit", "__initdata", "__read_mostly", "__ro_after_init", "__always_inline",
		"noinline", "__weak", "__pure", "__must_check", "__percpu", "__user", "__rcu", "__iomem", "__maybe_unused",
		"__packed", "asmlinkage", "__visible", "__cold", "__noreturn", "__attribute_const__", "__refdata", "__bitwise",
		"__initconst", "__deprecated", "__used", "__latent_entropy", "noinstr", "__kprobes", "__sched", "____cacheline_aligned",
		"____cacheline_aligned_in_smp", "____cacheline_internodealigned_in_smp", "__cacheline_aligned", "__cacheline_aligned_in_smp",
		"__randomize_layout", "__no_randomize_layout", "__designated_init":
		return true
	}
	return false
}
