// SPDX-License-Identifier: Apache-2.0

package livepatch

import (
	"debug/elf"
	"fmt"
	"slices"
	"strings"

	"github.com/upsplice/upsplice/splice/object"
)

// chunk is a part of a section of the post object that goes into the module: a
// function, a datum, or a whole section.
type chunk struct {
	sec        *object.Section // of the post object
	start, end uint64          // in sec, bytes
	out        *object.Section // of the module
	at         uint64          // where in out the chunk starts
}

func (c *chunk) whole() bool { return c.start == 0 && c.end == c.sec.Size }

// chunkAt returns the chunk that has the byte at off, nil if it is not taken. One
// that is a whole section has the places before and behind it too: code refers to
// the end of an array, or to an element before the first, but nothing else can
// be meant.
func (u *unit) chunkAt(sec *object.Section, off uint64) *chunk {
	for _, c := range u.chunks[sec] {
		if off >= c.start && off < c.end || c.whole() {
			return c
		}
	}
	for _, c := range u.chunks[sec] {
		if off == c.start && off == c.end { // an alternative may be empty
			return c
		}
	}
	return nil
}

// inModule returns the place of a symbol whose chunk is taken.
func (u *unit) inModule(s *object.Symbol, addend int64) target {
	c := u.chunkAt(s.Section, s.Value)
	return target{symbol: u.b.sectionSymbol(c.out), addend: int64(c.at+s.Value-c.start) + addend}
}

// take copies a part of a section into a section of its own, under the name that
// it has in the post object where it is the whole of it.
func (u *unit) take(sec *object.Section, start, end uint64, label string) *chunk {
	name := sec.Name
	if start != 0 || end != sec.Size {
		name += "." + label
	}
	align := max(sec.Align, 1)
	if start != 0 {
		align = min(align, start&-start)
	}
	out := &object.Section{
		Name: u.b.uniqueName(name), Type: sec.Type,
		// not SHF_MERGE: the references are to offsets in this very copy
		Flags: sec.Flags & (elf.SHF_ALLOC | elf.SHF_WRITE | elf.SHF_EXECINSTR),
		Align: align,
	}
	u.b.addSection(out)
	return u.put(sec, start, end, out)
}

// takeInto appends a part of a section to a section of the module that collects
// parts of many.
func (u *unit) takeInto(out, sec *object.Section, start, end uint64) *chunk {
	out.Align = max(out.Align, sec.Align, 1)
	if start&(out.Align-1) == 0 { // as aligned as it was
		out.Data = append(out.Data, make([]byte, -uint64(len(out.Data))&(out.Align-1))...)
	}
	return u.put(sec, start, end, out)
}

func (u *unit) put(sec *object.Section, start, end uint64, out *object.Section) *chunk {
	c := &chunk{sec: sec, start: start, end: end, out: out, at: out.Size}
	if sec.Type == elf.SHT_NOBITS {
		out.Size += end - start
	} else {
		c.at = uint64(len(out.Data))
		out.Data = append(out.Data, sec.Data[start:end]...)
		out.Size = uint64(len(out.Data))
	}
	u.chunks[sec] = append(u.chunks[sec], c)
	u.order = append(u.order, c)
	for _, s := range u.idx.In(sec) {
		if s.Value < start || s.Value >= end || s.Name == "" || strings.HasPrefix(s.Name, ".L") {
			continue
		}
		u.b.symbol(s.Name, elf.STB_LOCAL, s.Type, out, c.at+s.Value-start, min(s.Size, end-s.Value))
	}
	return c
}

// takeFunction takes a function and its .cold part. Instructions that gcc moved
// to the cold section belong to the function although they have a symbol.
func (u *unit) takeFunction(function Function) error {
	f := function.Post
	parts := []*object.Symbol{f}
	for _, s := range u.Post.Symbols {
		if s.Section != nil && s.Type == elf.STT_FUNC &&
			(s.Name == f.Name+".cold" || strings.HasPrefix(s.Name, f.Name+".cold.")) {
			parts = append(parts, s)
		}
	}
	for _, s := range parts {
		if err := u.takeCode(s, function.OldName == ""); err != nil {
			return err
		}
	}
	return nil
}

