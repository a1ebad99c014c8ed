// SPDX-License-Identifier: Apache-2.0

package kimage

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/upsplice/upsplice/kmod/lab"
)

var shipped = struct {
	once sync.Once
	k    lab.Kernel
	im   *Image
	err  error
}{}

// openShipped opens the newest kernel of the archive, once for all tests.
func openShipped(t testing.TB) (lab.Kernel, *Image) {
	t.Helper()
	shipped.once.Do(func() {
		shipped.k = lab.NeedNewest(t, lab.Image, lab.Headers)
		shipped.im, shipped.err = openFile(shipped.k.Vmlinuz)
	})
	if shipped.err != nil {
		t.Fatal(shipped.err)
	}
	if shipped.im == nil {
		t.Fatal("the shipped kernel is not there")
	}
	return shipped.k, shipped.im
}

func openFile(name string) (*Image, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return Open(f, st.Size())
}

func TestOpenShippedIdentity(t *testing.T) {
	k, im := openShipped(t)
	if im.Release != k.Release {
		t.Errorf("Release = %q, the package is for %q", im.Release, k.Release)
	}
	if !strings.Contains(im.Banner, k.Version) {
		t.Errorf("Banner %q does not name version %s", im.Banner, k.Version)
	}
	if len(im.BuildID) != 40 {
		t.Errorf("BuildID = %q, want 20 bytes in hex", im.BuildID)
	}
	again, err := Open(bytes.NewReader(im.Vmlinux), int64(len(im.Vmlinux)))
	if err != nil {
		t.Fatalf("opening the extracted vmlinux: %v", err)
	}
	if again.BuildID != im.BuildID || len(again.Symbols) != len(im.Symbols) || len(again.Sites) != len(im.Sites) || len(again.Slid) != len(im.Slid) {
		t.Error("the extracted vmlinux opens to something else than the vmlinuz")
	}
}

