// SPDX-License-Identifier: Apache-2.0

package kimage

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"math/rand"
	"os/exec"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// kernelLike is something to pack: it starts like an ELF file and repeats itself.
func kernelLike() []byte {
	rng := rand.New(rand.NewSource(1))
	b := []byte("\x7fELF")
	for len(b) < 300_000 {
		if len(b) > 100 && rng.Intn(3) > 0 {
			at, n := rng.Intn(len(b)-50), 5+rng.Intn(45)
			b = append(b, b[at:at+n]...)
			continue
		}
		b = append(b, byte(rng.Int()), byte(rng.Int()))
	}
	return b
}

func pipe(t *testing.T, in []byte, name string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stdin = bytes.NewReader(in)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("running %s: %v", name, err)
	}
	return out
}

func withSize(packed []byte, size int) []byte {
	return binary.LittleEndian.AppendUint32(bytes.Clone(packed), uint32(size))
}

func TestUnpack(t *testing.T) {
	want := kernelLike()
	var gz bytes.Buffer
	w := gzip.NewWriter(&gz)
	w.Write(want)
	w.Close()
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	packed := map[string][]byte{
		"gzip": gz.Bytes(), // has the size at its end by itself
		"zstd": withSize(enc.EncodeAll(want, nil), len(want)),
		"xz":   withSize(pipe(t, want, "xz", "--check=crc32", "--x86", "--lzma2=dict=1MiB"), len(want)),
		"lz4":  withSize(packLZ4(want), len(want)),
	}
	for name, p := range packed {
		got, err := unpack(p)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s: unpacked to something else", name)
		}
		if name == "gzip" {
			continue
		}
		for _, size := range []int{len(want) - 1, len(want) + 1, maxFile + 1} {
			if _, err := unpack(withSize(p[:len(p)-4], size)); err == nil {
				t.Errorf("%s: a payload that promises %d bytes for %d is accepted", name, size, len(want))
			}
		}
		if _, err := unpack(withSize(p[:len(p)/2], len(want))); err == nil {
			t.Errorf("%s: half a payload is accepted", name)
		}
	}
	if _, err := unpack([]byte("no known format at all")); err == nil || !strings.Contains(err.Error(), "unknown packing") {
		t.Errorf("an unknown format: %v", err)
	}
}

func TestNoXZ(t *testing.T) {
	p := withSize([]byte("\xfd7zXZ\x00aaaaaaaa"), 100)
	t.Setenv("PATH", t.TempDir())
	if _, err := unpack(p); !errors.Is(err, ErrNoXZ) {
		t.Errorf("without xz: %v", err)
	}
}

// packLZ4 writes the legacy frame in two blocks, with matches wherever four bytes
// were seen before.
func packLZ4(b []byte) []byte {
	out := []byte{0x02, 0x21, 0x4c, 0x18}
	for _, part := range [][]byte{b[:len(b)/2], b[len(b)/2:]} {
		block := packLZ4Block(part)
		out = binary.LittleEndian.AppendUint32(out, uint32(len(block)))
		out = append(out, block...)
	}
	return out
}

func packLZ4Block(b []byte) []byte {
	var out []byte
	length := func(n int) {
		for n -= 15; n >= 255; n -= 255 {
			out = append(out, 255)
		}
		out = append(out, byte(n))
	}
	seen := map[[4]byte]int{}
	lit := 0
	for i := 0; i+12 < len(b); {
		key := [4]byte(b[i:])
		at, ok := seen[key]
		seen[key] = i
		if !ok || i-at > 65535 {
			i++
			continue
		}
		n := 4
		for i+n < len(b)-5 && b[at+n] == b[i+n] {
			n++
		}
		out = append(out, byte(min(i-lit, 15)<<4|min(n-4, 15)))
		if i-lit >= 15 {
			length(i - lit)
		}
		out = append(out, b[lit:i]...)
		out = binary.LittleEndian.AppendUint16(out, uint16(i-at))
		if n-4 >= 15 {
			length(n - 4)
		}
		i += n
		lit = i
	}
	out = append(out, byte(min(len(b)-lit, 15)<<4))
	if len(b)-lit >= 15 {
		length(len(b) - lit)
	}
	return append(out, b[lit:]...)
}

