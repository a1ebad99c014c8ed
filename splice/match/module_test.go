// SPDX-License-Identifier: Apache-2.0

package match

import (
	"bytes"
	"cmp"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/upsplice/upsplice/splice/kbuild"
	"github.com/upsplice/upsplice/splice/kimage"
	"github.com/upsplice/upsplice/splice/object"
)

// module is a shipped module of a side: its file, unpacked.
func (s side) module(t *testing.T, target string) []byte {
	t.Helper()
	found := ""
	err := filepath.WalkDir(filepath.Join(s.Root, "lib/modules", s.Release), func(p string, _ fs.DirEntry, err error) error {
		if file, _, ok := strings.Cut(p, ".ko"); ok && strings.HasSuffix(file, "/"+target) {
			found = p
		}
		return err
	})
	if err != nil || found == "" {
		t.Fatalf("%s has no module %s: %v", s, target, err)
	}
	b, err := os.ReadFile(found)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (s side) openModule(t *testing.T, b []byte) *kimage.Image {
	t.Helper()
	f, err := os.Open(filepath.Join(s.HeadersDir, "Module.symvers"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sv, err := kimage.ReadSymvers(f)
	if err != nil {
		t.Fatal(err)
	}
	im, err := kimage.OpenModule(bytes.NewReader(b), int64(len(b)), s.im, sv.Module)
	if err != nil {
		t.Fatal(err)
	}
	return im
}

// units of modules: one that is alone, one of several, one with per-cpu variables and
// exports, one with jump labels of its own.
var moduleUnits = []string{"drivers/block/virtio_blk.o", "drivers/net/virtio_net.o", "fs/overlayfs/util.o", "net/netfilter/x_tables.o", "net/netfilter/nf_tables_api.o"}

// compiledModules compiles units of modules and matches them with the shipped ones.
func compiledModules(t *testing.T, s side) {
	found, total := 0, 0
	for _, target := range moduleUnits {
		u := s.unit(t, target)
		if u.Object == "" || u.Target == kbuild.Vmlinux {
			t.Errorf("%s has no %s in a module", s, target)
			continue
		}
		o := s.compiled(t, target)
		im := s.openModule(t, s.module(t, u.Target))
		rep, n := all(t, o, im)
		found, total = found+len(rep.Found), total+n
		excused := 0
		for _, f := range rep.Failed {
			if strings.Contains(f.Reason, "frees it") {
				excused++
				continue
			}
			t.Errorf("%s: %v", target, f)
		}
		t.Logf("%s: %d of %d functions, %d freed after the start", target, len(rep.Found), n, excused)
		if excused > 6 {
			t.Errorf("%s: %d functions are not compared", target, excused)
		}
		described(t, o, im, rep)
		if target != moduleUnits[0] {
			continue
		}
		if rep, n := all(t, s.compiled(t, target, "-O1"), im); len(rep.Found) > n/2 {
			t.Errorf("%s compiled with -O1: %d of %d functions match", target, len(rep.Found), n)
		}
		flipped(t, s, o, rep, s.module(t, u.Target))
		swapped(t, s, o, rep, s.module(t, u.Target))
	}
	t.Logf("modules: %d of %d functions", found, total)
	if found*100 < total*95 {
		t.Errorf("only %d of %d functions of modules match", found, total)
	}
}

// described checks that what live memory is compared with has a source for each byte
// that the loader writes.
func described(t *testing.T, o *object.Object, im *kimage.Image, rep *Report) {
	t.Helper()
	var fns []Found
	for _, f := range rep.Found {
		fns = append(fns, f)
	}
	exp := Expect(im, o, fns)
	if len(exp) != len(fns) {
		t.Errorf("%s: %d functions found, %d described", im.Name, len(fns), len(exp))
	}
	relocs := 0
	for _, e := range exp {
		if e.Object != im.Name || e.Section == "" || e.Addr > 1<<30 {
			t.Errorf("%s is expected in %q, section %q, at %#x", e.Name, e.Object, e.Section, e.Addr)
		}
		for _, f := range e.Fields {
			if f.Target != 0 || strings.HasPrefix(f.Kind, "ref") && (f.Ref == nil || f.Ref.Object == "" || (f.Ref.Symbol == "") == (f.Ref.Section == "")) {
				t.Errorf("%s has the field %+v, which refers to %+v", e.Name, f, f.Ref)
			}
			if f.Ref != nil && strings.HasPrefix(f.Kind, "ref") {
				relocs++
			}
		}
	}
	if relocs < len(exp) {
		t.Errorf("%s: %d relocations in %d functions", im.Name, relocs, len(exp))
	}
}

// fileOffset finds a function's code in the file of a module, where relocated fields
// are still zero.
func fileOffset(im *kimage.Image, f Found, file []byte) int {
	code := bytes.Clone(im.At(f.Addr, int(f.Symbol.Size)))
	for _, r := range im.RelocsIn(f.Addr, len(code)) {
		clear(code[r.Addr-f.Addr:][:r.Len])
	}
	at := bytes.Index(file, code)
	if at < 0 || bytes.Contains(file[at+1:], code) {
		return -1
	}
	return at
}

// flipped: a byte of the shipped module is another one.
func flipped(t *testing.T, s side, o *object.Object, rep *Report, file []byte) {
	im := s.openModule(t, file)
	n := 0
	for fn, f := range rep.Found {
		at := fileOffset(im, f, file)
		if at < 0 || len(fn.Bytes()) < 40 || n == 5 {
			continue
		}
		// a byte that no relocation fills
		off := uint64(20)
		for off < fn.Size && len(im.RelocsIn(f.Addr+off-7, 8)) > 0 {
			off++
		}
		if off == fn.Size {
			continue
		}
		bad := bytes.Clone(file)
		bad[at+int(off)] ^= 0x10
		again := run(t, o, s.openModule(t, bad), fn)
		if len(again.Failed) != 1 || again.Failed[0].Function != fn.Name {
			t.Errorf("%s with a flipped byte at %#x is found", fn.Name, off)
		}
		n++
	}
	if n == 0 {
		t.Error("no function to flip a byte of")
	}
}

// swapped: two functions have each other's names.
func swapped(t *testing.T, s side, o *object.Object, rep *Report, file []byte) {
	im := s.openModule(t, file)
	var fns []Found
	for _, f := range rep.Found {
		// not one of several names of a place, nor the tail of another name
		if bytes.Contains(file, []byte("\x00"+f.Name+"\x00")) && len(im.SymbolAt(f.Addr)) == 1 {
			fns = append(fns, f)
		}
	}
	slices.SortFunc(fns, func(a, b Found) int { return cmp.Or(len(a.Name)-len(b.Name), cmp.Compare(a.Name, b.Name)) })
	for i := 1; i < len(fns); i++ {
		a, b := fns[i-1], fns[i]
		if len(a.Name) != len(b.Name) || len(a.Name) < 4 {
			continue
		}
		bad := bytes.ReplaceAll(file, []byte("\x00"+a.Name+"\x00"), []byte("\x00?\x00"+a.Name[2:]+"\x00"))
		bad = bytes.ReplaceAll(bad, []byte("\x00"+b.Name+"\x00"), []byte("\x00"+a.Name+"\x00"))
		bad = bytes.ReplaceAll(bad, []byte("\x00?\x00"+a.Name[2:]+"\x00"), []byte("\x00"+b.Name+"\x00"))
		again := run(t, o, s.openModule(t, bad), a.Symbol, b.Symbol)
		if len(again.Failed) != 2 {
			t.Errorf("%s and %s with each other's names: %v", a.Name, b.Name, again.Failed)
		}
		return
	}
	t.Error("no two functions have names of one length")
}
