// SPDX-License-Identifier: Apache-2.0

package livepatch

import (
	"encoding/hex"
	"strings"
	"testing"
)

// Where a field is and how many bytes the instruction has from there; the bytes
// are what gcc and the kernel's headers write.
func TestFieldToEnd(t *testing.T) {
	tests := []struct {
		code string // the field is ........
		want uint64 // 0: not understood
	}{
		{"48 8b 05 ........", 4},          // mov x(%rip), %rax
		{"65 48 8b 05 ........", 4},       // mov %gs:x(%rip), %rax
		{"c6 05 ........ 01", 5},          // movb $1, x(%rip)
		{"80 3d ........ 00", 5},          // cmpb $0, x(%rip)
		{"83 05 ........ 01", 5},          // addl $1, x(%rip)
		{"66 81 3d ........ 34 12", 6},    // cmpw $0x1234, x(%rip)
		{"81 3d ........ 78 56 34 12", 8}, // cmpl $0x12345678, x(%rip)
		{"f0 ff 05 ........", 4},          // lock incl x(%rip)
		{"0f ba 2d ........ 07", 5},       // btsl $7, x(%rip)
		{"f3 0f 1e fa 90 48 8d 3d ........", 4},
		{"0f 01 ca 48 8b 05 ........", 4}, // clac first, which the decoder does not know
		{"e8 ........", 4},
		{"90 ........ 00 00", 0}, // no instruction has its field there
	}
	for _, tt := range tests {
		compact := strings.ReplaceAll(tt.code, " ", "")
		off := strings.Index(compact, "........") / 2
		code, err := hex.DecodeString(strings.ReplaceAll(compact, "........", "00000000"))
		if err != nil {
			t.Fatal(err)
		}
		got, ok := fieldToEnd(code, off)
		if got != tt.want || ok != (tt.want != 0) {
			t.Errorf("%s: %d bytes from the field to the end, %v, want %d", tt.code, got, ok, tt.want)
		}
	}
}

func TestDirectBranch(t *testing.T) {
	for code, want := range map[string]bool{
		"\xe8\x00\x00\x00\x00":         true,  // call
		"\xe9\x00\x00\x00\x00":         true,  // jmp
		"\x0f\x85\x00\x00\x00\x00":     true,  // jne
		"\x48\x8d\x3d\x00\x00\x00\x00": false, // lea x(%rip), %rdi
		"\x48\xc7\xc7\x00\x00\x00\x00": false, // mov $x, %rdi
		"\xff\x15\x00\x00\x00\x00":     false, // call *x(%rip)
		"\x00\x00\x00\x00":             false,
	} {
		if got := directBranch([]byte(code), uint64(len(code)-4)); got != want {
			t.Errorf("% x: direct branch is %v, want %v", code, got, want)
		}
	}
}