func TestPayloadRange(t *testing.T) {
	head := func(change func([]byte)) []byte {
		h := make([]byte, setupHeaderEnd)
		copy(h[offHeaderMagic:], "HdrS")
		binary.LittleEndian.PutUint16(h[offProtocol:], 0x020f)
		h[offSetupSects] = 3
		binary.LittleEndian.PutUint32(h[offPayloadOffset:], 0x100)
		binary.LittleEndian.PutUint32(h[offPayloadLength:], 1000)
		change(h)
		return h
	}
	const size = 4*512 + 0x100 + 1000
	for _, c := range []struct {
		name   string
		change func([]byte)
		off    int64 // 0: refused
	}{
		{"plain", func([]byte) {}, 4*512 + 0x100},
		{"no setup_sects means four", func(h []byte) {
			h[offSetupSects] = 0
			binary.LittleEndian.PutUint32(h[offPayloadLength:], 400)
		}, 5*512 + 0x100},
		{"no magic", func(h []byte) { h[offHeaderMagic] = 'h' }, 0},
		{"old protocol", func(h []byte) { h[offProtocol] = 7 }, 0},
		{"too long", func(h []byte) { h[offPayloadLength]++ }, 0},
		{"empty", func(h []byte) { binary.LittleEndian.PutUint32(h[offPayloadLength:], 0) }, 0},
		{"overflow", func(h []byte) { binary.LittleEndian.PutUint32(h[offPayloadLength:], 0xffffffff) }, 0},
	} {
		off, _, err := payloadRange(head(c.change), size)
		if (err == nil) != (c.off != 0) || off != c.off {
			t.Errorf("%s: offset %#x, %v; want %#x", c.name, off, err, c.off)
		}
	}
}

func TestSlidLists(t *testing.T) {
	words := func(w ...uint32) []byte {
		var b []byte
		for _, v := range w {
			b = binary.LittleEndian.AppendUint32(b, v)
		}
		return b
	}
	got, err := readSlid(words(0, 0x83000010, 0, 0x81000020, 0, 0x81000001, 0x81000030))
	if err != nil {
		t.Fatal(err)
	}
	want := []Slid{{0xffffffff81000001, SlidAbs32}, {0xffffffff81000020, SlidNegRel32}, {0xffffffff81000030, SlidAbs32}, {0xffffffff83000010, SlidAbs64}}
	for i := range want {
		if i >= len(got) || got[i] != want[i] {
			t.Fatalf("three lists: %v, want %v", got, want)
		}
	}
	if got, err = readSlid(words(0, 0x83000010, 0, 0x81000020)); err != nil || got[0].Kind != SlidAbs32 || got[1].Kind != SlidAbs64 {
		t.Errorf("two lists: %v, %v", got, err)
	}
	for _, bad := range [][]byte{words(1, 2, 0, 3), words(0, 0, 0, 0), words(0, 1, 0, 2)[:15]} {
		if got, err := readSlid(bad); err == nil {
			t.Errorf("% x is accepted as %v", bad, got)
		}
	}
}

func TestBuildID(t *testing.T) {
	note := func(name string, typ uint32, desc string) []byte {
		var b []byte
		b = binary.LittleEndian.AppendUint32(b, uint32(len(name)))
		b = binary.LittleEndian.AppendUint32(b, uint32(len(desc)))
		b = binary.LittleEndian.AppendUint32(b, typ)
		for _, s := range []string{name, desc} {
			b = append(b, s...)
			for len(b)%4 != 0 {
				b = append(b, 0)
			}
		}
		return b
	}
	notes := append(note("Xen\x00", 3, "abcde"), note("GNU\x00", 3, "\x01\xab")...)
	if got := buildID(notes); got != "01ab" {
		t.Errorf("buildID = %q", got)
	}
	if got := buildID(notes[:len(notes)-4]); got != "" {
		t.Errorf("buildID of cut notes = %q", got)
	}
}

func FuzzPayloadRange(f *testing.F) {
	h := make([]byte, setupHeaderEnd)
	copy(h[offHeaderMagic:], "HdrS\x0f\x02")
	f.Add(h, int64(1<<20))
	f.Fuzz(func(t *testing.T, head []byte, size int64) {
		if off, n, err := payloadRange(head, size); err == nil && (off < 0 || n < 0 || off+n > size) {
			t.Errorf("payload of %d bytes at %d in a file of %d", n, off, size)
		}
	})
}

func FuzzLZ4(f *testing.F) {
	f.Add(packLZ4(kernelLike()[:2000]), 2000)
	f.Add([]byte("\x02\x21\x4c\x18\x01\x00\x00\x00\x00"), 1)
	f.Fuzz(func(t *testing.T, p []byte, size int) {
		if len(p) < 4 || size < 0 || size > 1<<20 {
			return
		}
		if out, err := lz4(p, size); err == nil && len(out) > size {
			t.Errorf("%d bytes where %d were allowed", len(out), size)
		}
	})
}

func FuzzSections(f *testing.F) {
	f.Add([]byte("\x7fELF\x02\x01\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		im := &Image{Vmlinux: b}
		if end, err := im.readSections(); err == nil && end > uint64(len(b)) {
			t.Errorf("the file of %d bytes ends at %d", len(b), end)
		}
	})
}

func FuzzNotes(f *testing.F) {
	f.Add([]byte("\x04\x00\x00\x00\x04\x00\x00\x00\x03\x00\x00\x00GNU\x00abcd"))
	f.Fuzz(func(_ *testing.T, b []byte) { buildID(b) })
}

func FuzzSlid(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x00\x01\x00\x00\x81\x00\x00\x00\x00\x01\x00\x00\x81"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, err := readSlid(b); err == nil && len(got) > len(b)/4 {
			t.Error("more fields than words")
		}
	})
}
