// SPDX-License-Identifier: Apache-2.0

package livepatch

import (
	"bytes"
	"cmp"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/upsplice/upsplice/kmod/lab"
	cc "github.com/upsplice/upsplice/splice/compile"
	"github.com/upsplice/upsplice/splice/kbuild"
	"github.com/upsplice/upsplice/splice/kimage"
	"github.com/upsplice/upsplice/splice/match"
	"github.com/upsplice/upsplice/splice/object"
	"github.com/upsplice/upsplice/splice/tree"
)

// scaleModules are modules that need no hardware. Their dependencies come along.
var scaleModules = []string{
	"overlay", "bridge", "nf_tables", "nf_conntrack", "nf_nat", "nft_ct", "nft_reject", "nft_log", "ip_tables",
	"xt_conntrack", "veth", "tun", "vxlan", "macvlan", "bonding", "fuse", "loop", "kvm", "virtio_ring", "virtio_blk",
	"virtio_net", "tls", "dm_mod", "vsock", "xfs", "nfs", "sctp", "8021q", "ip_vs", "sunrpc", "br_netfilter", "dummy",
}

const (
	// functionsOfUnit is how many functions of one unit a splice replaces, as an update
	// does: a few of many units.
	functionsOfUnit = 8
	// scaleShare is one of how many functions are those of modules.
	scaleShare = 5
)

// scaled is a kernel with objects of it, compiled as the distribution did it.
type scaled struct {
	lab.Kernel
	image   *kimage.Image
	modules map[string]*kimage.Image // that are patched
	paths   map[string]string        // of all modules, by name
	symvers kimage.Symvers
	units   []*scaledUnit
	support *object.Object

	kernel   *kernel
	vermagic string
}

type scaledUnit struct {
	s        *scaled
	name     string
	img      *kimage.Image
	post     *object.Object
	report   *match.Report
	replaced []match.Found
}

