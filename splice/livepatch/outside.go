// SPDX-License-Identifier: Apache-2.0

package livepatch

import (
	"debug/elf"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/upsplice/upsplice/splice/object"
)

// outside finds something that is not in the module, which code of the target called
// of refers to.
// byName: it must be a symbol of its own, see fixed.
func (b *builder) outside(of string, res Resolution, byName bool) (target, error) {
	switch {
	case res.Source == Exported && (res.Object == vmlinux || res.Object == ""):
		export, ok := b.in.Image.Exports[res.Name]
		if !ok {
			return target{}, fmt.Errorf("the kernel does not export %s", res.Name)
		}
		sym, known := b.externalSymbol(res.Name, elf.SHN_UNDEF)
		if !known {
			b.exported = append(b.exported, res.Name)
		}
		return target{symbol: sym, addr: export.Addr, outside: true}, nil
	case res.Source == Exported:
		// the module would depend on the other, which may not be loaded
		return target{}, fmt.Errorf("%s is exported by the module %s, and only exports of %s are ordinary symbols", res.Name, res.Object, vmlinux)
	case res.Source == Running:
		return b.running(of, res, byName)
	}
	return target{}, fmt.Errorf("the resolution %d of %s is not known", res.Source, res.Name)
}

// running finds a symbol of the running kernel. Those of vmlinux the livepatch core
// resolves when our module is loaded, those of modules when object is: a module that
// this depends on is loaded then, any other may not be.
func (b *builder) running(of string, res Resolution, byName bool) (target, error) {
	where := b.image(res.Object)
	switch {
	case res.Object == vmlinux || res.Object == of:
	case of == vmlinux:
		return target{}, fmt.Errorf("%s is in the module %s, which may not be loaded, and code of %s cannot refer to it", res.Name, res.Object, vmlinux)
	case !b.depends(of, res.Object):
		return target{}, fmt.Errorf("%s is in the module %s, which %s does not depend on", res.Name, res.Object, of)
	case where == nil && res.Sympos != 0:
		return target{}, fmt.Errorf("%s is said to be number %d of its name in the module %s, whose image is not given", res.Name, res.Sympos, res.Object)
	}
	t := target{outside: where != nil}
	if where != nil {
		var err error
		if t.addr, err = where.symbol(res.Name, res.Sympos); err != nil {
			return target{}, err
		}
	}
	if res.Object == vmlinux && !byName {
		if t, ok := b.fixed.at(where, t.addr); ok {
			return t, nil
		}
	}
	if !validModule(res.Object) {
		return target{}, fmt.Errorf("the kernel cannot read %q as the name of a module", res.Object)
	}
	if res.Name == "" || strings.ContainsRune(res.Name, ',') || len(res.Name) >= ksymNameLen {
		return target{}, fmt.Errorf("the kernel cannot read the name %q in a livepatch symbol", res.Name)
	}
	known := false
	t.symbol, known = b.externalSymbol(fmt.Sprintf(".klp.sym.%s.%s,%d", res.Object, res.Name, b.position(res.Object, res.Sympos)), object.SHN_LIVEPATCH)
	if !known && res.Object != vmlinux {
		b.inside[t.symbol] = res.Object
	}
	return t, nil
}

// moduleNameLen is the buffer of the kernel for the name of the object in a
// livepatch symbol (module-elf-format.rst).
const moduleNameLen = 56

func validModule(name string) bool { return validName(name) && len(name) < moduleNameLen }

// depends reports whether other is loaded whenever the module target is. Modules
// are called by their files in the list, where - may stand for _.
func (b *builder) depends(target, other string) bool {
	img := b.in.Modules[target]
	return img != nil && slices.ContainsFunc(img.Depends, func(d string) bool {
		return strings.ReplaceAll(d, "-", "_") == other
	})
}

// mayUse says why code of u cannot refer to what other brings into the module, nil
// if it can. The livepatch core fills in the references of a module's code when it
// is loaded, so code shared with others must not have any.
func (u *unit) mayUse(other *unit) error {
	if other.Target == vmlinux || other.Target == u.Target || u.b.depends(u.Target, other.Target) {
		return nil
	}
	if u.Target == vmlinux {
		return fmt.Errorf("%s defines it, as a part of the module %s, which may not be loaded", other.Name, other.Target)
	}
	return fmt.Errorf("%s defines it, as a part of the module %s, which %s does not depend on", other.Name, other.Target, u.Target)
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

// low reports whether the address of what is referred to fits in 32 bits: per-CPU
// symbols are small numbers.
func (t target) low() bool { return t.outside && t.addr <= math.MaxUint32 }

// livepatchRelocs returns the relocations of a section that the livepatch core
// applies for one object: vmlinux, or a module that is patched.
func livepatchRelocs(out *object.Section, of string) *object.KlpRelocs {
	name := livepatchRelocsName(of, out)
	i := slices.IndexFunc(out.KlpRelocs, func(k object.KlpRelocs) bool { return k.Name == name })
	if i < 0 {
		i = len(out.KlpRelocs)
		out.KlpRelocs = append(out.KlpRelocs, object.KlpRelocs{Name: name})
	}
	return &out.KlpRelocs[i]
}

func livepatchRelocsName(of string, out *object.Section) string {
	return ".klp.rela." + of + "." + out.Name
}

// errSpecial: Documentation/livepatch/module-elf-format.rst and klp_resolve_symbols
// in kernel/livepatch/core.c.
var errSpecial = errors.New("the kernel uses this section before it fills in addresses of modules; " +
	"code that needs it can be written without, as the kernel's guide for livepatch authors says")
