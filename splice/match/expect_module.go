// SPDX-License-Identifier: Apache-2.0

package match

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/upsplice/upsplice/splice/insn"
	"github.com/upsplice/upsplice/splice/kimage"
)

// The kinds of fields that the loader of modules fills.
const (
	kindRef32   = "ref32"
	kindRef64   = "ref64"
	kindRefPC32 = "refpc32"
	kindRefPC64 = "refpc64"
)

// expectModule describes a function of a module. The error says what of it has no
// name by which the running kernel's loader or kallsyms would know it.
func expectModule(img *kimage.Image, f Found) (Expectation, error) {
	size := int(f.Size)
	sec, ok := img.SectionAt(f.Addr)
	code := img.At(f.Addr, size)
	if !ok || len(code) == 0 {
		return Expectation{}, fmt.Errorf("%#x is not in a section of %s", f.Addr, img.Name)
	}
	fields, err := moduleFields(img, sec, f.Addr, size)
	if err != nil {
		return Expectation{}, err
	}
	return Expectation{
		Object: img.Name, Section: sec.Name, Name: f.Name, Sympos: f.Sympos,
		Addr: f.Addr - sec.Addr, Bytes: slices.Clone(code), Fields: fields,
	}, nil
}

func moduleFields(img *kimage.Image, sec kimage.Section, addr uint64, size int) ([]Field, error) {
	var out []Field
	for _, r := range img.RelocsIn(addr, size) {
		f := Field{Off: int(r.Addr - addr), Len: r.Len, Kind: refKind(r), Ref: refTo(r)}
		if f.Off+f.Len > size {
			return nil, errors.New("a relocation leaves the function")
		}
		if r.Object == "" {
			return nil, fmt.Errorf("no module is known to export %s", r.Symbol)
		}
		out = append(out, f)
	}
	for _, s := range img.SitesIn(addr, size) {
		f := Field{Off: int(s.Addr - addr), Len: s.Len, Kind: string(s.Kind)}
		var to kimage.ModuleReloc
		var err error
		switch {
		case s.Kind == kimage.SiteStaticCall:
			to, err = img.ReferKey(s.Target)
		case s.Kind == kimage.SiteAlternative:
			f.Alts, f.AltFields = moduleAlts(img, sec, s)
		case s.Target != 0:
			to, err = img.Refer(s.Target)
		}
		switch {
		case err != nil:
			return nil, fmt.Errorf("the %s site at offset %#x: %w", s.Kind, f.Off, err)
		case to.Object != "":
			f.Ref = refTo(to)
		case to.Symbol != "":
			return nil, fmt.Errorf("the %s site at offset %#x: no module is known to export %s", s.Kind, f.Off, to.Symbol)
		}
		out = append(out, f)
	}
	slices.SortStableFunc(out, func(a, b Field) int { return cmp.Compare(a.Off, b.Off) })
	return out, nil
}

func refKind(r kimage.ModuleReloc) string {
	switch {
	case r.PCRel && r.Len == 8:
		return kindRefPC64
	case r.PCRel:
		return kindRefPC32
	case r.Len == 8:
		return kindRef64
	}
	return kindRef32
}

func refTo(r kimage.ModuleReloc) *Ref {
	return &Ref{Object: r.Object, Symbol: r.Symbol, Sympos: r.Sympos, Section: r.Section, Offset: r.Offset, Addend: r.Addend}
}

// moduleAlts finds the fields in the contents of an alternative that lead out of the
// module's section. A content in which one leads to no known place is left out: a
// kernel that has it is refused.
func moduleAlts(img *kimage.Image, sec kimage.Section, s kimage.Site) (alts [][]byte, fields []AltField) {
	for i, alt := range s.Alts {
		var slid []kimage.AltSlid
		if s.AltSlid != nil {
			slid = s.AltSlid[i]
		}
		f, ok := absoluteFields(img, alt, slid)
		if !ok {
			continue
		}
		rel, ok := relativeFields(img, sec, s.Addr, alt)
		if !ok {
			continue
		}
		f = append(f, rel...)
		slices.SortStableFunc(f, func(a, b AltField) int { return cmp.Compare(a.Off, b.Off) })
		for j := range f {
			f[j].Alt = len(alts)
		}
		alts, fields = append(alts, alt), append(fields, f...)
	}
	return alts, fields
}

// absoluteFields are those that hold an address.
func absoluteFields(img *kimage.Image, alt []byte, slid []kimage.AltSlid) ([]AltField, bool) {
	var out []AltField
	for _, f := range slid {
		var to uint64
		kind := kindRef32
		switch b := alt[f.Off:]; f.Kind {
		case kimage.SlidAbs32:
			to = uint64(int64(int32(binary.LittleEndian.Uint32(b))))
		case kimage.SlidAbs64:
			kind, to = kindRef64, binary.LittleEndian.Uint64(b)
		default:
			return nil, false
		}
		r, err := img.Refer(to)
		if err != nil || r.Object == "" {
			return nil, false
		}
		out = append(out, AltField{Off: f.Off, Kind: kind, Ref: refTo(r)})
	}
	return out, true
}

// relativeFields are those of branches and operands that lead out of the section.
func relativeFields(img *kimage.Image, sec kimage.Section, addr uint64, alt []byte) ([]AltField, bool) {
	var out []AltField
	for i := 0; i < len(alt); {
		in, err := insn.Decode(alt[i:])
		if err != nil {
			return nil, false
		}
		to := addr + uint64(i) + uint64(in.Target)
		if in.Relative && to-sec.Addr >= sec.Size {
			r, err := img.Refer(to)
			if err != nil || r.Object == "" || in.FieldLen != 4 {
				return nil, false
			}
			r.Addend += int64(in.FieldOff - in.Len) // it counts from the end of the instruction
			out = append(out, AltField{Off: i + in.FieldOff, Kind: kindRefPC32, Ref: refTo(r)})
		}
		i += in.Len
	}
	return out, true
}
