// SPDX-License-Identifier: Apache-2.0

package kimage

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/upsplice/upsplice/splice/object"
)

// readModinfo reads what says which module this is, and of which kernel.
func (im *Image) readModinfo(o *object.Object) error {
	sec := o.Section(".modinfo")
	if sec == nil || o.Section(".gnu.linkonce.this_module") == nil {
		return errors.New("it has no .modinfo or no .gnu.linkonce.this_module, so it is no kernel module")
	}
	for _, f := range strings.Split(string(sec.Data), "\x00") {
		key, value, _ := strings.Cut(f, "=")
		switch {
		case key == "name" && im.Name == "":
			im.Name = value
		case key == "vermagic" && im.Vermagic == "":
			im.Vermagic = value
		case key == "depends" && value != "":
			for _, d := range strings.Split(value, ",") {
				im.Depends = append(im.Depends, moduleName(d))
			}
		}
	}
	if im.Name == "" || im.Name == VmlinuxName || moduleName(im.Name) != im.Name {
		return fmt.Errorf(".modinfo gives it the name %q", im.Name)
	}
	im.Release, _, _ = strings.Cut(im.Vermagic, " ")
	if im.Release != im.vmlinux.Release {
		return fmt.Errorf("%s is for %q, the kernel is %q", im.Name, im.Release, im.vmlinux.Release)
	}
	if s := o.Section(".note.gnu.build-id"); s != nil {
		im.BuildID = buildID(s.Data)
	}
	if im.BuildID == "" {
		return fmt.Errorf("%s has no GNU build id", im.Name)
	}
	if s := o.Section(".BTF"); s != nil {
		im.ownBTF = s.Data
	}
	return nil
}

// moduleName makes a module's name in /proc/modules of that of its file.
func moduleName(file string) string {
	name := strings.ReplaceAll(path.Base(file), "-", "_")
	if file == "" || name == "." || name == "/" || strings.ContainsAny(name, " \t\n\x00") {
		return ""
	}
	return name
}

// checkVersions compares the CRCs of the imports with those of the exports of
// vmlinux (CONFIG_MODVERSIONS): the module may have been built for another kernel of
// the same release name.
func (im *Image) checkVersions(l *layouts, sec *object.Section) error {
	if sec == nil || len(sec.Data) == 0 {
		return nil
	}
	rec, err := l.of("modversion_info", "crc", "name")
	if err != nil {
		return err
	}
	if len(sec.Data)%rec.size != 0 || rec.fields["crc"]+8 > rec.size {
		return fmt.Errorf("section __versions: %d bytes are no whole number of entries of %d", len(sec.Data), rec.size)
	}
	for at := 0; at < len(sec.Data); at += rec.size {
		e := sec.Data[at : at+rec.size]
		name, _, _ := bytes.Cut(e[rec.fields["name"]:], []byte{0})
		crc := binary.LittleEndian.Uint64(e[rec.fields["crc"]:])
		if x, ok := im.vmlinux.Exports[string(name)]; ok && x.HasCRC && crc != uint64(x.CRC) {
			return fmt.Errorf("it was built for a %s with CRC %#x, which is %#x in the kernel", name, crc, x.CRC)
		}
	}
	return nil
}

// Symvers says which module exports a symbol.
type Symvers map[string]string

// Module returns the module that exports symbol: "vmlinux", or its name as
// /proc/modules has it. It is an Exporter.
func (s Symvers) Module(symbol string) (module string, ok bool) {
	module, ok = s[symbol]
	return module, ok
}

// Limits of ReadSymvers: the list of a large kernel has some 30,000 lines.
const (
	maxSymversLines = 1 << 20
	maxSymversLine  = 64 << 10
)

// ReadSymvers reads the Module.symvers of kbuild (Documentation/kbuild/modules.rst):
// lines of CRC, symbol, module, kind and namespace between tabs.
func ReadSymvers(r io.Reader) (Symvers, error) {
	out := Symvers{}
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, maxSymversLine)
	for line := 1; sc.Scan(); line++ {
		f := strings.Split(sc.Text(), "\t")
		bad := func(what string) error { return fmt.Errorf("reading Module.symvers: line %d: %s", line, what) }
		if len(f) < 4 {
			return nil, bad("not of the form CRC, SYMBOL, MODULE, KIND, NAMESPACE")
		}
		name := moduleName(f[2])
		switch {
		case line > maxSymversLines:
			return nil, bad("there are too many")
		case f[1] == "" || name == "":
			return nil, bad("the symbol or the module has no name")
		}
		if other, ok := out[f[1]]; ok && other != name {
			return nil, bad(fmt.Sprintf("%s exports %s, which %s does too", name, f[1], other))
		}
		out[f[1]] = name
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("reading Module.symvers: %w", err)
	}
	return out, nil
}
