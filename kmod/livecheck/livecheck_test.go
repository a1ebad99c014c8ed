// SPDX-License-Identifier: Apache-2.0

package livecheck

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/upsplice/upsplice/kmod/kallsyms"
)

const (
	slide = 0x1a000000
	fnAt  = 0xffffffff81200000 // link address of the function in the tests
	live  = fnAt + slide
	start = 0xffffffff81000000 + slide
	end   = 0xffffffff82000000 + slide
)

// memory is a sparse address space.
type memory map[uint64][]byte

func (m memory) ReadAt(p []byte, off int64) (int, error) {
	addr := uint64(off)
	for base, b := range m {
		if addr >= base && addr < base+uint64(len(b)) {
			n := copy(p, b[addr-base:])
			if n < len(p) {
				return n, io.EOF
			}
			return n, nil
		}
	}
	return 0, errors.New("unmapped")
}

func code(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func rel(op byte, off int, target uint64) string {
	return hex.EncodeToString(branchTo(op, live+uint64(off), target))
}

// The live addresses of the symbols in the tests.
var symbols = map[string][]uint64{
	"_stext": {start}, "_etext": {end},
	"f":                        {start + 0x10, live},
	"__fentry__":               {start + 0x1000},
	"ftrace_regs_caller":       {start + 0x2000},
	"ftrace_caller":            {start + 0x2100},
	"__x86_return_thunk":       {start + 0x3000},
	"srso_alias_return_thunk":  {start + 0x3100},
	"its_return_thunk":         {start + 0x3200},
	"__x86_indirect_thunk_rax": {start + 0x4000},
	"__x86_indirect_thunk_r9":  {start + 0x4020},
	"__static_call_return0":    {start + 0x5000},
	"_paravirt_nop":            {start + 0x6000},
	"paravirt_BUG":             {start + 0x6100},
	"native_op":                {start + 0x6200},
	"some_function":            {start + 0x7000},
	"other_function":           {start + 0x7100},
	"__SCT__tramp":             {start + 0x8000},
	"skl_call_thunk_template":  {start + 0x9000},
	"skl_call_thunk_tail":      {start + 0x9009},
}

const (
	key      = 0xffffffff82400000 // link addresses of data
	slotFn   = 0xffffffff82500000
	slotNop  = 0xffffffff82500008
	slotNull = 0xffffffff82500010
	itsPage  = 0xffffffffc0100020 // live
)

func words(vals ...uint64) []byte {
	var b []byte
	for _, v := range vals {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return b
}

func slot(off int, link uint64) string {
	return "ff15" + hex.EncodeToString(binary.LittleEndian.AppendUint32(nil, uint32(link+slide-(live+uint64(off))-6)))
}

type siteCase struct {
	name string
	kind string
	orig string // of the image; a site at offset 2, after two other bytes
	have string
	key  uint64   // what the static call key holds
	alts []string // of an alternative
	to   uint64   // field's target
	bad  bool
}

func TestForms(t *testing.T) {
	sym := func(name string) uint64 { return symbols[name][0] }
	ret := rel(opJmp, at, sym("__x86_return_thunk"))
	fentry := rel(opCall, at, sym("__fentry__"))
	tramp := rel(opCall, at, sym("__SCT__tramp"))
	tail := rel(opJmp, at, sym("__SCT__tramp"))
	jcc := "0f84" + rel(0, at+1, sym("__SCT__tramp"))[2:]
	callRAX := rel(opCall, at, sym("__x86_indirect_thunk_rax"))
	jmpR9 := rel(opJmp, at, sym("__x86_indirect_thunk_r9"))
	csCallRAX := "2e" + rel(opCall, at+1, sym("__x86_indirect_thunk_rax"))
	const target = fnAt + 0x40
	for _, c := range []siteCase{
		{name: "call as compiled", kind: KindMcount, orig: fentry, have: fentry},
		{name: "off", kind: KindMcount, orig: fentry, have: "0f1f440000"},
		{name: "traced", kind: KindMcount, orig: fentry, have: rel(opCall, at, sym("ftrace_regs_caller"))},
		{name: "own trampoline", kind: KindMcount, orig: fentry, have: rel(opCall, at, 0xffffffffc0200000)},
		{name: "call of something else", kind: KindMcount, orig: fentry, have: rel(opCall, at, sym("some_function")), bad: true},
		{name: "jump", kind: KindMcount, orig: fentry, have: rel(opJmp, at, sym("ftrace_caller")), bad: true},
		{name: "other nop", kind: KindMcount, orig: fentry, have: "9090909090", bad: true},
		{name: "breakpoint", kind: KindMcount, orig: fentry, have: "cc1f440000", bad: true},

		{name: "as compiled", kind: KindReturn, orig: ret, have: ret},
		{name: "plain", kind: KindReturn, orig: ret, have: "c3cccccccc"},
		{name: "srso", kind: KindReturn, orig: ret, have: rel(opJmp, at, sym("srso_alias_return_thunk"))},
		{name: "its", kind: KindReturn, orig: ret, have: rel(opJmp, at, sym("its_return_thunk"))},
		{name: "jump elsewhere", kind: KindReturn, orig: ret, have: rel(opJmp, at, sym("some_function")), bad: true},
		{name: "nothing after the return", kind: KindReturn, orig: ret, have: "c390909090", bad: true},

		{name: "trampoline", kind: KindStaticCall, orig: tramp, have: tramp, to: key},
		{name: "function of the key", kind: KindStaticCall, orig: tramp, key: sym("some_function"), have: rel(opCall, at, sym("some_function")), to: key | 1},
		{name: "other function", kind: KindStaticCall, orig: tramp, key: sym("some_function"), have: rel(opCall, at, sym("other_function")), to: key, bad: true},
		{name: "none", kind: KindStaticCall, orig: tramp, have: "0f1f440000", to: key},
		{name: "none, but the key has one", kind: KindStaticCall, orig: tramp, key: sym("some_function"), have: "0f1f440000", to: key, bad: true},
		{name: "return 0", kind: KindStaticCall, orig: tramp, key: sym("__static_call_return0"), have: "2e2e2e31c0", to: key},
		{name: "return 0, newer", kind: KindStaticCall, orig: tramp, key: sym("__static_call_return0"), have: "66664831c0", to: key},
		{name: "return 0, counted", kind: KindStaticCall, orig: tramp, key: sym("__static_call_return0"), have: rel(opCall, at, sym("__static_call_return0")-9), to: key},
		{name: "return 0, called at a wrong place", kind: KindStaticCall, orig: tramp, key: sym("__static_call_return0"), have: rel(opCall, at, sym("__static_call_return0")-8), to: key, bad: true},
		{name: "return 0 of another", kind: KindStaticCall, orig: tramp, key: sym("some_function"), have: "2e2e2e31c0", to: key, bad: true},
		{name: "tail", kind: KindStaticCall, orig: tail, key: sym("some_function"), have: rel(opJmp, at, sym("some_function")), to: key},
		{name: "tail became call", kind: KindStaticCall, orig: tail, key: sym("some_function"), have: rel(opCall, at, sym("some_function")), to: key, bad: true},
		{name: "tail, none", kind: KindStaticCall, orig: tail, have: "c3cccccccc", to: key},
		{name: "tail, none, thunk", kind: KindStaticCall, orig: tail, have: ret, to: key},
		{name: "conditional", kind: KindStaticCall, orig: jcc, key: sym("some_function"), have: "0f84" + rel(0, at+1, sym("some_function"))[2:], to: key},
		{name: "conditional, none", kind: KindStaticCall, orig: jcc, have: "0f84" + rel(0, at+1, sym("__x86_return_thunk"))[2:], to: key},
		{name: "other condition", kind: KindStaticCall, orig: jcc, key: sym("some_function"), have: "0f85" + rel(0, at+1, sym("some_function"))[2:], to: key, bad: true},
		{name: "unreadable key", kind: KindStaticCall, orig: tramp, have: "0f1f440000", to: 0xffffffff82f00000, bad: true},

		{name: "short nop", kind: KindJumpLabel, orig: "6690", have: "6690", to: target},
		{name: "short jump", kind: KindJumpLabel, orig: "6690", have: "eb3c", to: target},
		{name: "short jump elsewhere", kind: KindJumpLabel, orig: "6690", have: "eb3d", to: target, bad: true},
		{name: "long jump off", kind: KindJumpLabel, orig: rel(opJmp, at, target+slide), have: "0f1f440000", to: target},
		{name: "long jump on", kind: KindJumpLabel, orig: "0f1f440000", have: rel(opJmp, at, target+slide), to: target},
		{name: "long jump to the wrong place", kind: KindJumpLabel, orig: "0f1f440000", have: rel(opJmp, at, target+slide+1), to: target, bad: true},

		{name: "thunk", kind: KindRetpoline, orig: callRAX, have: callRAX},
		{name: "call, two-byte and one-byte nop", kind: KindRetpoline, orig: callRAX, have: "ffd00f1f00"},
		{name: "call, plain nops", kind: KindRetpoline, orig: callRAX, have: "ffd0909090"},
		{name: "call through another register", kind: KindRetpoline, orig: callRAX, have: "ffd10f1f00", bad: true},
		{name: "call became jump", kind: KindRetpoline, orig: callRAX, have: "ffe0cc9090", bad: true},
		{name: "fence", kind: KindRetpoline, orig: callRAX, have: "0faee8ffd0"},
		{name: "jump through r9", kind: KindRetpoline, orig: jmpR9, have: "41ffe1cc90"},
		{name: "jump through r9 without int3", kind: KindRetpoline, orig: jmpR9, have: "41ffe19090", bad: true},
		{name: "prefixed", kind: KindRetpoline, orig: csCallRAX, have: "ffd00f1f4000"},
		{name: "prefixed, as compiled", kind: KindRetpoline, orig: csCallRAX, have: csCallRAX},
		{name: "its thunk", kind: KindRetpoline, orig: callRAX, have: rel(opCall, at, itsPage)},
		{name: "its thunk of another register", kind: KindRetpoline, orig: jmpR9, have: rel(opJmp, at, itsPage), bad: true},
		{name: "call of a function", kind: KindRetpoline, orig: callRAX, have: rel(opCall, at, sym("some_function")), bad: true},

		{name: "locked", kind: KindSMPLock, orig: "f0", have: "f0"},
		{name: "one cpu", kind: KindSMPLock, orig: "f0", have: "3e"},
		{name: "nop", kind: KindSMPLock, orig: "f0", have: "90", bad: true},

		{name: "slot", kind: KindParavirt, orig: slot(at, slotFn), have: slot(at, slotFn)},
		{name: "direct call", kind: KindParavirt, orig: slot(at, slotFn), have: rel(opCall, at, sym("native_op")) + "90"},
		{name: "wrong direct call", kind: KindParavirt, orig: slot(at, slotFn), have: rel(opCall, at, sym("some_function")) + "90", bad: true},
		{name: "nothing to do", kind: KindParavirt, orig: slot(at, slotNop), have: "660f1f440000"},
		{name: "nops for a function", kind: KindParavirt, orig: slot(at, slotFn), have: "660f1f440000", bad: true},
		{name: "no function", kind: KindParavirt, orig: slot(at, slotNull), have: rel(opCall, at, sym("paravirt_BUG")) + "90"},

		{name: "original", kind: KindAlternative, orig: "0f01ca909090", alts: []string{"fa4889c89090"}, have: "0f01ca909090"},
		{name: "original, nops joined", kind: KindAlternative, orig: "0f01ca909090", alts: []string{"fa4889c89090"}, have: "0f01ca0f1f00"},
		{name: "replaced", kind: KindAlternative, orig: "0f01ca909090", alts: []string{"90", "fa4889c89090"}, have: "fa4889c86690"},
		{name: "nops of equal start", kind: KindAlternative, orig: "0f1f00909090", have: "660f1f440000"},
		{name: "unknown", kind: KindAlternative, orig: "0f01ca909090", alts: []string{"fa4889c89090"}, have: "fb4889c86690", bad: true},
		{name: "jump shortened", kind: KindAlternative, orig: "909090909090", alts: []string{rel(opJmp, at, live+0x40) + "90"}, have: "eb3c0f1f4000"},
		{name: "jump shortened elsewhere", kind: KindAlternative, orig: "909090909090", alts: []string{rel(opJmp, at, live+0x40) + "90"}, have: "eb3d0f1f4000", bad: true},
		{name: "return in a replacement", kind: KindAlternative, orig: "909090909090", alts: []string{ret + "90"}, have: "c3cccccccc90"},
	} {
		c.run(t)
	}
}

const at = 2

// run checks a function with the one site.
func (c siteCase) run(t *testing.T) {
	t.Run(c.kind+"/"+c.name, func(t *testing.T) {
		orig, have := code(t, c.orig), code(t, c.have)
		wrap := func(b []byte) []byte { return append(append([]byte{0x53, 0x55}, b...), 0x5d, 0x5b) }
		f := Field{Off: at, Len: len(orig), Kind: c.kind, Target: c.to}
		for _, a := range c.alts {
			f.Alts = append(f.Alts, code(t, a))
		}
		// Branches are relative, so that the image has the same bytes.
		exp := []Expectation{{Name: "f", Sympos: 2, Addr: fnAt, Bytes: wrap(orig), Fields: []Field{f}}}
		k := testKernel(wrap(have), c.key)
		err := Check(k, exp)
		if (err != nil) != c.bad {
			t.Fatalf("Check = %v", err)
		}
		var m *Mismatch
		if c.bad && (!errors.As(err, &m) || m.Offset != at || !bytes.Equal(m.Have, have) || !strings.Contains(err.Error(), c.kind)) {
			t.Errorf("mismatch %+v", m)
		}
		// The same bytes where nothing is announced are a mismatch.
		exp[0].Fields = nil
		if err := Check(k, exp); (err == nil) != bytes.Equal(orig, have) {
			t.Errorf("without the field: %v", err)
		}
	})
}

func testKernel(function []byte, held uint64) Kernel {
	return Kernel{
		Text: memory{
			live:           function,
			key + slide:    words(held),
			slotFn + slide: words(symbols["native_op"][0], symbols["_paravirt_nop"][0], 0),
			itsPage:        {0xff, 0xe0, 0xcc},
		},
		Slide: slide, TextStart: start, TextEnd: end,
		Symbols: func(name string) []uint64 { return symbols[name] },
	}
}

// TestOverlap: an alternative whose original is a paravirt call, with a lock in it.
func TestOverlap(t *testing.T) {
	orig := code(t, slot(0, slotFn)+"f09090")
	alt := code(t, "fa9090909090909090")
	fields := []Field{
		{Off: 6, Len: 1, Kind: KindSMPLock},
		{Off: 0, Len: 6, Kind: KindParavirt},
		{Off: 0, Len: 9, Kind: KindAlternative, Alts: [][]byte{alt}},
	}
	call := rel(opCall, 0, symbols["native_op"][0])
	for have, good := range map[string]bool{
		"fa0f1f840000000000":       true, // the replacement
		call + "90f06690":          true, // paravirt, the alternative not applied
		call + "903e6690":          true, // and one CPU
		slot(0, slotFn) + "f09090": true,
		slot(0, slotFn) + "3e9090": true,
		call + "90f06691":          false,
		"fa0f1f840000000001":       false,
	} {
		exp := []Expectation{{Name: "f", Sympos: 2, Addr: fnAt, Bytes: orig, Fields: fields}}
		if err := Check(testKernel(code(t, have), 0), exp); (err == nil) != good {
			t.Errorf("%s: %v", have, err)
		}
	}
	// NOPs of the call and of the padding are joined.
	orig = code(t, slot(0, slotFn)+"9090")
	exp := []Expectation{{Name: "f", Sympos: 2, Addr: fnAt, Bytes: orig, Fields: []Field{
		{Off: 0, Len: 8, Kind: KindAlternative, Alts: [][]byte{code(t, "fa90909090909090")}}, {Off: 0, Len: 6, Kind: KindParavirt}}}}
	if err := Check(testKernel(code(t, call+"0f1f00"), 0), exp); err != nil {
		t.Error(err)
	}
}

func TestSlide(t *testing.T) {
	image := code(t, "48c7c7 00004082 48b8 0000408100000000 658b05 10000000")
	binary.LittleEndian.PutUint64(image[9:], 0xffffffff82400000)
	moved := bytes.Clone(image)
	le := binary.LittleEndian
	le.PutUint32(moved[3:], 0x82400000+slide)
	le.PutUint64(moved[9:], 0xffffffff82400000+slide)
	var fixed int32 = 0x10 - slide
	le.PutUint32(moved[20:], uint32(fixed))
	exp := []Expectation{{Name: "f", Sympos: 2, Addr: fnAt, Bytes: image, Fields: []Field{
		{Off: 3, Len: 4, Kind: KindAbs32}, {Off: 9, Len: 8, Kind: KindAbs64}, {Off: 20, Len: 4, Kind: KindRel32Fixed}}}}
	if err := Check(testKernel(moved, 0), exp); err != nil {
		t.Error(err)
	}
	var m *Mismatch
	if err := Check(testKernel(image, 0), exp); !errors.As(err, &m) || m.Offset != 6 {
		t.Errorf("not moved: %v", err)
	}
}

func table(t *testing.T, lines ...string) *kallsyms.Table {
	tab, err := kallsyms.Parse(strings.NewReader(strings.Join(lines, "\n") + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	return tab
}

func TestPlace(t *testing.T) {
	exp := []Expectation{{Name: "f", Sympos: 2, Addr: 0xffffffff81200000, Bytes: []byte{0xc3}}}
	text := []string{"ffffffff9b000000 T _stext", "ffffffff9c000000 T _etext", "ffffffff9b100000 t f"}
	mem := memory{0xffffffff9b200000: {0xc3}}
	k, err := NewKernel(table(t, append(text, "ffffffff9b200000 t f")...), mem, exp)
	if err != nil || k.Slide != slide || k.TextStart != 0xffffffff9b000000 || k.TextEnd != 0xffffffff9c000000 {
		t.Fatalf("NewKernel = %+v, %v", k, err)
	}
	if err := Check(k, exp); err != nil {
		t.Error(err)
	}
	if err := Check(k, append(exp, Expectation{Name: "f", Sympos: 1, Addr: 0xffffffff81200000, Bytes: []byte{0xc3}})); err == nil {
		t.Error("a function at another address was accepted")
	}
	for name, lines := range map[string][]string{
		"too few of the name": text,
		"odd distance":        append(text, "ffffffff9b200010 t f"),
		"no text":             {"ffffffff9b200000 t f", "ffffffff9b200000 t f"},
	} {
		if _, err := NewKernel(table(t, lines...), mem, exp); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	var m *Mismatch
	k.Text = memory{}
	if err := Check(k, exp); !errors.As(err, &m) || m.Err == nil || m.Offset != -1 {
		t.Errorf("unreadable: %v", err)
	}
}

func TestBrokenExpectations(t *testing.T) {
	for _, f := range []Field{
		{Off: -1, Len: 1, Kind: KindReturn}, {Off: 0, Len: 0, Kind: KindReturn}, {Off: 3, Len: 2, Kind: KindReturn},
		{Off: 1 << 62, Len: 1 << 62, Kind: KindReturn}, {Off: 0, Len: 3, Kind: KindAbs32}, {Off: 0, Len: 1, Kind: "something"},
	} {
		exp := []Expectation{{Name: "f", Sympos: 2, Addr: fnAt, Bytes: []byte{0x90, 0x90, 0x90, 0x90}, Fields: []Field{f}}}
		if err := Check(testKernel(exp[0].Bytes, 0), exp); err == nil || !strings.Contains(err.Error(), "broken") {
			t.Errorf("%+v: %v", f, err)
		}
	}
	if err := Check(testKernel(nil, 0), []Expectation{{Name: "f", Sympos: 2, Addr: fnAt}}); err == nil {
		t.Error("an empty function was accepted")
	}
}

// FuzzCheck: an expectation comes out of a file that somebody else may have made.
func FuzzCheck(f *testing.F) {
	f.Add([]byte{0xe8, 1, 2, 3, 4}, []byte{0x0f, 0x1f, 0x44, 0, 0}, 0, 5, "mcount", uint64(key), []byte{0x90})
	f.Add([]byte{0xff, 0x15, 2, 3, 4, 5}, []byte{0xe8, 0x1f, 0x44, 0, 0, 0x90}, 0, 6, "paravirt", uint64(0), []byte{0x90})
	f.Add([]byte{0x2e, 0xe8, 2, 3, 4, 5}, []byte{0xff, 0xd0, 0x44, 0, 0, 0x90}, 0, 6, "retpoline", uint64(0), []byte{0x90})
	f.Add([]byte{0xe9, 2, 3, 4, 5}, []byte{0xeb, 0xd0, 0x44, 0, 0}, 0, 5, "alternative", uint64(0), []byte{0xe9, 1, 2, 3, 4})
	f.Fuzz(func(t *testing.T, orig, have []byte, off, n int, kind string, target uint64, alt []byte) {
		exp := []Expectation{{Name: "f", Sympos: 2, Addr: fnAt, Bytes: orig, Fields: []Field{{Off: off, Len: n, Kind: kind, Target: target, Alts: [][]byte{alt}}, {Off: 0, Len: n / 2, Kind: "alternative"}}}}
		err := Check(testKernel(have, target), exp)
		if err == nil && len(have) >= len(orig) {
			// Whatever is accepted differs only inside the fields.
			for i := range orig {
				if orig[i] != have[i] && (i < off || i >= off+n) && i >= n/2 {
					t.Fatalf("byte %d differs outside of the fields and was accepted", i)
				}
			}
		}
	})
}
