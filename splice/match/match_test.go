// SPDX-License-Identifier: Apache-2.0

package match

import (
	"bytes"
	"debug/elf"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/upsplice/upsplice/splice/insn"
	"github.com/upsplice/upsplice/splice/kimage"
	"github.com/upsplice/upsplice/splice/object"
)

func TestFindsWhatIsThere(t *testing.T) {
	im := image(t)
	syms := pick(t, im, 400, any1)
	for _, kind := range []kimage.SiteKind{kimage.SiteJumpLabel, kimage.SiteStaticCall, kimage.SiteAlternative, kimage.SiteParavirt, kimage.SiteRetpoline, kimage.SiteSMPLock} {
		for _, s := range pick(t, im, 5, with(im, kind)) {
			if !slices.Contains(syms, s) {
				syms = append(syms, s)
			}
		}
	}
	o, fns := lift(im, syms...)
	rep := run(t, o, im, fns...)
	for _, f := range rep.Failed {
		t.Error(f)
	}
	relocs := 0
	for i, fn := range fns {
		f := rep.Found[fn]
		want := Found{Symbol: fn, Addr: syms[i].Addr, Size: fn.Size, Name: fn.Name, Sympos: 1, Unique: true, Relocs: len(fn.Relocs())}
		if f != want {
			t.Errorf("found %+v, want %+v", f, want)
		}
		relocs += f.Relocs
		if rep.Addr[fn] != syms[i].Addr {
			t.Errorf("Addr[%s] = %#x, want %#x", fn.Name, rep.Addr[fn], syms[i].Addr)
		}
	}
	if relocs < len(fns) {
		t.Errorf("%d relocations in %d functions", relocs, len(fns))
	}
	undefined := 0
	for _, s := range o.Symbols {
		if s.Section != nil {
			continue
		}
		undefined++
		addr, ok := rep.Addr[s]
		if !ok || !slices.ContainsFunc(im.SymbolAt(addr), func(k kimage.Symbol) bool { return k.Name == s.Name }) {
			t.Errorf("Addr[%s] = %#x, %v: kallsyms does not have it there", s.Name, addr, ok)
		}
	}
	if undefined < 100 {
		t.Errorf("only %d undefined symbols", undefined)
	}
}

// one lifts a single function for a test that damages something.
func one(t *testing.T, im *kimage.Image, fit func(kimage.Symbol, []byte) bool) (*object.Object, *object.Symbol, kimage.Symbol) {
	t.Helper()
	s := pick(t, im, 1, fit)[0]
	o, fns := lift(im, s)
	return o, fns[0], s
}

// refused demands that fn is not found, for a reason.
func refused(t *testing.T, rep *Report, fn *object.Symbol, reason string) Mismatch {
	t.Helper()
	if _, ok := rep.Found[fn]; ok {
		t.Fatalf("%s is found, want it refused: %s", fn.Name, reason)
	}
	for _, f := range rep.Failed {
		if f.Function == fn.Name {
			if !strings.Contains(f.Reason, reason) {
				t.Errorf("refused with %q, want a reason with %q", f.Reason, reason)
			}
			if !strings.Contains(f.Error(), fn.Name) || !strings.Contains(f.Error(), f.Reason) {
				t.Errorf("the message is %q", f.Error())
			}
			return f
		}
	}
	t.Fatalf("%s is neither found nor refused", fn.Name)
	return Mismatch{}
}

// plain returns an offset in the function that no relocation and no site covers.
func plain(fn *object.Symbol) uint64 {
	pos := fn.Size / 2
	for _, r := range fn.Relocs() {
		if pos >= r.Offset && pos < r.Offset+8 {
			pos = r.Offset + 8
		}
	}
	return pos
}

