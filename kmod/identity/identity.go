// SPDX-License-Identifier: Apache-2.0

// Package identity says which build of a kernel or module is running, by its GNU
// build id. A release name does not: a distribution builds several kernels under
// the same one.
package identity

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
)

// ntGNUBuildID is the note type NT_GNU_BUILD_ID of elf.h, with the owner "GNU".
const ntGNUBuildID = 3

// maxNotes bounds what is read: the notes of a kernel take some hundred bytes.
const maxNotes = 1 << 20

// ErrNoBuildID: the notes are readable and hold no build id. The kernel was
// linked without --build-id.
var ErrNoBuildID = errors.New("no build id among the notes")

// Kernel returns the build id of the running kernel in lower-case hex, from
// sys/kernel/notes below root.
func Kernel(root fs.FS) (string, error) { return fromFile(root, "sys/kernel/notes") }

// Module returns the build id of a loaded module in lower-case hex. A module
// that is not loaded gives an error that is fs.ErrNotExist. In sysfs, dashes of a
// module's file name are underscores.
func Module(root fs.FS, name string) (string, error) {
	if name == "" || strings.ContainsAny(name, "/\x00") || name == "." || name == ".." {
		return "", fmt.Errorf("reading the build id of module %q: not the name of a module", name)
	}
	name = strings.ReplaceAll(name, "-", "_")
	return fromFile(root, "sys/module/"+name+"/notes/.note.gnu.build-id")
}

func fromFile(root fs.FS, name string) (string, error) {
	f, err := root.Open(name)
	if err != nil {
		return "", fmt.Errorf("reading the build id: %w", err)
	}
	defer f.Close()
	id, err := Parse(f)
	if err != nil {
		return "", fmt.Errorf("reading the build id in /%s: %w", name, err)
	}
	return id, nil
}

// Parse finds the build id in a sequence of ELF notes (little-endian, each part
// padded to four bytes, as in the note sections of the kernel). It returns
// ErrNoBuildID if there is none.
func Parse(r io.Reader) (string, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxNotes+1))
	if err != nil {
		return "", err
	}
	if len(data) > maxNotes {
		return "", fmt.Errorf("more than %d bytes of notes", maxNotes)
	}
	for len(data) > 0 {
		if len(data) < 12 {
			return "", errors.New("a note is cut off in its header")
		}
		namesz := uint64(binary.LittleEndian.Uint32(data))
		descsz := uint64(binary.LittleEndian.Uint32(data[4:]))
		kind := binary.LittleEndian.Uint32(data[8:])
		data = data[12:]
		descOff := pad(namesz)
		if descOff+descsz > uint64(len(data)) {
			return "", errors.New("a note is longer than the file")
		}
		name, desc := data[:namesz], data[descOff:descOff+descsz]
		if kind == ntGNUBuildID && string(name) == "GNU\x00" {
			if len(desc) == 0 {
				return "", errors.New("the build id is empty")
			}
			return hex.EncodeToString(desc), nil
		}
		// The last note may lack its padding.
		data = data[min(descOff+pad(descsz), uint64(len(data))):]
	}
	return "", ErrNoBuildID
}

func pad(n uint64) uint64 { return (n + 3) &^ 3 }
