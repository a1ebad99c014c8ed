// SPDX-License-Identifier: Apache-2.0

package rehearse

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// maxModule bounds an unpacked module; the largest have some 30 MB with debug
// information.
const maxModule = 256 << 20

// moduleSet is a directory of modules. Dependencies are read from the modules
// themselves: depmod has not run where a package is only unpacked.
type moduleSet struct {
	paths map[string]string
	data  map[string][]byte // those that were asked for
}

func findModules(dir string) (moduleSet, error) {
	s := moduleSet{map[string]string{}, map[string][]byte{}}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name, ok := moduleName(d.Name()); ok && d.Type().IsRegular() {
			s.paths[name] = path
		}
		return nil
	})
	return s, err
}

// moduleName turns a file name into the kernel's name of the module.
func moduleName(file string) (string, bool) {
	for _, ext := range []string{".ko", ".ko.xz", ".ko.zst", ".ko.gz"} {
		if name, ok := strings.CutSuffix(file, ext); ok {
			return strings.ReplaceAll(name, "-", "_"), true
		}
	}
	return "", false
}

// order returns the modules that name needs in the order of loading, itself last.
func (s moduleSet) order(name string) ([]string, error) {
	var order []string
	var visit func(name string) error
	visit = func(name string) error {
		if slices.Contains(order, name) {
			return nil
		}
		if s.data[name] == nil {
			path, ok := s.paths[name]
			if !ok {
				return fmt.Errorf("looking for the module %s: it is not there; name the modules of that kernel with --modules", name)
			}
			data, err := readModule(path)
			if err != nil {
				return err
			}
			s.data[name] = data
		}
		needs, err := depends(s.data[name])
		if err != nil {
			return fmt.Errorf("reading the module %s: %w", name, err)
		}
		for _, n := range needs {
			// A module that is built in is not in the directory.
			if _, ok := s.paths[n]; ok && n != name {
				if err := visit(n); err != nil {
					return err
				}
			}
		}
		order = append(order, name)
		return nil
	}
	return order, visit(name)
}

func (s moduleSet) used() []string { return slices.Sorted(maps.Keys(s.data)) }

func readModule(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var r io.Reader = f
	switch filepath.Ext(path) {
	case ".xz":
		r, err = xz.NewReader(f)
	case ".gz":
		r, err = gzip.NewReader(f)
	case ".zst":
		var z *zstd.Decoder
		if z, err = zstd.NewReader(f); err == nil {
			defer z.Close()
			r = z
		}
	}
	if err != nil {
		return nil, fmt.Errorf("unpacking %s: %w", path, err)
	}
	data, err := io.ReadAll(io.LimitReader(r, maxModule+1))
	if err == nil && len(data) > maxModule {
		err = errors.New("too large")
	}
	if err != nil {
		return nil, fmt.Errorf("unpacking %s: %w", path, err)
	}
	return data, nil
}

// depends reads the modules that a module needs from its .modinfo.
func depends(module []byte) ([]string, error) {
	f, err := elf.NewFile(bytes.NewReader(module))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	sec := f.Section(".modinfo")
	if sec == nil || sec.Type == elf.SHT_NOBITS || sec.Size > uint64(len(module)) {
		return nil, errors.New("no .modinfo")
	}
	info, err := sec.Data()
	if err != nil {
		return nil, err
	}
	for entry := range bytes.SplitSeq(info, []byte{0}) {
		if list, ok := bytes.CutPrefix(entry, []byte("depends=")); ok && len(list) > 0 {
			return strings.Split(string(list), ","), nil
		}
	}
	return nil, nil
}
