// SPDX-License-Identifier: Apache-2.0

package livepatch

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
)

const (
	// maxCopies bounds what undoing and applying a module that stays can leave in
	// the kernel.
	maxCopies = 99
	// nameSize is MODULE_NAME_LEN of a 64-bit kernel.
	nameSize = 64 - 8
	// thisModule is the section with the module's struct module.
	thisModule = ".gnu.linkonce.this_module"
)

func copyName(name string, n int) string { return name + "_r" + strconv.Itoa(n) }

func base(name string) string {
	i := strings.LastIndex(name, "_r")
	if i <= 0 {
		return name
	}
	n, err := strconv.Atoi(name[i+2:])
	if err != nil || n < 2 || n > maxCopies || copyName(name[:i], n) != name {
		return name
	}
	return name[:i]
}

// instance looks for the livepatch and its copies in sysfs. There is at most one:
// a copy is loaded only when none is there.
func (s *System) instance(name string) (string, error) {
	entries, err := os.ReadDir(s.sysfs())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("looking for livepatch %s: %w", name, err)
	}
	for _, e := range entries {
		if e.Name() == name || e.IsDir() && base(e.Name()) == name {
			return e.Name(), nil
		}
	}
	return "", nil
}

// rename returns a copy of a module that the kernel will know by another name. That
// name is in struct module, whose layout differs between kernels; its place is where
// the old one stands. The name in .modinfo is used in messages only.
func rename(module []byte, from, to string) ([]byte, error) {
	fail := func(err error) error { return fmt.Errorf("renaming module %s to %s: %w", from, to, err) }
	if len(to) >= nameSize {
		return nil, fail(fmt.Errorf("more than %d bytes", nameSize-1))
	}
	f, err := elf.NewFile(bytes.NewReader(module))
	if err != nil {
		return nil, fail(err)
	}
	defer f.Close()
	sec := f.Section(thisModule)
	if sec == nil || sec.Type != elf.SHT_PROGBITS || sec.Offset > uint64(len(module)) || sec.Size > uint64(len(module))-sec.Offset {
		return nil, fail(errors.New("it has no section " + thisModule))
	}
	out := slices.Clone(module)
	data := out[sec.Offset : sec.Offset+sec.Size]
	field := make([]byte, nameSize)
	copy(field, from)
	if bytes.Count(data, field) != 1 {
		return nil, fail(errors.New("its name is not once in " + thisModule))
	}
	i := bytes.Index(data, field)
	clear(data[i : i+nameSize])
	copy(data[i:], to)
	return out, nil
}
