// SPDX-License-Identifier: Apache-2.0

package livepatch

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/upsplice/upsplice/splice/object"
)

// vmlinux is the name of the kernel proper in the names of livepatch symbols.
const vmlinux = "vmlinux"

// builder puts a module together.
type builder struct {
	in     *Input
	kernel *kernel
	obj    *object.Object
	units  []*unit

	names    map[string]bool                    // of sections
	bySec    map[*object.Section]*object.Symbol // section symbols
	collect  map[string]*object.Section         // sections with parts of many
	globals  map[string][]*global               // functions in the module that other units may refer to
	external map[string]*object.Symbol          // exported and livepatch symbols, by name in the module
	exported []string                           // names of exported symbols in the order of their use
	inside   map[*object.Symbol]string          // the module that a livepatch symbol is in, vmlinux excepted
	modules  map[string]*symbols                // by name
	targets  []string                           // what is patched: vmlinux first, then modules by name
	support  *support                           // nil if no module is patched
	fixed    *fixed                             // nil: every symbol of vmlinux is looked up by its name
	pinned   bool                               // see Module
	notes    []string
}

func (b *builder) note(text string) {
	if !slices.Contains(b.notes, text) {
		b.notes = append(b.notes, text)
	}
}

// global is a definition that other units refer to by its name.
type global struct {
	unit   *unit
	symbol *object.Symbol
}

// target is the target of a reference through the name of g, whose chunk is taken.
func (g *global) target(r object.Reloc) target {
	return g.unit.inModule(g.symbol, r.Addend)
}

func newBuilder(in *Input, k *kernel) *builder {
	return &builder{
		in: in, kernel: k, obj: &object.Object{Machine: elf.EM_X86_64},
		names: map[string]bool{}, bySec: map[*object.Section]*object.Symbol{},
		collect: map[string]*object.Section{}, globals: map[string][]*global{},
		external: map[string]*object.Symbol{},
		inside:   map[*object.Symbol]string{}, modules: map[string]*symbols{},
	}
}

func write(in Input) (Module, error) {
	if err := check(&in); err != nil {
		return Module{}, fmt.Errorf("writing livepatch module: %w", err)
	}
	k, err := newKernel(in.Image)
	if err != nil {
		return Module{}, fmt.Errorf("writing livepatch module: %w", err)
	}
	b := newBuilder(&in, k)
	if err := b.build(); err != nil {
		var unsupported *UnsupportedError
		if errors.As(err, &unsupported) && unsupported.Unit != supportName {
			return Module{}, err // it says what was tried
		}
		return Module{}, fmt.Errorf("writing livepatch module: %w", err)
	}
	if err := b.checkSize(); err != nil {
		return Module{}, err
	}
	var out bytes.Buffer
	if err := object.Write(&out, b.obj); err != nil {
		return Module{}, fmt.Errorf("writing livepatch module: %w", err)
	}
	return Module{Data: out.Bytes(), Pinned: b.pinned, Notes: b.notes}, nil
}

func (b *builder) checkSize() error {
	n := 0
	for _, s := range b.obj.Sections {
		n += 1 + min(len(s.Relocs), 1) + len(s.KlpRelocs)
	}
	if n <= MaxSections {
		return nil
	}
	e := &TooLargeError{Sections: n}
	for _, u := range b.in.Units {
		for _, f := range u.Functions {
			if f.OldName != "" {
				e.Functions++
			}
		}
	}
	return e
}

func check(in *Input) error {
	switch {
	case in.Image == nil:
		return errors.New("no kernel image is given")
	case !validName(in.Name):
		return fmt.Errorf("%q is not a module name: letters, digits and underscores only", in.Name)
	case in.Vermagic == "" || strings.ContainsAny(in.Vermagic, "\x00\n"):
		return fmt.Errorf("%q is not a vermagic string; that of any module of the kernel is wanted", in.Vermagic)
	}
	release, _, _ := strings.Cut(in.Vermagic, " ")
	if in.Image.Release != "" && release != in.Image.Release {
		return fmt.Errorf("vermagic is of kernel %s, the image is of %s", release, in.Image.Release)
	}
	return nil
}

func validName(name string) bool {
	return name != "" && strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") == ""
}

