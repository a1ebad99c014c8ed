// SPDX-License-Identifier: Apache-2.0

package livecheck

import "bytes"

// longNops are the recommended NOPs of the processor manuals, without prefixes.
var longNops = [][]byte{
	{0x90},
	{0x0f, 0x1f, 0x00},
	{0x0f, 0x1f, 0x40, 0x00},
	{0x0f, 0x1f, 0x44, 0x00, 0x00},
	{0x0f, 0x1f, 0x80, 0x00, 0x00, 0x00, 0x00},
	{0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00},
}

// nopLen returns the length of the NOP that b starts with, 0 if there is none.
func nopLen(b []byte) int {
	prefixes := 0
	for prefixes < len(b) && prefixes < 3 && (b[prefixes] == 0x66 || b[prefixes] == 0x2e) {
		prefixes++
	}
	for _, n := range longNops {
		if bytes.HasPrefix(b[prefixes:], n) {
			return prefixes + len(n)
		}
	}
	return jumpedOver(b)
}

// jumpedOver returns the length of a short jump and the int3 that it jumps over,
// which newer kernels put where one NOP is not enough.
func jumpedOver(b []byte) int {
	if len(b) < 2 || b[0] != opJmp8 || b[1] == 0 || b[1] > 0x7f || len(b) < 2+int(b[1]) {
		return 0
	}
	n := 2 + int(b[1])
	for _, c := range b[2:n] {
		if c != int3 {
			return 0
		}
	}
	return n
}

// sameNops returns the length of the longest run of NOPs that a and b both start
// with and that ends in both at the same place, 0 if there is none.
func sameNops(a, b []byte) int {
	both, na, nb := 0, 0, 0
	for {
		var n int
		if na <= nb {
			if n = nopLen(a[na:]); n == 0 {
				return both
			}
			na += n
		} else {
			if n = nopLen(b[nb:]); n == 0 {
				return both
			}
			nb += n
		}
		if na == nb {
			both = na
		}
	}
}

// equalCode compares code of equal length, taking NOPs of different forms for equal.
func equalCode(a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i := 0; i < len(a); {
		// NOPs first: long ones of different lengths may start with the same bytes.
		if n := sameNops(a[i:], b[i:]); n > 0 {
			i += n
		} else if a[i] == b[i] {
			i++
		} else {
			return false
		}
	}
	return true
}
