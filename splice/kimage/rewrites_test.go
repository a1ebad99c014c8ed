// SPDX-License-Identifier: Apache-2.0

package kimage

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestAlternativesThatMove: a content knows which of its fields KASLR changes.
func TestAlternativesThatMove(t *testing.T) {
	const at = textBase
	code := make([]byte, 0x200)
	copy(code, bytes.Repeat([]byte{0x90}, 12))
	mov := []byte{0x65, 0x48, 0xc7, 0x05, 0, 0, 0, 0, 1, 0, 0, 0} // movq $1, %gs:X(%rip)
	binary.LittleEndian.PutUint32(mov[4:], 0x1000)
	copy(code[0x100:], mov)
	im := textImage(code)
	im.Slid = []Slid{{at + 0x104, SlidNegRel32}}
	s := im.altSite([]altEntry{{0, at, at + 0x100, 12, 12, false}}, at+12)

	moved := bytes.Clone(mov)
	binary.LittleEndian.PutUint32(moved[4:], 0x1100)
	found := false
	for i, b := range s.Alts {
		want := []AltSlid(nil)
		if b[0] == 0x65 {
			want = []AltSlid{{4, SlidNegRel32}}
		}
		if diff := cmp.Diff(want, s.AltSlid[i]); diff != "" {
			t.Errorf("% x (-want +got):\n%s", b, diff)
		}
		found = found || bytes.Equal(b, moved)
	}
	if !found {
		t.Errorf("% x is not among % x", moved, s.Alts)
	}
}

// TestDirectCall: what the call becomes is for the check of live memory to say.
func TestDirectCall(t *testing.T) {
	code := append([]byte{0xff, 0x15, 0, 1, 0, 0}, bytes.Repeat([]byte{0xcc}, 64)...)
	copy(code[0x20:], []byte{0xe8, 0, 0, 0, 0})
	im := textImage(code)
	im.altFlags = 10
	if im.DirectCall(make([]byte, 14)) || !im.DirectCall([]byte{0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 2, 0, 6, 5}) {
		t.Error("the flag is not seen")
	}
	entries := []altEntry{{0, textBase, textBase + 0x20, 6, 5, true}}
	if s := im.altSite(entries, textBase+6); s.Alts != nil {
		t.Errorf("contents % x", s.Alts)
	}
	want := []Site{{Addr: textBase, Len: 6, Kind: SiteParavirt}}
	if diff := cmp.Diff(want, directSites(entries)); diff != "" {
		t.Errorf("sites (-want +got):\n%s", diff)
	}
}

func TestNewerTables(t *testing.T) {
	code := bytes.Repeat([]byte{0xcc}, 64)
	copy(code, endbr64)
	copy(code[4:], rel32(0xe8, textBase+4, textBase+0x100))
	copy(code[9:], []byte{0x48, 0xba, 0xef, 0xcd, 0xab, 0x89, 0x67, 0x45, 0x23, 0x01}) // movabs
	prel := func(to uint64, at uint64) []byte {
		return binary.LittleEndian.AppendUint32(nil, uint32(to-at))
	}
	im := textImage(code)
	im.EntrySize = map[SiteKind]int{}
	const table = textBase + 0x10000
	im.Sections = append(im.Sections, Section{Name: "runtime_ptr_variable", Addr: table, Size: 4, Data: prel(textBase+11, table)})
	im.Symbols = []Symbol{{Name: "variable", Addr: textBase + 0x20000, Kind: 'D'}}
	im.indexSymbols()
	if err := im.readRuntimeConstants(); err != nil {
		t.Fatal(err)
	}
	for _, tab := range siteTables {
		to := uint64(textBase)
		switch tab.kind {
		case SiteCall:
			to += 4
		case SiteEndbr:
		default:
			continue
		}
		if err := im.readEntries(tab, record{size: 4}, place{table, prel(to, table)}); err != nil {
			t.Fatal(err)
		}
		if err := im.readEntries(tab, record{size: 4}, place{table, prel(textBase+32, table)}); err == nil {
			t.Errorf("%s: an entry for something else was taken", tab.section)
		}
	}
	want := []Site{
		{Addr: textBase + 11, Kind: SiteRuntimePtr, Len: 8, Target: textBase + 0x20000},
		{Addr: textBase + 4, Kind: SiteCall, Len: 5, Target: textBase + 0x100},
		{Addr: textBase, Kind: SiteEndbr, Len: 4},
	}
	if diff := cmp.Diff(want, im.Sites); diff != "" {
		t.Errorf("sites (-want +got):\n%s", diff)
	}
}
