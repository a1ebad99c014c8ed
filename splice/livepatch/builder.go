// SPDX-License-Identifier: Apache-2.0

package livepatch

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
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
	globals  map[string]*global                 // functions in the module that other units may refer to
	external map[string]*object.Symbol          // exported and livepatch symbols, by name in the module
	exported []string                           // names of exported symbols in the order of their use
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

func write(in Input) (Module, error) {
	if err := check(&in); err != nil {
		return Module{}, fmt.Errorf("writing livepatch module: %w", err)
	}
	k, err := newKernel(in.Image)
	if err != nil {
		return Module{}, fmt.Errorf("writing livepatch module: %w", err)
	}
	b := &builder{
		in: &in, kernel: k, obj: &object.Object{Machine: elf.EM_X86_64},
		names: map[string]bool{}, bySec: map[*object.Section]*object.Symbol{},
		collect: map[string]*object.Section{}, globals: map[string]*global{},
		external: map[string]*object.Symbol{},
	}
	if err := b.build(); err != nil {
		var unsupported *UnsupportedError
		if errors.As(err, &unsupported) {
			return Module{}, err // it says what was tried
		}
		return Module{}, fmt.Errorf("writing livepatch module: %w", err)
	}
	var out bytes.Buffer
	if err := object.Write(&out, b.obj); err != nil {
		return Module{}, fmt.Errorf("writing livepatch module: %w", err)
	}
	return Module{Data: out.Bytes()}, nil
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
	for _, name := range frameSections {
		b.names[name] = true
	}
	for i := range b.in.Units {
		if t := b.in.Units[i].Target; t != vmlinux {
			return &UnsupportedError{Unit: b.in.Units[i].Name, Reason: fmt.Sprintf("it is part of %q, and only %s can be patched", t, vmlinux)}
		}
		u, err := b.newUnit(&b.in.Units[i])
		if err != nil {
			return err
		}
		b.units = append(b.units, u)
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
	return b.frame()
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

// outside returns the symbol for something that is not in the module.
func (b *builder) outside(res Resolution) (*object.Symbol, error) {
	switch res.Source {
	case Exported:
		if _, ok := b.in.Image.Exports[res.Name]; !ok {
			return nil, fmt.Errorf("the kernel does not export %s", res.Name)
		}
		sym, known := b.externalSymbol(res.Name, elf.SHN_UNDEF)
		if !known {
			b.exported = append(b.exported, res.Name)
		}
		return sym, nil
	case Running:
		if res.Object != vmlinux {
			return nil, fmt.Errorf("%s is in %q, and a patch of %s can refer to %s only", res.Name, res.Object, vmlinux, vmlinux)
		}
		if _, err := b.kernel.symbol(res.Name, res.Sympos); err != nil {
			return nil, err
		}
		if strings.ContainsRune(res.Name, ',') || len(res.Name) >= ksymNameLen {
			return nil, fmt.Errorf("the kernel cannot read the name %q in a livepatch symbol", res.Name)
		}
		sym, _ := b.externalSymbol(fmt.Sprintf(".klp.sym.%s.%s,%d", vmlinux, res.Name, res.Sympos), object.SHN_LIVEPATCH)
		return sym, nil
	}
	return nil, fmt.Errorf("the resolution %d of %s is not known", res.Source, res.Name)
}

// ksymNameLen is the buffer of the kernel for the name in a livepatch symbol
// (KSYM_NAME_LEN, 512 since Linux 6.1; before that 128).
const ksymNameLen = 128

func (b *builder) externalSymbol(name string, where elf.SectionIndex) (sym *object.Symbol, known bool) {
	if sym := b.external[name]; sym != nil {
		return sym, true
	}
	sym = &object.Symbol{Name: name, Bind: elf.STB_GLOBAL, Type: elf.STT_NOTYPE, Special: where}
	b.external[name] = sym
	b.obj.Symbols = append(b.obj.Symbols, sym)
	return sym, false
}

// definition returns the global definition of a name in one of the units.
func (b *builder) definition(name string) *global {
	for _, u := range b.units {
		for _, s := range u.Post.Symbols {
			if s.Name == name && s.Section != nil && s.Bind != elf.STB_LOCAL {
				return &global{u, s}
			}
		}
	}
	return nil
}
