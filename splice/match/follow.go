// SPDX-License-Identifier: Apache-2.0

package match

import (
	"bytes"
	"debug/elf"
	"fmt"
	"slices"
	"strings"

	"github.com/upsplice/upsplice/splice/kimage"
	"github.com/upsplice/upsplice/splice/object"
)

// verdict is what was found out about a thing at an address.
type verdict struct {
	refs []ref // what the contents of a constant imply
	diff *difference
}

// follow checks each ref, and those that constants lead to, and returns all of them.
func (m *matcher) follow(refs []ref) ([]ref, *difference) {
	seen := map[ref]bool{}
	at := map[thing]uint64{}
	out := refs[:0:0]
	for todo := slices.Clone(refs); len(todo) > 0; {
		r := todo[0]
		todo = todo[1:]
		if seen[r] {
			continue
		}
		seen[r] = true
		if prev, ok := at[r.thing]; ok {
			return nil, &difference{reason: fmt.Sprintf("its uses of %v imply two addresses, %#x and %#x", r.thing, prev, r.addr)}
		}
		at[r.thing] = r.addr
		v, ok := m.checked[r]
		if !ok {
			v = m.check(r)
			m.checked[r] = v
		}
		if v.diff != nil {
			return nil, v.diff
		}
		out = append(out, r)
		todo = append(todo, v.refs...)
	}
	return out, nil
}

// check says whether a thing can be at an address: by its name in kallsyms, and for
// what the compiler or the programmer made constant by its contents.
func (m *matcher) check(r ref) verdict {
	sec := r.thing.sec
	switch {
	case r.thing.sym != nil:
		return verdict{diff: m.checkSymbol(r)}
	case sec.Flags&elf.SHF_MERGE != 0:
		return verdict{diff: m.checkElement(r)}
	}
	named := 0
	for _, s := range m.index.In(sec) {
		if s.Bind == elf.STB_WEAK || strings.HasPrefix(s.Name, ".L") {
			continue
		}
		if !m.hasName(r.addr+s.Value, s.Name) {
			return verdict{diff: &difference{reason: fmt.Sprintf("%s would be at %#x, where kallsyms has %s", s.Name, r.addr+s.Value, m.namesAt(r.addr+s.Value))}}
		}
		named++
	}
	if sec.Flags&elf.SHF_EXECINSTR != 0 {
		return verdict{} // functions are compared by themselves
	}
	if sec.Name == ".BTF_ids" && named > 0 {
		return verdict{} // resolve_btfids fills it in after the link
	}
	if sec.Flags&elf.SHF_WRITE == 0 || named == 0 {
		return m.checkContents(r)
	}
	return verdict{}
}

func (m *matcher) checkSymbol(r ref) *difference {
	s := r.thing.sym
	if s.Special == elf.SHN_ABS && s.Section == nil {
		if r.addr == s.Value {
			return nil
		}
		return &difference{reason: fmt.Sprintf("the absolute %s is %#x, the image has %#x", s.Name, s.Value, r.addr)}
	}
	for _, k := range m.img.SymbolAt(r.addr) {
		if k.Name == s.Name {
			return nil
		}
	}
	return &difference{reason: fmt.Sprintf("%s would be at %#x, where kallsyms has %s", s.Name, r.addr, m.namesAt(r.addr))}
}

// checkElement compares a string or constant of a mergeable section. A string may be
// the tail of a longer one: only what starts at its address counts.
func (m *matcher) checkElement(r ref) *difference {
	sec, off := r.thing.sec, r.thing.off
	unit := int(max(sec.EntSize, 1))
	if off >= uint64(len(sec.Data)) {
		return &difference{reason: fmt.Sprintf("%v is not in the object", r.thing)}
	}
	want := sec.Data[off:]
	if sec.Flags&elf.SHF_STRINGS != 0 {
		end := 0
		for end+unit <= len(want) && !bytes.Equal(want[end:end+unit], make([]byte, unit)) {
			end += unit
		}
		unit = end + unit
	}
	if len(want) < unit || len(sec.RelocsIn(off, off+uint64(unit))) > 0 {
		return &difference{reason: fmt.Sprintf("%v is no constant", r.thing)}
	}
	want = want[:unit]
	if have := m.img.At(r.addr, unit); !bytes.Equal(want, have) {
		return &difference{want: want[:min(unit, shown)], have: have[:min(len(have), shown)],
			reason: fmt.Sprintf("%v would be at %#x, where the image has something else", r.thing, r.addr)}
	}
	return nil
}

// checkContents compares a constant section as a whole.
func (m *matcher) checkContents(r ref) verdict {
	sec := r.thing.sec
	if sec.Type == elf.SHT_NOBITS {
		return verdict{}
	}
	have := m.img.At(r.addr, len(sec.Data))
	if have == nil {
		return verdict{diff: &difference{reason: fmt.Sprintf("%v would be at %#x, where the image has nothing", r.thing, r.addr)}}
	}
	refs, diff := m.compare(sec, 0, sec.Data, have, r.addr)
	if diff != nil {
		diff = &difference{want: diff.want, have: diff.have,
			reason: fmt.Sprintf("%v would be at %#x, where the image differs at offset %#x", r.thing, r.addr, diff.off)}
	}
	return verdict{refs, diff}
}

// hasName says whether kallsyms has the name at addr, another number of the compiler allowed.
func (m *matcher) hasName(addr uint64, name string) bool {
	return slices.ContainsFunc(m.img.SymbolAt(addr), func(s kimage.Symbol) bool { return sameName(s.Name, name) })
}

func (m *matcher) namesAt(addr uint64) string {
	var names []string
	for _, s := range m.img.SymbolAt(addr) {
		names = append(names, s.Name)
	}
	if names == nil {
		return "no symbol"
	}
	return strings.Join(names, ", ")
}

// sameName says whether two names differ at most in the numbers that the compiler
// appends to static variables and clones: __func__.25, f.constprop.0.cold.
func sameName(a, b string) bool { return a == b || stem(a) == stem(b) }

// stem is a name with every such number made zero.
func stem(name string) string {
	parts := strings.Split(name, ".")
	for i, p := range parts[1:] {
		if p != "" && strings.Trim(p, "0123456789") == "" {
			parts[i+1] = "0"
		}
	}
	return strings.Join(parts, ".")
}

// symbolsOf returns the symbols of the object whose address a ref tells.
func (m *matcher) symbolsOf(t thing) map[*object.Symbol]uint64 {
	out := map[*object.Symbol]uint64{}
	if t.sym != nil {
		out[t.sym] = 0
		return out
	}
	merge := t.sec.Flags&elf.SHF_MERGE != 0
	for _, s := range m.bySection[t.sec] {
		switch {
		case s.Bind == elf.STB_WEAK, merge && (s.Type == elf.STT_SECTION || s.Value != t.off):
		case merge:
			out[s] = 0
		default:
			out[s] = m.imageOffset(t.sec, s.Value)
		}
	}
	return out
}
