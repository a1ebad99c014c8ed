// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
)

func note(owner string, kind uint32, desc []byte) []byte {
	var b []byte
	name := append([]byte(owner), 0)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(name)))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(desc)))
	b = binary.LittleEndian.AppendUint32(b, kind)
	for _, p := range [][]byte{name, desc} {
		b = append(b, p...)
		for len(b)%4 != 0 {
			b = append(b, 0)
		}
	}
	return b
}

const id = "0123456789abcdef0123456789abcdef01234567"

func build(t testing.TB) []byte {
	raw, err := hex.DecodeString(id)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Join([][]byte{
		note("Xen", 6, []byte("linux")), // name and contents with padding
		note("Linux", ntGNUBuildID, []byte("same type, other owner")),
		note("GNU", ntGNUBuildID, raw),
	}, nil)
}

func TestParse(t *testing.T) {
	good := build(t)
	if got, err := Parse(bytes.NewReader(good)); err != nil || got != id {
		t.Errorf("Parse = %q, %v", got, err)
	}
	for name, in := range map[string][]byte{
		"cut in the id":    good[:len(good)-1],
		"cut in a header":  good[:6],
		"huge name size":   append([]byte{0xff, 0xff, 0xff, 0xff}, good[4:]...),
		"empty id":         note("GNU", ntGNUBuildID, nil),
		"longer than sane": make([]byte, maxNotes+1),
	} {
		if got, err := Parse(bytes.NewReader(in)); err == nil || errors.Is(err, ErrNoBuildID) {
			t.Errorf("%s: Parse = %q, %v", name, got, err)
		}
	}
	for name, in := range map[string][]byte{"nothing": nil, "others only": note("Xen", 1, []byte{1})} {
		if _, err := Parse(bytes.NewReader(in)); !errors.Is(err, ErrNoBuildID) {
			t.Errorf("%s: error = %v", name, err)
		}
	}
}

func TestFiles(t *testing.T) {
	root := fstest.MapFS{
		"sys/kernel/notes": {Data: build(t)},
		"sys/module/virtio_blk/notes/.note.gnu.build-id": {Data: build(t)},
	}
	if got, err := Kernel(root); err != nil || got != id {
		t.Errorf("Kernel = %q, %v", got, err)
	}
	if got, err := Module(root, "virtio-blk"); err != nil || got != id {
		t.Errorf("Module = %q, %v", got, err)
	}
	if _, err := Module(root, "absent"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error = %v", err)
	}
	for _, name := range []string{"", "..", "a/b"} {
		if _, err := Module(root, name); err == nil || !strings.Contains(err.Error(), "not the name") {
			t.Errorf("Module(%q): %v", name, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte{})
	f.Add(build(f))
	f.Add(build(f)[:50])
	f.Fuzz(func(t *testing.T, in []byte) {
		got, err := Parse(bytes.NewReader(in))
		if (err == nil) != (got != "") {
			t.Errorf("Parse = %q, %v", got, err)
		}
	})
}
