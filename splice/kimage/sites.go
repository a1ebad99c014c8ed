// SPDX-License-Identifier: Apache-2.0

package kimage

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"sort"

	"github.com/upsplice/upsplice/splice/insn"
)

// siteTable says where a table is: a section of its own, or between two symbols.
type siteTable struct {
	kind        SiteKind
	section     string
	start, stop string
	typ         string // the C type of an entry; "" for a 32-bit number that counts from itself
	members     []string
	read        func(im *Image, rec record, p place, at int) (Site, error)
}

// siteTables lists the tables (arch/x86/kernel/vmlinux.lds.S,
// include/asm-generic/vmlinux.lds.h). Alternatives are apart: see alternatives.
var siteTables = []siteTable{
	{SiteMcount, "__mcount_loc", "__start_mcount_loc", "__stop_mcount_loc", "unsigned long", nil, mcountSite},
	{SiteReturn, ".return_sites", "__return_sites", "__return_sites_end", "", nil, thunkSite(SiteReturn)},
	{SiteRetpoline, ".retpoline_sites", "__retpoline_sites", "__retpoline_sites_end", "", nil, thunkSite(SiteRetpoline)},
	{SiteStaticCall, ".static_call_sites", "__start_static_call_sites", "__stop_static_call_sites",
		"static_call_site", []string{"addr", "key"}, staticCallSite},
	{SiteJumpLabel, "__jump_table", "__start___jump_table", "__stop___jump_table",
		"jump_entry", []string{"code", "target", "key"}, jumpSite},
	{SiteParavirt, ".parainstructions", "__parainstructions", "__parainstructions_end",
		"paravirt_patch_site", []string{"instr", "len"}, paravirtSite},
	{SiteSMPLock, ".smp_locks", "__smp_locks", "__smp_locks_end", "", nil, smpLockSite},
	{SiteCall, ".call_sites", "__call_sites", "__call_sites_end", "", nil, callSite},
	{SiteEndbr, ".ibt_endbr_seal", "__ibt_endbr_seal", "__ibt_endbr_seal_end", "", nil, endbrSite},
}

// table returns the bytes of a table, none if the kernel does not have it.
func (im *Image) table(section, start, stop string) (place, error) {
	if s := im.section(section); s != nil {
		return place{s.Addr, s.Data}, nil
	}
	from, to := im.lookup(start), im.lookup(stop)
	if len(from) == 0 && len(to) == 0 {
		return place{}, nil
	}
	if len(from) != 1 || len(to) != 1 || from[0].Addr > to[0].Addr {
		return place{}, fmt.Errorf("symbols %s and %s do not bound a table", start, stop)
	}
	n := to[0].Addr - from[0].Addr
	if n == 0 {
		return place{}, nil
	}
	data := im.at(from[0].Addr, int(n))
	if data == nil {
		return place{}, fmt.Errorf("%d bytes at %#x (%s) are not in the image", n, from[0].Addr, start)
	}
	return place{from[0].Addr, data}, nil
}

// readSites fills Sites and Entries.
func (im *Image) readSites(l *layouts) error {
	im.Entries, im.EntrySize = map[SiteKind]int{}, map[SiteKind]int{}
	for _, t := range siteTables {
		if err := im.readSiteTable(t, l); err != nil {
			return fmt.Errorf("reading %s: %w", t.section, err)
		}
	}
	if err := im.readRuntimeConstants(); err != nil {
		return err
	}
	im.dropFentry()
	sortSites(im.Sites) // alternatives look for the sites inside them
	if err := im.readAlternatives(l); err != nil {
		return fmt.Errorf("reading .altinstructions: %w", err)
	}
	sortSites(im.Sites)
	return nil
}

func sortSites(s []Site) {
	slices.SortFunc(s, func(a, b Site) int {
		return cmp.Or(cmp.Compare(a.Addr, b.Addr), cmp.Compare(a.Kind, b.Kind))
	})
}

func (im *Image) readSiteTable(t siteTable, l *layouts) error {
	p, err := im.table(t.section, t.start, t.stop)
	if err != nil || len(p.data) == 0 {
		return err
	}
	rec := record{size: 4}
	switch t.typ {
	case "":
	case "unsigned long":
		rec.size = 8
	default:
		if rec, err = l.of(t.typ, t.members...); err != nil {
			return err
		}
	}
	im.EntrySize[t.kind] = rec.size
	return im.readEntries(t, rec, p)
}

