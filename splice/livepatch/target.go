// SPDX-License-Identifier: Apache-2.0

package livepatch

import (
	"debug/elf"
	"fmt"
	"strings"

	"golang.org/x/arch/x86/x86asm"

	"github.com/upsplice/upsplice/splice/object"
)

// target is what a relocation of the module refers to.
type target struct {
	symbol *object.Symbol // of the module
	addend int64
	// outside: it is in the running kernel, at the link address addr.
	outside bool
	addr    uint64
}

// target finds out what relocation r of section from means in the module.
//
// A call of a function that is in the module goes there. The address of a
// function that the module replaces is the address of the replaced function
// wherever it is not called at once: it may be stored, and what was stored must
// not point into the module when that has been unloaded. ftrace redirects it.
func (u *unit) target(from *object.Section, r object.Reloc, inTable bool) (target, error) {
	s := r.Symbol
	if s == nil {
		return target{}, u.unsupported(from, "", fmt.Sprintf("the relocation at 0x%x has no symbol", r.Offset))
	}
	branch := from.Flags&elf.SHF_EXECINSTR != 0 && directBranch(from.Data, r.Offset)
	if s.Section == nil {
		return u.undefined(from, r, branch)
	}

	sec := s.Section
	off := s.Value // of what is meant, in sec
	if s.Type == elf.STT_SECTION {
		var err error
		if off, err = u.meant(from, r, branch); err != nil {
			return target{}, err
		}
	}
	toCopy := func(c *chunk) target {
		return target{symbol: u.b.sectionSymbol(c.out), addend: int64(s.Value) + r.Addend - int64(c.start) + int64(c.at)}
	}
	if c := u.chunkAt(sec, off); c != nil {
		if f, ok := u.replaced[place{sec, off}]; ok && !branch && !inTable {
			t, err := u.original(u, f)
			t.addend += int64(s.Value) + r.Addend - int64(off)
			return t, err
		}
		if !branch && !inTable {
			u.pin(sec, off)
		}
		return toCopy(c), nil
	}
	named := s
	if s.Type == elf.STT_SECTION {
		named = u.namedAt(sec, off)
	}
	if sec.Name == altAux && sec.Flags&elf.SHF_EXECINSTR != 0 {
		c, err := u.takeAux(sec, off)
		if err != nil {
			return target{}, err
		}
		return toCopy(c), nil
	}
	if literal(sec, named) {
		c, err := u.takeLiteral(sec, named, off)
		if err != nil {
			return target{}, err
		}
		return toCopy(c), nil
	}
	if named == nil {
		return target{}, u.unsupported(sec, "", fmt.Sprintf("%s refers to offset 0x%x, where no symbol is", from.Name, off))
	}
	res, err := u.resolve(from, named)
	if err != nil {
		return target{}, err
	}
	addend := int64(s.Value) + r.Addend - int64(named.Value)
	if res.Source != Copied {
		t, err := u.outside(from, named, res)
		t.addend += addend
		return t, err
	}
	c, err := u.copyData(named)
	if err != nil {
		return target{}, err
	}
	return toCopy(c), nil
}

// meant returns the offset that a reference through a section symbol means.
func (u *unit) meant(from *object.Section, r object.Reloc, branch bool) (uint64, error) {
	sec := r.Symbol.Section
	off := r.Symbol.Value + uint64(r.Addend)
	typ := elf.R_X86_64(r.Type)
	if from.Flags&elf.SHF_EXECINSTR == 0 || typ != elf.R_X86_64_PC32 && typ != elf.R_X86_64_PLT32 {
		return off, nil
	}
	if branch {
		return off + branchField, nil
	}
	// The addend counts from the end of the instruction, which may have an
	// immediate behind the field. It matters only where there is a choice.
	if syms := u.idx.In(sec); len(syms) < 2 || syms[0].Value == syms[len(syms)-1].Value {
		return off + branchField, nil
	}
	start := uint64(0)
	if f := u.idx.Covering(from, r.Offset); f != nil {
		start = f.Value
	}
	rest, ok := fieldToEnd(from.Data[start:], int(r.Offset-start))
	if !ok {
		return 0, u.unsupported(from, "", fmt.Sprintf("the instruction around the relocation at 0x%x is not understood", r.Offset))
	}
	return off + rest, nil
}

