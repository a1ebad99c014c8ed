// SPDX-License-Identifier: Apache-2.0

package match

import (
	"cmp"
	"slices"

	"github.com/upsplice/upsplice/splice/kimage"
)

func expect(img *kimage.Image, found []Found) []Expectation {
	var out []Expectation
	for _, f := range found {
		size := int(f.Size)
		if img.IsModule() {
			// what cannot be described has not been found
			if e, err := expectModule(img, f); err == nil {
				out = append(out, e)
			}
			continue
		}
		out = append(out, Expectation{
			Name:   f.Name,
			Sympos: f.Sympos,
			Addr:   f.Addr,
			Bytes:  slices.Clone(img.At(f.Addr, size)),
			Fields: fields(img, f.Addr, size),
		})
	}
	slices.SortFunc(out, func(a, b Expectation) int {
		return cmp.Or(cmp.Compare(a.Section, b.Section), cmp.Compare(a.Addr, b.Addr))
	})
	return out
}

func fields(img *kimage.Image, addr uint64, size int) []Field {
	var out []Field
	for _, s := range img.SitesIn(addr, size) {
		f := Field{Off: int(s.Addr - addr), Len: s.Len, Kind: string(s.Kind), Target: s.Target, Alts: s.Alts}
		for alt, slid := range s.AltSlid {
			for _, part := range slid {
				f.AltFields = append(f.AltFields, AltField{Alt: alt, Off: part.Off, Kind: string(part.Kind)})
			}
		}
		out = append(out, f)
	}
	for _, s := range img.SlidIn(addr, size) {
		out = append(out, Field{Off: int(s.Addr - addr), Len: s.Kind.Len(), Kind: string(s.Kind)})
	}
	slices.SortStableFunc(out, func(a, b Field) int { return cmp.Compare(a.Off, b.Off) })
	return out
}
