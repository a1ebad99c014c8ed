// SPDX-License-Identifier: Apache-2.0

package livepatch

import (
	"cmp"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/upsplice/upsplice/splice/object"
)

// patched is what the livepatch core calls an object: vmlinux or a module.
type patched struct {
	name      string
	functions []replacedFunction
	callbacks map[string]target // by the member of struct klp_callbacks
}

type replacedFunction struct {
	Function
	new  target
	unit *unit
	addr uint64 // of the function that it replaces, in the image of vmlinux or the module
}

// patched lists what is patched, in the order of b.targets.
func (b *builder) patched() ([]patched, error) {
	var list []patched
	for _, name := range b.targets {
		p := patched{name: name, callbacks: map[string]target{}}
		seen := map[uint64]string{}
		registered := map[string]*unit{}
		for _, u := range b.units {
			if u.Target != name {
				continue
			}
			for _, f := range u.Functions {
				if f.OldName == "" {
					continue
				}
				r, err := u.replacedFunction(f)
				if err != nil {
					return nil, err
				}
				if other, dup := seen[r.addr]; dup {
					return nil, u.unsupported(nil, f.Post.Name, fmt.Sprintf("it replaces the same function as %s", other))
				}
				seen[r.addr] = f.Post.Name
				p.functions = append(p.functions, r)
			}
			for _, c := range u.Callbacks {
				t, err := u.callback(c)
				if err != nil {
					return nil, err
				}
				if other := registered[c.When]; other != nil {
					return nil, u.unsupported(nil, c.Function.Name, fmt.Sprintf("it is the second %s callback for %s after one of %s, and the kernel calls one", c.When, name, other.Name))
				}
				registered[c.When], p.callbacks[c.When] = u, t
			}
		}
		list = append(list, p)
	}
	if !slices.ContainsFunc(list, func(p patched) bool { return len(p.functions)+len(p.callbacks) > 0 }) {
		return nil, errors.New("no function is replaced and no callback is called")
	}
	return list, nil
}

func (u *unit) replacedFunction(f Function) (replacedFunction, error) {
	where := u.b.image(u.Target)
	addr, err := where.symbol(f.OldName, f.OldSympos)
	if err != nil {
		return replacedFunction{}, &UnsupportedError{Unit: u.Name, Symbol: f.Post.Name, Reason: err.Error(), Err: err}
	}
	if !where.hasFentry(addr) {
		return replacedFunction{}, u.unsupported(f.Post.Section, f.Post.Name, "the running function has no call of __fentry__ at its start, so ftrace cannot redirect it")
	}
	return replacedFunction{Function: f, new: u.inModule(f.Post, 0), unit: u, addr: addr}, nil
}

func (u *unit) callback(c Callback) (target, error) {
	switch c.When {
	case PrePatch, PostPatch, PreUnpatch, PostUnpatch:
	default:
		return target{}, u.unsupported(nil, "", fmt.Sprintf("the kernel has no callbacks %q", c.When))
	}
	if c.Function == nil || c.Function.Section == nil || c.Function.Type != elf.STT_FUNC {
		return target{}, u.unsupported(nil, "", fmt.Sprintf("the %s callback is not a function of the unit", c.When))
	}
	if u.chunkAt(c.Function.Section, c.Function.Value) == nil {
		return target{}, u.unsupported(c.Function.Section, c.Function.Name, fmt.Sprintf("the %s callback is not among the functions that were taken", c.When))
	}
	return u.inModule(c.Function, 0), nil
}

// klpLayout is the layout of the structs of include/linux/livepatch.h.
type klpLayout struct {
	patch, object, function structure
	callbacks               structure         // if the module has callbacks
	members                 map[string]member // "klp_func.old_name"
}

