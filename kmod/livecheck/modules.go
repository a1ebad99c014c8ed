// SPDX-License-Identifier: Apache-2.0

package livecheck

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"

	"github.com/upsplice/upsplice/kmod/identity"
)

// vmlinux is what a Ref calls the kernel itself.
const vmlinux = "vmlinux"

// Module is what is expected of one module, if it is loaded.
type Module struct {
	Name    string // as in /proc/modules
	BuildID string // lower-case hex
	Expect  []Expectation
}

// BuildError: a module that is loaded is not the build that is expected.
type BuildError struct{ Module, Want, Have string }

func (e *BuildError) Error() string {
	return fmt.Sprintf("checking module %s in memory: its build id is %s, and %s is expected: it is another build", e.Module, e.Have, e.Want)
}

// CheckModules compares the expectations of every module that is loaded with k, as
// Check does. root has sys/module, which says what is loaded, which build and where.
//
// skipped names the modules that are not loaded, of which nothing was checked. The
// error is a *BuildError, a *Mismatch, or about a module that is just being loaded or
// unloaded or whose addresses are hidden.
func CheckModules(k Kernel, root fs.FS, mods []Module) (skipped []string, err error) {
	k.section = sections(root)
	for _, m := range mods {
		loaded, err := isLoaded(root, m.Name)
		if err != nil {
			return skipped, fmt.Errorf("checking module %s in memory: %w", m.Name, err)
		}
		if !loaded {
			skipped = append(skipped, m.Name)
			continue
		}
		id, err := identity.Module(root, m.Name)
		if err != nil {
			return skipped, fmt.Errorf("checking module %s in memory: %w", m.Name, err)
		}
		if id != m.BuildID {
			return skipped, &BuildError{Module: m.Name, Want: m.BuildID, Have: id}
		}
		for _, e := range m.Expect {
			if e.Object != m.Name {
				return skipped, fmt.Errorf("checking module %s in memory: %s is expected in %q", m.Name, e.Name, e.Object)
			}
		}
		if err := inModule(m.Name, check(k, m.Expect)); err != nil {
			return skipped, err
		}
	}
	return skipped, nil
}

// inModule puts the module's name before the function's.
func inModule(name string, err error) error {
	var m *Mismatch
	if errors.As(err, &m) {
		named := *m
		named.Function = name + ":" + m.Function
		return &named
	}
	return err
}

// isLoaded says whether a module is loaded. Built-in modules have a directory in
// sysfs too, but no state.
func isLoaded(root fs.FS, name string) (bool, error) {
	if !plain(name) {
		return false, fmt.Errorf("%q is not the name of a module", name)
	}
	state, err := readShort(root, "sys/module/"+name+"/initstate")
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, err
	case state != "live":
		return false, fmt.Errorf("it is %s: try again when it has been loaded or unloaded", state)
	}
	return true, nil
}

// plain says whether a name can be an element of a path in sysfs.
func plain(name string) bool {
	return name != "" && name != "." && name != ".." && len(name) < 256 && !strings.ContainsAny(name, "/\x00")
}

func readShort(root fs.FS, name string) (string, error) {
	f, err := root.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 256))
	return strings.TrimSpace(string(b)), err
}

// sections returns a function that reads where the loader has put a module's section,
// and remembers it.
func sections(root fs.FS) func(module, section string) (uint64, error) {
	known := map[[2]string]uint64{}
	return func(module, section string) (uint64, error) {
		if !plain(module) || !plain(section) {
			return 0, fmt.Errorf("section %q of %q cannot exist", section, module)
		}
		if addr, ok := known[[2]string{module, section}]; ok {
			return addr, nil
		}
		text, err := readShort(root, "sys/module/"+module+"/sections/"+section)
		if err != nil {
			return 0, fmt.Errorf("where section %s of %s is: %w", section, module, err)
		}
		addr, err := strconv.ParseUint(strings.TrimPrefix(text, "0x"), 16, 64)
		if err != nil {
			return 0, fmt.Errorf("section %s of %s is said to be at %q", section, module, text)
		}
		if addr == 0 {
			return 0, fmt.Errorf("where section %s of %s is, is hidden (needs CAP_SYSLOG, and kernel.kptr_restrict below 2)", section, module)
		}
		known[[2]string{module, section}] = addr
		return addr, nil
	}
}

// symbols looks up a symbol of the kernel ("") or of a module.
func (k Kernel) symbols(object, name string) []uint64 {
	switch {
	case object == "":
		return k.Symbols(name)
	case k.InModule == nil:
		return nil
	}
	return k.InModule(object, name)
}

// place returns where a function must be.
func (k Kernel) place(e Expectation) (uint64, error) {
	if e.Object == "" {
		return e.Addr + k.Slide, nil
	}
	if k.section == nil {
		return 0, &Mismatch{Function: e.Name, Offset: -1, Reason: "it is in the module " + e.Object + ", of which nothing is known here"}
	}
	base, err := k.section(e.Object, e.Section)
	if err != nil {
		return 0, &Mismatch{Function: e.Name, Offset: -1, Reason: "it cannot be found", Err: err}
	}
	return base + e.Addr, nil
}

// resolve returns the live address that a Ref means.
func (k Kernel) resolve(r Ref) (uint64, error) {
	if (r.Symbol == "") == (r.Section == "") || r.Object == "" {
		return 0, fmt.Errorf("a reference to symbol %q, section %q of %q", r.Symbol, r.Section, r.Object)
	}
	if r.Section != "" {
		if k.section == nil {
			return 0, fmt.Errorf("nothing is known here about the module %s", r.Object)
		}
		base, err := k.section(r.Object, r.Section)
		return base + r.Offset + uint64(r.Addend), err
	}
	object := r.Object
	if object == vmlinux {
		object = ""
	}
	addrs := k.symbols(object, r.Symbol)
	i := r.Sympos - 1
	if r.Sympos == 0 && len(addrs) == 1 {
		i = 0
	}
	if i < 0 || i >= len(addrs) {
		return 0, fmt.Errorf("%s has %d symbols %s, number %d is expected (0: the only one)", r.Object, len(addrs), r.Symbol, r.Sympos)
	}
	return addrs[i] + uint64(r.Addend), nil
}

// fill writes what the loader of modules writes into a field that is at a live
// address (apply_relocate_add in arch/x86/kernel/module.c).
func (k Kernel) fill(b []byte, at uint64, kind string, ref *Ref) error {
	pcrel := kind == KindRefPC32 || kind == KindRefPC64
	wide := kind == KindRef64 || kind == KindRefPC64
	if ref == nil || !pcrel && !wide && kind != KindRef32 || len(b) != 4 && !wide || len(b) != 8 && wide {
		return fmt.Errorf("a field of kind %q and %d bytes", kind, len(b))
	}
	value, err := k.resolve(*ref)
	if err != nil {
		return err
	}
	if pcrel {
		value -= at
	}
	if wide {
		binary.LittleEndian.PutUint64(b, value)
		return nil
	}
	if signed := uint64(int64(int32(value))); value != signed && (pcrel || value != uint64(uint32(value))) {
		return fmt.Errorf("%#x does not fit into a field of kind %q", value, kind)
	}
	binary.LittleEndian.PutUint32(b, uint32(value))
	return nil
}
