// SPDX-License-Identifier: Apache-2.0

package kimage

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/upsplice/upsplice/splice/insn"
)

// altEntry is one entry of .altinstructions: the kernel may copy the replacement
// over the instruction and fills the rest with NOPs.
type altEntry struct {
	index       int
	instr, repl uint64
	instrLen    int
	replLen     int
	direct      bool // what the replacement calls is read from memory
}

// maxAlts bounds the contents that one place may have. Places have a handful; one
// beyond it keeps no alternative, so that a kernel which has rewritten it is refused.
const maxAlts = 512

// readAlternatives makes one site of the entries that touch each other. The kernel
// goes through the table in order and a later entry may overwrite an earlier one,
// so all subsets are played through.
func (im *Image) readAlternatives(l *layouts) error {
	p, err := im.table(".altinstructions", "__alt_instructions", "__alt_instructions_end")
	if err != nil || len(p.data) == 0 {
		return err
	}
	rec, err := l.of("alt_instr", "instr_offset", "repl_offset", "instrlen", "replacementlen")
	if err != nil {
		return err
	}
	im.EntrySize[SiteAlternative] = rec.size
	im.altFlags = rec.fields["flags"]
	if im.nops == nil { // a module has those of its kernel
		im.nops = im.readNops()
	}
	if im.nops == nil {
		return errors.New("the table x86_nops is not in the image")
	}
	entries, err := im.altEntries(rec, p)
	if err != nil {
		return err
	}
	im.Entries[SiteAlternative] = len(entries)
	slices.SortFunc(entries, func(a, b altEntry) int {
		return cmp.Or(cmp.Compare(a.instr, b.instr), cmp.Compare(a.index, b.index))
	})
	var sites []Site
	for len(entries) > 0 {
		end := entries[0].instr + uint64(entries[0].instrLen)
		n := 1
		for n < len(entries) && entries[n].instr < end {
			end = max(end, entries[n].instr+uint64(entries[n].instrLen))
			n++
		}
		sites = append(sites, im.altSite(entries[:n], end))
		sites = append(sites, directSites(entries[:n])...)
		entries = entries[n:]
	}
	im.Sites = append(im.Sites, sites...)
	return nil
}