func TestFlippedBitInTheImage(t *testing.T) {
	im := ownImage(t)
	syms := pick(t, im, 20, func(_ kimage.Symbol, code []byte) bool { return len(code) > 100 })
	o, fns := lift(im, syms...)
	at := plain(fns[3])
	im.At(syms[3].Addr+at, 1)[0] ^= 0x10
	rep := run(t, o, im, fns...)
	f := refused(t, rep, fns[3], "bytes differ")
	if f.Offset != int64(at) || f.Addr != syms[3].Addr || f.Candidates != 1 || f.Want[0]^f.Have[0] != 0x10 {
		t.Errorf("the mismatch is %+v, flipped was offset %#x", f, at)
	}
	if len(rep.Failed) != 1 || len(rep.Found) != len(fns)-1 {
		t.Errorf("%d failed and %d found, want 1 and %d", len(rep.Failed), len(rep.Found), len(fns)-1)
	}
}

// TestFlippedBitAnywhere flips every byte of a function, relocated fields and sites
// included: none may go unnoticed.
func TestFlippedBitAnywhere(t *testing.T) {
	im := ownImage(t)
	s := pick(t, im, 1, func(s kimage.Symbol, code []byte) bool {
		return len(code) < 200 && with(im, kimage.SiteJumpLabel)(s, code) && len(im.SlidIn(s.Addr, len(code))) > 0
	})[0]
	o, fns := lift(im, s)
	code := im.At(s.Addr, int(fns[0].Size))
	for i := range code {
		code[i] ^= 4
		if rep := run(t, o, im, fns...); len(rep.Found) != 0 {
			t.Errorf("a flipped bit at offset %#x goes unnoticed", i)
		}
		code[i] ^= 4
	}
	if rep := run(t, o, im, fns...); len(rep.Found) != 1 {
		t.Error("the function is not found any more")
	}
}

// twins returns two static functions of one name that nothing tells apart.
func twins(t *testing.T, im *kimage.Image) []kimage.Symbol {
	t.Helper()
	for _, s := range im.Symbols {
		all := im.Lookup(s.Name)
		if s.Kind != 't' || len(all) < 2 || s != all[0] || im.SymbolAfter(s.Addr)-s.Addr > 512 {
			continue
		}
		o, fns := lift(im, s)
		if rep := run(t, o, im, fns...); len(rep.Failed) == 1 && strings.Contains(rep.Failed[0].Reason, "places match") {
			return all
		}
	}
	t.Fatal("this kernel has no two equal functions of one name")
	return nil
}

func TestEqualPlacesAreRefused(t *testing.T) {
	im := image(t)
	all := twins(t, im)
	o, fns := lift(im, all[0])
	f := refused(t, run(t, o, im, fns...), fns[0], "places match and nothing decides")
	if f.Candidates < 2 || f.Offset != -1 {
		t.Errorf("the mismatch is %+v", f)
	}
}

// TestCallersDecide adds a function that calls one of two equal ones.
func TestCallersDecide(t *testing.T) {
	im := image(t)
	for _, s := range im.Symbols {
		if s.Kind != 't' || len(im.Lookup(s.Name)) < 2 {
			continue
		}
		o, fns := lift(im, s)
		if rep := run(t, o, im, fns...); len(rep.Failed) == 0 || !strings.Contains(rep.Failed[0].Reason, "places match") {
			continue
		}
		caller := callerOf(im, s)
		if caller.Name == "" {
			continue
		}
		o, fns = lift(im, s, caller)
		rep := run(t, o, im, fns[0])
		f, ok := rep.Found[fns[0]]
		if !ok || f.Addr != s.Addr || f.Unique {
			t.Fatalf("%s called by %s: found %+v, %v; want address %#x", s.Name, caller.Name, f, rep.Failed, s.Addr)
		}
		if pos, _ := im.Sympos(s.Name, s.Addr); f.Sympos != pos {
			t.Errorf("Sympos = %d, want %d", f.Sympos, pos)
		}
		return
	}
	t.Fatal("no equal function has a caller with a unique name")
}

