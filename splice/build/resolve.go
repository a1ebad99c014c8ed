// SPDX-License-Identifier: Apache-2.0

package build

import (
	"errors"
	"fmt"
	"slices"

	"github.com/upsplice/upsplice/splice/kimage"
	"github.com/upsplice/upsplice/splice/livepatch"
	"github.com/upsplice/upsplice/splice/object"
)

var errNotRunning = errors.New("the running kernel has no such symbol")

// resolver finds what the new code of one unit refers to.
type resolver struct {
	*candidate
	core *kimage.Image
	// added are the global symbols that the live units bring along.
	added map[string]bool
	// exporter finds the module that exports a symbol.
	exporter kimage.Exporter
}

// resolve is livepatch.Unit.Resolve. What has a twin in the old code is always the
// thing that runs, at the address that matching read out of the running code;
// only what has none is new and goes into the module.
func (r *resolver) resolve(s *object.Symbol) (livepatch.Resolution, error) {
	twin := r.diff.Twin[s]
	if s.Section != nil {
		if twin == nil || twin.Section == nil {
			return livepatch.Resolution{Source: livepatch.Copied}, nil
		}
		addr, ok := r.address(twin)
		if !ok {
			return livepatch.Resolution{}, errors.New("its address could not be read out of the running code")
		}
		return r.running(twin.Name, addr)
	}

	if twin != nil {
		if addr, ok := r.address(twin); ok {
			return r.running(s.Name, addr)
		}
	}
	if r.img != r.core {
		// A module's own definition comes before that of everybody else.
		if addr, err := global(r.img, s.Name); err == nil {
			return r.in(r.img, s.Name, addr)
		} else if !errors.Is(err, errNotRunning) {
			return livepatch.Resolution{}, err
		}
	}
	if e, ok := r.core.Exports[s.Name]; ok {
		return r.in(r.core, s.Name, e.Addr)
	}
	if r.added[s.Name] {
		return livepatch.Resolution{Source: livepatch.Copied}, nil
	}
	addr, err := global(r.core, s.Name)
	if err == nil {
		return r.in(r.core, s.Name, addr)
	}
	if !errors.Is(err, errNotRunning) {
		return livepatch.Resolution{}, err
	}
	if module, ok := r.exporter(s.Name); ok {
		if r.img == r.core || !slices.Contains(r.img.Depends, module) {
			return livepatch.Resolution{}, fmt.Errorf("it is in the module %s, which need not be loaded", module)
		}
		return livepatch.Resolution{Source: livepatch.Running, Object: module, Name: s.Name}, nil
	}
	return livepatch.Resolution{}, err
}

// running describes what is at an address that the old code of the unit refers to.
func (r *resolver) running(name string, addr uint64) (livepatch.Resolution, error) {
	if r.img == r.core {
		return r.in(r.core, name, addr)
	}
	if _, ok := r.img.SectionAt(addr); ok {
		return r.in(r.img, name, addr)
	}
	for _, imp := range r.img.Imports {
		if imp.Addr != addr {
			continue
		}
		switch imp.Object {
		case kimage.VmlinuxName:
			return r.in(r.core, imp.Name, addr)
		case "":
			return livepatch.Resolution{}, fmt.Errorf("it is not known which module exports %s", imp.Name)
		}
		return livepatch.Resolution{Source: livepatch.Running, Object: imp.Object, Name: imp.Name}, nil
	}
	return r.in(r.core, name, addr)
}

// in describes a symbol of an image in the way that the module needs: exported
// where possible, else by a name in kallsyms and its position.
func (r *resolver) in(img *kimage.Image, name string, addr uint64) (livepatch.Resolution, error) {
	if e, ok := img.Exports[name]; ok && e.Addr == addr && img == r.core {
		return livepatch.Resolution{Source: livepatch.Exported, Object: img.Name, Name: name}, nil
	}
	at := img.SymbolAt(addr)
	if len(at) == 0 {
		return livepatch.Resolution{}, fmt.Errorf("nothing in kallsyms has its address %#x", addr)
	}
	chosen := at[0].Name
	for _, s := range at {
		if s.Name == name {
			chosen = name
		}
	}
	pos, ambiguous := img.Sympos(chosen, addr)
	if pos == 0 {
		return livepatch.Resolution{}, fmt.Errorf("%s at %#x has no position in kallsyms", chosen, addr)
	}
	if !ambiguous {
		pos = 0
	}
	return livepatch.Resolution{Source: livepatch.Running, Object: img.Name, Name: chosen, Sympos: pos}, nil
}

// global finds a symbol that the old code of the unit does not refer to: by its
// name alone, so there must be exactly one that other units could link with.
func global(img *kimage.Image, name string) (uint64, error) {
	var found []kimage.Symbol
	for _, s := range img.Lookup(name) {
		if s.Kind >= 'A' && s.Kind <= 'Z' {
			found = append(found, s)
		}
	}
	switch len(found) {
	case 0:
		return 0, errNotRunning
	case 1:
		return found[0].Addr, nil
	}
	return 0, fmt.Errorf("%s has %d global symbols of this name", img.Name, len(found))
}
