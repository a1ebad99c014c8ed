// SPDX-License-Identifier: Apache-2.0

package livecheck

import (
	"bytes"
	"encoding/gob"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/upsplice/upsplice/kmod/lab"
	"github.com/upsplice/upsplice/kmod/vmtest"
	"github.com/upsplice/upsplice/splice/kimage"
)

// TestRealKernel compares every function of a shipped image with the memory of
// the kernel that boots from it, on machines that make it rewrite its text in
// different ways.
func TestRealKernel(t *testing.T) {
	liveCheck(t, lab.NeedNewest(t, lab.Image), machines)
}

// TestRealBackport does the same with a kernel of a newer series, which has other
// tables and writes other forms: on two of the machines, on all with make test-all.
func TestRealBackport(t *testing.T) {
	some := append(slices.Clone(machines), callDepth)
	if os.Getenv("UPSPLICE_MACHINES") != "all" {
		some = slices.DeleteFunc(some, func(m machine) bool { return m.name != "kaslr" && m.name != "its" })
	}
	liveCheck(t, lab.NeedBackport(t, lab.Cloud, lab.Image), some)
}

func liveCheck(t *testing.T, k lab.Kernel, machines []machine) {
	exp := expectations(t, k.Vmlinuz)
	if len(exp) < 20000 {
		t.Fatalf("only %d functions in the image", len(exp))
	}
	var buf bytes.Buffer
	if err := gob.NewEncoder(&buf).Encode(exp); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "expectations")
	if err := os.WriteFile(file, buf.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	files := map[string]string{"bin/checkprog": vmtest.BuildStatic(t, "./testdata/checkprog", false), "expectations": file}
	for _, c := range machines {
		t.Run(c.name, func(t *testing.T) {
			r := vmtest.RunInVM(t, k, "/bin/checkprog /expectations && cat /sys/devices/system/cpu/vulnerabilities/retbleed", files, func(m *vmtest.Machine) {
				m.CPUs, m.CPU, m.Append, m.MemoryMB = c.cpus, c.cpu, c.append, 1024
			})
			if err := r.Err(); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(r.Console, c.retbleed) {
				t.Errorf("the kernel does not say %q", c.retbleed)
			}
			want := fmt.Sprintf("checked %d functions, slide %v, 0 wrong, 0 blind", len(exp), !strings.Contains(c.append, "nokaslr"))
			if !strings.Contains(r.Console, want) {
				t.Errorf("%q expected:\n%s", want, strings.Join(report.FindAllString(r.Console, -1), "\n"))
			}
		})
	}
}

var report = regexp.MustCompile(`(?m)^(?:MISMATCH|BLIND|checked).*$`)

type machine struct {
	name, cpu, append string
	cpus              int
	retbleed          string // what the kernel says of its mitigation; "" for anything
}

var machines = []machine{
	{"kaslr", "", "", 2, ""},
	{"one cpu", "", "nokaslr", 1, ""},
	{"srso", "EPYC-Rome", "nokaslr", 2, ""},
	{"its", "Skylake-Server", "", 2, ""},
	{"no mitigations", "", "mitigations=off", 2, ""},
}

// minPadding is what call depth tracking needs before a function, in bytes.
const minPadding = 9

// callDepth makes kernels that can do so count their calls.
var callDepth = machine{"call depth", "Skylake-Server", "spectre_v2=retpoline retbleed=stuff", 2, "Mitigation: Stuffing"}

// expectations describes all functions in the text of the image.
func expectations(t *testing.T, vmlinuz string) []Expectation {
	img, err := kimage.OpenFile(vmlinuz)
	if err != nil {
		t.Fatal(err)
	}
	start, end := img.Lookup("_stext"), img.Lookup("_etext")
	if len(start) != 1 || len(end) != 1 {
		t.Fatal("the image has no _stext or _etext")
	}
	var exp []Expectation
	seen := map[uint64]bool{}
	for _, s := range img.Symbols {
		if s.Kind != 't' && s.Kind != 'T' || s.Addr < start[0].Addr || s.Addr >= end[0].Addr || seen[s.Addr] || strings.HasPrefix(s.Name, "__SCT__") || strings.HasPrefix(s.Name, "__pfx_") {
			continue // trampolines of static calls and the padding of functions change as a whole
		}
		seen[s.Addr] = true
		n := int(img.SymbolAfter(s.Addr) - s.Addr)
		// So does the padding of a function that no symbol names.
		if code := bytes.TrimRight(img.At(s.Addr, n), "\x90"); n-len(code) >= minPadding {
			used := len(code)
			for _, site := range img.SitesIn(s.Addr, n) {
				used = max(used, int(site.Addr-s.Addr)+site.Len)
			}
			for _, slid := range img.SlidIn(s.Addr, n) {
				used = max(used, int(slid.Addr-s.Addr)+slid.Kind.Len())
			}
			n = used
		}
		if n == 0 {
			continue
		}
		pos, _ := img.Sympos(s.Name, s.Addr)
		e := Expectation{Name: s.Name, Sympos: pos, Addr: s.Addr, Bytes: img.At(s.Addr, n)}
		for _, site := range img.SitesIn(s.Addr, n) {
			f := Field{Off: int(site.Addr - s.Addr), Len: site.Len, Kind: string(site.Kind), Target: site.Target, Alts: site.Alts}
			for alt, slid := range site.AltSlid {
				for _, part := range slid {
					f.AltFields = append(f.AltFields, AltField{Alt: alt, Off: part.Off, Kind: string(part.Kind)})
				}
			}
			e.Fields = append(e.Fields, f)
		}
		for _, slid := range img.SlidIn(s.Addr, n) {
			e.Fields = append(e.Fields, Field{Off: int(slid.Addr - s.Addr), Len: slid.Kind.Len(), Kind: string(slid.Kind)})
		}
		exp = append(exp, e)
	}
	return exp
}
