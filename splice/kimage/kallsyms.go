// SPDX-License-Identifier: Apache-2.0

package kimage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// The kallsyms tables have no symbols of their own, and their order changed with
// the years (scripts/kallsyms.c):
//
//	before 6.4  offsets, relative_base, num_syms, names, markers[, seqs_of_names], token_table, token_index
//	since 6.4   num_syms, names, markers, token_table, token_index, offsets, relative_base, seqs_of_names
//
// What they have is structure: 256 strings with an index of their starts, a count
// that says how many names to walk, and a mark every 256 names that says where the
// walk has to be. All of that must agree before anything is believed.

const (
	maxSymbols   = 1 << 22
	minSymbols   = 64
	maxNameBytes = 256 << 20
	markEvery    = 256
)

var errNoKallsyms = errors.New("reading kallsyms: the image has no symbol table in a known form (CONFIG_KALLSYMS)")

// tables are the places of the tables within the section's data.
type tables struct {
	align    int
	tokens   [256]string
	num      int
	names    int // first byte of the names
	namesEnd int
	offsets  int
	base     uint64
}

// findKallsyms looks for the tables in one section's data. inText says whether an
// address is in a section with code.
func findKallsyms(data []byte, inText func(uint64) bool) (*tables, error) {
	for pos := 0; pos+512 <= len(data); pos += 4 {
		if !tokenIndexLike(data[pos:]) {
			continue
		}
		for _, align := range []int{8, 4} {
			if pos%align != 0 {
				continue
			}
			t := tables{align: align}
			start, ok := t.readTokens(data, pos)
			if !ok || !t.findNames(data, start) {
				continue
			}
			if t.findOffsets(data, pos+512, inText) {
				return &t, nil
			}
		}
	}
	return nil, errNoKallsyms
}

// tokenIndexLike says whether b starts with 256 ascending 16-bit numbers from zero.
func tokenIndexLike(b []byte) bool {
	if b[0]|b[1] != 0 {
		return false
	}
	var last uint16
	for i := 1; i < 256; i++ {
		v := binary.LittleEndian.Uint16(b[2*i:])
		if v <= last {
			return false
		}
		last = v
	}
	return true
}

func (t *tables) up(n int) int { return (n + t.align - 1) &^ (t.align - 1) }

// readTokens reads the token table that ends before the index at pos.
func (t *tables) readTokens(data []byte, pos int) (start int, ok bool) {
	const longest = 512
	last := int(binary.LittleEndian.Uint16(data[pos+2*255:]))
	for start = (pos - last - 1) &^ (t.align - 1); start >= 0 && pos-start-last <= longest+t.align; start -= t.align {
		if t.tokensAt(data, start, pos) {
			return start, true
		}
	}
	return 0, false
}

func (t *tables) tokensAt(data []byte, start, index int) bool {
	end := start
	for i := range t.tokens {
		if int(binary.LittleEndian.Uint16(data[index+2*i:])) != end-start {
			return false
		}
		n := bytes.IndexByte(data[end:index], 0)
		if n < 0 {
			return false
		}
		t.tokens[i] = string(data[end : end+n])
		end += n + 1
	}
	return t.up(end) == index && zero(data[end:index])
}

func zero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// findNames looks backward from the token table for the count of symbols.
func (t *tables) findNames(data []byte, tokens int) bool {
	for pos := tokens - t.align; pos >= 0 && tokens-pos < maxNameBytes; pos -= t.align {
		n := int(binary.LittleEndian.Uint32(data[pos:]))
		if n < minSymbols || n > maxSymbols || pos+2*n > tokens {
			continue
		}
		names := t.up(pos + 4)
		if zero(data[pos+4:names]) && t.namesAt(data, names, n, tokens) {
			return true
		}
	}
	return false
}

// namesAt walks n names and compares the walk with the markers behind them, which
// must end, with or without seqs_of_names, where the token table starts.
func (t *tables) namesAt(data []byte, names, n, tokens int) bool {
	marks := make([]uint32, 0, 64)
	pos := names
	for i := range n {
		if i%markEvery == 0 {
			marks = append(marks, uint32(pos-names))
		}
		length, next, ok := nameLength(data[:tokens], pos)
		if !ok || length == 0 || length > tokens-next {
			return false
		}
		pos = next + length
	}
	m := t.up(pos)
	end := m + 4*len(marks)
	if end > tokens {
		return false
	}
	for i, want := range marks {
		if binary.LittleEndian.Uint32(data[m+4*i:]) != want {
			return false
		}
	}
	if t.up(end) != tokens && t.up(t.up(end)+3*n) != tokens {
		return false
	}
	t.num, t.names, t.namesEnd = n, names, pos
	return true
}