func (im *Image) altEntries(rec record, p place) ([]altEntry, error) {
	if len(p.data)%rec.size != 0 {
		return nil, fmt.Errorf("%d bytes are no whole number of entries of %d", len(p.data), rec.size)
	}
	entries := make([]altEntry, 0, len(p.data)/rec.size)
	for at := 0; at < len(p.data); at += rec.size {
		e := altEntry{
			index:    at / rec.size,
			instrLen: int(p.data[at+rec.fields["instrlen"]]),
			replLen:  int(p.data[at+rec.fields["replacementlen"]]),
			direct:   im.DirectCall(p.data[at : at+rec.size]),
		}
		e.instr, _ = p.prel(at + rec.fields["instr_offset"])
		e.repl, _ = p.prel(at + rec.fields["repl_offset"])
		if e.instrLen == 0 {
			continue // nothing to replace
		}
		// an empty replacement may stand at the very end of its section
		if im.at(e.instr, e.instrLen) == nil || e.replLen > 0 && im.at(e.repl, e.replLen) == nil || !im.inText(e.instr) {
			return nil, fmt.Errorf("entry %d: %#x or %#x is not in a section with code", e.index, e.instr, e.repl)
		}
		if e.replLen > e.instrLen {
			return nil, fmt.Errorf("entry %d: a replacement of %d bytes for %d", e.index, e.replLen, e.instrLen)
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// altSite plays the entries through, in the order of the table. What a direct call
// of a function that only the running kernel knows looks like is said by another
// site, see directSites.
func (im *Image) altSite(entries []altEntry, end uint64) Site {
	s := Site{Addr: entries[0].instr, Len: int(end - entries[0].instr), Kind: SiteAlternative}
	orig := im.at(s.Addr, s.Len)
	if orig == nil {
		return s
	}
	ordered := slices.Clone(entries)
	slices.SortFunc(ordered, func(a, b altEntry) int { return cmp.Compare(a.index, b.index) })

	states := newContents()
	slid := im.altSlid(s.Addr, s.Len)
	for _, b := range im.variants(s.Addr, s.Len) {
		states.add(content{b, slid})
	}
	for _, e := range ordered {
		next := newContents()
		off := int(e.instr - s.Addr)
		for _, state := range states.list {
			options := []content{state.cut(off, e.instrLen)}
			if !e.direct {
				options = append(options, im.replacements(e)...)
			}
			for _, o := range options {
				for _, b := range im.optimize(o.bytes) {
					next.add(state.with(off, content{b, o.slid}))
				}
			}
		}
		if states = next; len(states.list) > maxAlts {
			return s
		}
	}
	original := content{orig, slid}.key()
	moves := false
	for _, c := range states.list {
		if c.key() != original {
			s.Alts = append(s.Alts, c.bytes)
			s.AltSlid = append(s.AltSlid, c.slid)
			moves = moves || len(c.slid) > 0
		}
	}
	if !moves {
		s.AltSlid = nil
	}
	return s
}

// directSites returns the indirect calls of entries that the kernel makes direct.
func directSites(entries []altEntry) []Site {
	var sites []Site
	for _, e := range entries {
		if e.direct {
			sites = append(sites, Site{Addr: e.instr, Len: e.instrLen, Kind: SiteParavirt})
		}
	}
	return sites
}

// altSlid returns the fields of n bytes at addr that depend on the KASLR slide.
func (im *Image) altSlid(addr uint64, n int) []AltSlid {
	var out []AltSlid
	for _, f := range im.slidIn(addr, n) {
		out = append(out, AltSlid{int(f.Addr - addr), f.Kind})
	}
	return out
}

// variants returns what n bytes at addr may be once returns and retpolines have
// been rewritten, which the kernel does before it looks at alternatives. The
// replacements are rewritten like all other code.
func (im *Image) variants(addr uint64, n int) [][]byte {
	states := [][]byte{im.at(addr, n)}
	for _, site := range im.sitesIn(addr, n) {
		off := int(site.Addr - addr)
		if off+site.Len > n {
			continue
		}
		for _, form := range im.forms(site) {
			for _, s := range states[:len(states):len(states)] {
				states = append(states, slices.Concat(s[:off], form, s[off+site.Len:]))
			}
			if len(states) > maxAlts {
				return states[:1]
			}
		}
	}
	return states
}

// replacements returns what an entry may put at its place, filled with NOPs.
func (im *Image) replacements(e altEntry) []content {
	var out []content
	slid := im.altSlid(e.repl, e.replLen)
	for _, repl := range im.variants(e.repl, e.replLen) {
		for _, b := range [][]byte{moveFirst(repl, e), moveAll(repl, e)} {
			out = append(out, content{fill(b, e.instrLen, 0x90), slid})
		}
	}
	return out
}

// moveFirst is how kernels until 6.2 move a replacement to its place: only one that
// is a single call or jmp has its displacement changed, and a jmp that leads a
// little forward becomes a short one.
func moveFirst(repl []byte, e altEntry) []byte {
	b := slices.Clone(repl)
	if len(b) != 5 || b[0] != 0xe8 && b[0] != 0xe9 {
		return b
	}
	disp := int64(int32(binary.LittleEndian.Uint32(b[1:]))) + int64(e.repl-e.instr)
	if b[0] == 0xe9 {
		if fromStart := disp + 5; fromStart >= 0 && fromStart-2 <= 127 {
			return append([]byte{0xeb, byte(fromStart - 2)}, 0x0f, 0x1f, 0x00)
		}
	}
	binary.LittleEndian.PutUint32(b[1:], uint32(disp))
	return b
}

// moveAll is how later kernels move one: every field that leads out of the
// replacement is changed, and a jmp becomes a short one, filled with int3, where
// the displacement allows it.
func moveAll(repl []byte, e altEntry) []byte {
	b := slices.Clone(repl)
	for i := 0; i < len(b); {
		in, err := insn.Decode(b[i:])
		if err != nil {
			break
		}
		if to := int64(i) + in.Target; in.Relative && in.FieldLen == 4 && (to < 0 || to > int64(len(b))) {
			f := b[i+in.FieldOff:]
			disp := int64(int32(binary.LittleEndian.Uint32(f))) + int64(e.repl-e.instr)
			binary.LittleEndian.PutUint32(f, uint32(disp))
			if short := disp + 3; in.Opcode == 0xe9 && short == int64(int8(short)) {
				copy(b[i:i+in.Len], fill([]byte{0xeb, byte(short)}, in.Len, 0xcc))
			}
		}
		i += in.Len
	}
	return b
}
