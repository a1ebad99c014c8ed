// SPDX-License-Identifier: Apache-2.0

package livecheck

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"testing/fstest"
)

// Where the loader has put the sections of the module in the tests.
const (
	modText = 0xffffffffc0301000
	modData = 0xffffffffc0305000
	modCold = 0xffffffffc0303000
	modFn   = modText + 0x40
)

func sysfs(changes map[string]string) fstest.MapFS {
	note := "\x04\x00\x00\x00\x04\x00\x00\x00\x03\x00\x00\x00GNU\x00\x01\x02\x03\x04"
	files := map[string]string{
		"sys/module/toy/initstate":                "live\n",
		"sys/module/toy/notes/.note.gnu.build-id": note,
		"sys/module/toy/sections/.text":           "0xffffffffc0301000\n",
		"sys/module/toy/sections/.data":           "0xffffffffc0305000\n",
		"sys/module/toy/sections/.text.unlikely":  "0xffffffffc0303000\n",
		"sys/module/builtin/parameters/x":         "1\n",
	}
	root := fstest.MapFS{}
	for name, text := range files {
		root[name] = &fstest.MapFile{Data: []byte(text)}
	}
	for name, text := range changes {
		root["sys/module/toy/"+name] = &fstest.MapFile{Data: []byte(text)}
	}
	return root
}

// toy is a function with a field of every kind that modules have: a traced entry, a
// call of another module, a static call, a jump label to the cold part, an
// alternative with a call of the kernel, an address, a pointer, and a return.
func toy(t *testing.T) (image, memory []byte, e Expectation) {
	var fields []Field
	var img, mem []byte
	add := func(image, have string, fs ...Field) {
		for _, f := range fs {
			f.Off += len(img)
			fields = append(fields, f)
		}
		img = append(img, code(t, image)...)
		if have == "" {
			have = image
		}
		mem = append(mem, code(t, have)...)
	}
	kernel := func(name string, addend int64) *Ref { return &Ref{Object: vmlinux, Symbol: name, Addend: addend} }
	at := func() uint64 { return modFn + uint64(len(img)) }
	call := func(op byte, to uint64) string {
		b := branchTo(op, at(), to)
		return hexOf(b)
	}
	pc := func(ref *Ref) Field { return Field{Off: 1, Len: 4, Kind: KindRefPC32, Ref: ref} }
	// 11223344: whatever the made-up link left in the image
	add("e811223344", "0f1f440000", pc(kernel("__fentry__", -4)), Field{Len: 5, Kind: KindMcount})
	add("53", "")
	add("e811223344", call(opCall, 0xffffffffc0400010), pc(&Ref{Object: "provider", Symbol: "give", Addend: -4}))
	add("e811223344", call(opCall, symbols["some_function"][0]), pc(kernel("__SCT__tramp", -4)),
		Field{Len: 5, Kind: KindStaticCall, Ref: &Ref{Object: "toy", Section: ".data", Offset: 8}})
	add("0f1f440000", call(opJmp, modCold+4), Field{Len: 5, Kind: KindJumpLabel, Ref: &Ref{Object: "toy", Section: ".text.unlikely", Offset: 4}})
	add("9090909090", call(opCall, symbols["other_function"][0]), Field{Len: 5, Kind: KindAlternative, Alts: [][]byte{code(t, "e855667788")},
		AltFields: []AltField{{Off: 1, Kind: KindRefPC32, Ref: kernel("other_function", -4)}}})
	add("48c7c711223344", "48c7c7"+hexOf(binary.LittleEndian.AppendUint32(nil, uint32(modData&0xffffffff)+0x10)),
		Field{Off: 3, Len: 4, Kind: KindRef32, Ref: &Ref{Object: "toy", Section: ".data", Offset: 0x10}})
	add("48b81122334455667788", "48b8"+hexOf(words(symbols["f"][1]+2)),
		Field{Off: 2, Len: 8, Kind: KindRef64, Ref: &Ref{Object: vmlinux, Symbol: "f", Sympos: 2, Addend: 2}})
	add("5b", "")
	add("e911223344", "c3cccccccc", pc(kernel("__x86_return_thunk", -4)), Field{Len: 5, Kind: KindReturn})
	return img, mem, Expectation{Object: "toy", Section: ".text", Name: "toy_fn", Sympos: 1, Addr: 0x40, Bytes: img, Fields: fields}
}

func hexOf(b []byte) string { return hex.EncodeToString(b) }

func toyKernel(mem []byte) Kernel {
	k := testKernel(nil, 0)
	k.Text = memory{modFn: mem, modData: words(0, symbols["some_function"][0])}
	k.InModule = func(module, name string) []uint64 {
		return map[string][]uint64{"toy toy_fn": {modFn}, "provider give": {0xffffffffc0400010}}[module+" "+name]
	}
	return k
}

func TestModules(t *testing.T) {
	_, mem, e := toy(t)
	mods := []Module{{Name: "toy", BuildID: "01020304", Expect: []Expectation{e}}}
	if skipped, err := CheckModules(toyKernel(mem), sysfs(nil), append(mods, Module{Name: "absent"}, Module{Name: "builtin"})); err != nil || strings.Join(skipped, " ") != "absent builtin" {
		t.Fatalf("skipped %v, %v", skipped, err)
	}
	// Every other byte, anywhere, is refused.
	for i := range mem {
		bad := bytes.Clone(mem)
		bad[i] ^= 0x20
		_, err := CheckModules(toyKernel(bad), sysfs(nil), mods)
		var m *Mismatch
		if !errors.As(err, &m) || m.Function != "toy:toy_fn" {
			t.Errorf("byte %d: %v", i, err)
		}
	}
	if err := Check(toyKernel(mem), mods[0].Expect); err == nil {
		t.Error("Check accepts a function of a module, of which it knows nothing")
	}
}

