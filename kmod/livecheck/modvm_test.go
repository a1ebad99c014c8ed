// SPDX-License-Identifier: Apache-2.0

package livecheck

import (
	"bytes"
	"encoding/gob"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/upsplice/upsplice/kmod/lab"
	"github.com/upsplice/upsplice/kmod/vmtest"
	"github.com/upsplice/upsplice/splice/kimage"
	"github.com/upsplice/upsplice/splice/match"
	"github.com/upsplice/upsplice/splice/object"
)

// What the guest loads; what they depend on comes by itself.
var loadModules = []string{"virtio_net", "virtio_blk", "x_tables", "nf_tables", "overlay", "kvm", "xfs"}

// notLoaded is checked and not loaded.
const notLoaded = "virtio_balloon"

// TestRealModules compares every function of shipped modules with the memory of a
// kernel that has loaded them.
func TestRealModules(t *testing.T) {
	k := lab.NeedNewest(t, lab.Image, lab.Headers)
	s := openShelf(t, k)
	for _, name := range loadModules {
		s.load(name)
	}
	s.open(notLoaded)
	var buf bytes.Buffer
	enc := gob.NewEncoder(&buf)
	if err := enc.Encode(s.expect); err != nil {
		t.Fatal(err)
	}
	if err := enc.Encode(s.order); err != nil {
		t.Fatal(err)
	}
	s.files["expectations"] = filepath.Join(t.TempDir(), "expectations")
	if err := os.WriteFile(s.files["expectations"], buf.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	s.files["bin/modprog"] = vmtest.BuildStatic(t, "./testdata/modprog", false)
	n := 0
	for _, m := range s.expect {
		n += len(m.Expect)
	}
	n -= len(s.expect[len(s.expect)-1].Expect)
	if n < 2000 {
		t.Fatalf("only %d functions in %d modules", n, len(s.expect))
	}
	script := s.script.String() + "/bin/modprog /expectations"
	for _, c := range machines[:2] { // with KASLR on two processors, without it on one
		t.Run(c.name, func(t *testing.T) {
			r := vmtest.RunInVM(t, k, script, s.files, func(m *vmtest.Machine) {
				m.CPUs, m.CPU, m.Append, m.MemoryMB = c.cpus, c.cpu, c.append, 1024
			})
			if err := r.Err(); err != nil {
				t.Fatal(err)
			}
			want := fmt.Sprintf("checked %d functions of %d modules, skipped [%s], 0 wrong, 0 blind, 0 in disorder, rewritten true", n, len(s.expect), notLoaded)
			if !strings.Contains(r.Console, want) {
				t.Errorf("%q expected:\n%s", want, strings.Join(moduleReport.FindAllString(r.Console, -1), "\n"))
			}
			t.Log(want)
		})
	}
}

var moduleReport = regexp.MustCompile(`(?m)^(?:MISMATCH|BLIND|DISORDER|checked).*$`)

// shelf has the modules of a kernel and what the guest gets of them.
type shelf struct {
	t      *testing.T
	vm     *kimage.Image
	sv     kimage.Symvers
	paths  map[string]string
	done   map[string]bool
	files  map[string]string
	script strings.Builder
	expect []Module
	order  map[string][]string
}

func openShelf(t *testing.T, k lab.Kernel) *shelf {
	t.Helper()
	s := &shelf{t: t, paths: map[string]string{}, done: map[string]bool{}, files: map[string]string{}, order: map[string][]string{}}
	var err error
	if s.vm, err = kimage.OpenFile(k.Vmlinuz); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(filepath.Join(k.HeadersDir, "Module.symvers"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if s.sv, err = kimage.ReadSymvers(f); err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(filepath.Join(k.Root, "lib/modules", k.Release), func(p string, _ fs.DirEntry, err error) error {
		if file, _, ok := strings.Cut(filepath.Base(p), ".ko"); ok {
			s.paths[strings.ReplaceAll(file, "-", "_")] = p
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// open adds what is expected of a module.
func (s *shelf) open(name string) *kimage.Image {
	s.t.Helper()
	if s.paths[name] == "" {
		s.t.Fatalf("the kernel has no module %s", name)
	}
	im, err := kimage.OpenModuleFile(s.paths[name], s.vm, s.sv.Module)
	if err != nil {
		s.t.Fatal(err)
	}
	s.expect = append(s.expect, moduleExpectations(s.t, im))
	for _, sym := range im.Symbols {
		s.order[name] = append(s.order[name], sym.Name)
	}
	return im
}

// load lets the guest load a module after those that it needs.
func (s *shelf) load(name string) {
	s.t.Helper()
	if s.done[name] {
		return
	}
	s.done[name] = true
	im := s.open(name)
	mine := s.expect[len(s.expect)-1]
	s.expect = s.expect[:len(s.expect)-1]
	for _, d := range im.Depends {
		s.load(d)
	}
	s.expect = append(s.expect, mine)
	file := filepath.Base(s.paths[name])
	s.files["modules/"+file] = s.paths[name]
	fmt.Fprintf(&s.script, "insmod /modules/%s || exit 9\n", file)
}

// moduleExpectations describes all functions of a module.
func moduleExpectations(t *testing.T, im *kimage.Image) Module {
	t.Helper()
	var found []match.Found
	seen := map[uint64]bool{}
	for _, s := range im.Symbols {
		sec, _ := im.SectionAt(s.Addr)
		pos, _ := im.Sympos(s.Name, s.Addr)
		if pos == 0 || !sec.Exec || seen[s.Addr] || strings.HasPrefix(s.Name, "__SCT__") || strings.HasPrefix(s.Name, "__pfx_") {
			continue
		}
		seen[s.Addr] = true
		end := sec.Addr + sec.Size
		if next := im.SymbolAfter(s.Addr); next != 0 {
			end = min(end, next)
		}
		found = append(found, match.Found{Symbol: &object.Symbol{}, Addr: s.Addr, Size: end - s.Addr, Name: s.Name, Sympos: pos})
	}
	m := Module{Name: im.Name, BuildID: im.BuildID}
	exp := match.Expect(im, nil, found)
	if len(exp) != len(found) {
		t.Errorf("%s: %d of %d functions can be described", im.Name, len(exp), len(found))
	}
	for _, e := range exp {
		m.Expect = append(m.Expect, fromMatch(e))
	}
	return m
}

func refOf(r *match.Ref) *Ref {
	if r == nil {
		return nil
	}
	c := Ref(*r)
	return &c
}

// fromMatch copies what the engine says, as the program does.
func fromMatch(e match.Expectation) Expectation {
	out := Expectation{Object: e.Object, Section: e.Section, Name: e.Name, Sympos: e.Sympos, Addr: e.Addr, Bytes: e.Bytes}
	for _, f := range e.Fields {
		c := Field{Off: f.Off, Len: f.Len, Kind: f.Kind, Target: f.Target, Alts: f.Alts, Ref: refOf(f.Ref)}
		for _, a := range f.AltFields {
			c.AltFields = append(c.AltFields, AltField{Alt: a.Alt, Off: a.Off, Kind: a.Kind, Ref: refOf(a.Ref)})
		}
		out.Fields = append(out.Fields, c)
	}
	return out
}
