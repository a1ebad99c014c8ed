// SPDX-License-Identifier: Apache-2.0

package livecheck

import (
	"encoding/hex"
	"testing"
)

func TestNewerForms(t *testing.T) {
	sym := func(name string) uint64 { return symbols[name][0] }
	some := sym("some_function")
	call, counted := rel(opCall, at, some), rel(opCall, at, some-9)
	tramp := rel(opCall, at, sym("__SCT__tramp"))
	value := func(v uint64) string { return hex.EncodeToString(words(v)) }
	const placeholder = "efcdab8967452301"
	for _, c := range []siteCase{
		{name: "kept", kind: KindEndbr, orig: "f30f1efa", have: "f30f1efa"},
		{name: "sealed", kind: KindEndbr, orig: "f30f1efa", have: "660f1f00"},
		{name: "sealed, newer", kind: KindEndbr, orig: "f30f1efa", have: "0f1f40d6"},
		{name: "other nop", kind: KindEndbr, orig: "f30f1efa", have: "0f1f4000", bad: true},

		{name: "as compiled", kind: KindCall, orig: call, have: call},
		{name: "counted", kind: KindCall, orig: call, have: counted},
		{name: "deeper in the padding", kind: KindCall, orig: call, have: rel(opCall, at, some-10), bad: true},
		{name: "jump", kind: KindCall, orig: call, have: rel(opJmp, at, some-9), bad: true},
		{name: "counted", kind: KindStaticCall, orig: tramp, key: some, have: counted, to: key},
		{name: "other function counted", kind: KindStaticCall, orig: tramp, key: some, have: rel(opCall, at, sym("other_function")-9), to: key, bad: true},
		{name: "counted", kind: KindParavirt, orig: slot(at, slotFn), have: rel(opCall, at, sym("native_op")-9) + "90"},
		{name: "call counted", kind: KindAlternative, orig: "909090909090", alts: []string{call + "90"}, have: counted + "90"},
		{name: "call of another counted", kind: KindAlternative, orig: "909090909090", alts: []string{call + "90"}, have: rel(opCall, at, some-8) + "90", bad: true},
		{name: "jump over int3", kind: KindAlternative, orig: "9090909090909090", alts: []string{"fa90909090909090"}, have: "faeb05cccccccccc"},
		{name: "jump over something else", kind: KindAlternative, orig: "9090909090909090", alts: []string{"fa90909090909090"}, have: "faeb05cccccccc90", bad: true},

		{name: "not written", kind: KindPtr, orig: placeholder, have: placeholder, key: 5, to: key},
		{name: "the variable's value", kind: KindPtr, orig: placeholder, have: value(0x7ffffffff000), key: 0x7ffffffff000, to: key},
		{name: "another value", kind: KindPtr, orig: placeholder, have: value(0x7ffffffff001), key: 0x7ffffffff000, to: key, bad: true},
		{name: "no variable", kind: KindPtr, orig: placeholder, have: value(0), bad: true},
		{name: "the variable's value", kind: KindShift, orig: "0c", have: "11", key: 0x11, to: key},
		{name: "another value", kind: KindShift, orig: "0c", have: "12", key: 0x11, to: key, bad: true},
	} {
		c.run(t)
	}
}

// TestMovedAlternative: a per-cpu field in a replacement shrinks by the slide.
func TestMovedAlternative(t *testing.T) {
	alt := code(t, "6548c7050010000001000000")
	f := Field{Len: 12, Kind: KindAlternative, Alts: [][]byte{alt}, AltFields: []AltField{{Alt: 0, Off: 4, Kind: KindRel32Fixed}}}
	exp := []Expectation{{Name: "f", Sympos: 2, Addr: fnAt, Bytes: code(t, "909090909090909090909090"), Fields: []Field{f}}}
	have := code(t, "6548c705000000e601000000") // 0x1000 - slide
	have[5] = 0x10
	if err := Check(testKernel(have, 0), exp); err != nil {
		t.Error(err)
	}
	if err := Check(testKernel(alt, 0), exp); err == nil {
		t.Error("a replacement that was not moved was accepted")
	}
	for _, bad := range []AltField{{Alt: 1, Off: 4, Kind: KindRel32Fixed}, {Alt: 0, Off: 9, Kind: KindRel32Fixed}, {Alt: 0, Off: -1, Kind: KindAbs32}, {Alt: 0, Off: 4, Kind: "?"}} {
		exp[0].Fields[0].AltFields = []AltField{bad}
		if err := Check(testKernel(have, 0), exp); err == nil {
			t.Errorf("%+v was accepted", bad)
		}
	}
}
