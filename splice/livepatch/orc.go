// SPDX-License-Identifier: Apache-2.0

package livepatch

import (
	"cmp"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/upsplice/upsplice/splice/object"
)

// orcEntry is one place of the unwind table of the post object.
type orcEntry struct {
	off   uint64 // in the section of code
	index int    // in .orc_unwind
}

// carryORC copies the unwind table of the code that was taken. An entry holds up
// to the next one, so the first of a chunk may stand before it, and behind the
// last byte an entry says that nothing is known there: zeros, as objtool ends the
// table of each section. (arch/x86/include/asm/orc_types.h)
func (u *unit) carryORC() error {
	table, ips := u.Post.Section(orcSection), u.Post.Section(orcIPSection)
	if table == nil || ips == nil {
		if table == nil && ips == nil {
			return u.checkORCMissing()
		}
		return u.unsupported(nil, "", "one of the two unwind tables is missing")
	}
	layout, err := u.b.kernel.structure("orc_entry")
	if err != nil {
		return err
	}
	const ipSize = 4 // the offset is a 32-bit one by its relocation
	entries := map[*object.Section][]orcEntry{}
	for _, r := range ips.Relocs {
		if elf.R_X86_64(r.Type) != elf.R_X86_64_PC32 || r.Offset%ipSize != 0 || r.Symbol == nil || r.Symbol.Section == nil {
			return u.unsupported(ips, "", fmt.Sprintf("the relocation at 0x%x is not one of an unwind table", r.Offset))
		}
		sec := r.Symbol.Section
		entries[sec] = append(entries[sec], orcEntry{r.Symbol.Value + uint64(r.Addend), int(r.Offset / ipSize)})
	}
	for _, list := range entries {
		slices.SortStableFunc(list, func(a, b orcEntry) int { return cmp.Compare(a.off, b.off) })
	}
	if table.Size%layout.size != 0 || table.Size/layout.size != ips.Size/ipSize || uint64(len(ips.Relocs)) != ips.Size/ipSize {
		return u.unsupported(table, "", fmt.Sprintf("%d bytes for %d places are not entries of %d bytes", table.Size, len(ips.Relocs), layout.size))
	}
	outTable, outIPs := u.b.collected(table), u.b.collected(ips)
	outTable.Align, outIPs.Align = max(outTable.Align, natural(layout.size)), max(outIPs.Align, ipSize)
	emit := func(c *chunk, off uint64, entry []byte) {
		at := uint64(len(outIPs.Data))
		outIPs.Data = binary.LittleEndian.AppendUint32(outIPs.Data, 0)
		outTable.Data = append(outTable.Data, entry...)
		outIPs.Relocs = append(outIPs.Relocs, object.Reloc{
			Offset: at, Type: uint32(elf.R_X86_64_PC32),
			Symbol: u.b.sectionSymbol(c.out), Addend: int64(off - c.start + c.at),
		})
	}
	end := make([]byte, layout.size)
	for _, c := range u.order {
		if c.sec.Flags&elf.SHF_EXECINSTR == 0 || c.sec.Name == altReplacement {
			continue // a replacement is unwound where it is put
		}
		list := entries[c.sec]
		first, exact := slices.BinarySearchFunc(list, c.start, func(e orcEntry, off uint64) int { return cmp.Compare(e.off, off) })
		if !exact && first > 0 {
			first--
		}
		for _, e := range list[first:] {
			if e.off >= c.end {
				break
			}
			emit(c, max(e.off, c.start), table.Data[uint64(e.index)*layout.size:][:layout.size])
		}
		emit(c, c.end, end)
	}
	outTable.Size, outIPs.Size = uint64(len(outTable.Data)), uint64(len(outIPs.Data))
	return nil
}

// checkORCMissing refuses an object without an unwind table if the kernel unwinds
// by such tables: no stack with the new code on it could be trusted, and no later
// patch could replace it.
func (u *unit) checkORCMissing() error {
	if _, err := u.b.kernel.structure("orc_entry"); err == nil {
		return u.unsupported(nil, "", "the object has no unwind table, which objtool makes for this kernel")
	}
	return nil
}