// TestExportsEqualSymvers compares with the list that the headers package ships.
func TestExportsEqualSymvers(t *testing.T) {
	k, im := openShipped(t)
	f, err := os.Open(filepath.Join(k.HeadersDir, "Module.symvers"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n := 0
	for sc := bufio.NewScanner(f); sc.Scan(); {
		f := strings.Split(sc.Text(), "\t") // CRC, name, module, kind, namespace
		if len(f) < 4 || f[2] != "vmlinux" {
			continue
		}
		n++
		crc, err := strconv.ParseUint(f[0], 0, 32)
		if err != nil {
			t.Fatal(err)
		}
		ns := ""
		if len(f) > 4 {
			ns = f[4]
		}
		e, ok := im.Exports[f[1]]
		if !ok {
			t.Errorf("%s is not among the exports", f[1])
			continue
		}
		if !e.HasCRC || e.CRC != uint32(crc) || e.GPLOnly != (f[3] == "EXPORT_SYMBOL_GPL") || e.Namespace != ns {
			t.Errorf("%s = %+v, Module.symvers says %q", f[1], e, sc.Text())
		}
		// symbols that the linker makes at a section's end are not in kallsyms' range
		if !slices.ContainsFunc(im.SymbolAt(e.Addr), func(s Symbol) bool { return s.Name == f[1] }) {
			t.Errorf("kallsyms has no %s at %#x", f[1], e.Addr)
		}
	}
	if n != len(im.Exports) || n < 1000 {
		t.Errorf("Module.symvers has %d exports of vmlinux, the image %d", n, len(im.Exports))
	}
}

func TestSymbolsOfShipped(t *testing.T) {
	_, im := openShipped(t)
	if len(im.Symbols) < 10000 {
		t.Fatalf("only %d symbols", len(im.Symbols))
	}
	for _, name := range []string{"_text", "schedule", "init_task", "__x86_return_thunk"} {
		s := im.Lookup(name)
		if len(s) != 1 {
			t.Fatalf("%d symbols are called %s", len(s), name)
		}
		if pos, ambiguous := im.Sympos(name, s[0].Addr); pos != 1 || ambiguous {
			t.Errorf("Sympos(%s) = %d, %v", name, pos, ambiguous)
		}
	}
	dup := im.Lookup("__func__.0")
	if len(dup) < 2 {
		t.Fatal("kallsyms has no second __func__.0, which every kernel has")
	}
	if pos, ambiguous := im.Sympos("__func__.0", dup[1].Addr); pos != 2 || !ambiguous {
		t.Errorf("Sympos of the second __func__.0 = %d, %v", pos, ambiguous)
	}
	if pos, _ := im.Sympos("__func__.0", 1); pos != 0 {
		t.Errorf("Sympos at an address that has no such symbol = %d", pos)
	}
	text := im.Lookup("schedule")[0].Addr
	if next := im.SymbolAfter(text); next <= text {
		t.Errorf("SymbolAfter(%#x) = %#x", text, next)
	}
}

// names at an address, for messages and comparisons.
func (im *Image) hasName(addr uint64, match func(string) bool) bool {
	return slices.ContainsFunc(im.SymbolAt(addr), func(s Symbol) bool { return match(s.Name) })
}

func prefix(p string) func(string) bool {
	return func(s string) bool { return strings.HasPrefix(s, p) }
}

// TestSitesSayWhatTheCodeSays checks every site against the bytes at it.
func TestSitesSayWhatTheCodeSays(t *testing.T) {
	_, im := openShipped(t)
	errs := 0
	bad := func(s Site, why string) {
		if errs++; errs < 20 {
			t.Errorf("%s at %#x (% x): %s", s.Kind, s.Addr, im.At(s.Addr, s.Len), why)
		}
	}
	count := map[SiteKind]int{}
	for _, s := range im.Sites {
		count[s.Kind]++
		b := im.At(s.Addr, s.Len)
		if b == nil {
			bad(s, "not in the image")
			continue
		}
		rel := func() uint64 {
			return s.Addr + uint64(s.Len) + uint64(int64(int32(binary.LittleEndian.Uint32(b[len(b)-4:]))))
		}
		switch s.Kind {
		case SiteMcount:
			if b[0] != 0xe8 || !im.hasName(rel(), prefix("__fentry__")) {
				bad(s, "no call of __fentry__")
			}
		case SiteReturn:
			if s.Target != rel() || !im.hasName(s.Target, prefix("__x86_return_thunk")) {
				bad(s, "does not lead to the return thunk")
			}
			if len(im.forms(s)) < 2 {
				bad(s, "has no plain form and no other thunk")
			}
		case SiteRetpoline:
			if !im.hasName(s.Target, prefix("__x86_indirect_thunk_")) || len(im.forms(s)) == 0 {
				bad(s, "does not lead to a thunk")
			}
			for _, f := range im.forms(s) {
				if len(f) != s.Len {
					bad(s, "has a form of another length")
				}
			}
		case SiteStaticCall:
			if !im.hasName(s.Target, prefix("__SCK__")) {
				bad(s, "key has no key's name")
			}
		case SiteJumpLabel:
			jmp := b[0] == 0xeb && s.Addr+2+uint64(int64(int8(b[1]))) == s.Target || b[0] == 0xe9 && rel() == s.Target
			if !jmp && !slices.Equal(b, im.nops[s.Len]) {
				bad(s, "neither jmp nor NOP")
			}
			if k := im.sectionAt(s.Key); k == nil || k.Exec {
				bad(s, "the key is not in data")
			}
		case SiteAlternative:
			if len(s.Alts) == 0 {
				bad(s, "has no alternative")
			}
			for _, a := range s.Alts {
				if len(a) != s.Len || slices.Equal(a, b) {
					bad(s, "has an alternative of another length, or one that is the code itself")
				}
			}
		case SiteSMPLock:
			if b[0] != 0xf0 {
				bad(s, "no lock prefix")
			}
		case SiteParavirt:
			if s.Len < 5 {
				bad(s, "has no room for a call")
			}
		}
	}
	for kind, n := range im.Entries {
		if n == 0 || count[kind] != n && kind != SiteAlternative || count[kind] > n {
			t.Errorf("%s: %d sites from %d entries", kind, count[kind], n)
		}
	}
	if len(im.Entries) < 6 {
		t.Errorf("only the tables %v were found", im.Entries)
	}
}

// TestAlternativeTargets looks at alternatives that are one branch: wherever the
// code stands, they lead to the start of some function or into the one around.
func TestAlternativeTargets(t *testing.T) {
	_, im := openShipped(t)
	calls := 0
	for _, s := range im.Sites {
		if s.Kind != SiteAlternative {
			continue
		}
		for _, a := range s.Alts {
			if a[0] != 0xe8 || len(a) < 5 {
				continue
			}
			calls++
			to := s.Addr + 5 + uint64(int64(int32(binary.LittleEndian.Uint32(a[1:]))))
			if inside := to-s.Addr < uint64(s.Len); !inside && len(im.SymbolAt(to)) == 0 {
				t.Errorf("alternative at %#x: % x calls %#x, which is no symbol", s.Addr, a, to)
			}
		}
	}
	if calls == 0 {
		t.Error("no alternative is a call: the test sees nothing")
	}
}

// TestSlidFields checks that each field holds an address which moves with the kernel.
func TestSlidFields(t *testing.T) {
	_, im := openShipped(t)
	percpu := im.section(".data..percpu")
	seen := map[SlidKind]int{}
	wrong := 0
	for _, f := range im.Slid {
		seen[f.Kind]++
		b := im.At(f.Addr, f.Kind.Len())
		if b == nil {
			continue // per-cpu data is listed where it is loaded, not where it is linked
		}
		ok := false
		switch f.Kind {
		case SlidAbs64:
			ok = im.sectionAt(binary.LittleEndian.Uint64(b)) != nil || len(im.SymbolAt(binary.LittleEndian.Uint64(b))) > 0
		case SlidAbs32:
			ok = int32(binary.LittleEndian.Uint32(b)) < 0
		case SlidNegRel32:
			to := f.Addr + 4 + uint64(int64(int32(binary.LittleEndian.Uint32(b))))
			ok = percpu != nil && to < percpu.Size+16
		}
		if !ok {
			wrong++
		}
	}
	if seen[SlidAbs32] == 0 || seen[SlidAbs64] == 0 {
		t.Fatalf("the image's list has %v", seen)
	}
	if wrong > len(im.Slid)/1000 {
		t.Errorf("%d of %d fields do not hold an address of their kind", wrong, len(im.Slid))
	}
	first := im.Slid[10].Addr
	if got := im.SlidIn(first, 1); len(got) == 0 || got[0].Addr != first {
		t.Errorf("SlidIn(%#x, 1) = %v", first, got)
	}
}

func TestAtStaysInside(t *testing.T) {
	_, im := openShipped(t)
	s := im.section(".text")
	if got := im.At(s.Addr, 4); !bytes.Equal(got, s.Data[:4]) {
		t.Errorf("At(start of .text) = % x", got)
	}
	for _, c := range []struct {
		addr uint64
		n    int
	}{{s.Addr + s.Size - 1, 2}, {s.Addr - 1, 1}, {s.Addr, -1}, {^uint64(0), 1}, {s.Addr, 1 << 40}} {
		if got := im.At(c.addr, c.n); got != nil {
			t.Errorf("At(%#x, %d) = %d bytes, want none", c.addr, c.n, len(got))
		}
	}
}

// TestDamagedImageIsRefused cuts and damages the image in places that Open needs.
func TestDamagedImageIsRefused(t *testing.T) {
	_, im := openShipped(t)
	damage := map[string]func(v []byte) []byte{
		"cut":           func(v []byte) []byte { return v[:len(v)/2] },
		"other machine": func(v []byte) []byte { v[0x12] = 183; return v },
		"names": func(v []byte) []byte {
			for _, s := range im.Sections {
				if tab, err := findKallsyms(s.Data, im.inText); err == nil && !s.Exec {
					v[bytes.Index(v, s.Data[tab.names:tab.names+100])]++
				}
			}
			return v
		},
		"banner": func(v []byte) []byte {
			return bytes.ReplaceAll(v, []byte("Linux version "), []byte("Linux versioN "))
		},
	}
	for name, f := range damage {
		v := f(bytes.Clone(im.Vmlinux))
		if _, err := Open(bytes.NewReader(v), int64(len(v))); err == nil {
			t.Errorf("%s: the image opens", name)
		}
	}
}
