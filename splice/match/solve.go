// SPDX-License-Identifier: Apache-2.0

package match

import (
	"cmp"
	"debug/elf"
	"fmt"
	"slices"
	"strings"

	"github.com/upsplice/upsplice/splice/kimage"
	"github.com/upsplice/upsplice/splice/object"
)

// matcher is the work on one object.
type matcher struct {
	img       *kimage.Image
	index     *object.Index
	bySection map[*object.Section][]*object.Symbol
	entries   map[*object.Section][]entry
	checked   map[ref]verdict
	byStem    map[string][]kimage.Symbol // symbols with a compiler's number in their name
	weak      []*object.Symbol           // weak functions of the object that another one overrides
	funcs     []*function
	relaxed   map[*object.Section]shrinks // functions with shorter jumps in the image
	order     map[*object.Section]int     // of the sections in the object
}

// function is one function of the object with the places that it may be at.
type function struct {
	sym    *object.Symbol
	names  int // places with a fitting name
	places []place
	best   *difference // of the candidate that agrees longest
	bestAt uint64
	reason string // why no place is left, if not best
}

func functions(o *object.Object, img *kimage.Image, want []*object.Symbol) (*Report, error) {
	if o.Machine != elf.EM_X86_64 {
		return nil, fmt.Errorf("matching: the object is for %v: only x86-64 is known", o.Machine)
	}
	for _, w := range want {
		if w.Section == nil || w.Type != elf.STT_FUNC || w.Section.Flags&elf.SHF_EXECINSTR == 0 {
			return nil, fmt.Errorf("matching: %s is not a function that the object defines", w.Name)
		}
	}
	m := &matcher{
		img:       img,
		index:     object.NewIndex(o),
		bySection: map[*object.Section][]*object.Symbol{},
		order:     map[*object.Section]int{},
	}
	for i, sec := range o.Sections {
		m.order[sec] = i
	}
	for _, s := range o.Symbols {
		if s.Section != nil {
			m.bySection[s.Section] = append(m.bySection[s.Section], s)
		}
	}
	if err := m.readEntries(o); err != nil {
		return nil, err
	}
	for _, s := range o.Functions() {
		if s.Bind == elf.STB_WEAK && !slices.ContainsFunc(img.Lookup(s.Name), func(k kimage.Symbol) bool { return kindFits(s, k.Kind) }) {
			m.weak = append(m.weak, s)
		}
	}
	m.tryAll(o)
	if m.relax() {
		m.tryAll(o)
	}
	m.settle()
	return m.report(want), nil
}

// tryAll looks for the candidates of every function.
func (m *matcher) tryAll(o *object.Object) {
	m.funcs, m.checked = nil, map[ref]verdict{}
	for _, s := range o.Functions() {
		if s.Section.Flags&elf.SHF_EXECINSTR != 0 {
			m.funcs = append(m.funcs, m.candidates(s))
		}
	}
}

// candidates tries every place that has the function's name.
func (m *matcher) candidates(fn *object.Symbol) *function {
	f := &function{sym: fn}
	switch {
	case fn.Size == 0 || fn.Bytes() == nil:
		f.reason = "the object has no bytes for it"
		return f
	case fn.Size > 1<<24:
		f.reason = "it is too large"
		return f
	}
	overridden := false
	for _, s := range m.named(fn.Name) {
		if !kindFits(fn, s.Kind) {
			overridden = overridden || fn.Bind == elf.STB_WEAK && s.Kind == 'T'
			continue
		}
		f.names++
		p, diff := m.tryAt(fn, s.Addr)
		switch {
		case diff == nil:
			f.places = append(f.places, p)
		case f.best == nil || diff.off > f.best.off:
			f.best, f.bestAt = diff, s.Addr
		}
	}
	if f.names == 0 {
		f.reason = "kallsyms has no such function"
		switch {
		case m.img.IsModule() && strings.HasPrefix(fn.Section.Name, ".init"):
			f.reason = "the kernel frees it once the module has been started"
		case overridden:
			f.reason = "it is weak, and the kernel has a definition from elsewhere in its place"
		}
	}
	return f
}

// named returns the kallsyms entries of a name, or if there are none those that
// differ only in the compiler's numbers.
func (m *matcher) named(name string) []kimage.Symbol {
	if s := m.img.Lookup(name); len(s) > 0 {
		return s
	}
	if !strings.Contains(name, ".") {
		return nil
	}
	if m.byStem == nil {
		m.byStem = map[string][]kimage.Symbol{}
		for _, s := range m.img.Symbols {
			if strings.Contains(s.Name, ".") && (s.Kind == 't' || s.Kind == 'T') {
				m.byStem[stem(s.Name)] = append(m.byStem[stem(s.Name)], s)
			}
		}
	}
	return m.byStem[stem(name)]
}

// kindFits compares the binding of a function with its kind in kallsyms, which
// shows whether the entry can be this one: a static function of the same name in
// another file, or the definition that overrides a weak one, is not.
func kindFits(fn *object.Symbol, kind byte) bool {
	switch fn.Bind {
	case elf.STB_WEAK:
		return kind == 'W' || kind == 'w'
	case elf.STB_LOCAL:
		return kind == 't'
	}
	hidden := elf.ST_VISIBILITY(fn.Other) != elf.STV_DEFAULT
	return kind == 'T' || hidden && kind == 't'
}