// namedAt returns the symbol that a place in a section belongs to. Where a
// section has but one datum, places outside of it belong to it too: the end of
// an array.
func (u *unit) namedAt(sec *object.Section, off uint64) *object.Symbol {
	if s := u.idx.Covering(sec, off); s != nil {
		return s
	}
	if syms := u.idx.In(sec); len(syms) > 0 && syms[0].Value == syms[len(syms)-1].Value {
		return syms[0]
	}
	return nil
}

// literal reports whether a place holds what can be copied without asking: its
// address has no meaning beyond its contents.
func literal(sec *object.Section, named *object.Symbol) bool {
	if sec.Flags&elf.SHF_ALLOC == 0 || sec.Flags&(elf.SHF_WRITE|elf.SHF_EXECINSTR) != 0 || dataReason(sec.Name) != "" {
		return false
	}
	if sec.Flags&elf.SHF_MERGE != 0 || named == nil {
		return true
	}
	for _, prefix := range []string{".L", "__func__.", "__FUNCTION__.", "__PRETTY_FUNCTION__."} {
		if strings.HasPrefix(named.Name, prefix) {
			return true
		}
	}
	return false
}

// takeLiteral copies a literal: strings and constants with all others of their
// section, whose borders are not known.
func (u *unit) takeLiteral(sec *object.Section, named *object.Symbol, off uint64) (*chunk, error) {
	if sec.Flags&elf.SHF_MERGE != 0 {
		return u.take(sec, 0, sec.Size, ""), nil
	}
	if named != nil && !strings.HasPrefix(named.Name, ".L") {
		return u.takeData(named)
	}
	for _, s := range u.idx.In(sec) {
		if !strings.HasPrefix(s.Name, ".L") {
			return nil, u.unsupported(sec, s.Name, fmt.Sprintf("unnamed data at 0x%x share a section with it", off))
		}
	}
	return u.take(sec, 0, sec.Size, ""), nil
}

// copyData takes what Resolve said to copy, unless it is there already.
func (u *unit) copyData(s *object.Symbol) (*chunk, error) {
	if c := u.chunkAt(s.Section, s.Value); c != nil {
		return c, nil
	}
	if s.Section.Flags&elf.SHF_EXECINSTR != 0 {
		return nil, u.unsupported(s.Section, s.Name, "the new code needs this function and it is not among those that were taken")
	}
	return u.takeData(s)
}

// undefined finds the target of a reference to a symbol of another unit.
func (u *unit) undefined(from *object.Section, r object.Reloc, branch bool) (target, error) {
	s := r.Symbol
	if s.Special != elf.SHN_UNDEF {
		return target{}, u.unsupported(from, s.Name, fmt.Sprintf("symbols in %v are not known in modules", s.Special))
	}
	if u.b.support != nil && u == u.b.support.unit && s.Name == supportTargets {
		return target{symbol: u.b.sectionSymbol(u.b.support.tables), addend: r.Addend}, nil
	}
	if g := u.global(s.Name); g != nil {
		f := g.unit.functions[g.symbol]
		if f.OldName != "" && !branch {
			t, err := u.original(g.unit, f)
			t.addend += r.Addend
			return t, err
		}
		if !branch {
			g.unit.pin(g.symbol.Section, g.symbol.Value)
		}
		return g.target(r), nil
	}
	if s.Name == thisModuleSymbol && u.Target != vmlinux {
		// not ours: the code stands for the module that it is part of
		t, err := u.outside(from, s, Resolution{Source: Running, Object: u.Target, Name: s.Name})
		t.addend += r.Addend
		return t, err
	}
	res, err := u.resolve(from, s)
	if err != nil {
		return target{}, err
	}
	if res.Source != Copied {
		t, err := u.outside(from, s, res)
		t.addend += r.Addend
		return t, err
	}
	g := u.definition(s.Name)
	if g == nil {
		return target{}, u.unsupported(from, s.Name, "it is new and none of the units defines it")
	}
	if err := u.mayUse(g.unit); err != nil {
		return target{}, u.unsupported(from, s.Name, err.Error())
	}
	if _, err := g.unit.copyData(g.symbol); err != nil {
		return target{}, err
	}
	return g.target(r), nil
}

