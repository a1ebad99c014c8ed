// SPDX-License-Identifier: Apache-2.0

// Package insn finds the boundaries and the address fields of x86-64
// instructions. It knows no mnemonics: what the engine needs is where an
// instruction ends, since a PC-relative field counts from there, and where a
// branch leads that the assembler has resolved without a relocation.
//
// Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume
// 2, chapter 2 (instruction format) and appendix A (opcode map).
package insn

import "errors"

// ErrInvalid is returned for bytes that are no instruction in 64-bit mode, or
// that end within one.
var ErrInvalid = errors.New("not an x86-64 instruction")

// MaxLen is the longest instruction in bytes.
const MaxLen = 15

// Inst is one instruction. Offsets count from its first byte.
type Inst struct {
	Len    int
	Opcode uint32 // with its escape bytes: 0x89, 0x0f84, 0x0f38f0, 0x0f3a0f
	ModRM  byte   // 0 if there is none

	DispOff, DispLen int // displacement; DispLen 0 if there is none
	ImmOff, ImmLen   int // immediates, branch displacements included

	// Target is the place, counted from the first byte, that a relative branch or
	// a RIP-relative operand means, if Relative.
	Target   int64
	Relative bool
	// FieldOff and FieldLen are the bytes that hold Target, if Relative.
	FieldOff, FieldLen int
}

// Ends says that execution never continues behind the instruction: ret, jmp, ud2, iret.
func (i Inst) Ends() bool {
	switch i.Opcode {
	case 0xc3, 0xc2, 0xcb, 0xca, 0xcf, 0xe9, 0xeb, 0x0f0b:
		return true
	case 0xff: // jmp r/m
		return i.ModRM>>3&7 == 4 || i.ModRM>>3&7 == 5
	}
	return false
}

// Branch says that the instruction is a call or a jump, conditional or not, to a
// place that it names: Target, or what a relocation says.
func (i Inst) Branch() bool {
	switch {
	case i.Opcode == 0xe8 || i.Opcode == 0xe9 || i.Opcode == 0xeb, i.Opcode >= 0xe0 && i.Opcode <= 0xe3:
		return true
	}
	return i.Opcode >= 0x70 && i.Opcode <= 0x7f || i.Opcode >= 0x0f80 && i.Opcode <= 0x0f8f
}

// what follows the opcode
const (
	modrm  = 1 << iota // ModRM byte, SIB and displacement as it says
	imm8               // 1 byte
	imm16              // 2 bytes
	immz               // 4 bytes, 2 with an operand size prefix
	rel8               // 1 byte, branch
	rel32              // 4 bytes, branch
	imm64              // as immz, 8 with REX.W
	moffs              // 8 bytes of address, 4 with an address size prefix
	group3             // immediate of imm8 or immz only for /0 and /1
	bad
)

type span struct {
	last uint8
	what int
}