func (b *builder) klpLayout(callbacks bool) (klpLayout, error) {
	l := klpLayout{members: map[string]member{}}
	for _, want := range []struct {
		to      *structure
		name    string
		members []string
	}{
		{&l.patch, "klp_patch", []string{"mod", "objs", "replace"}},
		{&l.object, "klp_object", []string{"name", "funcs"}},
		{&l.function, "klp_func", []string{"old_name", "new_func", "old_sympos"}},
		{&l.object, "klp_object", []string{"callbacks"}},
		{&l.callbacks, "klp_callbacks", []string{PrePatch, PostPatch, PreUnpatch, PostUnpatch}},
	} {
		if want.members[0] == "callbacks" && !callbacks {
			break
		}
		var err error
		if *want.to, err = b.kernel.structure(want.name); err != nil {
			return klpLayout{}, err
		}
		for _, name := range want.members {
			if l.members[want.name+"."+name], err = want.to.member(name); err != nil {
				return klpLayout{}, err
			}
		}
	}
	return l, nil
}

// patch writes the structs klp_patch, klp_object and klp_func with their NULL
// entries at the end.
func (b *builder) patch(self *object.Symbol) (*object.Symbol, error) {
	list, err := b.patched()
	if err != nil {
		return nil, err
	}
	if err := b.addChecks(list); err != nil {
		return nil, err
	}
	l, err := b.klpLayout(slices.ContainsFunc(list, func(p patched) bool { return len(p.callbacks) > 0 }))
	if err != nil {
		return nil, err
	}
	const align = 8
	up := func(n uint64) uint64 { return (n + align - 1) &^ (align - 1) }
	objects := up(l.patch.size)
	funcs := objects + up(uint64(len(list)+1)*l.object.size)
	size := funcs
	for _, p := range list {
		size += uint64(len(p.functions)+1) * l.function.size
	}

	data := b.section(dataSection, elf.SHF_WRITE, align, make([]byte, size))
	text := stringData{b.section(stringsSection, 0, 1, nil), map[string]int64{}}
	here, there := b.sectionSymbol(data), b.sectionSymbol(text.section)
	sym := b.symbol("patch", elf.STB_LOCAL, elf.STT_OBJECT, data, 0, l.patch.size)
	b.symbol("objs", elf.STB_LOCAL, elf.STT_OBJECT, data, objects, uint64(len(list)+1)*l.object.size)
	b.symbol("funcs", elf.STB_LOCAL, elf.STT_OBJECT, data, funcs, size-funcs)

	pointer := func(at uint64, name string, to *object.Symbol, addend int64) {
		reloc(data, at+l.members[name].offset, elf.R_X86_64_64, to, addend)
	}
	pointer(0, "klp_patch.mod", self, 0)
	pointer(0, "klp_patch.objs", here, int64(objects))
	if b.in.Replace {
		data.Data[l.members["klp_patch.replace"].offset] = 1
	}
	next := funcs
	for i, p := range list {
		at := objects + uint64(i)*l.object.size
		if p.name != vmlinux { // whose name is NULL
			pointer(at, "klp_object.name", there, text.add(p.name))
		}
		pointer(at, "klp_object.funcs", here, int64(next))
		for when, to := range p.callbacks {
			pointer(at+l.members["klp_object.callbacks"].offset, "klp_callbacks."+when, to.symbol, to.addend)
		}
		for _, f := range p.functions {
			pointer(next, "klp_func.old_name", there, text.add(f.OldName))
			pointer(next, "klp_func.new_func", f.new.symbol, f.new.addend)
			pos := l.members["klp_func.old_sympos"]
			binary.LittleEndian.PutUint64(data.Data[next+pos.offset:], uint64(b.position(p.name, f.OldSympos)))
			next += l.function.size
		}
		next += l.function.size
	}
	slices.SortFunc(data.Relocs, func(a, b object.Reloc) int { return cmp.Compare(a.Offset, b.Offset) })
	return sym, nil
}

// position says which symbol of a name the livepatch core is to take. 0 lets it make
// sure that there is but one, for which Linux 6.1 looks at all symbols of the kernel. It
// stops at the first when told to take that, and the build id says that it is the one.
func (b *builder) position(object string, sympos int) int {
	if object == vmlinux && b.fixed != nil {
		return max(sympos, 1)
	}
	return sympos
}