func (u *unit) takeCode(f *object.Symbol, added bool) error {
	sec := f.Section
	switch {
	case sec == nil:
		return u.unsupported(nil, f.Name, "it is not defined in the object")
	case sec.Flags&elf.SHF_EXECINSTR == 0 || sec.Flags&elf.SHF_ALLOC == 0 || sec.Type == elf.SHT_NOBITS:
		return u.unsupported(sec, f.Name, "it is not code")
	case sec.Flags&elf.SHF_WRITE != 0:
		return u.unsupported(sec, f.Name, "a section that is both writable and executable is not put into a module")
	case f.Size == 0:
		return u.unsupported(sec, f.Name, "its size is not known")
	}
	if reason := codeReason(sec.Name, added); reason != "" {
		return u.unsupported(sec, f.Name, reason)
	}
	start, end := f.Value, f.Value+f.Size
	alone := true
	for _, s := range u.idx.In(sec) {
		if s.Type != elf.STT_FUNC {
			continue
		}
		if s.Name == prefixName+f.Name && s.Value+s.Size == f.Value {
			start = s.Value
		} else if s.Value != f.Value {
			alone = false
		}
	}
	if alone {
		start, end = 0, sec.Size
	}
	for _, c := range u.chunks[sec] {
		if c.start == start && c.end == end {
			return nil // an alias, or named twice
		}
		if start < c.end && c.start < end {
			return u.unsupported(sec, f.Name, "it overlaps another function")
		}
	}
	u.take(sec, start, end, f.Name)
	return nil
}

// prefixName starts the name of the symbol that objtool gives to the padding in
// front of a function, which the kernel may fill with code
// (CONFIG_PREFIX_SYMBOLS).
const prefixName = "__pfx_"

// takeData takes a datum: its section if it has one of its own, else its bytes.
func (u *unit) takeData(s *object.Symbol) (*chunk, error) {
	sec := s.Section
	if reason := dataReason(sec.Name); reason != "" {
		return nil, u.unsupported(sec, s.Name, reason)
	}
	if sec.Name == dynamicDebug {
		return u.takeDescriptor(s)
	}
	if u.alone(s) {
		return u.take(sec, 0, sec.Size, ""), nil
	}
	if s.Size == 0 {
		return nil, u.unsupported(sec, s.Name, "its size is not known")
	}
	for _, c := range u.chunks[sec] {
		if s.Value < c.end && c.start < s.Value+s.Size {
			return nil, u.unsupported(sec, s.Name, "it overlaps other data")
		}
	}
	return u.take(sec, s.Value, s.Value+s.Size, s.Name), nil
}

// takeDescriptor takes the descriptor of a pr_debug. The kernel has an array of
// those of each module.
func (u *unit) takeDescriptor(s *object.Symbol) (*chunk, error) {
	layout, err := u.b.kernel.structure("_ddebug")
	if err != nil {
		return nil, err
	}
	if s.Size != layout.size {
		return nil, u.unsupported(s.Section, s.Name, fmt.Sprintf("it has %d bytes, a descriptor of the kernel has %d", s.Size, layout.size))
	}
	out := u.b.collected(s.Section)
	out.Align = max(out.Align, natural(layout.size))
	return u.put(s.Section, s.Value, s.Value+s.Size, out), nil
}

// alone reports whether nothing but a symbol, and aliases of it, is in its section.
func (u *unit) alone(s *object.Symbol) bool {
	return !slices.ContainsFunc(u.idx.In(s.Section), func(other *object.Symbol) bool {
		return other.Value != s.Value
	})
}
