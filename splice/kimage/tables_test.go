// SPDX-License-Identifier: Apache-2.0

package kimage

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

const textBase = 0xffffffff81000000

func inTestText(addr uint64) bool { return addr >= textBase && addr < textBase+0x100000 }

func testSymbols() []Symbol {
	syms := []Symbol{
		{Name: "percpu_a", Addr: 0, Kind: 'A'},
		{Name: "percpu_b", Addr: 0x1f000, Kind: 'A'},
		{Name: "_text", Addr: textBase, Kind: 'T'},
		{Name: "_stext", Addr: textBase, Kind: 'T'},
		{Name: "long_" + strings.Repeat("x", 200), Addr: textBase + 4, Kind: 't'},
	}
	for i := range 600 {
		syms = append(syms, Symbol{Name: fmt.Sprintf("f%d.constprop.0", i%590), Addr: textBase + 16 + uint64(i)*16, Kind: 't'})
	}
	return syms
}

type kallsymsForm struct {
	name     string
	newOrder bool // 6.4
	seqs     bool
	percpu   bool // CONFIG_KALLSYMS_ABSOLUTE_PERCPU
	align    int
}

var kallsymsForms = []kallsymsForm{
	{"6.1", false, false, true, 8},
	{"6.1 with seqs_of_names", false, true, true, 8},
	{"6.4", true, true, true, 8},
	{"without absolute per-cpu symbols", true, true, false, 8},
	{"aligned to 4", true, true, true, 4},
}

// encode writes the tables as scripts/kallsyms does, with junk around. Each byte
// stands for itself but 'z'+1 onwards, which stand for words.
func (f kallsymsForm) encode(syms []Symbol) []byte {
	var tokens [256]string
	for i := range tokens {
		tokens[i] = string(rune(i))
	}
	tokens[0] = "" // the kernel cannot have a NUL in a name
	tokens[0x80], tokens[0x81] = "constprop", "ll"
	for i := 0x82; i < 256; i++ {
		tokens[i] = fmt.Sprintf("w%d", i)
	}
	compress := strings.NewReplacer("constprop", "\x80")

	b := bytes.Repeat([]byte{0xa5, 0x5a, 1, 0, 0, 0, 0, 0}, 20)
	align := func(n int) {
		for len(b)%n != 0 {
			b = append(b, 0)
		}
	}
	u32 := func(v uint32) { b = binary.LittleEndian.AppendUint32(b, v) }
	offsets := func() {
		align(f.align)
		for _, s := range syms {
			switch {
			case !f.percpu:
				u32(uint32(s.Addr - textBase))
			case s.Kind == 'A':
				u32(uint32(s.Addr))
			default:
				u32(uint32(textBase - 1 - s.Addr))
			}
		}
		align(8)
		b = binary.LittleEndian.AppendUint64(b, textBase)
	}
	seqs := func() {
		if f.seqs {
			align(f.align)
			b = append(b, make([]byte, 3*len(syms))...)
		}
	}
	if !f.newOrder {
		offsets()
	}
	align(f.align)
	u32(uint32(len(syms)))
	align(f.align)
	var marks []uint32
	start := len(b)
	for i, s := range syms {
		if i%256 == 0 {
			marks = append(marks, uint32(len(b)-start))
		}
		name := compress.Replace(string(s.Kind) + s.Name)
		if n := len(name); n > 0x7f {
			b = append(b, byte(n)|0x80, byte(n>>7))
		} else {
			b = append(b, byte(n))
		}
		b = append(b, name...)
	}
	align(f.align)
	for _, m := range marks {
		u32(m)
	}
	if !f.newOrder {
		seqs()
	}
	align(f.align)
	var index []byte
	n := 0
	for _, tok := range tokens {
		index = binary.LittleEndian.AppendUint16(index, uint16(n))
		b = append(append(b, tok...), 0)
		n += len(tok) + 1
	}
	align(f.align)
	b = append(b, index...)
	if f.newOrder {
		offsets()
		seqs()
	}
	return append(b, bytes.Repeat([]byte{7}, 64)...)
}

func TestKallsymsForms(t *testing.T) {
	for _, f := range kallsymsForms {
		t.Run(f.name, func(t *testing.T) {
			want := testSymbols()
			if !f.percpu {
				want = want[2:]
			}
			data := f.encode(want)
			tab, err := findKallsyms(data, inTestText)
			if err != nil {
				t.Fatal(err)
			}
			got, err := tab.symbols(data)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("symbols (-want +got):\n%s", diff)
			}
		})
	}
}

// TestKallsymsMustAgree damages one table at a time.
func TestKallsymsMustAgree(t *testing.T) {
	f := kallsymsForms[1]
	good := f.encode(testSymbols())
	tab, err := findKallsyms(good, inTestText)
	if err != nil {
		t.Fatal(err)
	}
	for name, at := range map[string]int{
		"count":   tab.names - 8,
		"name":    tab.names,
		"marker":  tab.up(tab.namesEnd) + 4,
		"offset":  tab.offsets + 4*100 + 3,
		"base":    tab.names - 16 + 7,
		"padding": tab.names - 4,
	} {
		bad := bytes.Clone(good)
		bad[at] ^= 0x41
		if _, err := findKallsyms(bad, inTestText); err == nil {
			t.Errorf("a damaged %s is accepted", name)
		}
	}
}

