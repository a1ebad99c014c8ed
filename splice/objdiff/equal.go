// SPDX-License-Identifier: Apache-2.0

package objdiff

import (
	"bytes"
	"debug/elf"
	"fmt"
	"strings"

	"github.com/upsplice/upsplice/splice/insn"
	"github.com/upsplice/upsplice/splice/object"
)

// differ holds both sides and what stands for what.
type differ struct {
	pre, post *side
	twin      map[*object.Symbol]*object.Symbol // post to pre
	back      map[*object.Symbol]*object.Symbol // pre to post
	custom    custom
	// of the comparison under way
	work int64              // left
	seen map[constants]bool // constants that have been looked at, or are being
}

// constants are two places that are compared by what stands there.
type constants struct {
	pre, post       *object.Section
	preOff, postOff int64
}

// maxWork is how many bytes of constants one comparison may read, stepWork what
// each constant counts at least.
const (
	maxWork  = 64 << 20
	stepWork = 1 << 10
)

// begin makes room for a comparison.
func (d *differ) begin() {
	d.work = maxWork
	clear(d.seen)
}

// look says whether two places have to be compared; if not, whether they are the
// same as far as is known. One difference decides a whole comparison, so that
// constants that have been looked at need not be again, and constants that refer
// to each other in circles are the same if nothing else differs.
func (d *differ) look(pre, post *object.Section, preOff, postOff int64, size uint64) (compare, same bool) {
	c := constants{pre, post, preOff, postOff}
	if d.seen[c] {
		return false, true
	}
	if d.seen == nil {
		d.seen = map[constants]bool{}
	}
	d.seen[c] = true
	d.work -= int64(min(size, maxWork)) + stepWork
	return d.work >= 0, false
}

// difference returns "" if two bodies mean the same, else the first difference.
func (d *differ) difference(a, b *body, depth int) string {
	if depth == 0 {
		d.begin()
	}
	if (a.data == nil) != (b.data == nil) && a.size == b.size && len(a.refs) == 0 && len(b.refs) == 0 {
		// .bss on one side, written out zeros on the other
		zeros := a.data
		if zeros == nil {
			zeros = b.data
		}
		if i := firstNonZero(zeros); i >= 0 {
			return fmt.Sprintf("contents differ at 0x%x", i)
		}
		return ""
	}
	if i := firstDifference(a.data, b.data); i >= 0 && (i < len(a.data) && i < len(b.data) || a.size == b.size) {
		return fmt.Sprintf("contents differ at 0x%x", i)
	}
	if a.size != b.size {
		return fmt.Sprintf("size 0x%x became 0x%x", a.size, b.size)
	}
	if a.opaque || b.opaque {
		return "instructions that cannot be decoded in a section with other functions"
	}
	for i := 0; i < len(a.refs) || i < len(b.refs); i++ {
		switch {
		case i >= len(a.refs):
			return fmt.Sprintf("new reference at 0x%x to %s", b.refs[i].off, b.refs[i].name())
		case i >= len(b.refs):
			return fmt.Sprintf("no more reference at 0x%x to %s", a.refs[i].off, a.refs[i].name())
		}
		x, y := a.refs[i], b.refs[i]
		if x.off != y.off || x.typ != y.typ || !d.sameTargets(x, y, depth) {
			return fmt.Sprintf("reference at 0x%x is to %s instead of %s", y.off, y.name(), x.name())
		}
	}
	return ""
}

func firstDifference(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	if len(a) != len(b) {
		return min(len(a), len(b))
	}
	return -1
}

func firstNonZero(b []byte) int {
	for i, c := range b {
		if c != 0 {
			return i
		}
	}
	return -1
}

func (r ref) name() string {
	t := r.targets[0]
	base := "0"
	switch t.kind {
	case toOutside, toSymbol:
		base = t.sym.Name
	case toLiteral:
		if text, ok := literal(t.sec, t.off); ok && t.sec.Flags&elf.SHF_STRINGS != 0 {
			return fmt.Sprintf("%.40q", bytes.TrimRight(text, "\x00"))
		}
		base = t.sec.Name
	case toContents:
		base = t.sec.Name
	}
	if t.off == 0 {
		return base
	}
	return fmt.Sprintf("%s%+d", base, t.off)
}

// sameTargets demands that every meaning the field may have is the same on both sides.
func (d *differ) sameTargets(x, y ref, depth int) bool {
	if len(x.targets) != len(y.targets) {
		return false
	}
	for i := range x.targets {
		if !d.sameTarget(x.targets[i], y.targets[i], depth) {
			return false
		}
	}
	return true
}

func (d *differ) sameTarget(a, b target, depth int) bool {
	switch {
	case a.kind == toLiteral && b.kind == toLiteral:
		return sameLiteral(a, b)
	case a.kind == toContents && b.kind == toContents:
		return d.sameContents(a, b, depth)
	case a.kind == toNothing && b.kind == toNothing:
		return a.off == b.off
	}
	if a.sym == nil || b.sym == nil || a.off != b.off {
		return false
	}
	if d.twin[b.sym] == a.sym {
		return !isContent(a.sym) || d.sameConstant(a.sym, b.sym, depth)
	}
	return isContent(a.sym) && isContent(b.sym) && d.sameConstant(a.sym, b.sym, depth)
}

