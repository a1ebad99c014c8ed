// SPDX-License-Identifier: Apache-2.0

package objdiff

import (
	"debug/elf"
	"fmt"
	"slices"
	"strings"

	"github.com/upsplice/upsplice/splice/object"
)

// maxOverlap is how many times the bytes of an object may belong to a symbol:
// aliases count once, so that more than a few is no compiler's work.
const maxOverlap = 8

// check refuses objects that cannot be compared function by function.
func (s *side) check() error {
	var named, all uint64
	for _, sec := range s.obj.Sections {
		all += uint64(len(sec.Data))
	}
	for _, list := range [][]*object.Symbol{s.code, s.data} {
		for _, sym := range list {
			if sym.Section.Data != nil {
				named += sym.Size
			}
		}
	}
	if named > maxOverlap*all+1<<20 {
		return fmt.Errorf("comparing objects: symbols overlap: they have %d bytes, the sections %d", named, all)
	}

	// Hand-written assembly has no .comment, and its functions are told apart by
	// their symbols. Compiled code that shares .text is laid out in another way
	// than the code that it is compared with.
	if c := s.obj.Section(".comment"); c == nil || c.Size == 0 {
		return nil
	}
	shared := 0
	for _, f := range s.code {
		if f.Type != elf.STT_FUNC {
			continue
		}
		if f.Section.Name == ".text" {
			shared++
		} else if strings.HasPrefix(f.Section.Name, ".text.") && strings.HasSuffix(f.Section.Name, "."+f.Name) {
			return nil
		}
	}
	if shared > 1 {
		return fmt.Errorf("comparing objects: %d functions share the section .text (compile with -ffunction-sections -fdata-sections)", shared)
	}
	return nil
}

// checkBinding refuses a definition that became weak or ceased to be: the running
// kernel may have another unit's in its place.
func (d *differ) checkBinding(r *Result) {
	for _, b := range d.post.obj.Symbols {
		a := d.twin[b]
		if a == nil || a.Section == nil || b.Section == nil || (a.Bind == elf.STB_WEAK) == (b.Bind == elf.STB_WEAK) {
			continue
		}
		r.Refusals = append(r.Refusals, Refusal{Section: b.Section.Name, Symbol: b.Name,
			Reason: fmt.Sprintf("weak: the binding of %s became %v from %v: which definition runs is decided when linking", b.Name, b.Bind, a.Bind)})
	}
}

// checkRanges refuses new code that refers to a place outside of every section: a
// copy would refer to something else.
func (d *differ) checkRanges(r *Result) {
	for _, c := range r.Functions {
		if c.Post == nil {
			continue
		}
		for _, f := range d.post.fields(c.Post) {
			t := f.targets[0]
			if len(f.targets) == 1 && (t.kind == toContents || t.kind == toLiteral) && t.outside() && t.off != int64(t.sec.Size) {
				r.Refusals = append(r.Refusals, Refusal{Section: t.sec.Name, Symbol: c.Name,
					Reason: fmt.Sprintf("reference at 0x%x of %s is to a place outside of %s", f.off, c.Name, t.sec.Name)})
			}
		}
	}
}

// growing are tables without symbols that may get more entries: what they announce
// is not used until then (struct tracepoint, include/linux/tracepoint-defs.h).
var growing = map[string]uint64{"__tracepoints_ptrs": 4}

// onlyGrew says that each entry of a table is still there, in the same order.
func (d *differ) onlyGrew(name string, size uint64) bool {
	pieces := func(s *side) []*body {
		var list []*body
		for _, sec := range s.obj.Sections {
			for at := uint64(0); sec.Name == name && at+size <= sec.Size; at += size {
				list = append(list, s.region(sec, at, at+size))
			}
		}
		return list
	}
	old := pieces(d.pre)
	for _, b := range pieces(d.post) {
		if len(old) > 0 && d.difference(old[0], b, 0) == "" {
			old = old[1:]
		}
	}
	return len(old) == 0
}

// compareTables compares .BTF_ids, whose contents are filled in at the link: what
// to fill in is said by names, which end in a running number.
func (d *differ) compareTables(r *Result) {
	const name = ".BTF_ids"
	type id struct {
		at, size uint64
		name     string
	}
	ids := func(s *side) []id {
		var list []id
		for _, sec := range s.obj.Sections {
			if sec.Name != name {
				continue
			}
			for _, sym := range s.index.In(sec) {
				n := sym.Name
				if strings.HasPrefix(n, "__BTF_ID__") {
					n = strings.TrimRight(n, "0123456789")
				}
				list = append(list, id{sym.Value, sym.Size, n})
			}
			list = append(list, id{at: sec.Size})
		}
		return list
	}
	if !slices.Equal(ids(d.pre), ids(d.post)) && !d.ignoresSection(r, name) {
		r.Refusals = append(r.Refusals, Refusal{Section: name, Reason: "existing data changed: lists of BTF ids"})
	}
}