func (im *Image) readEntries(t siteTable, rec record, p place) error {
	if len(p.data)%rec.size != 0 {
		return fmt.Errorf("%d bytes are no whole number of entries of %d", len(p.data), rec.size)
	}
	im.Sites = slices.Grow(im.Sites, len(p.data)/rec.size)
	for at := 0; at < len(p.data); at += rec.size {
		if zero(p.data[at : at+rec.size]) {
			continue // padding to a page, or an entry of a discarded section
		}
		s, err := t.read(im, rec, p, at)
		if err != nil {
			return fmt.Errorf("entry %d: %w", at/rec.size, err)
		}
		if !im.inText(s.Addr) {
			return fmt.Errorf("entry %d: %#x is not in a section with code", at/rec.size, s.Addr)
		}
		s.Kind = t.kind
		im.Sites = append(im.Sites, s)
		im.Entries[t.kind]++
	}
	return nil
}

func mcountSite(_ *Image, _ record, p place, at int) (Site, error) {
	return Site{Addr: binary.LittleEndian.Uint64(p.data[at:]), Len: 5}, nil
}

func smpLockSite(_ *Image, _ record, p place, at int) (Site, error) {
	addr, _ := p.prel(at)
	return Site{Addr: addr, Len: 1}, nil
}

// instAt decodes the instruction at a link address.
func (im *Image) instAt(addr uint64) (insn.Inst, error) {
	for n := insn.MaxLen; n > 0; n-- {
		if code := im.at(addr, n); code != nil {
			in, err := insn.Decode(code)
			if err != nil {
				err = fmt.Errorf("% x at %#x: %w", code, addr, err)
			}
			return in, err
		}
	}
	return insn.Inst{}, fmt.Errorf("%#x is not in the image", addr)
}

// isBranch says whether the opcode is a call, jmp or conditional jump with a 32-bit
// displacement.
func isBranch(op uint32) bool { return op == 0xe8 || op == 0xe9 || op&^0xf == 0x0f80 }

func thunkSite(kind SiteKind) func(*Image, record, place, int) (Site, error) {
	return func(im *Image, _ record, p place, at int) (Site, error) {
		addr, _ := p.prel(at)
		in, err := im.instAt(addr)
		if err != nil {
			return Site{}, err
		}
		s := Site{Addr: addr, Len: in.Len}
		switch {
		case isBranch(in.Opcode):
			s.Target = addr + uint64(in.Target)
		case kind == SiteReturn && in.Opcode == 0xc3:
		default:
			return Site{}, fmt.Errorf("opcode %#x at %#x is neither call nor jmp", in.Opcode, addr)
		}
		return s, nil
	}
}

func staticCallSite(im *Image, rec record, p place, at int) (Site, error) {
	const flags = 3 // of the key: tail call, init
	addr, _ := p.prel(at + rec.fields["addr"])
	key, _ := p.prel(at + rec.fields["key"])
	in, err := im.instAt(addr)
	if err != nil {
		return Site{}, err
	}
	return Site{Addr: addr, Len: in.Len, Target: key &^ flags}, nil
}

func jumpSite(im *Image, rec record, p place, at int) (Site, error) {
	const flags = 3 // of the key: likely, init
	code, _ := p.prel(at + rec.fields["code"])
	target, _ := p.prel(at + rec.fields["target"])
	k := at + rec.fields["key"]
	key := p.addr + uint64(k) + binary.LittleEndian.Uint64(p.data[k:])
	in, err := im.instAt(code)
	if err != nil {
		return Site{}, err
	}
	if in.Len != 2 && in.Len != 5 {
		return Site{}, fmt.Errorf("the jump label at %#x has %d bytes", code, in.Len)
	}
	return Site{Addr: code, Len: in.Len, Target: target, Key: key &^ flags}, nil
}

func paravirtSite(_ *Image, rec record, p place, at int) (Site, error) {
	instr := binary.LittleEndian.Uint64(p.data[at+rec.fields["instr"]:])
	return Site{Addr: instr, Len: int(p.data[at+rec.fields["len"]])}, nil
}

func (im *Image) sitesIn(addr uint64, n int) []Site {
	i := sort.Search(len(im.Sites), func(i int) bool { return im.Sites[i].Addr >= addr })
	j := i + sort.Search(len(im.Sites)-i, func(j int) bool { return im.Sites[i+j].Addr >= addr+uint64(n) })
	return im.Sites[i:j:j]
}
