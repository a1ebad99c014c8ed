// SPDX-License-Identifier: Apache-2.0

package build

import (
	"errors"
	"fmt"

	"github.com/upsplice/upsplice/splice/kimage"
	"github.com/upsplice/upsplice/splice/livepatch"
	"github.com/upsplice/upsplice/splice/object"
)

var errNotRunning = errors.New("the running kernel has no such symbol")

// resolver finds what the new code of one unit refers to.
type resolver struct {
	*candidate
	img *kimage.Image
	// added are the global symbols that the live units bring along.
	added map[string]bool
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
	if e, ok := r.img.Exports[s.Name]; ok {
		return r.running(s.Name, e.Addr)
	}
	if r.added[s.Name] {
		return livepatch.Resolution{Source: livepatch.Copied}, nil
	}
	addr, err := r.global(s.Name)
	if err != nil {
		return livepatch.Resolution{}, err
	}
	return r.running(s.Name, addr)
}

// address is where a symbol of pre is in the running kernel.
func (r *resolver) address(pre *object.Symbol) (uint64, bool) {
	if f, ok := r.found.Found[pre]; ok {
		return f.Addr, true
	}
	addr, ok := r.found.Addr[pre]
	return addr, ok
}

// global finds a symbol that the old code of the unit does not refer to: by its
// name alone, so there must be exactly one that other units could link with.
func (r *resolver) global(name string) (uint64, error) {
	var found []kimage.Symbol
	for _, s := range r.img.Lookup(name) {
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
	return 0, fmt.Errorf("the running kernel has %d global symbols of this name", len(found))
}

// running describes the symbol at an address in the way that the module needs:
// exported where possible, else by a name in kallsyms and its position.
func (r *resolver) running(name string, addr uint64) (livepatch.Resolution, error) {
	if e, ok := r.img.Exports[name]; ok && e.Addr == addr {
		return livepatch.Resolution{Source: livepatch.Exported, Object: "vmlinux", Name: name}, nil
	}
	at := r.img.SymbolAt(addr)
	if len(at) == 0 {
		return livepatch.Resolution{}, fmt.Errorf("nothing in kallsyms has its address %#x", addr)
	}
	chosen := at[0].Name
	for _, s := range at {
		if s.Name == name {
			chosen = name
		}
	}
	pos, ambiguous := r.img.Sympos(chosen, addr)
	if pos == 0 {
		return livepatch.Resolution{}, fmt.Errorf("%s at %#x has no position in kallsyms", chosen, addr)
	}
	if !ambiguous {
		pos = 0
	}
	return livepatch.Resolution{Source: livepatch.Running, Object: "vmlinux", Name: chosen, Sympos: pos}, nil
}