func TestModulesRefused(t *testing.T) {
	_, mem, _ := toy(t)
	for name, c := range map[string]struct {
		root   map[string]string
		change func(*Expectation)
		id     string
		reason string
	}{
		"another build":     {id: "01020305", reason: "another build"},
		"on its way":        {root: map[string]string{"initstate": "coming\n"}, reason: "it is coming"},
		"hidden":            {root: map[string]string{"sections/.text": "0x0000000000000000\n"}, reason: "kptr_restrict"},
		"nonsense":          {root: map[string]string{"sections/.text": "here\n"}, reason: "said to be at"},
		"elsewhere":         {root: map[string]string{"sections/.text": "0xffffffffc0302000\n"}, reason: "is expected"},
		"no build id":       {root: map[string]string{"notes/.note.gnu.build-id": ""}, reason: "build id"},
		"no such section":   {change: func(e *Expectation) { e.Section = ".nothing" }, reason: ".nothing"},
		"a path":            {change: func(e *Expectation) { e.Section = "../../../etc" }, reason: "cannot exist"},
		"another module's":  {change: func(e *Expectation) { e.Object = "provider" }, reason: "is expected in"},
		"a slide":           {change: func(e *Expectation) { e.Fields[0].Kind = KindAbs32 }, reason: "broken"},
		"nobody's symbol":   {change: func(e *Expectation) { e.Fields[0].Ref = &Ref{Symbol: "x"} }, reason: "a reference to"},
		"no symbol":         {change: func(e *Expectation) { e.Fields[0].Ref = &Ref{Object: vmlinux, Symbol: "x"} }, reason: "0 symbols x"},
		"ambiguous":         {change: func(e *Expectation) { e.Fields[0].Ref = &Ref{Object: vmlinux, Symbol: "f"} }, reason: "2 symbols f"},
		"too far":           {change: func(e *Expectation) { e.Fields[0].Ref.Addend = 1 << 40 }, reason: "does not fit"},
		"no reference":      {change: func(e *Expectation) { e.Fields[0].Ref = nil }, reason: "a field of kind"},
		"another size":      {change: func(e *Expectation) { e.Fields[0].Kind = KindRef64 }, reason: "a field of kind"},
		"none of this name": {change: func(e *Expectation) { e.Name = "other" }, reason: "0 symbols of this name"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, e := toy(t)
			if c.change != nil {
				c.change(&e)
			}
			m := Module{Name: "toy", BuildID: "01020304", Expect: []Expectation{e}}
			if c.id != "" {
				m.BuildID = c.id
			}
			if _, err := CheckModules(toyKernel(mem), sysfs(c.root), []Module{m}); err == nil || !strings.Contains(err.Error(), c.reason) {
				t.Errorf("%v, expected %q", err, c.reason)
			}
		})
	}
	var build *BuildError
	if _, err := CheckModules(toyKernel(mem), sysfs(nil), []Module{{Name: "toy", BuildID: "ff"}}); !errors.As(err, &build) || build.Have != "01020304" {
		t.Errorf("another build: %v", err)
	}
	if _, err := CheckModules(toyKernel(mem), sysfs(nil), []Module{{Name: "../toy"}}); err == nil {
		t.Error("a path is taken for a module")
	}
}

// FuzzCheckModules: whatever an expectation says, only its fields may differ.
func FuzzCheckModules(f *testing.F) {
	f.Add([]byte{0xe8, 1, 2, 3, 4}, []byte{0xe8, 0, 0, 0, 0}, 1, 4, KindRefPC32, "__fentry__", "", 0, uint64(0), int64(-4))
	f.Add([]byte{0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8}, make([]byte, 10), 2, 8, KindRef64, "", ".data", 0, uint64(8), int64(0))
	f.Add([]byte{0x90, 0x90, 0x90, 0x90, 0x90}, make([]byte, 5), 0, 5, KindJumpLabel, "f", "", 2, uint64(0), int64(1))
	f.Fuzz(func(t *testing.T, orig, have []byte, off, n int, kind, symbol, section string, sympos int, offset uint64, addend int64) {
		ref := &Ref{Object: "toy", Symbol: symbol, Section: section, Sympos: sympos, Offset: offset, Addend: addend}
		if section == "" {
			ref.Object = vmlinux
		}
		field := Field{Off: off, Len: n, Kind: kind, Ref: ref, Alts: [][]byte{orig}, AltFields: []AltField{{Off: off, Kind: KindRef32, Ref: ref}}}
		e := Expectation{Object: "toy", Section: ".text", Name: "toy_fn", Sympos: 1, Addr: 0x40, Bytes: orig, Fields: []Field{field}}
		_, err := CheckModules(toyKernel(have), sysfs(nil), []Module{{Name: "toy", BuildID: "01020304", Expect: []Expectation{e}}})
		for i := range orig {
			if err == nil && i < len(have) && orig[i] != have[i] && (i < off || i >= off+n) {
				t.Fatalf("byte %d differs outside of the field and was accepted", i)
			}
		}
	})
}
