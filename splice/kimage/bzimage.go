// SPDX-License-Identifier: Apache-2.0

package kimage

import (
	"encoding/binary"
	"fmt"
	"io"
)

// The setup header of a bzImage: Documentation/x86/boot.rst. Offsets count from
// the start of the file.
const (
	offSetupSects    = 0x1f1
	offHeaderMagic   = 0x202
	offProtocol      = 0x206
	offPayloadOffset = 0x248 // from the start of the protected-mode code
	offPayloadLength = 0x24c
	setupHeaderEnd   = 0x250
	sectorSize       = 512
	protocolPayload  = 0x0208 // the first boot protocol with a payload
)

// maxFile bounds what is read of a vmlinuz and what one is unpacked to, in bytes.
const maxFile = 512 << 20

func isELF(head []byte) bool { return len(head) >= 4 && string(head[:4]) == "\x7fELF" }

// payload returns the bytes of vmlinux: the file itself if it is an ELF file, else
// the unpacked payload of the bzImage.
func payload(r io.ReaderAt, size int64) ([]byte, error) {
	if size < setupHeaderEnd || size > maxFile {
		return nil, fmt.Errorf("reading kernel image: %d bytes is no plausible size", size)
	}
	head := make([]byte, setupHeaderEnd)
	if _, err := r.ReadAt(head, 0); err != nil {
		return nil, fmt.Errorf("reading kernel image: setup header: %w", err)
	}
	if isELF(head) {
		return readRange(r, 0, size)
	}
	off, n, err := payloadRange(head, size)
	if err != nil {
		return nil, err
	}
	packed, err := readRange(r, off, n)
	if err != nil {
		return nil, err
	}
	return unpack(packed)
}

// payloadRange finds the compressed kernel in a bzImage of size bytes.
func payloadRange(head []byte, size int64) (off, n int64, err error) {
	if len(head) < setupHeaderEnd || string(head[offHeaderMagic:offHeaderMagic+4]) != "HdrS" {
		return 0, 0, fmt.Errorf("reading kernel image: neither a bzImage nor an ELF file")
	}
	if v := binary.LittleEndian.Uint16(head[offProtocol:]); v < protocolPayload {
		return 0, 0, fmt.Errorf("reading kernel image: boot protocol %d.%02d names no payload, 2.08 is needed", v>>8, v&0xff)
	}
	sects := int64(head[offSetupSects])
	if sects == 0 {
		sects = 4
	}
	off = (sects+1)*sectorSize + int64(binary.LittleEndian.Uint32(head[offPayloadOffset:]))
	n = int64(binary.LittleEndian.Uint32(head[offPayloadLength:]))
	if n < 8 || off+n > size {
		return 0, 0, fmt.Errorf("reading kernel image: the payload, %d bytes at %#x, is not inside the file of %d bytes", n, off, size)
	}
	return off, n, nil
}

func readRange(r io.ReaderAt, off, n int64) ([]byte, error) {
	b := make([]byte, n)
	if m, err := r.ReadAt(b, off); err != nil && (err != io.EOF || int64(m) < n) {
		return nil, fmt.Errorf("reading kernel image: %d bytes at %#x: %w", n, off, err)
	}
	return b, nil
}
