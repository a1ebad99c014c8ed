// SPDX-License-Identifier: Apache-2.0

package kimage

import (
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os/exec"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz/lzma"
)

// ErrNoXZ is in the error of Open when the kernel is packed with xz and the xz
// program is not there. The Go packages for the format do not know its x86 filter,
// which kernels are packed with.
var ErrNoXZ = errors.New("the kernel is packed with xz: install xz-utils (or xz)")

// packers lists the formats of scripts/Makefile.lib that a bzImage may have.
var packers = []struct {
	magic  string
	name   string
	unpack func(packed []byte, size int) ([]byte, error)
}{
	{"\x02\x21\x4c\x18", "lz4", lz4},
	{"\xfd7zXZ\x00", "xz", xzCommand},
	{"\x28\xb5\x2f\xfd", "zstd", unzstd},
	{"\x1f\x8b", "gzip", gunzip},
	{"BZh", "bzip2", func(p []byte, size int) ([]byte, error) {
		return readSize(bzip2.NewReader(bytes.NewReader(p)), size)
	}},
	{"\x5d\x00\x00", "lzma", func(p []byte, size int) ([]byte, error) {
		r, err := lzma.NewReader(bytes.NewReader(p))
		if err != nil {
			return nil, err
		}
		return readSize(r, size)
	}},
}

// unpack returns what is in a payload. Its last four bytes hold the unpacked size:
// kbuild appends it to every format but gzip, which ends so by itself.
func unpack(packed []byte) ([]byte, error) {
	if len(packed) < 8 {
		return nil, errors.New("unpacking the kernel: the payload is cut off")
	}
	size := int64(binary.LittleEndian.Uint32(packed[len(packed)-4:]))
	if isELF(packed) {
		return packed, nil
	}
	for _, p := range packers {
		if !bytes.HasPrefix(packed, []byte(p.magic)) {
			continue
		}
		if size > maxFile {
			return nil, fmt.Errorf("unpacking the kernel (%s): %d bytes are more than the limit of %d", p.name, size, maxFile)
		}
		if p.name != "gzip" {
			packed = packed[:len(packed)-4]
		}
		out, err := p.unpack(packed, int(size))
		if err != nil {
			return nil, fmt.Errorf("unpacking the kernel (%s): %w", p.name, err)
		}
		if len(out) != int(size) {
			return nil, fmt.Errorf("unpacking the kernel (%s): got %d bytes, the payload promises %d", p.name, len(out), size)
		}
		if !isELF(out) {
			return nil, fmt.Errorf("unpacking the kernel (%s): the result is not an ELF file", p.name)
		}
		return out, nil
	}
	return nil, fmt.Errorf("unpacking the kernel: unknown packing, starts with % x", packed[:6])
}

// readSize reads at most size bytes and one more, by which the caller sees that
// there were too many. It does not trust size with memory before the data is there.
func readSize(r io.Reader, size int) ([]byte, error) {
	var b bytes.Buffer
	b.Grow(min(size, 64<<20) + bytes.MinRead)
	_, err := b.ReadFrom(io.LimitReader(r, int64(size)+1))
	return b.Bytes(), err
}

func gunzip(p []byte, size int) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(p))
	if err != nil {
		return nil, err
	}
	r.Multistream(false)
	return readSize(r, size)
}

func unzstd(p []byte, size int) ([]byte, error) {
	// kernels are packed with a window of 128 MiB (zstd --ultra -22)
	r, err := zstd.NewReader(bytes.NewReader(p), zstd.WithDecoderMaxWindow(128<<20), zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return readSize(r, size)
}

func xzCommand(p []byte, size int) ([]byte, error) {
	path, err := exec.LookPath("xz")
	if err != nil {
		return nil, ErrNoXZ
	}
	cmd := exec.Command(path, "-dc", "--single-stream", "--memlimit-decompress=1GiB")
	cmd.Stdin = bytes.NewReader(p)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	b, err := readSize(out, size)
	out.Close() // ends an xz that has more to say than the payload promises
	if werr := cmd.Wait(); err == nil && werr != nil {
		err = fmt.Errorf("running xz: %w: %s", werr, bytes.TrimSpace(stderr.Bytes()))
	}
	return b, err
}
