// SPDX-License-Identifier: Apache-2.0

package match

import (
	"debug/elf"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/upsplice/upsplice/splice/insn"
	"github.com/upsplice/upsplice/splice/kimage"
	"github.com/upsplice/upsplice/splice/object"
)

// neighbours finds a function that ends in a short jump to another, and where.
func neighbours(t *testing.T, im *kimage.Image) (from, to kimage.Symbol, at uint64) {
	t.Helper()
	for _, s := range im.Symbols {
		next := im.SymbolAfter(s.Addr)
		if s.Kind != 't' && s.Kind != 'T' || next-s.Addr > 4096 || len(im.Lookup(s.Name)) > 1 || len(im.SymbolAt(s.Addr)) > 1 {
			continue
		}
		code := im.At(s.Addr, int(next-s.Addr))
		for pos := 0; pos < len(code); {
			in, err := insn.Decode(code[pos:])
			if err != nil {
				break
			}
			target := s.Addr + uint64(pos) + uint64(in.Target)
			out := target < s.Addr || target >= next
			pos += in.Len
			if in.Opcode == 0xeb && out && pos < len(code) && padding(code[pos:]) > 0 {
				for _, k := range im.SymbolAt(target) {
					if (k.Kind == 't' || k.Kind == 'T') && len(im.Lookup(k.Name)) == 1 {
						return s, k, uint64(pos - in.Len)
					}
				}
			}
		}
	}
	t.Fatal("no function of the image ends in a short jump to another")
	return
}

// lengthen gives the lifted function the long jump that it has in an object that was
// compiled with -ffunction-sections.
func lengthen(fn *object.Symbol, at uint64, to *object.Symbol) {
	sec := fn.Section
	sec.Data = append(append([]byte(nil), sec.Data[:at]...), 0xe9, 0, 0, 0, 0)
	sec.Size, fn.Size = uint64(len(sec.Data)), uint64(len(sec.Data))
	kept := sec.Relocs[:0:0]
	for _, r := range sec.Relocs {
		if r.Offset < at {
			kept = append(kept, r)
		}
	}
	sec.Relocs = append(kept, object.Reloc{Offset: at + 1, Type: uint32(elf.R_X86_64_PLT32), Symbol: to, Addend: -4})
}

func TestShortJumpToANeighbour(t *testing.T) {
	im := image(t)
	from, to, at := neighbours(t, im)
	o, fns := lift(im, from, to)
	lengthen(fns[0], at, fns[1])
	rep := run(t, o, im, fns...)
	for _, f := range rep.Failed {
		t.Error(f)
	}
	if f := rep.Found[fns[0]]; f.Addr != from.Addr || f.Size != at+2 {
		t.Errorf("found %+v, want %#x with %d bytes", f, from.Addr, at+2)
	}
	if d := cmp.Diff(int(at+2), len(Expect(im, o, []Found{rep.Found[fns[0]]})[0].Bytes)); d != "" {
		t.Errorf("length expected in memory (-want +got):\n%s", d)
	}

	// A jump to anything else is none of the same.
	o, fns = lift(im, from, to)
	other := &object.Symbol{Name: "kfree", Bind: elf.STB_GLOBAL}
	o.Symbols = append(o.Symbols, other)
	lengthen(fns[0], at, other)
	refused(t, run(t, o, im, fns...), fns[0], "kfree would be at")
	o, fns = lift(im, from, to)
	lengthen(fns[0], at, fns[1])
	fns[0].Section.Data[0] ^= 0x40
	if rep := run(t, o, im, fns...); len(rep.Failed) != 1 {
		t.Errorf("%d functions fail with a bit flipped, want 1", len(rep.Failed))
	}
}

func TestShrinks(t *testing.T) {
	s := shrinks{{10, 3}, {40, 7}}
	for off, want := range map[uint64]uint64{0: 0, 9: 9, 10: 7, 39: 36, 40: 33, 100: 93} {
		if got := s.image(off); got != want {
			t.Errorf("%d is at %d, want %d", off, got, want)
		}
	}
	if got := shrinks(nil).image(7); got != 7 {
		t.Errorf("without any, 7 is at %d", got)
	}
}
