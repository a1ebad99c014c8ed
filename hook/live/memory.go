// SPDX-License-Identifier: Apache-2.0

package live

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/upsplice/upsplice/kmod/identity"
	"github.com/upsplice/upsplice/kmod/kallsyms"
	"github.com/upsplice/upsplice/kmod/kcore"
	"github.com/upsplice/upsplice/kmod/livecheck"
	"github.com/upsplice/upsplice/splice/match"
	"github.com/upsplice/upsplice/splice/splicefile"
)

const vmlinux = "vmlinux"

// targets compares the builds of the target modules that are loaded. Memory may be
// hidden, build ids are not.
func (k *Kernel) targets(m splicefile.Manifest) error {
	for _, t := range m.Targets {
		if t.Name == vmlinux {
			continue
		}
		id, err := identity.Module(k.Root, t.Name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			if _, err := fs.Stat(k.Root, "sys/module/"+t.Name+"/initstate"); err == nil {
				return fmt.Errorf("the module %s does not show its build id", t.Name)
			}
		case err != nil:
			return err
		case id != t.BuildID:
			return fmt.Errorf("the splice is for the build %s of the module %s, and %s is loaded", t.BuildID, t.Name, id)
		}
	}
	return nil
}

// memory is the run-pre check against live memory, of the kernel and of the target
// modules that are loaded. A kernel that hides its memory (lockdown) is identified by
// its build id alone.
func (k *Kernel) memory(m splicefile.Manifest) error {
	if len(m.Expect) == 0 {
		return errors.New("the splice does not say what to expect: build it again")
	}
	core, err := kcore.Open(k.Root)
	var denied *kcore.AccessError
	if errors.As(err, &denied) || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer core.Close()
	table, err := kallsyms.Open(k.Root)
	if err != nil {
		return err
	}
	exp, modules, err := expectations(m)
	if err != nil {
		return err
	}
	kernel, err := livecheck.NewKernel(table, core, exp)
	if err != nil {
		return err
	}
	if len(exp) > 0 && kernel.TextStart-m.Text != kernel.Slide {
		return fmt.Errorf("the text has moved by %#x, the functions by %#x", kernel.TextStart-m.Text, kernel.Slide)
	}
	if err := livecheck.Check(kernel, exp); err != nil {
		return err
	}
	// Those that are not loaded are checked by their build id when the splice is made,
	// and by the kernel when it loads them: its livepatch names what it needs of them.
	_, err = livecheck.CheckModules(kernel, k.Root, modules)
	return err
}

// expectations gives each function to the object that it is in.
func expectations(m splicefile.Manifest) (kernel []livecheck.Expectation, modules []livecheck.Module, err error) {
	of := map[string]*livecheck.Module{}
	for _, t := range m.Targets {
		if t.Name != vmlinux {
			of[t.Name] = &livecheck.Module{Name: t.Name, BuildID: t.BuildID}
		}
	}
	for _, e := range m.Expect {
		x := expectation(e)
		if x.Object == "" || x.Object == vmlinux {
			x.Object = ""
			kernel = append(kernel, x)
			continue
		}
		mod := of[x.Object]
		if mod == nil {
			return nil, nil, fmt.Errorf("the splice expects %s in the module %s, which is none of its targets", x.Name, x.Object)
		}
		mod.Expect = append(mod.Expect, x)
	}
	for _, t := range m.Targets {
		if mod := of[t.Name]; mod != nil {
			modules = append(modules, *mod)
		}
	}
	return kernel, modules, nil
}

func expectation(e match.Expectation) livecheck.Expectation {
	x := livecheck.Expectation{Object: e.Object, Section: e.Section, Name: e.Name, Sympos: e.Sympos, Addr: e.Addr, Bytes: e.Bytes}
	for _, f := range e.Fields {
		y := livecheck.Field{Off: f.Off, Len: f.Len, Kind: f.Kind, Target: f.Target, Alts: f.Alts, Ref: ref(f.Ref)}
		for _, a := range f.AltFields {
			y.AltFields = append(y.AltFields, livecheck.AltField{Alt: a.Alt, Off: a.Off, Kind: a.Kind, Ref: ref(a.Ref)})
		}
		x.Fields = append(x.Fields, y)
	}
	return x
}

func ref(r *match.Ref) *livecheck.Ref {
	if r == nil {
		return nil
	}
	return &livecheck.Ref{Object: r.Object, Symbol: r.Symbol, Sympos: r.Sympos, Section: r.Section, Offset: r.Offset, Addend: r.Addend}
}