// The maps list runs of opcodes, each up to and including last.
var oneByte = []span{
	{0x03, modrm}, {0x04, imm8}, {0x05, immz}, {0x07, bad},
	{0x0b, modrm}, {0x0c, imm8}, {0x0d, immz}, {0x0f, bad},
	{0x13, modrm}, {0x14, imm8}, {0x15, immz}, {0x17, bad},
	{0x1b, modrm}, {0x1c, imm8}, {0x1d, immz}, {0x1f, bad},
	{0x23, modrm}, {0x24, imm8}, {0x25, immz}, {0x27, bad},
	{0x2b, modrm}, {0x2c, imm8}, {0x2d, immz}, {0x2f, bad},
	{0x33, modrm}, {0x34, imm8}, {0x35, immz}, {0x37, bad},
	{0x3b, modrm}, {0x3c, imm8}, {0x3d, immz}, {0x4f, bad},
	{0x5f, 0}, {0x62, bad}, {0x63, modrm}, {0x67, bad},
	{0x68, immz}, {0x69, modrm | immz}, {0x6a, imm8}, {0x6b, modrm | imm8}, {0x6f, 0},
	{0x7f, rel8}, {0x80, modrm | imm8}, {0x81, modrm | immz}, {0x82, bad}, {0x83, modrm | imm8},
	{0x8f, modrm}, {0x99, 0}, {0x9a, bad}, {0x9f, 0}, {0xa3, moffs}, {0xa7, 0},
	{0xa8, imm8}, {0xa9, immz}, {0xaf, 0}, {0xb7, imm8}, {0xbf, imm64},
	{0xc1, modrm | imm8}, {0xc2, imm16}, {0xc3, 0}, {0xc5, bad}, {0xc6, modrm | imm8}, {0xc7, modrm | immz},
	{0xc8, imm16 | imm8}, {0xc9, 0}, {0xca, imm16}, {0xcc, 0}, {0xcd, imm8}, {0xce, bad}, {0xcf, 0},
	{0xd3, modrm}, {0xd6, bad}, {0xd7, 0}, {0xdf, modrm},
	{0xe3, rel8}, {0xe7, imm8}, {0xe9, rel32}, {0xea, bad}, {0xeb, rel8}, {0xef, 0},
	{0xf0, bad}, {0xf1, 0}, {0xf3, bad}, {0xf5, 0}, {0xf6, modrm | imm8 | group3}, {0xf7, modrm | immz | group3},
	{0xfd, 0}, {0xff, modrm},
}

var twoByte = []span{ // after 0f
	{0x03, modrm}, {0x04, bad}, {0x09, 0}, {0x0a, bad}, {0x0b, 0}, {0x0c, bad}, {0x0d, modrm}, {0x0e, 0}, {0x0f, modrm | imm8},
	{0x23, modrm}, {0x27, bad}, {0x2f, modrm}, {0x35, 0}, {0x36, bad}, {0x37, 0}, {0x3f, bad},
	{0x6f, modrm}, {0x73, modrm | imm8}, {0x76, modrm}, {0x77, 0}, {0x7f, modrm},
	{0x8f, rel32}, {0x9f, modrm}, {0xa2, 0}, {0xa3, modrm}, {0xa4, modrm | imm8}, {0xa5, modrm}, {0xa7, bad},
	{0xaa, 0}, {0xab, modrm}, {0xac, modrm | imm8}, {0xb9, modrm}, {0xba, modrm | imm8}, {0xc1, modrm},
	{0xc2, modrm | imm8}, {0xc3, modrm}, {0xc6, modrm | imm8}, {0xc7, modrm}, {0xcf, 0}, {0xff, modrm},
}

func lookup(m []span, op byte) int {
	for _, s := range m {
		if op <= s.last {
			return s.what
		}
	}
	return bad
}

// Decode decodes the instruction at the start of code.
func Decode(code []byte) (Inst, error) {
	if len(code) > MaxLen {
		code = code[:MaxLen]
	}
	d := decoder{code: code}
	if !d.decode() {
		return Inst{}, ErrInvalid
	}
	return d.in, nil
}

type decoder struct {
	code []byte
	pos  int
	in   Inst

	opsize, addrsize, rexW bool
}

func (d *decoder) next() (byte, bool) {
	if d.pos >= len(d.code) {
		return 0, false
	}
	d.pos++
	return d.code[d.pos-1], true
}

func (d *decoder) decode() bool {
	b, ok := d.next()
prefixes:
	for ; ok; b, ok = d.next() {
		switch b {
		case 0x66:
			d.opsize = true
		case 0x67:
			d.addrsize = true
		case 0xf0, 0xf2, 0xf3, 0x2e, 0x36, 0x3e, 0x26, 0x64, 0x65:
		default:
			break prefixes
		}
	}
	if ok && b&0xf0 == 0x40 {
		d.rexW = b&8 != 0
		b, ok = d.next()
	}
	if !ok {
		return false
	}
	what := 0
	switch b {
	case 0xc5, 0xc4, 0x62:
		what, ok = d.vector(b)
	case 0x0f:
		what, ok = d.escape()
	default:
		d.in.Opcode = uint32(b)
		what = lookup(oneByte, b)
	}
	return ok && what&bad == 0 && d.operands(what)
}

