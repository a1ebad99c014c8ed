// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"math"
	"path"
	"slices"
	"strings"
)

// File of an initramfs. The directories above it are made.
type File struct {
	Name string      // "lib/modules/x.ko", without a slash in front
	Mode fs.FileMode // permissions; with fs.ModeSymlink, Data is the target
	Data []byte
}

// Types of a file in st_mode.
const (
	typeDirectory = 0o040000
	typeRegular   = 0o100000
	typeSymlink   = 0o120000
)

// Initramfs writes files as an archive that the kernel unpacks as its first root
// file system: cpio, "newc" form, not compressed
// (Documentation/driver-api/early-userspace/buffer-format.rst).
func Initramfs(w io.Writer, files []File) error {
	a := &archive{w: bufio.NewWriter(w), made: map[string]bool{".": true}}
	for _, f := range files {
		if !fs.ValidPath(f.Name) || f.Name == "." || strings.ContainsRune(f.Name, 0) {
			return fmt.Errorf("writing an initramfs: %q is not a path in it", f.Name)
		}
		var above []string
		for dir := path.Dir(f.Name); !a.made[dir]; dir = path.Dir(dir) {
			above = append(above, dir)
			a.made[dir] = true
		}
		for _, dir := range slices.Backward(above) {
			a.entry(dir, typeDirectory|0o755, nil)
		}
		mode := typeRegular | uint32(f.Mode.Perm())
		if f.Mode&fs.ModeSymlink != 0 {
			mode = typeSymlink | 0o777
		}
		a.entry(f.Name, mode, f.Data)
	}
	a.entry("TRAILER!!!", 0, nil)
	if a.err == nil {
		a.err = a.w.Flush()
	}
	if a.err != nil {
		return fmt.Errorf("writing an initramfs: %w", a.err)
	}
	return nil
}

type archive struct {
	w     *bufio.Writer
	made  map[string]bool
	inode uint32
	err   error
}

func (a *archive) entry(name string, mode uint32, data []byte) {
	if a.err != nil {
		return
	}
	if uint64(len(data)) > math.MaxUint32 {
		a.err = fmt.Errorf("%s is larger than 4 GiB", name)
		return
	}
	a.inode++
	// inode, mode, uid, gid, links, mtime, size, device and its number (major, minor
	// each), length of the name with its zero, checksum
	fmt.Fprintf(a.w, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		a.inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0)
	a.w.WriteString(name)
	a.pad(110+len(name), 1)
	a.w.Write(data)
	// The error of a buffered writer stays, and Flush returns it.
	a.pad(len(data), 0)
}

// pad writes at least least zeros, up to a multiple of four bytes after n.
func (a *archive) pad(n, least int) {
	zeros := (4 - (n+least)%4) % 4
	a.w.Write(make([]byte, least+zeros))
}
