// SPDX-License-Identifier: Apache-2.0

// Package archive decompresses streams without being told how they were
// compressed: the format is recognised by its first bytes (RFC 1952 for gzip,
// RFC 8878 for zstd, the .xz file format 1.2.0 for xz; anything else passes
// through unchanged). Sizes are limited, because the bytes come from a network.
package archive

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// Format of a stream.
type Format string

// The formats that are recognised. Plain is everything else.
const (
	Plain Format = "plain"
	Gzip  Format = "gzip"
	Xz    Format = "xz"
	Zstd  Format = "zstd"
)

// Limits that apply where Options leaves them zero.
const (
	DefaultMaxBytes  = 8 << 30   // of decompressed data; a kernel source tree has 1.5 GB
	DefaultMaxWindow = 128 << 20 // of dictionary; `xz -9` uses 64 MiB, `zstd --long` 128 MiB
)

// Decompressor turns a compressed stream into a plain one. Its Close must be
// possible before the end was read, and must report what the reader could not.
type Decompressor func(io.Reader) (io.ReadCloser, error)

// Options of NewReader.
type Options struct {
	MaxBytes  int64 // decompressed bytes, 0: DefaultMaxBytes
	MaxWindow int64 // bytes of dictionary, 0: DefaultMaxWindow

	// External replaces the built-in decompressor of a format, for callers that
	// may run processes: the xz command is several times faster. The limits
	// are checked all the same, so far as they can be seen from outside.
	External map[Format]Decompressor
}

// LimitError says that a stream is larger than it may be.
type LimitError struct {
	What  string // "decompressed size", "dictionary size"
	Limit int64  // bytes
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("%s is above the limit of %d bytes", e.What, e.Limit)
}

// FormatError says that a stream is damaged or cut short. Unwrap gives the
// decompressor's reason, io.ErrUnexpectedEOF where the stream ends too early.
type FormatError struct {
	Format Format
	Err    error
}

func (e *FormatError) Error() string { return fmt.Sprintf("decompressing %s: %v", e.Format, e.Err) }

func (e *FormatError) Unwrap() error { return e.Err }

// Reader gives the decompressed bytes.
type Reader struct {
	Format Format

	inner  io.ReadCloser
	left   int64
	limit  int64
	window int64
}

// Detect names the format of a stream that starts with head. Six bytes are enough.
func Detect(head []byte) Format {
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		return Gzip
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return Zstd
	case bytes.HasPrefix(head, xzMagic):
		return Xz
	}
	return Plain
}

// NewReader recognises the format of r and returns a reader of its content. An
// empty r is an empty plain stream. Errors: *FormatError, *LimitError, and those of r.
func NewReader(r io.Reader, opt Options) (*Reader, error) {
	if opt.MaxBytes <= 0 {
		opt.MaxBytes = DefaultMaxBytes
	}
	if opt.MaxWindow <= 0 {
		opt.MaxWindow = DefaultMaxWindow
	}
	br := bufio.NewReaderSize(r, 64<<10)
	head, err := br.Peek(len(xzMagic))
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	a := &Reader{Format: Detect(head), left: opt.MaxBytes, limit: opt.MaxBytes, window: opt.MaxWindow}
	if a.Format == Xz {
		// Also before an external command: the header is cheap to read here.
		if err := checkXzWindow(br, opt.MaxWindow); err != nil {
			return nil, err
		}
	}
	if ext := opt.External[a.Format]; ext != nil {
		a.inner, err = ext(br)
	} else {
		a.inner, err = builtin(a.Format, br, opt.MaxWindow)
	}
	if err != nil {
		return nil, a.wrap(err)
	}
	return a, nil
}

func builtin(f Format, br *bufio.Reader, window int64) (io.ReadCloser, error) {
	switch f {
	case Gzip:
		return gzip.NewReader(br)
	case Xz:
		return newXz(br)
	case Zstd:
		d, err := zstd.NewReader(br, zstd.WithDecoderConcurrency(1),
			zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(uint64(window)))
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	}
	return io.NopCloser(br), nil
}

// Read implements io.Reader.
func (a *Reader) Read(p []byte) (int, error) {
	// One byte more than is left tells a stream of exactly the limit from a longer one.
	if int64(len(p)) > a.left+1 {
		p = p[:a.left+1]
	}
	n, err := a.inner.Read(p)
	if int64(n) > a.left {
		n = int(a.left)
		a.left = 0
		return n, &LimitError{What: "decompressed size", Limit: a.limit}
	}
	a.left -= int64(n)
	if err != nil && err != io.EOF {
		err = a.wrap(err)
	}
	return n, err
}

// Close releases the decompressor; it does not close the reader below.
func (a *Reader) Close() error {
	if err := a.inner.Close(); err != nil {
		return a.wrap(err)
	}
	return nil
}

func (a *Reader) wrap(err error) error {
	var limit *LimitError
	var format *FormatError
	switch {
	case errors.As(err, &limit), errors.As(err, &format), a.Format == Plain:
		return err
	case errors.Is(err, zstd.ErrWindowSizeExceeded), errors.Is(err, zstd.ErrDecoderSizeExceeded):
		return &LimitError{What: "dictionary size", Limit: a.window}
	case err == io.EOF:
		err = io.ErrUnexpectedEOF // a header that is cut short is no empty stream
	}
	return &FormatError{Format: a.Format, Err: err}
}