// newScaled compiles as many units as n functions need.
func newScaled(t *testing.T, k lab.Kernel, n int) *scaled {
	t.Helper()
	s := &scaled{Kernel: k, image: openImage(t, k), modules: map[string]*kimage.Image{}, paths: map[string]string{}}
	s.vermagic = moduleVermagic(t, k)
	var err error
	if s.kernel, err = newKernel(s.image); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(filepath.Join(k.HeadersDir, "Module.symvers"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if s.symvers, err = kimage.ReadSymvers(f); err != nil {
		t.Fatal(err)
	}
	out, err := kbuild.Seed(t.Context(), filepath.Join(t.TempDir(), "out"), kbuild.Materials{
		Release: k.Release, Arch: "x86", Source: sourceTree(t, k), Headers: k.HeadersDir, Kbuild: k.KbuildDir, CC: "gcc-12",
	})
	if err != nil {
		t.Fatal(err)
	}
	all, err := out.Query(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.support = compileSupport(t, k)
	c := &cc.Compiler{Output: out, NoDebug: true, Cache: filepath.Join(lab.Dir(), "scale")}
	of := map[string][]kbuild.Unit{}
	for _, u := range all {
		if filepath.Ext(u.Source) == ".c" && !strings.HasPrefix(u.Source, "O:") && u.Objtool {
			name := strings.ReplaceAll(filepath.Base(u.Target), "-", "_")
			of[name] = append(of[name], u)
		}
	}
	s.findModules(t)
	var modular []kbuild.Unit
	for _, name := range scaleModules {
		if units := of[name]; len(units) > 0 && s.paths[name] != "" {
			// the one of the greatest source has functions enough
			modular = append(modular, slices.MaxFunc(units, func(a, b kbuild.Unit) int {
				return cmp.Compare(sourceSize(out, a), sourceSize(out, b))
			}))
		}
	}
	s.add(t, c, spread(of[kbuild.Vmlinux]), n-n/scaleShare)
	s.add(t, c, modular, n/scaleShare)
	return s
}

func compileSupport(t *testing.T, k lab.Kernel) *object.Object {
	t.Helper()
	return compile(t, k, "", "../../kmod/cfiles/support/target.c", "../../kmod/cfiles/support/target.h")
}

func sourceTree(t *testing.T, k lab.Kernel) string {
	t.Helper()
	src := filepath.Join(lab.Dir(), "tree-"+k.Version)
	if _, err := os.Stat(src); err == nil {
		return src
	}
	r, err := tree.OpenTar(t.Context(), k.SourceArchive)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := tree.Extract(t.Context(), r, src, tree.Options{Arch: "x86"}); err != nil {
		// Another test may have been faster.
		if _, there := os.Stat(src); there != nil {
			t.Fatal(err)
		}
	}
	return src
}

func sourceSize(out *kbuild.Output, u kbuild.Unit) int64 {
	st, err := os.Stat(filepath.Join(out.Source, u.Source))
	if err != nil {
		return 0
	}
	return st.Size()
}

// spread orders units so that the first of them are from all over the kernel.
func spread(units []kbuild.Unit) []kbuild.Unit {
	const step = 31
	var list []kbuild.Unit
	for first := range step {
		for i := first; i < len(units); i += step {
			list = append(list, units[i])
		}
	}
	return list
}

func (s *scaled) findModules(t *testing.T) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(s.Root, "lib/modules"), func(path string, d os.DirEntry, err error) error {
		if name, _, ok := strings.Cut(filepath.Base(path), ".ko"); ok && err == nil {
			s.paths[strings.ReplaceAll(name, "-", "_")] = path
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// add compiles units until n more functions can be replaced.
func (s *scaled) add(t *testing.T, c *cc.Compiler, units []kbuild.Unit, n int) {
	t.Helper()
	for chunk := range slices.Chunk(units, 8) {
		if n <= 0 {
			return
		}
		objs, err := c.Units(t.Context(), chunk, nil)
		var unit *cc.Error
		if err != nil && !errors.As(err, &unit) { // some need a header that no package has
			t.Fatal(err)
		}
		for _, o := range objs {
			if u := s.unit(t, o, n); u != nil {
				n -= len(u.replaced)
				s.units = append(s.units, u)
			}
		}
	}
	if n > 0 {
		t.Fatalf("%d units do not have %d functions more", len(units), n)
	}
}

// unit is what can be replaced of a compiled unit, at most n functions.
func (s *scaled) unit(t *testing.T, o cc.Object, n int) *scaledUnit {
	t.Helper()
	post, err := object.ReadFile(o.Path)
	if err != nil {
		t.Fatal(err)
	}
	u := &scaledUnit{s: s, name: o.Unit.Object, img: s.image, post: post}
	if o.Unit.Target != kbuild.Vmlinux {
		name := strings.ReplaceAll(filepath.Base(o.Unit.Target), "-", "_")
		if u.img, err = kimage.OpenModuleFile(s.paths[name], s.image, s.symvers.Module); err != nil {
			t.Fatal(err)
		}
	}
	if u.report, err = match.Functions(post, u.img, nil); err != nil {
		t.Fatal(err)
	}
	where := newSymbols(u.img.Name, u.img)
	taken := map[uint64]bool{} // aliases are one function
	for _, f := range post.Functions() {
		found, ok := u.report.Found[f]
		if !ok || !where.hasFentry(found.Addr) || codeReason(f.Section.Name, false) != "" || taken[found.Addr] || len(u.replaced) == min(n, functionsOfUnit) {
			continue
		}
		// one that the writer refuses is none of those that a splice has
		if s.carries(u, found) {
			u.replaced = append(u.replaced, found)
			taken[found.Addr] = true
		}
	}
	if len(u.replaced) == 0 {
		return nil
	}
	if u.img != s.image {
		s.modules[u.img.Name] = u.img
	}
	return u
}

// carries reports whether the writer takes a function.
func (s *scaled) carries(u *scaledUnit, f match.Found) bool {
	in := s.input("upsplice_try", u.splice(f))
	in.Modules = map[string]*kimage.Image{u.img.Name: u.img}
	b := newBuilder(&in, s.kernel)
	return b.build() == nil
}

func (s *scaled) input(name string, units ...Unit) Input {
	return Input{
		Name: name, Vermagic: s.vermagic, Image: s.image, Modules: s.modules, Support: s.support, Replace: true, Units: units,
	}
}

// splice is the unit with some of its functions as the changed ones.
func (u *scaledUnit) splice(replaced ...match.Found) Unit {
	unit := Unit{Name: u.name, Target: u.img.Name, Post: u.post, Resolve: u.resolve}
	for _, f := range replaced {
		r := Function{Post: f.Symbol, OldName: f.Name}
		if !f.Unique {
			r.OldSympos = f.Sympos
		}
		unit.Functions = append(unit.Functions, r)
	}
	return unit
}

// resolve finds what the running code refers to, as the builder of splices does.
func (u *scaledUnit) resolve(s *object.Symbol) (Resolution, error) {
	addr, ok := u.report.Addr[s]
	if !ok && s.Section == nil {
		if e, exported := u.s.image.Exports[s.Name]; exported {
			addr, ok = e.Addr, true
		}
	}
	if !ok {
		return Resolution{}, fmt.Errorf("the address of %s is not known", s.Name)
	}
	img := u.s.image
	if u.img != img {
		if _, own := u.img.SectionAt(addr); own {
			img = u.img
		}
		for _, imp := range u.img.Imports {
			if imp.Addr == addr && imp.Object != vmlinux {
				return Resolution{Source: Running, Object: imp.Object, Name: imp.Name}, nil
			}
		}
	}
	if e, exported := img.Exports[s.Name]; exported && e.Addr == addr && img == u.s.image {
		return Resolution{Source: Exported, Object: vmlinux, Name: s.Name}, nil
	}
	at := img.SymbolAt(addr)
	if len(at) == 0 {
		return Resolution{}, fmt.Errorf("nothing is at the address of %s", s.Name)
	}
	name := at[0].Name
	for _, k := range at {
		if k.Name == s.Name {
			name = k.Name
		}
	}
	pos, ambiguous := img.Sympos(name, addr)
	if !ambiguous {
		pos = 0
	}
	return Resolution{Source: Running, Object: img.Name, Name: name, Sympos: pos}, nil
}

// write makes a splice of n functions.
func (s *scaled) write(t *testing.T, name string, n int) Module {
	t.Helper()
	left := map[bool]int{true: n - n/scaleShare, false: n / scaleShare} // of vmlinux, of modules
	var units []Unit
	for _, u := range s.units {
		core := u.img == s.image
		if take := min(left[core], len(u.replaced)); take > 0 {
			left[core] -= take
			units = append(units, u.splice(u.replaced[:take]...))
		}
	}
	m, err := Write(s.input(name, units...))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// count says what a module consists of.
func count(o *object.Object) string {
	n := map[string]int{}
	distinct := map[string]bool{}
	for _, s := range o.Sections {
		n["sections"]++
		n["relocations"] += len(s.Relocs)
		if s.Flags&elf.SHF_EXECINSTR != 0 {
			n["code"] += int(s.Size)
		}
		for _, k := range s.KlpRelocs {
			kind := "klp relocations of modules"
			if strings.HasPrefix(k.Name, ".klp.rela.vmlinux.") {
				kind = "klp relocations of vmlinux"
				for _, r := range k.Relocs {
					distinct[r.Symbol.Name] = true
				}
			}
			n[kind] += len(k.Relocs)
		}
	}
	return fmt.Sprintf("%d sections, %d bytes of code, %d symbols, %d relocations, %d klp relocations of vmlinux (%d symbols), %d of modules",
		n["sections"], n["code"], len(o.Symbols), n["relocations"], n["klp relocations of vmlinux"], len(distinct), n["klp relocations of modules"])
}

// checkAddresses compares a module with one whose symbols are all looked up by name: each
// field gets the same address.
func (s *scaled) checkAddresses(t *testing.T, n int) {
	t.Helper()
	fixed := read(t, s.write(t, "upsplice_same", n).Data)
	whole := s.image
	unknown := *whole
	unknown.BuildID = ""
	s.image = &unknown
	for _, u := range s.units {
		if u.img == whole {
			u.img = &unknown
		}
	}
	named := read(t, s.write(t, "upsplice_same", n).Data)
	for _, u := range s.units {
		if u.img == &unknown {
			u.img = whole
		}
	}
	s.image = whole

	compared := 0
	for _, sec := range named.Sections {
		for _, k := range sec.KlpRelocs {
			for _, r := range k.Relocs {
				what, ours := strings.CutPrefix(r.Symbol.Name, ".klp.sym.vmlinux.")
				if !ours {
					continue
				}
				name, pos, _ := strings.Cut(what, ",")
				sympos, err := strconv.Atoi(pos)
				if err != nil {
					t.Fatal(err)
				}
				addr, err := s.kernel.symbol(name, sympos)
				if err != nil {
					t.Fatal(err)
				}
				got, ok := s.address(t, fixed.Section(sec.Name), r)
				if want := int64(addr) + r.Addend; !ok || got != want {
					t.Errorf("%s+%#x: %s is at %#x, the module has %#x", sec.Name, r.Offset, what, uint64(want), uint64(got))
				}
				compared++
			}
		}
	}
	if compared < n {
		t.Errorf("%d addresses are compared", compared)
	}
}

// address is what the relocation at the place of r gives.
func (s *scaled) address(t *testing.T, sec *object.Section, r object.Reloc) (addr int64, ok bool) {
	t.Helper()
	list := slices.Clone(sec.Relocs)
	for _, k := range sec.KlpRelocs {
		list = append(list, k.Relocs...)
	}
	for _, f := range list {
		if f.Offset != r.Offset || f.Type != r.Type {
			continue
		}
		if what, ours := strings.CutPrefix(f.Symbol.Name, ".klp.sym.vmlinux."); ours {
			name, pos, _ := strings.Cut(what, ",")
			sympos, err := strconv.Atoi(pos)
			if err != nil || sympos == 0 {
				t.Fatalf("%s has no position", what)
			}
			a, err := s.kernel.symbol(name, sympos)
			return int64(a) + f.Addend, err == nil
		}
		e, exported := s.image.Exports[f.Symbol.Name]
		return int64(e.Addr) + f.Addend, exported
	}
	return 0, false
}

// TestAddresses compares a splice of 100 functions of a real kernel, written twice, with
// one whose symbols are looked up by name.
func TestAddresses(t *testing.T) {
	const n = 100
	s := newScaled(t, lab.NeedNewest(t, lab.Image, lab.Headers, lab.Source), n)
	s.checkAddresses(t, n)
	m := s.write(t, "upsplice_scale", n)
	if !bytes.Equal(m.Data, s.write(t, "upsplice_scale", n).Data) {
		t.Error("a second write gives other bytes")
	}
	o := checkModule(t, m.Data)
	t.Logf("%d units, %d modules: %s", len(s.units), len(s.modules), count(o))
}
