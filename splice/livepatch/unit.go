// SPDX-License-Identifier: Apache-2.0

package livepatch

import (
	"debug/elf"
	"fmt"
	"slices"

	"github.com/upsplice/upsplice/splice/object"
)

// unit is a Unit on its way into the module.
type unit struct {
	*Unit
	b      *builder
	idx    *object.Index
	chunks map[*object.Section][]*chunk
	order  []*chunk // in the order in which they were taken
	done   int      // chunks of order whose relocations are carried over
	// functions by their symbol
	functions map[*object.Symbol]Function
	// replaced functions by their place: aliases share one
	replaced map[place]Function
	// auxStarts are the places in .altinstr_aux at which its parts start
	auxStarts []uint64
}

type place struct {
	sec *object.Section
	off uint64
}

func (b *builder) newUnit(in *Unit) (*unit, error) {
	u := &unit{
		Unit: in, b: b, idx: object.NewIndex(in.Post),
		chunks:    map[*object.Section][]*chunk{},
		functions: map[*object.Symbol]Function{}, replaced: map[place]Function{},
	}
	if in.Post.Machine != elf.EM_X86_64 {
		return nil, u.unsupported(nil, "", fmt.Sprintf("%v code; only x86-64 is known", in.Post.Machine))
	}
	if in.Target != vmlinux && (!validModule(in.Target) || b.in.Modules[in.Target] == nil) {
		return nil, u.unsupported(nil, "", fmt.Sprintf("it is part of the module %q, whose image is not given", in.Target))
	}
	for _, f := range in.Functions {
		if f.Post == nil {
			return nil, u.unsupported(nil, f.OldName, "the new code has no such function")
		}
		if err := u.takeFunction(f); err != nil {
			return nil, err
		}
		u.functions[f.Post] = f
		if f.OldName != "" {
			u.replaced[place{f.Post.Section, f.Post.Value}] = f
		}
		if f.Post.Bind != elf.STB_LOCAL {
			b.globals[f.Post.Name] = append(b.globals[f.Post.Name], &global{u, f.Post})
		}
	}
	u.auxStarts = u.findAuxStarts()
	return u, nil
}

func (u *unit) unsupported(sec *object.Section, symbol, reason string) error {
	e := &UnsupportedError{Unit: u.Name, Symbol: symbol, Reason: reason}
	if sec != nil {
		e.Section = sec.Name
	}
	return e
}

// relocate carries over the relocations of all chunks taken so far, and of those
// that are taken on the way.
func (u *unit) relocate() error {
	for ; u.done < len(u.order); u.done++ {
		c := u.order[u.done]
		for _, r := range c.sec.RelocsIn(c.start, c.end) {
			if err := u.carry(c.out, c.at+r.Offset-c.start, c.sec, r, c.end, false); err != nil {
				return err
			}
		}
	}
	return nil
}

// widths of the fields of the relocations that the module loader of the kernel
// knows (apply_relocate_add in arch/x86/kernel/module.c), in bytes.
var widths = map[elf.R_X86_64]uint64{
	elf.R_X86_64_64: 8, elf.R_X86_64_PC64: 8,
	elf.R_X86_64_32: 4, elf.R_X86_64_32S: 4, elf.R_X86_64_PC32: 4, elf.R_X86_64_PLT32: 4,
}

// carry writes relocation r of section from of the post object, of which the part
// before end was copied, as a relocation of out at offset at. inTable says that r
// is in a table about the copied code.
func (u *unit) carry(out *object.Section, at uint64, from *object.Section, r object.Reloc, end uint64, inTable bool) error {
	typ := elf.R_X86_64(r.Type)
	if typ == elf.R_X86_64_NONE {
		return nil
	}
	width, ok := widths[typ]
	if !ok {
		return u.unsupported(from, "", fmt.Sprintf("the module loader has no relocations of type %v (at 0x%x)", typ, r.Offset))
	}
	if width > end-r.Offset {
		return u.unsupported(from, "", fmt.Sprintf("the relocation at 0x%x crosses the end of what was taken", r.Offset))
	}
	t, err := u.target(from, r, inTable)
	if err != nil {
		return err
	}
	if !inTable && !(from.Flags&elf.SHF_EXECINSTR != 0 && directBranch(from.Data, r.Offset)) && u.b.sealed(t) {
		return u.unsupported(from, r.Symbol.Name, "nothing in the running kernel points to this function, so the kernel lets no pointer lead to it (.ibt_endbr_seal)")
	}
	clear(out.Data[at : at+width]) // the loader refuses fields that are not zero
	if typ == elf.R_X86_64_32 && !t.low() {
		return u.unsupported(from, "", fmt.Sprintf("the relocation at 0x%x has room for 32 bits, which no address of the kernel fits in", r.Offset))
	}
	reloc := object.Reloc{Offset: at, Type: r.Type, Symbol: t.symbol, Addend: t.addend}
	if t.symbol.Special != object.SHN_LIVEPATCH {
		out.Relocs = append(out.Relocs, reloc)
		return nil
	}
	of := vmlinux
	if u.b.inside[t.symbol] != "" {
		of = u.Target
		if isTable(out.Name) || out.Name == altReplacement {
			return &UnsupportedError{Unit: u.Name, Section: from.Name, Symbol: t.symbol.Name, Reason: errSpecial.Error(), Err: errSpecial}
		}
	}
	list := livepatchRelocs(out, of)
	list.Relocs = append(list.Relocs, reloc)
	return nil
}

// findAuxStarts collects where the parts of .altinstr_aux start: they have no
// symbols, but each is the target of a jump.
func (u *unit) findAuxStarts() []uint64 {
	aux := u.Post.Section(altAux)
	if aux == nil {
		return nil
	}
	var starts []uint64
	for _, s := range u.Post.Sections {
		if s.Flags&elf.SHF_EXECINSTR == 0 || s == aux {
			continue
		}
		for _, r := range s.Relocs {
			if r.Symbol != nil && r.Symbol.Section == aux && directBranch(s.Data, r.Offset) {
				if start := r.Symbol.Value + uint64(r.Addend) + branchField; start < aux.Size {
					starts = append(starts, start)
				}
			}
		}
	}
	slices.Sort(starts)
	return slices.Compact(starts)
}

// takeAux takes the part of .altinstr_aux that has the byte at off.
func (u *unit) takeAux(aux *object.Section, off uint64) (*chunk, error) {
	i, exact := slices.BinarySearch(u.auxStarts, off)
	if !exact {
		i--
	}
	if i < 0 || off >= aux.Size || aux.Type == elf.SHT_NOBITS {
		return nil, u.unsupported(aux, "", fmt.Sprintf("nothing jumps to the code at 0x%x", off))
	}
	end := aux.Size
	if i+1 < len(u.auxStarts) {
		end = u.auxStarts[i+1]
	}
	return u.takeInto(u.b.collected(aux), aux, u.auxStarts[i], end), nil
}
