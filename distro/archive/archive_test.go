// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

func pack(t testing.TB, f Format, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser
	var err error
	switch f {
	case Gzip:
		w = gzip.NewWriter(&b)
	case Xz:
		// Several blocks, so that the boundaries between them are tested as well.
		w, err = xz.WriterConfig{BlockSize: 4096}.NewWriter(&b)
	case Zstd:
		w, err = zstd.NewWriter(&b)
	default:
		return data
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

var sample = []byte(strings.Repeat("the quick brown fox jumps over the lazy dog\n", 300))

func unpack(data []byte, opt Options) ([]byte, Format, error) {
	r, err := NewReader(bytes.NewReader(data), opt)
	if err != nil {
		return nil, "", err
	}
	defer r.Close()
	out, err := io.ReadAll(r)
	return out, r.Format, err
}

func TestFormats(t *testing.T) {
	for _, f := range []Format{Plain, Gzip, Xz, Zstd} {
		t.Run(string(f), func(t *testing.T) {
			out, got, err := unpack(pack(t, f, sample), Options{})
			if err != nil {
				t.Fatal(err)
			}
			if got != f || !bytes.Equal(out, sample) {
				t.Errorf("NewReader(%s) = %s, %d bytes; want %d bytes", f, got, len(out), len(sample))
			}
		})
	}
}

func TestEmpty(t *testing.T) {
	for _, f := range []Format{Plain, Gzip, Xz, Zstd} {
		out, _, err := unpack(pack(t, f, nil), Options{})
		if err != nil || len(out) != 0 {
			t.Errorf("%s of nothing = %d bytes, %v", f, len(out), err)
		}
	}
}

// Every proper prefix must be an error: an unnoticed cut would be half a source tree.
func TestTruncated(t *testing.T) {
	for _, f := range []Format{Gzip, Xz, Zstd} {
		t.Run(string(f), func(t *testing.T) {
			whole := pack(t, f, sample)
			for n := len(xzMagic); n < len(whole); n++ {
				_, _, err := unpack(whole[:n], Options{})
				var fe *FormatError
				if !errors.As(err, &fe) {
					t.Fatalf("first %d of %d bytes: error %v, want a FormatError", n, len(whole), err)
				}
			}
		})
	}
}

func TestCorrupt(t *testing.T) {
	for _, f := range []Format{Gzip, Xz, Zstd} {
		data := pack(t, f, sample)
		data[len(data)/2] ^= 0x40
		out, _, err := unpack(data, Options{})
		if err == nil && bytes.Equal(out, sample) {
			continue // the flipped bit carried no information
		}
		var fe *FormatError
		if !errors.As(err, &fe) || fe.Format != f {
			t.Errorf("%s with a flipped bit: error %v, want a FormatError", f, err)
		}
	}
}

func TestByteLimit(t *testing.T) {
	for _, f := range []Format{Plain, Gzip, Xz, Zstd} {
		data := pack(t, f, sample)
		if _, _, err := unpack(data, Options{MaxBytes: int64(len(sample))}); err != nil {
			t.Errorf("%s of exactly the limit: %v", f, err)
		}
		out, _, err := unpack(data, Options{MaxBytes: int64(len(sample)) - 1})
		var le *LimitError
		if !errors.As(err, &le) || le.Limit != int64(len(sample))-1 {
			t.Errorf("%s above the limit: error %v, want a LimitError", f, err)
		}
		if len(out) != len(sample)-1 {
			t.Errorf("%s above the limit gave %d bytes", f, len(out))
		}
	}
}

func TestXzWindowLimit(t *testing.T) {
	var b bytes.Buffer
	w, err := xz.WriterConfig{DictCap: 16 << 20}.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	w.Write(sample)
	w.Close()
	_, _, err = unpack(b.Bytes(), Options{MaxWindow: 8 << 20})
	var le *LimitError
	if !errors.As(err, &le) || le.What != "dictionary size" {
		t.Errorf("error %v, want a LimitError", err)
	}
	if _, _, err := unpack(b.Bytes(), Options{MaxWindow: 16 << 20}); err != nil {
		t.Error(err)
	}
}

type closer struct {
	io.Reader
	closed *bool
}

func (c closer) Close() error { *c.closed = true; return nil }

func TestExternal(t *testing.T) {
	var closed bool
	opt := Options{External: map[Format]Decompressor{
		Xz: func(r io.Reader) (io.ReadCloser, error) {
			x, err := xz.NewReader(r)
			return closer{x, &closed}, err
		},
	}}
	out, _, err := unpack(pack(t, Xz, sample), opt)
	if err != nil || !bytes.Equal(out, sample) || !closed {
		t.Errorf("external decompressor: %d bytes, closed %v, %v", len(out), closed, err)
	}
}

func FuzzReader(f *testing.F) {
	for _, fm := range []Format{Plain, Gzip, Xz, Zstd} {
		data := pack(f, fm, sample)
		f.Add(data)
		f.Add(data[:len(data)/2])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		out, _, err := unpack(data, Options{MaxBytes: 1 << 20, MaxWindow: 8 << 20})
		if err == nil && len(out) > 1<<20 {
			t.Errorf("%d bytes are above the limit", len(out))
		}
	})
}
