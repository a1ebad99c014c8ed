// SPDX-License-Identifier: Apache-2.0

package match

import (
	"fmt"

	"github.com/upsplice/upsplice/splice/kimage"
	"github.com/upsplice/upsplice/splice/object"
)

// siteSections are the sections of an object that the linker collects into the
// kernel's tables. What stands first in an entry is the site itself.
var siteSections = map[string]kimage.SiteKind{
	"__mcount_loc":       kimage.SiteMcount,
	".return_sites":      kimage.SiteReturn,
	".retpoline_sites":   kimage.SiteRetpoline,
	".static_call_sites": kimage.SiteStaticCall,
	"__jump_table":       kimage.SiteJumpLabel,
	".altinstructions":   kimage.SiteAlternative,
	".parainstructions":  kimage.SiteParavirt,
	".smp_locks":         kimage.SiteSMPLock,
	".call_sites":        kimage.SiteCall,
	".ibt_endbr_seal":    kimage.SiteEndbr,
}

// siteKind returns which table a section of an object becomes part of.
func siteKind(section string) (kimage.SiteKind, bool) {
	if kind, ok := siteSections[section]; ok {
		return kind, true
	}
	kind, _, ok := kimage.RuntimeConstant(section)
	return kind, ok
}

// entry is one entry of such a section.
type entry struct {
	kind   kimage.SiteKind
	off    uint64        // of the site, in the section with the code
	target *object.Reloc // where a jump label leads; nil for other kinds
	key    *object.Reloc // of a jump label or static call; nil for other kinds
}

// readEntries collects the object's entries by the section that the site is in.
func (m *matcher) readEntries(o *object.Object) error {
	m.entries = map[*object.Section][]entry{}
	for _, sec := range o.Sections {
		kind, ok := siteKind(sec.Name)
		if !ok || len(sec.Data) == 0 {
			continue
		}
		size := uint64(m.img.EntrySize[kind])
		if size == 0 {
			return fmt.Errorf("matching: the object has a section %s, the image has no such table", sec.Name)
		}
		for i := range sec.Relocs {
			r := &sec.Relocs[i]
			if r.Offset%size != 0 || r.Symbol.Section == nil {
				continue
			}
			e := entry{kind: kind, off: r.Symbol.Value + uint64(r.Addend)}
			rest := sec.RelocsIn(r.Offset+1, r.Offset+size)
			switch {
			case kind == kimage.SiteJumpLabel && len(rest) == 2:
				e.target, e.key = &rest[0], &rest[1]
			case kind == kimage.SiteStaticCall && len(rest) == 1:
				e.key = &rest[0]
			case kind == kimage.SiteJumpLabel, kind == kimage.SiteStaticCall:
				return fmt.Errorf("matching: the entry at offset %#x of the object's %s has %d relocations", r.Offset, sec.Name, 1+len(rest))
			}
			m.entries[r.Symbol.Section] = append(m.entries[r.Symbol.Section], e)
			if end := r.Offset + size; kind == kimage.SiteAlternative && end <= uint64(len(sec.Data)) && m.img.DirectCall(sec.Data[r.Offset:end]) {
				e.kind = kimage.SiteParavirt
				m.entries[r.Symbol.Section] = append(m.entries[r.Symbol.Section], e)
			}
		}
	}
	return nil
}

// compareSites demands that object and image announce the same sites within the
// function, and that jump labels and static calls mean the same keys: two functions
// of equal bytes may still differ in what the kernel makes of them.
func (m *matcher) compareSites(fn *object.Symbol, addr uint64) ([]ref, *difference) {
	type site struct {
		kind kimage.SiteKind
		off  uint64
	}
	image := map[site]kimage.Site{}
	for _, s := range m.img.SitesIn(addr, int(m.imageSize(fn))) {
		image[site{s.Kind, s.Addr - addr}] = s
	}
	var refs []ref
	seen := map[site]bool{}
	for _, e := range m.entries[fn.Section] {
		if e.off < fn.Value || e.off-fn.Value >= fn.Size {
			continue
		}
		off := m.imageOffset(fn.Section, e.off) - fn.Value
		s, ok := image[site{e.kind, off}]
		if !ok {
			// That nothing points to a function is known only where all objects come
			// together, and the image leaves out calls of __fentry__.
			if e.kind == kimage.SiteEndbr || e.kind == kimage.SiteCall && callsFentry(fn.Section, e.off) {
				continue
			}
			if e.kind == kimage.SiteAlternative && m.insideAlternative(addr+off, addr) {
				continue
			}
			return nil, &difference{off: int64(off), reason: fmt.Sprintf("the object has a %s site there, the image has none", e.kind)}
		}
		seen[site{e.kind, off}] = true
		refs = append(refs, m.entryRefs(e, s)...)
	}
	for s := range image {
		if !seen[s] {
			return nil, &difference{off: int64(s.off), reason: fmt.Sprintf("the image has a %s site there, the object has none", s.kind)}
		}
	}
	return refs, nil
}

// callsFentry says whether the call at an offset of a section is one of __fentry__.
func callsFentry(sec *object.Section, off uint64) bool {
	for _, r := range sec.RelocsIn(off, off+5) {
		if r.Symbol.Name == "__fentry__" {
			return true
		}
	}
	return false
}

// insideAlternative says whether at is in an alternative that starts before it: the
// image has entries that overlap as one site.
func (m *matcher) insideAlternative(at, start uint64) bool {
	for _, s := range m.img.SitesIn(start, int(at-start)) {
		if s.Kind == kimage.SiteAlternative && at-s.Addr < uint64(s.Len) {
			return true
		}
	}
	return false
}

// entryRefs returns what the image's entry implies for the object's: where a jump label
// leads, which may be the cold part of the function, and where the key is.
func (m *matcher) entryRefs(e entry, s kimage.Site) []ref {
	const flags = 3 // in the lowest bits of a key's address
	key := s.Target
	var out []ref
	if e.target != nil {
		key = s.Key
		t, off := thingOf(e.target.Symbol)
		// the field counts from its own place, so there is no more to the addend
		to := off + uint64(e.target.Addend)
		out = append(out, ref{t, s.Target - m.imageOffset(t.sec, to)})
	}
	if e.key != nil {
		t, off := thingOf(e.key.Symbol)
		out = append(out, ref{t, key - uint64(e.key.Addend&^flags) - off})
	}
	return out
}