func (d *differ) sameConstant(a, b *object.Symbol, depth int) bool {
	compare, same := d.look(a.Section, b.Section, int64(a.Value), int64(b.Value), b.Size)
	if !compare {
		return same
	}
	return d.difference(d.pre.body(a), d.post.body(b), depth+1) == ""
}

// literal returns the entry of a mergeable section from off to its end. A string
// may be referred to in the middle: the tail counts.
func literal(sec *object.Section, off int64) ([]byte, bool) {
	if off < 0 || off >= int64(len(sec.Data)) {
		return nil, false
	}
	unit := int(sec.EntSize)
	if sec.Flags&elf.SHF_STRINGS == 0 {
		end := (int(off)/unit + 1) * unit
		return sec.Data[off:min(end, len(sec.Data))], true
	}
	for end := int(off); end+unit <= len(sec.Data); end += unit {
		if firstNonZero(sec.Data[end:end+unit]) < 0 {
			return sec.Data[off : end+unit], true
		}
	}
	return nil, false
}

func sameLiteral(a, b target) bool {
	if (a.sec.Flags^b.sec.Flags)&elf.SHF_STRINGS != 0 || a.sec.EntSize != b.sec.EntSize {
		return false
	}
	if len(a.sec.Relocs) > 0 || len(b.sec.Relocs) > 0 {
		return false
	}
	if a.outside() && b.outside() {
		return a.off-int64(a.sec.Size) == b.off-int64(b.sec.Size) && bytes.Equal(a.sec.Data, b.sec.Data)
	}
	x, ok := literal(a.sec, a.off)
	y, ok2 := literal(b.sec, b.off)
	if !ok || !ok2 {
		return false
	}
	if a.sec.Flags&elf.SHF_STRINGS == 0 {
		unit := int64(a.sec.EntSize)
		return a.off%unit == b.off%unit && bytes.Equal(x, y)
	}
	return bytes.Equal(x, y) || bytes.Equal(fileLine.ReplaceAll(x, []byte("$1:0")), fileLine.ReplaceAll(y, []byte("$1:0")))
}

// sameContents compares what stands at two places without a name. How far such
// contents reach is not recorded: code counts until it jumps away, data until
// the next name.
func (d *differ) sameContents(a, b target, depth int) bool {
	if place(&object.Symbol{Section: a.sec}) != place(&object.Symbol{Section: b.sec}) {
		return false
	}
	if a.outside() || b.outside() {
		return d.sameOutside(a, b, depth)
	}
	compare, same := d.look(a.sec, b.sec, a.off, b.off, b.sec.Size-uint64(b.off))
	if !compare {
		return same
	}
	x, ok := d.pre.contents(a)
	y, ok2 := d.post.contents(b)
	return ok && ok2 && d.difference(x, y, depth+1) == ""
}

// outside says that a place is before or behind its section, as the end of an
// array is.
func (t target) outside() bool { return t.off < 0 || uint64(t.off) >= t.sec.Size }

// sameOutside compares the distance from the section, and all that is in it: no
// part of it is nearer to the place than another.
func (d *differ) sameOutside(a, b target, depth int) bool {
	end := func(t target) int64 {
		if t.off < 0 {
			return t.off
		}
		return t.off - int64(t.sec.Size)
	}
	if a.off < 0 != (b.off < 0) || end(a) != end(b) {
		return false
	}
	if a.sec.Flags&elf.SHF_EXECINSTR != 0 {
		return true // what is behind code is padding
	}
	compare, same := d.look(a.sec, b.sec, a.off, b.off, b.sec.Size)
	if !compare {
		return same
	}
	return d.difference(d.pre.region(a.sec, 0, a.sec.Size), d.post.region(b.sec, 0, b.sec.Size), depth+1) == ""
}

func (s *side) contents(t target) (*body, bool) {
	if t.sec.Data == nil {
		return nil, false
	}
	from, to := uint64(t.off), t.sec.Size
	for _, sym := range s.index.In(t.sec) {
		if sym.Value > from {
			to = sym.Value
			break
		}
	}
	if t.sec.Flags&elf.SHF_EXECINSTR != 0 {
		for pos := from; ; {
			in, err := insn.Decode(t.sec.Data[pos:to])
			if err != nil {
				return nil, false
			}
			if pos += uint64(in.Len); in.Ends() {
				to = pos
				break
			}
		}
	}
	b := s.region(t.sec, from, to)
	if strings.HasPrefix(t.sec.Name, ".data..Lubsan_data") && t.off == 0 && len(b.data) >= 16 && len(b.refs) > 0 && b.refs[0].off == 0 {
		clear(b.data[8:12]) // struct source_location (lib/ubsan.h): file, line, column
	}
	return b, true
}
