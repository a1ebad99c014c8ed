// SPDX-License-Identifier: Apache-2.0

package livepatch

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/upsplice/upsplice/splice/object"
)

// ErrNoVermagic means that an object has no vermagic string: it is not a finished
// kernel module.
var ErrNoVermagic = errors.New("no vermagic in .modinfo: not a kernel module")

// Vermagic returns the vermagic string of an uncompressed kernel module of size
// bytes, as Input wants it. Any module that was shipped with a kernel has that
// kernel's.
func Vermagic(r io.ReaderAt, size int64) (string, error) {
	o, err := object.Read(r, size)
	if err != nil {
		return "", fmt.Errorf("reading vermagic: %w", err)
	}
	info := o.Section(modinfoSection)
	if info == nil {
		return "", fmt.Errorf("reading vermagic: %w", ErrNoVermagic)
	}
	for entry := range bytes.SplitSeq(info.Data, []byte{0}) {
		if magic, ok := bytes.CutPrefix(entry, []byte("vermagic=")); ok {
			return string(magic), nil
		}
	}
	return "", fmt.Errorf("reading vermagic: %w", ErrNoVermagic)
}
