// SPDX-License-Identifier: Apache-2.0

package kimage

import (
	"cmp"
	"encoding/binary"
	"errors"
	"slices"
	"sort"
)

// readSlid parses the list of fields that the boot code adjusts to the address at
// which it puts the kernel. kbuild appends it to vmlinux: 32-bit words, each the
// low half of a link address, in lists that start with a zero word
// (arch/x86/tools/relocs.c, handle_relocations in arch/x86/boot/compressed/misc.c).
// The last list has the 32-bit fields, the first the 64-bit ones, and kernels with
// per-cpu symbols at zero have one with the inverse fields in between.
func readSlid(tail []byte) ([]Slid, error) {
	if len(tail) < 8 {
		return nil, nil
	}
	bad := errors.New("reading vmlinux: the relocation list behind it has an unknown form")
	if len(tail)%4 != 0 || binary.LittleEndian.Uint32(tail) != 0 {
		return nil, bad
	}
	zeros := 0
	for i := 0; i < len(tail); i += 4 {
		if binary.LittleEndian.Uint32(tail[i:]) == 0 {
			zeros++
		}
	}
	var kinds []SlidKind
	switch zeros {
	case 2:
		kinds = []SlidKind{SlidAbs64, SlidAbs32}
	case 3:
		kinds = []SlidKind{SlidAbs64, SlidNegRel32, SlidAbs32}
	default:
		return nil, bad
	}
	out := make([]Slid, 0, len(tail)/4-zeros)
	list := -1
	for i := 0; i < len(tail); i += 4 {
		v := binary.LittleEndian.Uint32(tail[i:])
		if v == 0 {
			list++
			continue
		}
		out = append(out, Slid{uint64(int64(int32(v))), kinds[list]})
	}
	slices.SortFunc(out, func(a, b Slid) int { return cmp.Compare(a.Addr, b.Addr) })
	return out, nil
}

func (im *Image) slidIn(addr uint64, n int) []Slid {
	i := sort.Search(len(im.Slid), func(i int) bool { return im.Slid[i].Addr >= addr })
	j := i + sort.Search(len(im.Slid)-i, func(j int) bool { return im.Slid[i+j].Addr >= addr+uint64(n) })
	return im.Slid[i:j:j]
}