// escape reads the opcodes that start with 0f.
func (d *decoder) escape() (int, bool) {
	b, ok := d.next()
	switch b {
	case 0x38, 0x3a:
		op, ok := d.next()
		d.in.Opcode = 0x0f<<16 | uint32(b)<<8 | uint32(op)
		if b == 0x3a {
			return modrm | imm8, ok
		}
		return modrm, ok
	}
	d.in.Opcode = 0x0f<<8 | uint32(b)
	return lookup(twoByte, b), ok
}

// vector reads VEX and EVEX prefixes and the opcode behind.
func (d *decoder) vector(b byte) (int, bool) {
	opmap := byte(1)
	payload := map[byte]int{0xc5: 1, 0xc4: 2, 0x62: 3}[b]
	for i := range payload {
		p, ok := d.next()
		if !ok {
			return 0, false
		}
		if i == 0 && b == 0xc4 {
			opmap = p & 0x1f
		}
		if i == 0 && b == 0x62 {
			opmap = p & 7
		}
	}
	op, ok := d.next()
	switch opmap {
	case 1:
		d.in.Opcode = 0x0f<<8 | uint32(op)
		what := lookup(twoByte, op)
		if what&rel32 != 0 || what == 0 && op != 0x77 {
			// the opcode maps of vector instructions have ModRM everywhere else
			what = modrm
		}
		return what, ok
	case 2, 5, 6:
		d.in.Opcode = 0x0f38<<8 | uint32(op)
		return modrm, ok
	case 3:
		d.in.Opcode = 0x0f3a<<8 | uint32(op)
		return modrm | imm8, ok
	}
	return bad, false
}

func (d *decoder) operands(what int) bool {
	in := &d.in
	rip := false
	if what&modrm != 0 {
		m, ok := d.next()
		if !ok {
			return false
		}
		in.ModRM = m
		mod, rm := m>>6, m&7
		if in.Opcode >= 0x0f20 && in.Opcode <= 0x0f23 {
			mod = 3 // control and debug registers: the field is not looked at
		}
		base := rm
		if mod != 3 && rm == 4 {
			sib, ok := d.next()
			if !ok {
				return false
			}
			base = sib & 7
		}
		switch {
		case mod == 1:
			in.DispLen = 1
		case mod == 2, mod == 0 && base == 5:
			in.DispLen = 4
		}
		rip = mod == 0 && rm == 5
		in.DispOff = d.pos
		d.pos += in.DispLen
		if what&group3 != 0 && m>>3&7 > 1 {
			what &^= imm8 | immz
		}
	}
	in.ImmOff = d.pos
	in.ImmLen = d.immediate(what)
	d.pos += in.ImmLen
	in.Len = d.pos
	if d.pos > len(d.code) {
		return false
	}
	switch {
	case what&(rel8|rel32) != 0:
		in.Relative, in.FieldOff, in.FieldLen = true, in.ImmOff, in.ImmLen
	case rip:
		in.Relative, in.FieldOff, in.FieldLen = true, in.DispOff, in.DispLen
	}
	if in.Relative {
		in.Target = int64(in.Len) + signed(d.code[in.FieldOff:in.FieldOff+in.FieldLen])
	}
	return true
}

func (d *decoder) immediate(what int) int {
	n := 0
	if what&(imm8|rel8) != 0 {
		n++
	}
	if what&imm16 != 0 {
		n += 2
	}
	switch {
	case what&rel32 != 0:
		n += 4
	case what&moffs != 0 && d.addrsize:
		n += 4
	case what&moffs != 0, what&imm64 != 0 && d.rexW:
		n += 8
	case what&(immz|imm64) != 0 && d.opsize && !d.rexW:
		n += 2
	case what&(immz|imm64) != 0:
		n += 4
	}
	return n
}

func signed(b []byte) int64 {
	var v uint64
	for i := len(b) - 1; i >= 0; i-- {
		v = v<<8 | uint64(b[i])
	}
	shift := 64 - 8*len(b)
	return int64(v<<shift) >> shift
}
