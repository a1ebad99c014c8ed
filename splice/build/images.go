// SPDX-License-Identifier: Apache-2.0

package build

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/upsplice/upsplice/splice/kbuild"
	"github.com/upsplice/upsplice/splice/kimage"
	"github.com/upsplice/upsplice/splice/layout"
	"github.com/upsplice/upsplice/splice/objdiff"
)

// images is what one kernel ships: its image and its modules, each opened when it
// is needed first.
type images struct {
	store   *store
	side    *side
	core    *kimage.Image
	modules map[string]*kimage.Image // by target
	symvers kimage.Symvers
	types   map[string]*layout.Types // by target
}

func (s *store) images(sd *side) *images {
	return &images{store: s, side: sd, modules: map[string]*kimage.Image{}, types: map[string]*layout.Types{}}
}

// known tells whether there is anything to open.
func (im *images) known() bool { return im.side.imageID != "" }

// vmlinux opens the kernel image.
func (im *images) vmlinux() (*kimage.Image, error) {
	if im.core == nil {
		var err error
		if im.core, err = im.store.image(im.side); err != nil {
			return nil, err
		}
	}
	return im.core, nil
}

// errNoModule means that a module is not among those at hand.
var errNoModule = errors.New("the module is not at hand")

// target opens what a unit of that target is part of.
func (im *images) target(target string) (*kimage.Image, error) {
	core, err := im.vmlinux()
	if err != nil || target == kbuild.Vmlinux {
		return core, err
	}
	if m := im.modules[target]; m != nil {
		return m, nil
	}
	if im.side.Modules == "" {
		return nil, fmt.Errorf("opening %s of %s: %w", target, im.side.Release, errNoModule)
	}
	if im.symvers == nil {
		if im.symvers, err = symvers(im.side.Headers); err != nil {
			return nil, err
		}
	}
	file, err := moduleFile(im.side.Modules, target)
	if err != nil {
		return nil, err
	}
	m, err := kimage.OpenModuleFile(file, core, im.symvers.Module)
	if err != nil {
		return nil, err
	}
	if m.Release != im.side.Release {
		return nil, fmt.Errorf("opening %s: it is a module of %s, not of %s", file, m.Release, im.side.Release)
	}
	im.modules[target] = m
	return m, nil
}

// entryTypes are the structs of which the kernel's tables are made.
var entryTypes = []string{"alt_instr", "bug_entry", "exception_table_entry", "jump_entry", "static_call_site", "paravirt_patch_site"}

// entries are the layouts of the entries of the kernel's tables.
func (im *images) entries() (map[string]objdiff.Struct, error) {
	core, err := im.vmlinux()
	if err != nil {
		return nil, err
	}
	types := make(map[string]objdiff.Struct)
	for _, name := range entryTypes {
		if size, members, ok := core.Struct(name); ok {
			types[name] = objdiff.Struct{Size: size, Members: members}
		}
	}
	return types, nil
}

// layouts are the types of a target: those of its own, if it is a module, beside
// those of the kernel.
func (im *images) layouts(target string) (*layout.Types, error) {
	if t := im.types[target]; t != nil {
		return t, nil
	}
	core, err := im.vmlinux()
	if err != nil {
		return nil, err
	}
	btf := core.BTF()
	if btf == nil {
		return nil, nil
	}
	var t *layout.Types
	if target == kbuild.Vmlinux {
		t, err = layout.FromBTF(btf)
	} else if t, err = im.layouts(kbuild.Vmlinux); err == nil {
		var img *kimage.Image
		if img, err = im.target(target); err == nil && img.BTF() != nil {
			t, err = layout.FromModuleBTF(t, btf, img.BTF())
		}
	}
	if err != nil {
		return nil, fmt.Errorf("reading the types of %s in %s: %w", target, im.side.Release, err)
	}
	im.types[target] = t
	return t, nil
}

// moduleName is what the kernel calls a target.
func moduleName(target string) string {
	return strings.ReplaceAll(path.Base(target), "-", "_")
}

func moduleFile(dir, target string) (string, error) {
	for _, suffix := range []string{".ko", ".ko.xz", ".ko.zst", ".ko.gz"} {
		name := filepath.Join(dir, "kernel", target+suffix)
		if _, err := os.Stat(name); err == nil {
			return name, nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	return "", fmt.Errorf("looking for kernel/%s.ko in %s: %w", target, dir, errNoModule)
}

func symvers(headers string) (kimage.Symvers, error) {
	f, err := os.Open(filepath.Join(headers, "Module.symvers"))
	if err != nil {
		return nil, fmt.Errorf("needing the list of exported symbols: %w", err)
	}
	defer f.Close()
	m, err := kimage.ReadSymvers(f)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", f.Name(), err)
	}
	return m, nil
}

// opened are the modules that were needed, by the kernel's names.
func (im *images) opened() map[string]*kimage.Image {
	m := make(map[string]*kimage.Image)
	for target, img := range im.modules {
		m[moduleName(target)] = img
	}
	return m
}

// targetNames sorts targets as manifests list them: vmlinux first.
func targetNames(targets map[string]bool) []string {
	var names []string
	for t := range targets {
		if t != kbuild.Vmlinux {
			names = append(names, t)
		}
	}
	slices.Sort(names)
	if targets[kbuild.Vmlinux] {
		names = slices.Insert(names, 0, kbuild.Vmlinux)
	}
	return names
}
