// SPDX-License-Identifier: Apache-2.0

package objdiff

import (
	"debug/elf"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/upsplice/upsplice/splice/object"
)

// Symbols that all cover the whole of a section would cost memory by the square.
func TestOverlappingSymbols(t *testing.T) {
	sec := &object.Section{Name: ".data.x", Type: elf.SHT_PROGBITS, Flags: elf.SHF_ALLOC | elf.SHF_WRITE, Data: make([]byte, 1<<20), Size: 1 << 20}
	o := &object.Object{Machine: elf.EM_X86_64, Sections: []*object.Section{sec}}
	for i := range 1000 {
		o.Symbols = append(o.Symbols, &object.Symbol{Name: fmt.Sprint("v", i), Type: elf.STT_OBJECT, Section: sec, Value: uint64(i), Size: 1<<20 - uint64(i)})
	}
	if _, err := compareParts(o, o, nil); err == nil || !strings.Contains(err.Error(), "symbols overlap") {
		t.Errorf("error %v", err)
	}
}

// Nameless constants that refer to each other can be compared in more ways than
// there is time for, and without end.
func TestConstantsInCircles(t *testing.T) {
	unit := func(first string) *object.Object {
		src := ".section .rodata.circle,\"a\",@progbits\n.quad " + first + "\n"
		for i := range 300 {
			src += fmt.Sprintf(".quad .rodata.circle+%d\n", 8*(i*7%300))
		}
		return read(t, assemble(t, src+function("f", "movq $.rodata.circle+1600, %rax")+function("g", "movq $.rodata.circle+8, %rax")))
	}
	start := time.Now()
	for first, want := range map[string]Outcome{"1": Unchanged, "2": Changed} {
		r, err := compareParts(unit("1"), unit(first), nil)
		if err != nil {
			t.Fatal(err)
		}
		if r.Outcome != want {
			t.Errorf("first constant %s: outcome %s, want %s", first, r.Outcome, want)
		}
	}
	if d := time.Since(start); d > time.Minute {
		t.Errorf("took %v", d)
	}
}

// The kernel's types, where they are given, decide what an entry is.
func TestTypes(t *testing.T) {
	pre := compile(t, context+`int f(void) { ALTERNATIVE(7, "lfence"); return 1; }`)
	post := compile(t, context+`int f(void) { ALTERNATIVE(8, "lfence"); return 1; }`)
	good := map[string]Struct{
		"alt_instr":             {Size: 12, Members: map[string]int{"instr_offset": 0, "repl_offset": 4, "cpuid": 8, "instrlen": 10, "replacementlen": 11}},
		"bug_entry":             {Size: 12, Members: map[string]int{"bug_addr_disp": 0, "file_disp": 4, "line": 8, "flags": 10}},
		"exception_table_entry": {Size: 12},
	}
	r, err := CompareWith(pre, post, good)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Functions) != 1 || r.Functions[0].Name != "f" {
		t.Errorf("functions %+v", r.Functions)
	}
	for name, bad := range map[string]Struct{
		".altinstructions": {Size: 14, Members: good["alt_instr"].Members},
		"struct alt_instr": {Size: 12, Members: map[string]int{"cpuid": 8}},
		"less than":        {Size: 12, Members: map[string]int{"replacementlen": 12}},
	} {
		if _, err := CompareWith(pre, post, map[string]Struct{"alt_instr": bad}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%+v: error %v", bad, err)
		}
	}
	// a size that no kernel had so far
	odd := read(t, assemble(t, ".section .altinstructions,\"a\"\n.long 1f - ., 2f - .\n.zero 9\n.section .altinstr_replacement,\"ax\"\n2: nop\n"+function("f", "1: nop")))
	if _, err := compareParts(odd, odd, nil); err == nil || !strings.Contains(err.Error(), "17 bytes, a size that is not known") {
		t.Errorf("odd size: error %v", err)
	}
}
