// SPDX-License-Identifier: Apache-2.0

package match

import (
	"debug/elf"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/upsplice/upsplice/kmod/lab"
	"github.com/upsplice/upsplice/splice/compile"
	"github.com/upsplice/upsplice/splice/kbuild"
	"github.com/upsplice/upsplice/splice/kimage"
	"github.com/upsplice/upsplice/splice/object"
	"github.com/upsplice/upsplice/splice/tree"
)

// side is one kernel of the pair with its source unpacked.
type side struct {
	lab.Kernel
	im  *kimage.Image
	out *kbuild.Output
}

func unpackSide(t *testing.T, k lab.Kernel, dir, base string) (side, *tree.Delta) {
	t.Helper()
	r, err := tree.OpenTar(t.Context(), k.SourceArchive)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	src := filepath.Join(dir, "src")
	delta, err := tree.Extract(t.Context(), r, src, tree.Options{Arch: "x86", Base: base})
	if err != nil {
		t.Fatal(err)
	}
	out, err := kbuild.Seed(t.Context(), filepath.Join(dir, "out"), kbuild.Materials{
		Release: k.Release, Arch: "x86", Source: src, Headers: k.HeadersDir, Kbuild: k.KbuildDir, CC: compilerOf(t, k),
	})
	if err != nil {
		t.Fatal(err)
	}
	return side{k, openImage(t, k), out}, delta
}

// openSide takes what unpackSide has left in dir.
func openSide(t *testing.T, k lab.Kernel, dir string) side {
	t.Helper()
	return side{k, openImage(t, k), &kbuild.Output{Dir: filepath.Join(dir, "out"), Materials: kbuild.Materials{
		Release: k.Release, Arch: "x86", Source: filepath.Join(dir, "src"), Headers: k.HeadersDir, Kbuild: k.KbuildDir, CC: compilerOf(t, k),
	}}}
}

func openImage(t *testing.T, k lab.Kernel) *kimage.Image {
	t.Helper()
	im, err := kimage.OpenFile(k.Vmlinuz)
	if err != nil {
		t.Fatal(err)
	}
	return im
}

// compilerOf reads which compiler the kernel was built with.
func compilerOf(t *testing.T, k lab.Kernel) string {
	t.Helper()
	config, err := os.ReadFile(filepath.Join(k.HeadersDir, ".config"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(config), "CONFIG_CC_VERSION_TEXT=\"")
	cc, _, _ := strings.Cut(rest, " ")
	return cc
}

// unit asks for one object's unit, an empty one if this configuration has none. kbuild
// lists what it needs for itself too.
func (s side) unit(t *testing.T, target string) kbuild.Unit {
	t.Helper()
	units, err := s.out.Query(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range units {
		if u.Object == target {
			return u
		}
	}
	return kbuild.Unit{}
}

// compiled returns the object of a unit.
func (s side) compiled(t *testing.T, target string, options ...string) *object.Object {
	t.Helper()
	u := s.unit(t, target)
	u.Args = slices.Insert(slices.Clone(u.Args), len(u.Args)-4, options...) // before -c -o OBJECT SOURCE
	c := &compile.Compiler{Output: s.out}
	objs, err := c.Units(t.Context(), []kbuild.Unit{u}, nil)
	if err != nil {
		t.Fatal(err)
	}
	o, err := object.ReadFile(objs[0].Path)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// all matches every function of o.
func all(t *testing.T, o *object.Object, im *kimage.Image) (rep *Report, total int) {
	t.Helper()
	want := functionsOf(o)
	return run(t, o, im, want...), len(want)
}

func functionsOf(o *object.Object) []*object.Symbol {
	return slices.DeleteFunc(o.Functions(), func(s *object.Symbol) bool { return s.Section.Flags&elf.SHF_EXECINSTR == 0 })
}

// TestCompiled compiles units of two adjacent kernels from the distribution's source
// and matches each with the image that the distribution built of it.
func TestCompiled(t *testing.T) {
	from, to := lab.NeedPair(t, lab.Image, lab.Headers, lab.Source)
	dir := t.TempDir()
	pre, _ := unpackSide(t, from, filepath.Join(dir, "pre"), "")
	post, delta := unpackSide(t, to, filepath.Join(dir, "post"), pre.out.Source)

	var changed []string
	for _, f := range delta.Files {
		object := strings.TrimSuffix(f.Path, ".c") + ".o"
		if f.Kind != "changed" || !strings.HasSuffix(f.Path, ".c") || len(changed) == 2 {
			continue
		}
		if u := post.unit(t, object); u.Target == kbuild.Vmlinux {
			changed = append(changed, object)
		}
	}
	if len(changed) == 0 {
		t.Fatalf("the delta of %s and %s reaches no unit of vmlinux", from, to)
	}

	differs := false
	for _, target := range append(changed, "kernel/fork.o", "net/core/dev.o") {
		o := pre.compiled(t, target)
		reproduces(t, target, o, pre.im)
		if !slices.Contains(changed, target) {
			continue
		}
		o2 := post.compiled(t, target)
		reproduces(t, target+" (new)", o2, post.im)
		if rep, _ := all(t, o, post.im); len(rep.Failed) > 0 {
			differs = true
		}
		if rep, n := all(t, pre.compiled(t, target, "-O1"), pre.im); len(rep.Found) > n/2 {
			t.Errorf("%s compiled with -O1: %d of %d functions match", target, len(rep.Found), n)
		}
	}
	if !differs {
		t.Errorf("no old function of %v is refused by the new image", changed)
	}
	t.Run("modules", func(t *testing.T) { compiledModules(t, pre) })
}

// reproduces demands that the object is what is in the image, but for functions of
// which that cannot be expected.
func reproduces(t *testing.T, name string, o *object.Object, im *kimage.Image) {
	t.Helper()
	rep, total := all(t, o, im)
	relocs, excused := 0, 0
	for _, f := range rep.Found {
		relocs += f.Relocs
	}
	for _, f := range rep.Failed {
		if strings.Contains(f.Reason, "it is weak") {
			excused++
			continue
		}
		t.Errorf("%s: %v", name, f)
	}
	t.Logf("%s: %d of %d functions, %d relocations", name, len(rep.Found), total, relocs)
	if excused > total/10 || relocs < len(rep.Found) {
		t.Errorf("%s: %d of %d functions are not compared, %d relocations", name, excused, total, relocs)
	}
}
