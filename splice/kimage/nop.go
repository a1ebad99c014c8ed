// SPDX-License-Identifier: Apache-2.0

package kimage

import (
	"encoding/binary"
	"slices"

	"github.com/upsplice/upsplice/splice/insn"
)

// readNops returns the kernel's own NOPs, the one of n bytes at index n. The
// table x86_nops points into one run of bytes in which they lie one behind the
// other, shortest first; how many there are differs between versions.
func (im *Image) readNops() [][]byte {
	const longest = 15
	tab := im.lookup("x86_nops")
	if len(tab) != 1 {
		return nil
	}
	nops := [][]byte{nil}
	var first uint64
	for n := 1; n <= longest; n++ {
		b := im.at(tab[0].Addr+uint64(8*n), 8)
		if b == nil {
			break
		}
		p := binary.LittleEndian.Uint64(b)
		if n == 1 {
			first = p
		}
		nop := im.at(p, n)
		if nop == nil || p != first+uint64(n*(n-1)/2) {
			break
		}
		nops = append(nops, nop)
	}
	if len(nops) == 1 {
		return nil
	}
	return nops
}

// chain fills n bytes with NOPs, the longest first.
func (im *Image) chain(n int) []byte {
	var b []byte
	for n > 0 {
		m := min(n, len(im.nops)-1)
		b = append(b, im.nops[m]...)
		n -= m
	}
	return b
}

// run returns what n single-byte NOPs in a row may become: a chain of longer ones
// (until 6.3), or, where one is not enough, a short jmp over int3 (since).
func (im *Image) run(n int) [][]byte {
	out := [][]byte{im.chain(n)}
	if n >= len(im.nops) && n < 128 {
		out = append(out, fill([]byte{0xeb, byte(n - 2)}, n, 0xcc))
	}
	return out
}

// pad returns b with single-byte NOPs up to n bytes, as they are and optimised.
func (im *Image) pad(b []byte, n int) [][]byte {
	b = fill(slices.Clone(b), n, 0x90)
	return append(im.optimize(b), b)
}

// optimize returns what the kernel makes of code with runs of single-byte NOPs in
// it: two or more become longer ones. Code that cannot be decoded to its end stays
// as it is from there on.
func (im *Image) optimize(code []byte) [][]byte {
	states := [][]byte{slices.Clone(code)}
	for i := 0; i < len(code); {
		in, err := insn.Decode(code[i:])
		if err != nil {
			break
		}
		if in.Opcode != 0x90 || in.Len != 1 {
			i += in.Len
			continue
		}
		n := 1
		for i+n < len(code) && code[i+n] == 0x90 {
			n++
		}
		if n > 1 {
			var next [][]byte
			for _, s := range states {
				for _, r := range im.run(n) {
					next = append(next, slices.Concat(s[:i], r, s[i+n:]))
				}
			}
			states = next
		}
		i += n
	}
	return states
}
