// SPDX-License-Identifier: Apache-2.0

package deb

import (
	"fmt"
	"io"
	"strconv"
	"strings"
)

// The ar archive that a .deb is (deb(5), ar(5)): a magic line, then per member
// a header of 60 bytes and the content, padded to an even offset.
const (
	arMagic      = "!<arch>\n"
	arHeader     = 60
	arEnd        = "`\n"
	maxArMembers = 16 // a .deb has three; deb(5) lets some "_" members stand between
)

type arMember struct {
	name   string
	offset int64 // of the content
	size   int64
}

func readAr(r io.ReaderAt, size int64) ([]arMember, error) {
	magic := make([]byte, len(arMagic))
	if err := readAt(r, magic, 0, size); err != nil {
		return nil, &FormatError{Part: "archive", Err: err}
	}
	if string(magic) != arMagic {
		return nil, &FormatError{Part: "archive", Err: fmt.Errorf("starts with %q, not with %q", magic, arMagic)}
	}
	var members []arMember
	for at := int64(len(arMagic)); at < size; {
		if len(members) == maxArMembers {
			return nil, &FormatError{Part: "archive", Offset: at, Err: fmt.Errorf("more than %d members", maxArMembers)}
		}
		h := make([]byte, arHeader)
		if err := readAt(r, h, at, size); err != nil {
			return nil, &FormatError{Part: "archive member header", Offset: at, Err: err}
		}
		m, err := parseArHeader(h)
		if err != nil {
			return nil, &FormatError{Part: "archive member header", Offset: at, Err: err}
		}
		m.offset = at + arHeader
		if m.size > size-m.offset {
			return nil, &FormatError{Part: m.name, Offset: m.offset, Err: fmt.Errorf(
				"needs %d bytes, the file has %d: %w", m.size, size-m.offset, io.ErrUnexpectedEOF)}
		}
		members = append(members, m)
		at = m.offset + m.size + m.size&1
	}
	return members, nil
}

func parseArHeader(h []byte) (arMember, error) {
	if string(h[58:60]) != arEnd {
		return arMember{}, fmt.Errorf("ends with %q, not with %q", h[58:60], arEnd)
	}
	name := strings.TrimSuffix(strings.TrimRight(string(h[:16]), " "), "/")
	size, err := strconv.ParseUint(strings.TrimRight(string(h[48:58]), " "), 10, 40)
	if err != nil {
		return arMember{}, fmt.Errorf("size %q is no number", h[48:58])
	}
	return arMember{name: name, size: int64(size)}, nil
}

// readAt fills p or says that the file ends before.
func readAt(r io.ReaderAt, p []byte, off, size int64) error {
	if off+int64(len(p)) > size {
		return io.ErrUnexpectedEOF
	}
	n, err := r.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}
