// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/ulikunitz/xz"
	"github.com/ulikunitz/xz/lzma"
)

var xzMagic = []byte{0xfd, '7', 'z', 'X', 'Z', 0}

const (
	xzStreamHeader = 12
	xzFooter       = 12
	xzMaxHeader    = 1024 // of a block
	xzLzma2        = 0x21 // filter id
)

// checkXzWindow reads the dictionary size from the first block's header without
// consuming it: the library allocates what the header asks for, up to 4 GiB.
// Later blocks may differ, but no known writer makes them so, and their memory is
// touched only as far as data is really written.
func checkXzWindow(br *bufio.Reader, limit int64) error {
	head, err := br.Peek(xzStreamHeader + 1)
	if err != nil {
		return &FormatError{Format: Xz, Err: io.ErrUnexpectedEOF}
	}
	size := head[xzStreamHeader]
	if size == 0 { // the index follows: no block, no data
		return nil
	}
	head, err = br.Peek(xzStreamHeader + (int(size)+1)*4)
	if err != nil {
		return &FormatError{Format: Xz, Err: io.ErrUnexpectedEOF}
	}
	dict, err := xzBlockDict(head[xzStreamHeader:])
	if err != nil {
		return &FormatError{Format: Xz, Err: err}
	}
	if dict > limit {
		return &LimitError{What: "dictionary size", Limit: limit}
	}
	return nil
}

// xzBlockDict returns the dictionary size in bytes that a block header asks for.
func xzBlockDict(h []byte) (int64, error) {
	if len(h) < 8 || len(h) > xzMaxHeader {
		return 0, errors.New("xz block header has an impossible size")
	}
	flags := h[1]
	r := bytes.NewReader(h[2 : len(h)-4])
	sizes := 0
	if flags&0x40 != 0 {
		sizes++
	}
	if flags&0x80 != 0 {
		sizes++
	}
	for range sizes {
		if _, err := binary.ReadUvarint(r); err != nil {
			return 0, fmt.Errorf("reading an xz block header: %w", err)
		}
	}
	for range int(flags&3) + 1 {
		id, err1 := binary.ReadUvarint(r)
		n, err2 := binary.ReadUvarint(r)
		if err := errors.Join(err1, err2); err != nil {
			return 0, fmt.Errorf("reading an xz block header: %w", err)
		}
		props := make([]byte, min(n, xzMaxHeader))
		if _, err := io.ReadFull(r, props); err != nil {
			return 0, fmt.Errorf("reading an xz block header: %w", err)
		}
		if id == xzLzma2 && len(props) == 1 {
			return lzma.DecodeDictCap(props[0])
		}
	}
	return 0, errors.New("xz block uses no LZMA2 filter")
}

// newXz wraps the library with the check that the stream is whole: it takes an
// end of file between two blocks for the end of the stream.
func newXz(r io.Reader) (io.ReadCloser, error) {
	t := &xzTail{r: r}
	x, err := xz.NewReader(t)
	if err != nil {
		return nil, err
	}
	return io.NopCloser(x), nil
}

// xzTail lets an end of file pass only after a valid stream footer. Stream
// padding, which no distribution writes, is refused with it.
type xzTail struct {
	r    io.Reader
	tail [xzFooter]byte
	n    int64
}

func (t *xzTail) Read(p []byte) (int, error) {
	n, err := t.r.Read(p)
	got := p[:n]
	if n >= xzFooter {
		copy(t.tail[:], got[n-xzFooter:])
	} else {
		copy(t.tail[:], t.tail[n:])
		copy(t.tail[xzFooter-n:], got)
	}
	t.n += int64(n)
	if err == io.EOF && !t.whole() {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func (t *xzTail) whole() bool {
	return t.n >= xzStreamHeader+xzFooter && t.tail[10] == 'Y' && t.tail[11] == 'Z' &&
		binary.LittleEndian.Uint32(t.tail[:4]) == crc32.ChecksumIEEE(t.tail[4:10])
}
