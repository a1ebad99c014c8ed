// SPDX-License-Identifier: Apache-2.0

package kimage

import (
	"encoding/binary"
	"slices"
	"strings"
)

// thunks are the places that the kernel may let returns and indirect branches go
// through, by link address.
type thunks struct {
	returns  []uint64
	register map[uint64]int   // thunk to register number: rax 0, r15 15
	of       map[int][]uint64 // register to all its thunks
}

// registers in the order of their numbers in instructions.
var registers = []string{"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
	"r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"}

// readThunks finds the thunks by name: __x86_return_thunk, srso_return_thunk,
// its_return_thunk; __x86_indirect_thunk_rax, __x86_indirect_its_thunk_rax.
func (im *Image) readThunks() thunks {
	t := thunks{register: map[uint64]int{}, of: map[int][]uint64{}}
	for _, s := range im.Symbols {
		if s.Kind != 'T' && s.Kind != 't' || !im.inText(s.Addr) {
			continue
		}
		if strings.HasSuffix(s.Name, "_return_thunk") && s.Kind == 'T' {
			t.returns = append(t.returns, s.Addr)
		}
		if rest, ok := strings.CutPrefix(s.Name, "__x86_indirect_"); ok {
			_, reg, _ := strings.Cut(rest, "thunk_")
			if n := slices.Index(registers, reg); n >= 0 {
				t.register[s.Addr] = n
				t.of[n] = append(t.of[n], s.Addr)
			}
		}
	}
	return t
}

// forms returns the contents that the kernel may give a return or retpoline site,
// other than that of the image and calls of thunks that it makes at run time.
func (im *Image) forms(s Site) [][]byte {
	orig := im.at(s.Addr, s.Len)
	if orig == nil {
		return nil
	}
	var out [][]byte
	switch s.Kind {
	case SiteReturn:
		out = im.returnForms(s, orig)
	case SiteRetpoline:
		out = im.retpolineForms(s, orig)
	}
	return slices.DeleteFunc(out, func(b []byte) bool { return slices.Equal(b, orig) })
}

// returnForms: a plain ret with int3 behind it, or a jmp to one of the thunks.
func (im *Image) returnForms(s Site, orig []byte) [][]byte {
	if s.Target == 0 {
		return nil
	}
	out := [][]byte{fill([]byte{0xc3}, s.Len, 0xcc)}
	for _, to := range im.thunks().returns {
		out = append(out, branchTo(orig, s.Addr, to))
	}
	return out
}

// retpolineForms: the indirect branch itself, after an lfence where there is room,
// or a call of another thunk for the same register.
func (im *Image) retpolineForms(s Site, orig []byte) [][]byte {
	t := im.thunks()
	reg, ok := t.register[s.Target]
	if !ok {
		return nil
	}
	var out [][]byte
	for _, to := range t.of[reg] {
		out = append(out, branchTo(orig, s.Addr, to))
	}
	op := orig[len(orig)-5]
	var head []byte
	jump := op == 0xe9
	if op&0xf0 == 0x80 && orig[len(orig)-6] == 0x0f { // jcc: the inverse condition jumps over the branch
		head = []byte{0x70 | op&0xf ^ 1, byte(s.Len - 2)}
		jump = true
	}
	for _, fence := range [][]byte{nil, {0x0f, 0xae, 0xe8}} {
		b := slices.Concat(head, fence, indirect(jump, reg))
		if len(b) > s.Len {
			continue
		}
		if jump && len(b) < s.Len {
			b = append(b, 0xcc)
		}
		out = append(out, im.pad(b, s.Len)...)
	}
	return out
}

// indirect encodes call *%reg or jmp *%reg.
func indirect(jump bool, reg int) []byte {
	modrm := byte(0xd0)
	if jump {
		modrm = 0xe0
	}
	b := []byte{0xff, modrm | byte(reg&7)}
	if reg >= 8 {
		b = append([]byte{0x41}, b...)
	}
	return b
}

// branchTo is the direct branch orig at addr, its last four bytes changed to lead to another place.
func branchTo(orig []byte, addr, to uint64) []byte {
	b := slices.Clone(orig)
	binary.LittleEndian.PutUint32(b[len(b)-4:], uint32(to-addr-uint64(len(b))))
	return b
}

func fill(b []byte, n int, with byte) []byte {
	for len(b) < n {
		b = append(b, with)
	}
	return b
}
