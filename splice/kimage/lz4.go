// SPDX-License-Identifier: Apache-2.0

package kimage

import (
	"encoding/binary"
	"errors"
)

var errLZ4 = errors.New("the data is damaged")

// lz4Block is the most that one block of the legacy frame unpacks to.
const lz4Block = 8 << 20

// lz4 unpacks the legacy frame that kernels are packed with: a magic number, then
// blocks, each with its packed size before it (lz4_Frame_format.md, "Legacy
// frame"; lz4_Block_format.md).
func lz4(p []byte, size int) ([]byte, error) {
	p = p[4:]
	// a block of n bytes unpacks to less than 255n: size is not to be believed alone
	out := make([]byte, 0, min(size, 255*len(p)))
	for len(p) > 0 {
		if len(p) < 4 {
			return nil, errLZ4
		}
		n := binary.LittleEndian.Uint32(p)
		p = p[4:]
		if uint64(n) > uint64(len(p)) {
			return nil, errLZ4
		}
		var err error
		if out, err = lz4Decode(out, p[:n], min(len(out)+lz4Block, size)); err != nil {
			return nil, err
		}
		p = p[n:]
	}
	return out, nil
}

// lz4Decode appends the contents of one block to out, up to limit bytes in all.
// Matches do not reach back into earlier blocks.
func lz4Decode(out, p []byte, limit int) ([]byte, error) {
	start := len(out)
	for i := 0; ; {
		if i >= len(p) {
			return nil, errLZ4
		}
		token := p[i]
		i++
		lit, next, ok := lz4Length(p, i, int(token>>4))
		if !ok || lit > len(p)-next || lit > limit-len(out) {
			return nil, errLZ4
		}
		out = append(out, p[next:next+lit]...)
		i = next + lit
		if i == len(p) { // the last sequence has literals only
			return out, nil
		}
		if len(p)-i < 2 {
			return nil, errLZ4
		}
		dist := int(binary.LittleEndian.Uint16(p[i:]))
		n, next, ok := lz4Length(p, i+2, int(token&15))
		n += 4
		if !ok || dist == 0 || dist > len(out)-start || n > limit-len(out) {
			return nil, errLZ4
		}
		i = next
		for n > 0 { // the match may overlap what it makes
			m := min(n, dist)
			from := len(out) - dist
			out = append(out, out[from:from+m]...)
			n -= m
		}
	}
}

// lz4Length reads the bytes that follow a length of 15.
func lz4Length(p []byte, i, n int) (length, next int, ok bool) {
	if n < 15 {
		return n, i, true
	}
	for i < len(p) {
		b := p[i]
		i++
		n += int(b)
		if b != 255 {
			return n, i, true
		}
	}
	return 0, 0, false
}