// callerOf looks for a function with a unique name near s that branches to it.
func callerOf(im *kimage.Image, s kimage.Symbol) kimage.Symbol {
	i := slices.Index(im.Symbols, s)
	for _, c := range im.Symbols[max(0, i-30):min(i+30, len(im.Symbols))] {
		size := im.SymbolAfter(c.Addr) - c.Addr
		code := im.At(c.Addr, int(size))
		if c.Kind != 't' && c.Kind != 'T' || len(im.Lookup(c.Name)) != 1 || code == nil || !decodes(code) {
			continue
		}
		for pos := 0; pos < len(code); {
			in, err := insn.Decode(code[pos:])
			if err != nil {
				break
			}
			if in.Relative && in.FieldLen == 4 && c.Addr+uint64(pos)+uint64(in.Target) == s.Addr {
				return c
			}
			pos += in.Len
		}
	}
	return kimage.Symbol{}
}

// TestNeighboursDecide puts one of two equal functions between two of its object.
func TestNeighboursDecide(t *testing.T) {
	im := image(t)
	s := twins(t, im)[0]
	i := slices.Index(im.Symbols, s)
	unique := func(c kimage.Symbol) bool {
		code := im.At(c.Addr, int(im.SymbolAfter(c.Addr)-c.Addr))
		return (c.Kind == 't' || c.Kind == 'T') && len(im.Lookup(c.Name)) == 1 && len(im.SymbolAt(c.Addr)) == 1 && decodes(code)
	}
	before, after := i-1, i+1
	for !unique(im.Symbols[before]) {
		before--
	}
	for !unique(im.Symbols[after]) {
		after++
	}
	o, fns := lift(im, im.Symbols[before], s, im.Symbols[after])
	if f := run(t, o, im, fns...).Found[fns[1]]; f.Addr != s.Addr {
		t.Errorf("found at %#x, want %#x", f.Addr, s.Addr)
	}
	if before == i-1 { // right behind its neighbour
		o, fns = lift(im, im.Symbols[before], s)
		if f := run(t, o, im, fns...).Found[fns[1]]; f.Addr != s.Addr {
			t.Errorf("behind its neighbour found at %#x, want %#x", f.Addr, s.Addr)
		}
	}
	// The object has them the other way round.
	o, fns = lift(im, s, im.Symbols[before])
	refused(t, run(t, o, im, fns...), fns[0], "places match")
}

// anonymous makes a relocation lead into a section without symbols.
func anonymous(o *object.Object, sec *object.Section, r *object.Reloc) {
	i := slices.IndexFunc(o.Symbols, func(s *object.Symbol) bool { return s.Section == sec })
	if i < 0 {
		i = len(o.Symbols)
		o.Sections = append(o.Sections, sec)
		o.Symbols = append(o.Symbols, &object.Symbol{Type: elf.STT_SECTION, Section: sec})
	}
	r.Symbol = o.Symbols[i]
}

func bss() *object.Section {
	return &object.Section{Name: ".bss", Type: elf.SHT_NOBITS, Flags: elf.SHF_ALLOC | elf.SHF_WRITE, Align: 8, Size: 4096}
}

func TestTwoAddressesOfOneThing(t *testing.T) {
	im := image(t)
	many := func(_ kimage.Symbol, code []byte) bool { return len(code) > 300 }

	o, fn, _ := one(t, im, many)
	sec := bss()
	anonymous(o, sec, &fn.Section.Relocs[1])
	if rep := run(t, o, im, fn); len(rep.Failed) > 0 {
		t.Fatalf("with one use of an anonymous section: %v", rep.Failed)
	}
	anonymous(o, sec, &fn.Section.Relocs[2])
	refused(t, run(t, o, im, fn), fn, "imply two addresses")

	o, fns := lift(im, pick(t, im, 3, many)...)
	sec = bss()
	anonymous(o, sec, &fns[0].Section.Relocs[1])
	anonymous(o, sec, &fns[1].Section.Relocs[1])
	rep := run(t, o, im, fns...)
	refused(t, rep, fns[0], "disagree about the address of .bss")
	refused(t, rep, fns[1], "disagree about the address of .bss")
	if _, ok := rep.Found[fns[2]]; !ok {
		t.Error("a function that has no part in it is refused too")
	}
	for s, addr := range rep.Addr {
		if s.Section == sec {
			t.Errorf("the disputed section has the address %#x", addr)
		}
	}
}