func FuzzKallsyms(f *testing.F) {
	for _, form := range kallsymsForms {
		f.Add(form.encode(testSymbols()[:100]))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		tab, err := findKallsyms(data, inTestText)
		if err != nil {
			return
		}
		if syms, err := tab.symbols(data); err == nil && len(syms) != tab.num {
			t.Errorf("%d symbols, promised %d", len(syms), tab.num)
		}
	})
}

// textImage is an image of one section with code and the kernel's NOPs until 6.3.
func textImage(code []byte) *Image {
	im := &Image{Entries: map[SiteKind]int{}, Sections: []Section{{Name: ".text", Addr: textBase, Size: uint64(len(code)), Data: code, Exec: true}}}
	im.alloc = im.Sections
	im.indexSymbols()
	im.thunks = func() thunks {
		return thunks{
			returns:  []uint64{textBase + 0x1000, textBase + 0x2000},
			register: map[uint64]int{textBase + 0x3000: 8},
			of:       map[int][]uint64{8: {textBase + 0x3000, textBase + 0x4000}},
		}
	}
	im.nops = [][]byte{nil, {0x90}, {0x66, 0x90}, {0x0f, 0x1f, 0}, {0x0f, 0x1f, 0x40, 0}, {0x0f, 0x1f, 0x44, 0, 0},
		{0x66, 0x0f, 0x1f, 0x44, 0, 0}, {0x0f, 0x1f, 0x80, 0, 0, 0, 0}, {0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0}}
	return im
}

func rel32(op byte, from, to uint64) []byte {
	return binary.LittleEndian.AppendUint32([]byte{op}, uint32(to-from-5))
}

func altsOf(t *testing.T, code []byte, entries ...altEntry) [][]byte {
	t.Helper()
	im := textImage(code)
	end := entries[0].instr
	for _, e := range entries {
		end = max(end, e.instr+uint64(e.instrLen))
	}
	return im.altSite(entries, end).Alts
}

func sorted() cmp.Option {
	return cmpopts.SortSlices(func(a, b []byte) bool { return bytes.Compare(a, b) < 0 })
}

func TestAlternatives(t *testing.T) {
	const at = textBase
	code := make([]byte, 0x400)
	copy(code, []byte{0x31, 0xc0, 0x90, 0x90, 0x90})        // xor %eax,%eax and room
	copy(code[0x100:], []byte{0x0f, 0xae, 0xf0})            // mfence
	copy(code[0x110:], rel32(0xe8, at+0x110, at+0x300))     // call
	copy(code[0x120:], rel32(0xe9, at+0x120, at+0x20))      // jmp a little forward of the site
	copy(code[0x130:], rel32(0xe9, at+0x130, at+0x80_0000)) // jmp far
	copy(code[0x140:], []byte{0x0f, 0x01, 0xcb})            // stac
	nop3, nop5 := []byte{0x0f, 0x1f, 0}, []byte{0x0f, 0x1f, 0x44, 0, 0}
	base := []byte{0x31, 0xc0, 0x0f, 0x1f, 0}

	for _, c := range []struct {
		name    string
		entries []altEntry
		want    [][]byte
	}{
		{"padded", []altEntry{{0, at, at + 0x100, 5, 3, false}}, [][]byte{base, {0x0f, 0xae, 0xf0, 0x66, 0x90}}},
		{"nothing", []altEntry{{0, at, at + 0x100, 5, 0, false}}, [][]byte{base, nop5}},
		{"call moves", []altEntry{{0, at, at + 0x110, 5, 5, false}}, [][]byte{base, rel32(0xe8, at, at+0x300)}},
		{"jmp becomes short", []altEntry{{0, at, at + 0x120, 5, 5, false}}, [][]byte{base,
			append([]byte{0xeb, 0x1e}, nop3...), {0xeb, 0x1e, 0xcc, 0xcc, 0xcc}}},
		{"jmp stays long", []altEntry{{0, at, at + 0x130, 5, 5, false}}, [][]byte{base, rel32(0xe9, at, at+0x80_0000)}},
		{"two for one place", []altEntry{{0, at, at + 0x100, 5, 3, false}, {1, at, at + 0x110, 5, 5, false}}, [][]byte{base,
			{0x0f, 0xae, 0xf0, 0x66, 0x90}, rel32(0xe8, at, at+0x300)}},
		{"a later one inside", []altEntry{{0, at, at + 0x100, 5, 3, false}, {1, at + 2, at + 0x140, 3, 3, false}}, [][]byte{base,
			{0x0f, 0xae, 0xf0, 0x66, 0x90}, // the first
			{0x31, 0xc0, 0x0f, 0x01, 0xcb}, // the second
			{0x0f, 0xae, 0x0f, 0x01, 0xcb}, // both
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := altsOf(t, code, c.entries...)
			if diff := cmp.Diff(c.want, got, sorted()); diff != "" {
				t.Errorf("contents (-want +got):\n%s", diff)
			}
		})
	}
}