// nameLength reads the length before a name: one byte, or two (ULEB128) for long names.
func nameLength(data []byte, pos int) (n, next int, ok bool) {
	if pos >= len(data) {
		return 0, 0, false
	}
	n = int(data[pos])
	if n&0x80 == 0 {
		return n, pos + 1, true
	}
	if pos+1 >= len(data) {
		return 0, 0, false
	}
	return n&0x7f | int(data[pos+1])<<7, pos + 2, true
}

// findOffsets tries both places for the offsets. The base is the address of _text.
func (t *tables) findOffsets(data []byte, indexEnd int, inText func(uint64) bool) bool {
	size := 4 * t.num
	old := t.names - t.up(4) // kallsyms_num_syms
	for _, place := range []struct{ offsets, base int }{
		{t.up(indexEnd), (t.up(indexEnd) + size + 7) &^ 7},
		{old - 8 - t.up(size), old - 8},
	} {
		if place.offsets < 0 || place.base+8 > len(data) {
			continue
		}
		base := binary.LittleEndian.Uint64(data[place.base:])
		if !inText(base) {
			continue
		}
		t.offsets, t.base = place.offsets, base
		if t.ascending(data) {
			return true
		}
	}
	return false
}

// ascending says whether the addresses are in order, as the kernel's lookup needs them.
func (t *tables) ascending(data []byte) bool {
	absolute := t.absolutePercpu(data)
	var last uint64
	for i := range t.num {
		a := t.address(data, i, absolute)
		if a < last {
			return false
		}
		last = a
	}
	return true
}

// absolutePercpu says whether offsets have the meaning of
// CONFIG_KALLSYMS_ABSOLUTE_PERCPU: positive ones are absolute values, negative
// ones count down from base-1. A kernel without it has no half of 2 GiB to spare.
func (t *tables) absolutePercpu(data []byte) bool {
	negative := 0
	for i := range t.num {
		if int32(binary.LittleEndian.Uint32(data[t.offsets+4*i:])) < 0 {
			negative++
		}
	}
	return negative > t.num/2
}

func (t *tables) address(data []byte, i int, absolutePercpu bool) uint64 {
	off := binary.LittleEndian.Uint32(data[t.offsets+4*i:])
	switch {
	case !absolutePercpu:
		return t.base + uint64(off)
	case int32(off) >= 0:
		return uint64(off)
	}
	return t.base - 1 - uint64(int64(int32(off)))
}

// symbols decodes all names and addresses.
func (t *tables) symbols(data []byte) ([]Symbol, error) {
	arena := make([]byte, 0, 32*t.num)
	ends := make([]uint32, t.num)
	pos := t.names
	for i := range t.num {
		n, next, _ := nameLength(data, pos)
		for _, c := range data[next : next+n] {
			arena = append(arena, t.tokens[c]...)
		}
		if len(arena) > maxNameBytes {
			return nil, fmt.Errorf("reading kallsyms: the names unpack to more than %d bytes", maxNameBytes)
		}
		ends[i] = uint32(len(arena))
		pos = next + n
	}
	all := string(arena)
	syms := make([]Symbol, t.num)
	absolute := t.absolutePercpu(data)
	var start uint32
	for i := range syms {
		s := all[start:ends[i]]
		start = ends[i]
		if len(s) < 2 {
			return nil, fmt.Errorf("reading kallsyms: symbol %d has no name", i)
		}
		syms[i] = Symbol{Name: s[1:], Kind: s[0], Addr: t.address(data, i, absolute)}
	}
	return syms, nil
}

// readSymbols fills Symbols from the first section that has the tables.
func (im *Image) readSymbols() error {
	for _, s := range im.Sections {
		if s.Exec || s.Data == nil {
			continue
		}
		t, err := findKallsyms(s.Data, im.inText)
		if err != nil {
			continue
		}
		if im.Symbols, err = t.symbols(s.Data); err != nil {
			return err
		}
		im.indexSymbols()
		text := im.lookup("_stext")
		if len(text) != 1 || !im.inText(text[0].Addr) {
			return errors.New("reading kallsyms: _stext is not in a section with code")
		}
		return nil
	}
	return errNoKallsyms
}
