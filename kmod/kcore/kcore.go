// SPDX-License-Identifier: Apache-2.0

// Package kcore reads the memory of the running kernel through /proc/kcore, which
// has the form of an ELF core file whose segments are the kernel's address ranges.
package kcore

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
)

// kernelMap is where the kernel's own image may be mapped on x86-64
// (__START_KERNEL_map, Documentation/x86/x86_64/mm.rst).
const kernelMap = 0xffffffff80000000

// Core is an opened /proc/kcore.
type Core struct {
	r    io.ReaderAt
	segs []Segment
	done io.Closer
}

// Segment is one readable range of addresses.
type Segment struct {
	Addr, Size uint64
	off        int64
}

// AccessError: the kernel does not let this process read its memory.
type AccessError struct {
	Remedy string
	Err    error
}

func (e *AccessError) Error() string {
	return "reading /proc/kcore: " + e.Err.Error() + " (" + e.Remedy + ")"
}

func (e *AccessError) Unwrap() error { return e.Err }

// UnmappedError: an address is in no segment.
type UnmappedError struct{ Addr uint64 }

func (e *UnmappedError) Error() string {
	return fmt.Sprintf("reading kernel memory at %#x: not mapped in /proc/kcore", e.Addr)
}

// Open opens proc/kcore below root. A refusal is an *AccessError; a kernel
// without /proc/kcore gives an error that is fs.ErrNotExist.
func Open(root fs.FS) (*Core, error) {
	f, err := root.Open("proc/kcore")
	if err != nil {
		return nil, access(err)
	}
	r, ok := f.(io.ReaderAt)
	if !ok {
		f.Close()
		return nil, errors.New("reading /proc/kcore: the file cannot be read at an offset")
	}
	c, err := New(r)
	if err != nil {
		f.Close()
		return nil, err
	}
	c.done = f
	return c, nil
}

func access(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return &AccessError{Remedy: "needs root with CAP_SYS_RAWIO, and lockdown not in confidentiality mode", Err: err}
	}
	return fmt.Errorf("reading /proc/kcore: %w", err)
}

// New reads the program headers of a core file.
func New(r io.ReaderAt) (*Core, error) {
	head := make([]byte, 64)
	if _, err := r.ReadAt(head, 0); err != nil {
		return nil, access(err)
	}
	le := binary.LittleEndian
	switch {
	case string(head[:4]) != elf.ELFMAG:
		return nil, errors.New("reading /proc/kcore: not an ELF file")
	case head[elf.EI_CLASS] != byte(elf.ELFCLASS64), head[elf.EI_DATA] != byte(elf.ELFDATA2LSB), le.Uint16(head[16:]) != uint16(elf.ET_CORE):
		return nil, errors.New("reading /proc/kcore: not a 64-bit little-endian core file")
	}
	phoff, phentsize, phnum := le.Uint64(head[32:]), le.Uint16(head[54:]), le.Uint16(head[56:])
	// 65535 would mean "see the section headers", which kcore does not have.
	if phentsize != 56 || phnum == 0xffff || phoff > 1<<32 {
		return nil, errors.New("reading /proc/kcore: its program headers have an unknown form")
	}
	table := make([]byte, int(phnum)*int(phentsize))
	if _, err := r.ReadAt(table, int64(phoff)); err != nil {
		return nil, access(err)
	}
	c := &Core{r: r}
	for ; len(table) > 0; table = table[phentsize:] {
		if elf.ProgType(le.Uint32(table)) != elf.PT_LOAD {
			continue
		}
		s := Segment{Addr: le.Uint64(table[16:]), Size: le.Uint64(table[32:]), off: int64(le.Uint64(table[8:]))}
		if s.Size == 0 || s.Size > 1<<62 || s.Addr+s.Size-1 < s.Addr || s.off < 0 || uint64(s.off)+s.Size-1 > 1<<63-1 {
			continue
		}
		c.segs = append(c.segs, s)
	}
	slices.SortFunc(c.segs, func(a, b Segment) int {
		switch {
		case a.Addr < b.Addr:
			return -1
		case a.Addr > b.Addr:
			return 1
		}
		return 0
	})
	return c, nil
}

// Close closes the file that Open opened.
func (c *Core) Close() error {
	if c.done == nil {
		return nil
	}
	return c.done.Close()
}

// Text returns the segment of the kernel image: the lowest one in the part of the
// address space that is reserved for it; modules lie above.
func (c *Core) Text() (Segment, bool) {
	for _, s := range c.segs {
		if s.Addr >= kernelMap {
			return s, true
		}
	}
	return Segment{}, false
}

// ReadAt reads kernel memory. The offset is a virtual address: int64(addr), which
// is negative for kernel addresses. A range that is not within one segment gives
// an *UnmappedError.
func (c *Core) ReadAt(p []byte, off int64) (int, error) {
	addr := uint64(off)
	// Segments may overlap, so the first one that holds the range decides.
	for _, s := range c.segs {
		if addr < s.Addr || addr-s.Addr >= s.Size || uint64(len(p)) > s.Size-(addr-s.Addr) {
			continue
		}
		n, err := c.r.ReadAt(p, s.off+int64(addr-s.Addr))
		if n == len(p) {
			return n, nil
		}
		if err == nil {
			err = io.ErrUnexpectedEOF
		}
		return n, access(err)
	}
	return 0, &UnmappedError{Addr: addr}
}
