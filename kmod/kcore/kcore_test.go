// SPDX-License-Identifier: Apache-2.0

package kcore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"testing"
	"testing/fstest"
)

type phdr struct {
	kind        uint32
	off, va, sz uint64
}

// core makes a core file with the headers, and then contents.
func core(contents string, segs ...phdr) []byte {
	le := binary.LittleEndian
	b := make([]byte, 64)
	copy(b, "\x7fELF\x02\x01\x01")
	le.PutUint16(b[16:], 4)
	le.PutUint64(b[32:], 64)
	le.PutUint16(b[54:], 56)
	le.PutUint16(b[56:], uint16(len(segs)))
	for _, s := range segs {
		p := make([]byte, 56)
		le.PutUint32(p, s.kind)
		le.PutUint64(p[8:], s.off)
		le.PutUint64(p[16:], s.va)
		le.PutUint64(p[32:], s.sz)
		le.PutUint64(p[40:], s.sz)
		b = append(b, p...)
	}
	return append(b, contents...)
}

const (
	text    = 0xffffffff81000000
	modules = 0xffffffffc0000000
)

func sample() []byte {
	const data = 64 + 4*56
	return core("TEXTMODU",
		phdr{4, 0, 0, 0}, // PT_NOTE
		phdr{1, data + 4, modules, 4},
		phdr{1, data, text, 4},
		phdr{1, 0, 0xffff888000000000, 1 << 40}, // direct map
	)
}

func TestReadAt(t *testing.T) {
	c, err := Open(fstest.MapFS{"proc/kcore": {Data: sample()}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if s, ok := c.Text(); !ok || s.Addr != text || s.Size != 4 {
		t.Errorf("Text = %x, %v", s, ok)
	}
	at := func(addr uint64) int64 { return int64(addr) }
	buf := make([]byte, 2)
	for addr, want := range map[uint64]string{text: "TE", text + 2: "XT", modules + 1: "OD"} {
		if n, err := c.ReadAt(buf, at(addr)); n != 2 || err != nil || string(buf) != want {
			t.Errorf("at %#x: %q, %v", addr, buf[:n], err)
		}
	}
	var unmapped *UnmappedError
	for _, addr := range []uint64{text + 3, text - 1, 0, modules + 4, ^uint64(0)} {
		if _, err := c.ReadAt(buf, at(addr)); !errors.As(err, &unmapped) || unmapped.Addr != addr {
			t.Errorf("at %#x: %v", addr, err)
		}
	}
	// Announced, but the file ends before.
	if _, err := c.ReadAt(buf, at(0xffff888000100000)); err == nil {
		t.Error("a short read was accepted")
	}
}

func TestBadHeaders(t *testing.T) {
	good := sample()
	change := func(off int, b byte) []byte {
		c := bytes.Clone(good)
		c[off] = b
		return c
	}
	for name, in := range map[string][]byte{
		"empty": nil, "short": good[:40], "magic": change(0, 0), "32 bit": change(4, 1), "big endian": change(5, 2),
		"not a core": change(16, 2), "headers cut off": good[:100], "header size": change(54, 32),
	} {
		if _, err := New(bytes.NewReader(in)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	c, err := New(bytes.NewReader(core("", phdr{1, 1 << 63, text, 4}, phdr{1, 0, ^uint64(0), 4}, phdr{1, 0, text, 0})))
	if err != nil {
		t.Fatal(err)
	}
	if s, ok := c.Text(); ok {
		t.Errorf("an impossible segment was taken: %x", s)
	}
}

type deniedFS struct{}

func (deniedFS) Open(name string) (fs.File, error) {
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
}

func TestAccess(t *testing.T) {
	var denied *AccessError
	if _, err := Open(deniedFS{}); !errors.As(err, &denied) || !errors.Is(err, fs.ErrPermission) {
		t.Errorf("error = %v", err)
	}
	if _, err := Open(fstest.MapFS{}); !errors.Is(err, fs.ErrNotExist) || errors.As(err, &denied) {
		t.Errorf("error = %v", err)
	}
}

func FuzzNew(f *testing.F) {
	f.Add(sample(), uint64(text))
	f.Add(sample()[:80], uint64(modules))
	f.Add([]byte{}, uint64(0))
	f.Fuzz(func(t *testing.T, in []byte, addr uint64) {
		c, err := New(bytes.NewReader(in))
		if err != nil {
			return
		}
		buf := make([]byte, 8)
		c.ReadAt(buf, int64(addr))
		for _, s := range c.segs {
			c.ReadAt(buf, int64(s.Addr))
			c.ReadAt(buf[:1], int64(s.Addr+s.Size-1))
		}
	})
}