// settle drops places that disagree with functions that have only one, until
// nothing changes.
func (m *matcher) settle() {
	for {
		agreed, _ := m.addresses()
		changed := false
		for _, f := range m.funcs {
			if len(f.places) < 2 {
				continue
			}
			left := slices.DeleteFunc(slices.Clone(f.places), func(p place) bool {
				return slices.ContainsFunc(p.refs, func(r ref) bool {
					a, ok := agreed[r.thing]
					return ok && a != r.addr
				})
			})
			if len(left) < len(f.places) {
				if len(left) == 0 {
					f.reason = "every candidate disagrees with other functions of the object about some address"
				}
				f.places, changed = left, true
			}
		}
		if !changed && !m.narrow() {
			return
		}
	}
}

// class names the section that the function would be in without -ffunction-sections.
func class(fn *object.Symbol) string {
	if cut, ok := strings.CutSuffix(fn.Section.Name, "."+fn.Name); ok {
		return cut
	}
	return fn.Section.Name
}

// addresses returns what the functions with a single place agree about, and the
// things about which they do not.
func (m *matcher) addresses() (agreed map[thing]uint64, disputed map[thing][2]uint64) {
	agreed, disputed = map[thing]uint64{}, map[thing][2]uint64{}
	for _, f := range m.funcs {
		if len(f.places) != 1 {
			continue
		}
		for _, r := range f.places[0].refs {
			if a, ok := agreed[r.thing]; ok && a != r.addr {
				disputed[r.thing] = [2]uint64{a, r.addr}
			} else if !ok {
				agreed[r.thing] = r.addr
			}
		}
	}
	for t := range disputed {
		delete(agreed, t)
	}
	return agreed, disputed
}

func (m *matcher) report(want []*object.Symbol) *Report {
	rep := &Report{Found: map[*object.Symbol]Found{}, Addr: map[*object.Symbol]uint64{}}
	agreed, disputed := m.addresses()
	bySym := map[*object.Symbol]*function{}
	for _, f := range m.funcs {
		bySym[f.sym] = f
		if len(f.places) != 1 {
			continue
		}
		for _, r := range f.places[0].refs {
			if d, ok := disputed[r.thing]; ok {
				f.reason = fmt.Sprintf("functions of the object disagree about the address of %v: %#x and %#x", r.thing, d[0], d[1])
				break
			}
		}
		if f.reason == "" {
			found := m.found(f)
			if f.reason = m.unusable(found); f.reason == "" {
				rep.Found[f.sym] = found
			}
		}
	}
	for t, addr := range agreed {
		for s, off := range m.symbolsOf(t) {
			rep.Addr[s] = addr + off
		}
	}
	for _, w := range want {
		if _, ok := rep.Found[w]; !ok {
			rep.Failed = append(rep.Failed, bySym[w].mismatch())
		}
	}
	return rep
}

func (m *matcher) found(f *function) Found {
	addr := f.places[0].addr
	out := Found{Symbol: f.sym, Addr: addr, Size: m.imageSize(f.sym), Relocs: len(f.sym.Relocs())}
	for _, s := range m.img.SymbolAt(addr) {
		if s.Name == f.sym.Name || out.Name == "" && sameName(s.Name, f.sym.Name) {
			out.Name = s.Name
		}
	}
	pos, ambiguous := m.img.Sympos(out.Name, addr)
	out.Sympos, out.Unique = pos, !ambiguous
	return out
}

// unusable says why a function of a module that was found cannot be used.
func (m *matcher) unusable(f Found) string {
	if !m.img.IsModule() {
		return ""
	}
	if f.Sympos == 0 {
		return "its position among the symbols of its name changes once the module has been started"
	}
	if _, err := expectModule(m.img, f); err != nil {
		return "it cannot be looked for in live memory: " + err.Error()
	}
	return ""
}

func (f *function) mismatch() Mismatch {
	x := Mismatch{Function: f.sym.Name, Offset: -1, Candidates: f.names, Reason: f.reason}
	switch {
	case x.Reason != "":
		if len(f.places) > 0 {
			x.Addr = f.places[0].addr
		}
	case len(f.places) > 1:
		x.Addr = slices.MinFunc(f.places, func(a, b place) int { return cmp.Compare(a.addr, b.addr) }).addr
		x.Reason = fmt.Sprintf("%d places match and nothing decides between them", len(f.places))
	default:
		x.Offset, x.Addr, x.Want, x.Have, x.Reason = f.best.off, f.bestAt, f.best.want, f.best.have, f.best.reason
	}
	return x
}

func (m Mismatch) error() string {
	msg := fmt.Sprintf("matching %s: %s", m.Function, m.Reason)
	if m.Addr != 0 {
		msg += fmt.Sprintf(" (candidate at %#x", m.Addr)
		if m.Offset >= 0 {
			msg += fmt.Sprintf(", offset %#x", m.Offset)
		}
		if len(m.Want) > 0 {
			msg += fmt.Sprintf(", object % x, image % x", m.Want, m.Have)
		}
		msg += ")"
	}
	return msg
}
