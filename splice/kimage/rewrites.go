// SPDX-License-Identifier: Apache-2.0

package kimage

import (
	"bytes"
	"fmt"
	"strings"
)

// The tables that kernels since 6.2 have besides (arch/x86/kernel/vmlinux.lds.S).
const (
	SiteCall         SiteKind = "call"          // .call_sites
	SiteEndbr        SiteKind = "endbr"         // .ibt_endbr_seal
	SiteRuntimePtr   SiteKind = "runtime_ptr"   // runtime_ptr_VARIABLE
	SiteRuntimeShift SiteKind = "runtime_shift" // runtime_shift_VARIABLE
)

// directCall is the flag of an alternative that the kernel makes a direct call of
// what an indirect one leads to at boot (ALT_FLAG_DIRECT_CALL, asm/alternative.h).
const directCall = 2

// endbr64 marks where an indirect branch may lead.
var endbr64 = []byte{0xf3, 0x0f, 0x1e, 0xfa}

// callSite is a direct call, which call depth tracking makes lead into the padding
// before the function.
func callSite(im *Image, _ record, p place, at int) (Site, error) {
	addr, _ := p.prel(at)
	in, err := im.instAt(addr)
	if err != nil {
		return Site{}, err
	}
	if in.Opcode != 0xe8 {
		return Site{}, fmt.Errorf("opcode %#x at %#x is no call", in.Opcode, addr)
	}
	return Site{Addr: addr, Len: in.Len, Target: addr + uint64(in.Target)}, nil
}

// endbrSite is the start of a function that no pointer leads to: the kernel makes
// a NOP of its endbr64.
func endbrSite(im *Image, _ record, p place, at int) (Site, error) {
	addr, _ := p.prel(at)
	if !bytes.Equal(im.at(addr, len(endbr64)), endbr64) {
		return Site{}, fmt.Errorf("%#x has no endbr64", addr)
	}
	return Site{Addr: addr, Len: len(endbr64)}, nil
}

// readRuntimeConstants reads the tables of constants that the boot code writes into
// instructions (include/asm/runtime-const.h). Each variable has a table of its own.
func (im *Image) readRuntimeConstants() error {
	for _, s := range im.Sections {
		kind, variable, ok := RuntimeConstant(s.Name)
		if !ok {
			continue
		}
		t := siteTable{kind: kind, read: func(im *Image, _ record, p place, at int) (Site, error) {
			addr, _ := p.prel(at)
			site := Site{Addr: addr, Len: 1}
			if kind == SiteRuntimePtr {
				site.Len = 8
			}
			if v := im.lookup(variable); len(v) == 1 {
				site.Target = v[0].Addr
			}
			return site, nil
		}}
		im.EntrySize[kind] = 4
		if err := im.readEntries(t, record{size: 4}, place{s.Addr, s.Data}); err != nil {
			return fmt.Errorf("reading %s: %w", s.Name, err)
		}
	}
	return nil
}

// RuntimeConstant says whether a section is a table of constants that the boot code
// writes into instructions, and of which variable they are the value.
func RuntimeConstant(section string) (kind SiteKind, variable string, ok bool) {
	for _, kind := range []SiteKind{SiteRuntimePtr, SiteRuntimeShift} {
		if v, found := strings.CutPrefix(section, string(kind)+"_"); found && v != "" {
			return kind, v, true
		}
	}
	return "", "", false
}

// dropFentry drops the calls of __fentry__ from the direct calls: they are sites of
// their own, and no others are made of them.
func (im *Image) dropFentry() {
	fentry := map[uint64]bool{}
	for _, of := range []*Image{im, im.vmlinux} { // a module imports it
		if of == nil {
			continue
		}
		for _, s := range of.lookup("__fentry__") {
			fentry[s.Addr] = true
		}
	}
	kept := im.Sites[:0]
	for _, s := range im.Sites {
		if s.Kind == SiteCall && fentry[s.Target] {
			im.Entries[SiteCall]--
			continue
		}
		kept = append(kept, s)
	}
	im.Sites = kept
}

// DirectCall says whether an entry of .altinstructions, of EntrySize bytes, makes a
// direct call of an indirect one. Then the site is of kind paravirt as well.
func (im *Image) DirectCall(entry []byte) bool {
	return im.altFlags > 0 && im.altFlags < len(entry) && entry[im.altFlags]&directCall != 0
}