func (u *unit) resolve(from *object.Section, s *object.Symbol) (Resolution, error) {
	res, err := u.Resolve(s)
	if err != nil {
		return Resolution{}, &UnsupportedError{
			Unit: u.Name, Section: from.Name, Symbol: s.Name,
			Reason: fmt.Sprintf("finding it in the running kernel: %v", err), Err: err,
		}
	}
	return res, nil
}

// outside finds something in the running kernel.
func (u *unit) outside(from *object.Section, s *object.Symbol, res Resolution) (target, error) {
	t, err := u.b.outside(u.Target, res, byName(from))
	if err != nil {
		return target{}, &UnsupportedError{Unit: u.Name, Section: from.Name, Symbol: s.Name, Reason: err.Error(), Err: err}
	}
	return t, nil
}

// original returns the function that f of the unit owner replaces, for code of u to
// refer to.
func (u *unit) original(owner *unit, f Function) (target, error) {
	res := Resolution{Source: Running, Object: owner.Target, Name: f.OldName, Sympos: f.OldSympos}
	if owner.Target == vmlinux {
		addr, err := u.b.kernel.symbol(f.OldName, f.OldSympos)
		if e, ok := u.b.in.Image.Exports[f.OldName]; ok && err == nil && e.Addr == addr {
			res.Source = Exported
		}
	}
	return u.outside(f.Post.Section, f.Post, res)
}

// pin keeps the module loaded if there is a new function at a place whose address
// is used for something else than to call it at once.
func (u *unit) pin(sec *object.Section, off uint64) {
	if sec.Flags&elf.SHF_EXECINSTR == 0 {
		return
	}
	for _, s := range u.idx.In(sec) {
		if s.Type == elf.STT_FUNC && s.Value == off {
			u.b.pinned = true
			u.b.note(fmt.Sprintf("%s: something may still know the new function %s when the splice is undone, so its module stays loaded until the next boot", u.Name, s.Name))
			return
		}
	}
}

// branchField is the width of the displacement of a call or a jump, which ends
// the instruction.
const branchField = 4

// directBranch reports whether the field at off is the displacement of a call
// (e8), a jump (e9) or a conditional jump (0f 80 to 0f 8f). The byte before the
// field of any other PC-relative reference is a ModRM byte with mod 0 and rm 5,
// which is none of these. (Intel SDM, volume 2, appendix A.)
func directBranch(code []byte, off uint64) bool {
	if off == 0 || off > uint64(len(code)) {
		return false
	}
	switch op := code[off-1]; {
	case op == 0xe8 || op == 0xe9:
		return true
	case op&0xf0 == 0x80:
		return off > 1 && code[off-2] == 0x0f
	}
	return false
}

// fieldToEnd returns how many bytes the instruction with a PC-relative field at
// off has from there. code starts with an instruction.
func fieldToEnd(code []byte, off int) (uint64, bool) {
	for at := 0; at <= off; {
		inst, err := x86asm.Decode(code[at:], 64)
		n := max(inst.Len, 1) // the length is known of some that are not
		if at+n > off {
			if err != nil || inst.PCRel != 4 || at+inst.PCRelOff != off {
				return 0, false
			}
			return uint64(at + n - off), true
		}
		at += n
	}
	return 0, false
}
