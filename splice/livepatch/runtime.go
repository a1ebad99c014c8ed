// SPDX-License-Identifier: Apache-2.0

package livepatch

import (
	"cmp"
	"debug/elf"
	"fmt"
	"slices"

	"github.com/upsplice/upsplice/splice/kimage"
	"github.com/upsplice/upsplice/splice/object"
)

// The boot code writes the values of some variables into the instructions of
// vmlinux (include/asm/runtime-const.h), and of nothing that comes later: modules
// are compiled to read the variable. New code of vmlinux was not, so that is made of
// it here.

// readRuntimeConstants makes the taken code read the variables whose values vmlinux
// has in its instructions.
func (u *unit) readRuntimeConstants() error {
	for _, sec := range u.Post.Sections {
		kind, variable, ok := kimage.RuntimeConstant(sec.Name)
		if !ok {
			continue
		}
		for _, r := range sec.Relocs {
			if r.Symbol == nil || r.Symbol.Section == nil {
				return u.unsupported(sec, variable, fmt.Sprintf("the entry at 0x%x is about no code of the unit", r.Offset))
			}
			c := u.takenAt(r)
			if c == nil {
				continue
			}
			if kind != kimage.SiteRuntimePtr {
				return u.unsupported(sec, u.nameIn(c), fmt.Sprintf("the kernel writes the value of %s into its instructions at boot, and there is no room to read it instead", variable))
			}
			if err := u.readVariable(sec, c, r.Symbol.Value+uint64(r.Addend), variable); err != nil {
				return err
			}
		}
	}
	return nil
}

// readVariable replaces mov $value,%reg, whose operand is at off in the section of
// c, by mov variable(%rip),%reg and a NOP. (Intel SDM, volume 2, MOV.)
func (u *unit) readVariable(sec *object.Section, c *chunk, off uint64, variable string) error {
	const before, operand = 2, 8
	if off < c.start+before || off+operand > c.end {
		return u.unsupported(sec, u.nameIn(c), fmt.Sprintf("the operand at 0x%x is not within the function", off))
	}
	at := c.at + off - c.start - before
	code := c.out.Data[at : at+before+operand]
	if code[0]&^1 != 0x48 || code[1]&^7 != 0xb8 {
		return u.unsupported(sec, u.nameIn(c), fmt.Sprintf("% x is not the move of a constant that the kernel writes the value of %s into", code, variable))
	}
	t, err := u.b.outside(u.Target, u.b.variable(variable), false)
	if err != nil {
		return &UnsupportedError{Unit: u.Name, Section: sec.Name, Symbol: variable, Reason: err.Error(), Err: err}
	}
	rex, reg := 0x48|code[0]&1<<2, code[1]&7
	copy(code, []byte{rex, 0x8b, reg<<3 | 5, 0, 0, 0, 0, 0x0f, 0x1f, 0x00})
	field := object.Reloc{Offset: at + 3, Type: uint32(elf.R_X86_64_PC32), Symbol: t.symbol, Addend: t.addend - 4}
	to := &c.out.Relocs
	if t.symbol.Special == object.SHN_LIVEPATCH {
		to = &livepatchRelocs(c.out, vmlinux).Relocs
	}
	*to = append(*to, field)
	slices.SortStableFunc(*to, func(a, b object.Reloc) int { return cmp.Compare(a.Offset, b.Offset) })
	return nil
}

// variable says where a variable of vmlinux is.
func (b *builder) variable(name string) Resolution {
	res := Resolution{Source: Running, Object: vmlinux, Name: name}
	if _, ok := b.in.Image.Exports[name]; ok {
		res.Source = Exported
	}
	return res
}

// sealed reports whether the kernel takes the endbr64 away from a function of
// vmlinux: no pointer leads to it there, and a jump through one from new code would
// be the end on a processor that checks (IBT).
func (b *builder) sealed(t target) bool {
	return t.outside && slices.ContainsFunc(b.in.Image.SitesIn(t.addr, 1), func(s kimage.Site) bool { return s.Kind == kimage.SiteEndbr })
}