func TestExpect(t *testing.T) {
	im := image(t)
	var syms []kimage.Symbol
	for _, kind := range []kimage.SiteKind{kimage.SiteJumpLabel, kimage.SiteAlternative, kimage.SiteReturn} {
		for _, s := range pick(t, im, 3, with(im, kind)) {
			if !slices.Contains(syms, s) {
				syms = append(syms, s)
			}
		}
	}
	slices.Reverse(syms)
	o, fns := lift(im, syms...)
	rep := run(t, o, im, fns...)
	var found []Found
	for _, f := range fns {
		found = append(found, rep.Found[f])
	}
	exp := Expect(im, o, found)
	if len(exp) != len(fns) || !slices.IsSortedFunc(exp, func(a, b Expectation) int { return int(a.Addr) - int(b.Addr) }) {
		t.Fatalf("%d expectations for %d functions, or out of order", len(exp), len(fns))
	}
	kinds := map[string]int{}
	for _, e := range exp {
		if !bytes.Equal(e.Bytes, im.At(e.Addr, len(e.Bytes))) || e.Sympos != 1 {
			t.Errorf("%s is not as in the image", e.Name)
		}
		if want := len(im.SitesIn(e.Addr, len(e.Bytes))) + len(im.SlidIn(e.Addr, len(e.Bytes))); len(e.Fields) != want {
			t.Errorf("%s has %d fields, want %d", e.Name, len(e.Fields), want)
		}
		last := 0
		for _, f := range e.Fields {
			kinds[f.Kind]++
			if f.Off < last || f.Len <= 0 || f.Off+f.Len > len(e.Bytes) {
				t.Errorf("%s has the field %+v", e.Name, f)
			}
			last = f.Off
			if (f.Kind == string(kimage.SiteAlternative)) != (len(f.Alts) > 0) {
				t.Errorf("%s: the field %+v has %d contents", e.Name, f, len(f.Alts))
			}
		}
	}
	for _, k := range []string{"mcount", "return", "jump_label", "alternative", "abs32"} {
		if kinds[k] == 0 {
			t.Errorf("no field of kind %s", k)
		}
	}
	text, err := json.Marshal(exp)
	if err != nil {
		t.Fatal(err)
	}
	var back []Expectation
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(exp, back); diff != "" {
		t.Errorf("through JSON (-want +got):\n%s", diff)
	}
}

func TestPadding(t *testing.T) {
	for _, c := range []struct {
		code []byte
		n    int
	}{
		{[]byte{0xcc, 0x55}, 1},
		{[]byte{0x90}, 1},
		{[]byte{0x66, 0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0}, 11},
		{[]byte{0x66, 0x2e, 0x0f}, 3}, // cut off
		{[]byte{0x55, 0x48}, 0},
		{[]byte{0xc3}, 0},
		{[]byte{0xf3, 0x0f, 0x1e, 0xfa}, 0}, // endbr64 starts a function
		{[]byte{0xe8, 1, 2, 3, 4}, 0},
		{[]byte{0x48, 0x89, 0xe5}, 0}, // mov %rsp,%rbp
	} {
		if got := padding(c.code); got != c.n {
			t.Errorf("padding(% x) = %d, want %d", c.code, got, c.n)
		}
	}
}

// FuzzFunctions matches damaged objects with the real image.
func FuzzFunctions(f *testing.F) {
	im := image(f)
	o, _ := lift(im, pick(f, im, 3, with(im, kimage.SiteJumpLabel))...)
	var seed bytes.Buffer
	if err := object.Write(&seed, o); err != nil {
		f.Fatal(err)
	}
	f.Add(seed.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := object.Read(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		var want []*object.Symbol
		for _, s := range o.Functions() {
			if s.Section.Flags&elf.SHF_EXECINSTR != 0 {
				want = append(want, s)
			}
		}
		rep, err := Functions(o, im, want)
		if err != nil {
			return
		}
		if len(rep.Found)+len(rep.Failed) != len(want) {
			t.Errorf("%d found and %d failed of %d", len(rep.Found), len(rep.Failed), len(want))
		}
		for _, x := range rep.Found {
			Expect(im, o, []Found{x})
		}
	})
}
