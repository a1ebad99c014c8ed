// SPDX-License-Identifier: Apache-2.0

package match

import (
	"bytes"
	"debug/elf"
	"slices"

	"github.com/upsplice/upsplice/splice/insn"
	"github.com/upsplice/upsplice/splice/kimage"
	"github.com/upsplice/upsplice/splice/object"
)

// place is one candidate: where a function may be, and what that implies.
type place struct {
	addr uint64
	refs []ref
}

// difference is why a candidate is none.
type difference struct {
	off        int64
	want, have []byte
	reason     string
}

// shown is how many bytes of a difference are kept.
const shown = 16

// tryAt compares the function with the image at addr.
func (m *matcher) tryAt(fn *object.Symbol, addr uint64) (place, *difference) {
	have := m.img.At(addr, int(fn.Size))
	if known := m.relaxed[fn.Section]; known != nil && fn.Value+fn.Size == uint64(len(fn.Section.Data)) {
		expanded, s, ok := m.expand(fn, addr)
		if !ok || !slices.Equal(s, known) {
			return place{}, &difference{off: 0, reason: "it has other short jumps than another candidate"}
		}
		have = expanded
	}
	if have == nil {
		return place{}, &difference{off: 0, reason: "the image has no bytes there"}
	}
	p := place{addr: addr}
	p.refs = append(p.refs, ref{thing{sec: fn.Section}, addr - fn.Value})
	if fn.Bind == elf.STB_WEAK {
		p.refs = append(p.refs, ref{thing{sym: fn}, addr})
	}
	refs, diff := m.compare(fn.Section, fn.Value, fn.Bytes(), have, addr)
	if diff != nil {
		return place{}, diff
	}
	p.refs = append(p.refs, refs...)
	if diff := m.endsAt(fn, addr); diff != nil {
		return place{}, diff
	}
	if refs, diff = m.compareSites(fn, addr); diff != nil {
		return place{}, diff
	}
	p.refs = append(p.refs, refs...)
	if p.refs, diff = m.follow(p.refs); diff != nil {
		return place{}, diff
	}
	return p, nil
}

// compare compares part of a section, which starts at offset start in it, with the
// bytes that the image has at addr.
func (m *matcher) compare(sec *object.Section, start uint64, want, have []byte, addr uint64) ([]ref, *difference) {
	var refs []ref
	pos := uint64(0)
	for _, r := range sec.RelocsIn(start, start+uint64(len(want))) {
		off := r.Offset - start
		width := uint64(r.Width(elf.EM_X86_64))
		if width == 0 {
			continue
		}
		if off < pos || off+width > uint64(len(want)) {
			return nil, &difference{off: int64(off), reason: "relocations overlap or leave the symbol"}
		}
		if d := differ(want, have, pos, off); d != nil {
			d.explainShortJump(sec, start, want)
			return nil, d
		}
		pos = off + width
		got, err := refOf(sec, start, r, have[off:pos], addr+off)
		if err == nil {
			got, err = m.within(got, sec, start, r)
		}
		if err != nil {
			return nil, &difference{off: int64(off), reason: err.Error()}
		}
		refs = append(refs, got)
	}
	if d := differ(want, have, pos, uint64(len(want))); d != nil {
		d.explainShortJump(sec, start, want)
		return nil, d
	}
	return refs, nil
}

func differ(want, have []byte, from, to uint64) *difference {
	if bytes.Equal(want[from:to], have[from:to]) {
		return nil
	}
	for want[from] == have[from] {
		from++
	}
	end := min(from+shown, uint64(len(want)))
	return &difference{off: int64(from), want: want[from:end], have: have[from:end], reason: "the bytes differ"}
}

// explainShortJump recognises what -ffunction-sections costs, see relax.
func (d *difference) explainShortJump(sec *object.Section, start uint64, want []byte) {
	if d.shortJump(sec, start, want) {
		d.reason = "the image has a short jump to a neighbouring function where the object has a long one"
	}
}

// paddingSeen is how many bytes behind a function are looked at.
const paddingSeen = 64

// endsAt checks that the image's function ends where the object's does: up to the
// next symbol there is only padding.
func (m *matcher) endsAt(fn *object.Symbol, addr uint64) *difference {
	end := addr + m.imageSize(fn)
	next := m.img.SymbolAfter(end - 1)
	n := paddingSeen
	if next != 0 && next-end < paddingSeen {
		n = int(next - end)
	}
	gap := m.img.At(end, n)
	if sec := fn.Section; gap == nil || m.definesAt(sec, fn.Value+fn.Size) {
		return nil
	}
	for pos := 0; pos < len(gap); {
		k := padding(gap[pos:])
		if k == 0 && (m.functionAt(end+uint64(pos)) || m.overriddenAt(fn, end+uint64(pos))) {
			return nil
		}
		if k == 0 {
			return &difference{off: int64(fn.Size), have: gap[:min(len(gap), shown)], reason: "the image's function goes on where the object's ends"}
		}
		pos += k
	}
	return nil
}

// definesAt says whether something of the object starts at this offset: then that is
// what follows in the image, even if kallsyms has no name for it.
func (m *matcher) definesAt(sec *object.Section, off uint64) bool {
	for _, s := range m.index.In(sec) {
		if s.Value == off {
			return true
		}
	}
	return false
}

// functionAt says whether a function starts at addr, with or without a name: calls of
// __fentry__ stand nowhere else.
func (m *matcher) functionAt(addr uint64) bool {
	const endbr = 4 // bytes that may come first
	for _, s := range m.img.SitesIn(addr, endbr+1) {
		if s.Kind == kimage.SiteMcount && (s.Addr == addr || s.Addr == addr+endbr) {
			return true
		}
	}
	return false
}

// overriddenAt says whether one of the object's weak functions that another object
// overrides is at addr: its code stays in the kernel, without a name.
func (m *matcher) overriddenAt(fn *object.Symbol, addr uint64) bool {
	for _, w := range m.weak {
		have := m.img.At(addr, int(w.Size))
		if class(w) != class(fn) || have == nil || w.Size == 0 {
			continue
		}
		if _, diff := m.compare(w.Section, w.Value, w.Bytes(), have, addr); diff == nil {
			return true
		}
	}
	return false
}

// padding returns the length of the filling that b starts with: int3, a zero, a NOP
// of any length, also one that b cuts off; 0 if it is something else.
func padding(b []byte) int {
	switch b[0] {
	case 0xcc, 0x90, 0x00:
		return 1
	}
	in, err := insn.Decode(b)
	if err != nil {
		if len(b) < insn.MaxLen && bytes.IndexByte([]byte{0x66, 0x2e, 0x0f}, b[0]) >= 0 {
			return len(b)
		}
		return 0
	}
	switch in.Opcode {
	case 0x90, 0x0f1f:
		return in.Len
	case 0x8d, 0x89, 0x87: // lea 0(%rsi),%rsi; mov, xchg of a register with itself
		if m := in.ModRM; m == 0x76 || m == 0x74 || m == 0xb6 || m == 0xb4 || m>>6 == 3 && m>>3&7 == m&7 {
			return in.Len
		}
	}
	return 0
}