// build collects the code of all units, then what it refers to, then the frame
// that makes a module of it.
func (b *builder) build() error {
	var err error
	if b.fixed, err = b.newFixed(); err != nil {
		return err
	}
	for _, name := range frameSections {
		b.names[name] = true
	}
	for i := range b.in.Units {
		u, err := b.newUnit(&b.in.Units[i])
		if err != nil {
			return err
		}
		b.units = append(b.units, u)
	}
	b.targets = targets(b.units)
	if err := b.addSupport(); err != nil {
		return err
	}
	if err := b.relocate(); err != nil {
		return err
	}
	for _, u := range b.units {
		if err := u.carryTables(); err != nil {
			return err
		}
		if err := u.checkStrangers(); err != nil {
			return err
		}
	}
	if err := b.relocate(); err != nil { // what the tables brought along
		return err
	}
	for _, u := range b.units {
		if err := u.carryORC(); err != nil {
			return err
		}
	}
	if err := b.frame(); err != nil {
		return err
	}
	return b.fillSupport()
}

// relocate goes on until no unit takes anything more: one may need data of another.
func (b *builder) relocate() error {
	for again := true; again; {
		again = false
		for _, u := range b.units {
			again = again || u.done < len(u.order)
			if err := u.relocate(); err != nil {
				return err
			}
		}
	}
	return nil
}

// uniqueName returns name, with a number if the module has such a section
// already: the names become files in /sys/module/NAME/sections.
func (b *builder) uniqueName(name string) string {
	unique := name
	for i := 2; b.names[unique]; i++ {
		unique = fmt.Sprintf("%s.%d", name, i)
	}
	b.names[unique] = true
	return unique
}

func (b *builder) addSection(s *object.Section) {
	b.obj.Sections = append(b.obj.Sections, s)
	sym := &object.Symbol{Bind: elf.STB_LOCAL, Type: elf.STT_SECTION, Section: s}
	b.bySec[s] = sym
	b.obj.Symbols = append(b.obj.Symbols, sym)
}

func (b *builder) sectionSymbol(s *object.Section) *object.Symbol { return b.bySec[s] }

// collected returns the section of the module that has the entries of all
// sections of this name. The kernel finds it by its name.
func (b *builder) collected(like *object.Section) *object.Section {
	s := b.collect[like.Name]
	if s == nil {
		s = &object.Section{
			Name: like.Name, Type: elf.SHT_PROGBITS, EntSize: like.EntSize,
			Flags: like.Flags & (elf.SHF_ALLOC | elf.SHF_WRITE | elf.SHF_EXECINSTR), Align: max(like.Align, 1),
		}
		b.collect[like.Name] = s
		b.names[like.Name] = true
		b.addSection(s)
	}
	s.Align = max(s.Align, like.Align)
	return s
}

// targets lists what the units are part of, vmlinux first, as the kernel applies
// its relocations before those of any module.
func targets(units []*unit) []string {
	var list []string
	for _, u := range units {
		list = append(list, u.Target)
	}
	slices.SortFunc(list, func(a, b string) int {
		if (a == vmlinux) != (b == vmlinux) {
			if a == vmlinux {
				return -1
			}
			return 1
		}
		return strings.Compare(a, b)
	})
	return slices.Compact(list)
}

// global returns the function of this name among those taken that code of u is
// linked with, nil if there is none. Targets are linked one by one: the name may
// stand for something else in each.
func (u *unit) global(name string) *global {
	return u.linked(u.b.globals[name], name)
}

// definition returns the global definition of a name in one of the units, whether
// or not it was taken.
func (u *unit) definition(name string) *global {
	var list []*global
	for _, other := range u.b.units {
		for _, s := range other.Post.Symbols {
			if s.Name == name && s.Section != nil && s.Bind != elf.STB_LOCAL {
				list = append(list, &global{other, s})
			}
		}
	}
	if g := u.linked(list, name); g != nil || len(list) == 0 {
		return g
	}
	return list[0] // to say why it cannot be used
}

func (u *unit) linked(list []*global, name string) *global {
	for _, g := range list {
		if g.unit.Target == u.Target {
			return g
		}
	}
	if len(list) == 0 || u.Target != vmlinux && len(u.b.image(u.Target).addrs[name]) > 0 {
		return nil // the module has one of its own
	}
	for _, g := range list {
		if u.mayUse(g.unit) == nil {
			return g
		}
	}
	return nil
}
