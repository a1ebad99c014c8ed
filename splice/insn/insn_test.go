// SPDX-License-Identifier: Apache-2.0

package insn

import (
	"bufio"
	"encoding/hex"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestDecode(t *testing.T) {
	for _, tt := range []struct {
		code, what string
		length     int
		target     int64 // 0: not relative
		ends       bool
	}{
		{"c3", "ret", 1, 0, true},
		{"f30f1efa", "endbr64", 4, 0, false},
		{"e800000000", "call", 5, 5, false},
		{"e9fbffffff", "jmp to itself", 5, 0, true},
		{"ebfe", "jmp short", 2, 0, true},
		{"0f8500010000", "jne", 6, 0x106, false},
		{"488d0510000000", "lea 0x10(%rip)", 7, 0x17, false},
		{"833d0000000007", "cmpl $7,0(%rip)", 7, 7, false},
		{"c705000000002a000000", "movl $42,0(%rip)", 10, 10, false},
		{"66c705000000002a00", "movw $42,0(%rip)", 9, 9, false},
		{"48c7050000000001000000", "movq $1,0(%rip)", 11, 11, false},
		{"f6050000000001", "testb $1,0(%rip)", 7, 7, false},
		{"f7150000000090", "notl 0(%rip)", 6, 6, false},
		{"f0480fba2d0000000005", "lock btsq $5,0(%rip)", 10, 10, false},
		{"48b88877665544332211", "movabs", 10, 0, false},
		{"65488b042500000000", "mov %gs:0,%rax", 9, 0, false},
		{"0f0b", "ud2", 2, 0, true},
		{"67480fb9 00", "ud1", 5, 0, false},
		{"ffe0", "jmp *%rax", 2, 0, true},
		{"ffd0", "call *%rax", 2, 0, false},
		{"c5f877", "vzeroupper", 3, 0, false},
		{"c4e3fd00c04e", "vpermq", 6, 0, false},
	} {
		code, err := hex.DecodeString(strings.ReplaceAll(tt.code, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		in, err := Decode(append(code, 0x90, 0x90))
		if err != nil {
			t.Errorf("%s: %v", tt.what, err)
			continue
		}
		if in.Len != tt.length || in.Ends() != tt.ends || in.Relative && in.Target != tt.target || !in.Relative && tt.target != 0 {
			t.Errorf("%s: %+v, ends %v", tt.what, in, in.Ends())
		}
		for n := range code[:in.Len] {
			if cut, err := Decode(code[:n]); err == nil {
				t.Errorf("%s cut to %d bytes decodes as %+v", tt.what, n, cut)
			}
		}
	}
	for _, s := range []string{"", "06", "0f04", "62", "c4e0", "4806", "666666666666666666666666666666c3"} {
		code, _ := hex.DecodeString(s)
		if in, err := Decode(code); err == nil {
			t.Errorf("%q decodes as %+v", s, in)
		}
	}
}

func TestBranch(t *testing.T) {
	for code, want := range map[string]bool{
		"e800000000": true, "e900000000": true, "eb00": true, "7405": true, "0f8400000000": true, "66e900000000": true, "e300": true,
		"c3": false, "488d0500000000": false, "ff1500000000": false, "90": false, "0f05": false, "6a00": false, "0f90c0": false,
	} {
		b, err := hex.DecodeString(code)
		if err != nil {
			t.Fatal(err)
		}
		in, err := Decode(b)
		if err != nil || in.Branch() != want {
			t.Errorf("%s: branch %v, error %v", code, in.Branch(), err)
		}
	}
}

// TestAgainstObjdump compares lengths with binutils over the instructions of the
// C library, which has everything up to AVX-512.
func TestAgainstObjdump(t *testing.T) {
	libs, err := filepath.Glob("/usr/lib/x86_64-linux-gnu/libc.so.6")
	if err != nil || len(libs) == 0 {
		libs = []string{"/proc/self/exe"}
	}
	cmd := exec.Command("objdump", "-d", "--insn-width=16", libs[0])
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	sc := bufio.NewScanner(out)
	n, wrong := 0, 0
	for sc.Scan() {
		cols := strings.Split(sc.Text(), "\t")
		if len(cols) < 3 || strings.Contains(cols[2], "(bad)") {
			continue
		}
		code, err := hex.DecodeString(strings.ReplaceAll(cols[1], " ", ""))
		// objdump shows lone prefixes and fwait as lines of their own
		if err != nil || cols[2] == "fwait" || len(code) == 1 && strings.HasPrefix(cols[2], "rex") || len(code) == 0 {
			continue
		}
		n++
		in, err := Decode(append(code, make([]byte, 8)...))
		if err != nil || in.Len != len(code) {
			if wrong++; wrong < 10 {
				t.Errorf("%s: length %d, error %v", sc.Text(), in.Len, err)
			}
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if n < 10000 {
		t.Errorf("only %d instructions compared", n)
	}
	if wrong > 0 {
		t.Errorf("%d of %d lengths differ", wrong, n)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte{0x48, 0x8d, 0x05, 1, 2, 3, 4})
	f.Add([]byte{0xc4, 0xe3, 0xfd, 0x00, 0xc0, 0x4e})
	f.Fuzz(func(t *testing.T, code []byte) {
		in, err := Decode(code)
		if err != nil {
			return
		}
		if in.Len < 1 || in.Len > MaxLen || in.Len > len(code) || in.FieldOff+in.FieldLen > in.Len ||
			in.DispOff+in.DispLen > in.Len || in.ImmOff+in.ImmLen > in.Len {
			t.Errorf("%x: %+v", code, in)
		}
	})
}