func TestReturnForms(t *testing.T) {
	code := make([]byte, 64)
	copy(code, rel32(0xe9, textBase, textBase+0x1000))
	im := textImage(code)
	got := im.forms(Site{Addr: textBase, Len: 5, Kind: SiteReturn, Target: textBase + 0x1000})
	want := [][]byte{{0xc3, 0xcc, 0xcc, 0xcc, 0xcc}, rel32(0xe9, textBase, textBase+0x2000)}
	if diff := cmp.Diff(want, got, sorted()); diff != "" {
		t.Errorf("forms (-want +got):\n%s", diff)
	}
}

func TestRetpolineForms(t *testing.T) {
	other := textBase + uint64(0x4000)
	for _, c := range []struct {
		name string
		code []byte
		want [][]byte
	}{
		{"call", rel32(0xe8, textBase, textBase+0x3000), [][]byte{
			rel32(0xe8, textBase, other),
			{0x41, 0xff, 0xd0, 0x66, 0x90}, {0x41, 0xff, 0xd0, 0x90, 0x90}}},
		{"call with prefix", append([]byte{0x2e}, rel32(0xe8, textBase+1, textBase+0x3000)...), [][]byte{
			append([]byte{0x2e}, rel32(0xe8, textBase+1, other)...),
			{0x41, 0xff, 0xd0, 0x0f, 0x1f, 0}, {0x41, 0xff, 0xd0, 0x90, 0x90, 0x90},
			{0x0f, 0xae, 0xe8, 0x41, 0xff, 0xd0}}},
		{"jmp", rel32(0xe9, textBase, textBase+0x3000), [][]byte{
			rel32(0xe9, textBase, other), {0x41, 0xff, 0xe0, 0xcc, 0x90}}},
		{"jump if zero", append([]byte{0x0f}, rel32(0x84, textBase+1, textBase+0x3000)...), [][]byte{
			append([]byte{0x0f}, rel32(0x84, textBase+1, other)...), {0x75, 0x04, 0x41, 0xff, 0xe0, 0xcc}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			im := textImage(append(bytes.Clone(c.code), make([]byte, 64)...))
			got := im.forms(Site{Addr: textBase, Len: len(c.code), Kind: SiteRetpoline, Target: textBase + 0x3000})
			slices.SortFunc(got, bytes.Compare)
			got = slices.CompactFunc(got, bytes.Equal)
			if diff := cmp.Diff(c.want, got, sorted()); diff != "" {
				t.Errorf("forms (-want +got):\n%s", diff)
			}
		})
	}
}

// FuzzSiteTables reads random bytes as each of the tables.
func FuzzSiteTables(f *testing.F) {
	recs := map[string]record{
		"":                    {size: 4},
		"unsigned long":       {size: 8},
		"static_call_site":    {8, map[string]int{"addr": 0, "key": 4}},
		"jump_entry":          {16, map[string]int{"code": 0, "target": 4, "key": 8}},
		"paravirt_patch_site": {16, map[string]int{"instr": 0, "len": 9}},
	}
	alt := record{12, map[string]int{"instr_offset": 0, "repl_offset": 4, "instrlen": 10, "replacementlen": 11}}
	ksym := record{12, map[string]int{"value_offset": 0, "name_offset": 4, "namespace_offset": 8}}
	f.Add(binary.LittleEndian.AppendUint64(nil, textBase), bytes.Repeat([]byte{0xe8, 0, 0, 0, 0, 0x90}, 20))
	f.Add([]byte{0xf0, 0xff, 0xff, 0xff, 0xf4, 0xff, 0xff, 0xff, 0, 0, 5, 5}, bytes.Repeat([]byte{0x90, 0xe9}, 20))
	f.Fuzz(func(t *testing.T, data, code []byte) {
		if len(data) > 4096 || len(code) > 4096 {
			return
		}
		p := place{textBase + uint64(len(code)), data}
		for _, tab := range siteTables {
			im := textImage(code)
			if err := im.readEntries(tab, recs[tab.typ], p); err != nil {
				continue
			}
			for _, s := range im.Sites {
				im.forms(s)
			}
		}
		im := textImage(code)
		im.Exports = map[string]Export{}
		im.readExportTable(ksym, p, nil, false)
		entries, err := im.altEntries(alt, p)
		if err != nil {
			return
		}
		for _, e := range entries {
			for _, a := range im.altSite([]altEntry{e}, e.instr+uint64(e.instrLen)).Alts {
				if len(a) != e.instrLen {
					t.Errorf("%+v became %d bytes", e, len(a))
				}
			}
		}
	})
}
