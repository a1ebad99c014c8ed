// SPDX-License-Identifier: Apache-2.0

package kimage

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/upsplice/upsplice/kmod/lab"
)

// modulesOf returns the paths of all modules of a kernel.
func modulesOf(t testing.TB, k lab.Kernel) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(filepath.Join(k.Root, "lib/modules", k.Release), func(p string, _ fs.DirEntry, err error) error {
		if name, _, ok := strings.Cut(filepath.Base(p), ".ko"); ok && name != "" {
			out = append(out, p)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) < 100 {
		t.Fatalf("%s has only %d modules", k, len(out))
	}
	return out
}

func symversOf(t testing.TB, k lab.Kernel) Symvers {
	t.Helper()
	f, err := os.Open(filepath.Join(k.HeadersDir, "Module.symvers"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sv, err := ReadSymvers(f)
	if err != nil {
		t.Fatal(err)
	}
	return sv
}

// TestShippedModules opens every module of a kernel and compares the exports with
// the list that the headers package ships.
func TestShippedModules(t *testing.T) {
	k, vm := openShipped(t)
	sv := symversOf(t, k)
	exports := map[string]Export{}
	from := map[string]string{}
	total := map[SiteKind]int{}
	relocs, imports, blind, unstable := 0, 0, 0, 0
	for _, p := range modulesOf(t, k) {
		im, err := OpenModuleFile(p, vm, sv.Module)
		if err != nil {
			t.Error(err)
			continue
		}
		file, _, _ := strings.Cut(filepath.Base(p), ".ko")
		if im.Name != moduleName(file) || im.Release != k.Release || len(im.BuildID) != 40 || !im.IsModule() {
			t.Errorf("%s: name %q, release %q, build id %q", p, im.Name, im.Release, im.BuildID)
		}
		for name, e := range im.Exports {
			exports[name], from[name] = e, im.Name
			if !slices.ContainsFunc(im.SymbolAt(e.Addr), func(s Symbol) bool { return s.Name == name }) {
				t.Errorf("%s: no symbol %s at its export's address", im.Name, name)
			}
		}
		for _, i := range im.Imports {
			imports++
			if i.Object == "" {
				t.Errorf("%s: nothing exports %s", im.Name, i.Name)
			}
		}
		for _, s := range im.Sites {
			total[s.Kind]++
			direct := slices.ContainsFunc(im.SitesIn(s.Addr, 1), func(x Site) bool { return x.Kind == SiteParavirt })
			if s.Kind == SiteAlternative && s.Alts == nil && !direct {
				blind++
			}
		}
		for _, s := range im.Symbols {
			if im.unstable[s.Name] {
				unstable++
			}
		}
		relocs += len(im.Relocs)
	}
	t.Logf("%d relocations, %d imports, sites %v, %d alternatives without contents, %d symbols without a lasting position", relocs, imports, total, blind, unstable)
	if blind > total[SiteAlternative]/100 || unstable > 100 {
		t.Error("too many sites or symbols are of no use")
	}
	for _, kind := range []SiteKind{SiteMcount, SiteJumpLabel, SiteStaticCall, SiteAlternative} {
		if total[kind] < 50 {
			t.Errorf("only %d sites of kind %s", total[kind], kind)
		}
	}
	compareSymvers(t, k, exports, from)
}

func compareSymvers(t *testing.T, k lab.Kernel, exports map[string]Export, from map[string]string) {
	f, err := os.Open(filepath.Join(k.HeadersDir, "Module.symvers"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n := 0
	for sc := bufio.NewScanner(f); sc.Scan(); {
		f := strings.Split(sc.Text(), "\t")
		if f[2] == VmlinuxName {
			continue
		}
		n++
		crc, err := strconv.ParseUint(f[0], 0, 32)
		if err != nil {
			t.Fatal(err)
		}
		e := exports[f[1]]
		if from[f[1]] != moduleName(f[2]) || !e.HasCRC || e.CRC != uint32(crc) || e.GPLOnly != (f[3] == "EXPORT_SYMBOL_GPL") || e.Namespace != f[4] {
			t.Errorf("%s of %s = %+v, Module.symvers says %q", f[1], from[f[1]], e, sc.Text())
		}
	}
	if n != len(exports) || n < 1000 {
		t.Errorf("Module.symvers has %d exports of modules, the modules %d", n, len(exports))
	}
}

// moduleFile returns the unpacked bytes of the module called name.
func moduleFile(t testing.TB, k lab.Kernel, name string) []byte {
	t.Helper()
	for _, p := range modulesOf(t, k) {
		if file, _, _ := strings.Cut(filepath.Base(p), ".ko"); moduleName(file) != name {
			continue
		}
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		if b, err = moduleBytes(bytes.NewReader(b), int64(len(b))); err != nil {
			t.Fatal(err)
		}
		return b
	}
	t.Fatalf("%s has no module %s", k, name)
	return nil
}

func openBytes(b []byte, vm *Image, ex Exporter) (*Image, error) {
	return OpenModule(bytes.NewReader(b), int64(len(b)), vm, ex)
}

// TestModuleSymbols compares the order of symbols and their kinds with binutils'.
func TestModuleSymbols(t *testing.T) {
	k, vm := openShipped(t)
	b := moduleFile(t, k, "virtio_net")
	file := filepath.Join(t.TempDir(), "m.ko")
	if err := os.WriteFile(file, b, 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("nm", "-p", file).Output()
	if err != nil {
		t.Fatal(err)
	}
	im, err := openBytes(b, vm, symversOf(t, k).Module)
	if err != nil {
		t.Fatal(err)
	}
	var have, want []string
	for _, s := range im.Symbols {
		sec, ok := im.SectionAt(s.Addr)
		if !ok || s.Addr < moduleBase || strings.HasPrefix(sec.Name, ".init") {
			t.Errorf("%s is at %#x, in section %q", s.Name, s.Addr, sec.Name)
		}
		have = append(have, s.Name+" "+strconv.FormatUint(s.Addr-sec.Addr, 16))
	}
	left := 0
	for _, l := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		f := strings.Fields(l)
		if len(f) < 3 {
			continue // undefined
		}
		v, _ := strconv.ParseUint(f[0], 16, 64)
		line := f[2] + " " + strconv.FormatUint(v, 16)
		if len(want) < len(have) && have[len(want)] == line {
			want = append(want, line)
			continue
		}
		left++
		if im.lookup(f[2]) != nil && !im.unstable[f[2]] {
			t.Errorf("%s is kept, but out of order", f[2])
		}
	}
	if len(want) != len(have) || len(have) < 100 || left == 0 {
		t.Errorf("%d of %d symbols are in nm's order, %d are left out", len(want), len(have), left)
	}
	if !slices.Contains(im.Depends, "net_failover") || len(im.BTF()) == 0 || !strings.Contains(im.Vermagic, "mod_unload") {
		t.Errorf("depends %v, vermagic %q, %d bytes of BTF", im.Depends, im.Vermagic, len(im.BTF()))
	}
}

// TestModuleFields checks that relocations are in the section data.
func TestModuleFields(t *testing.T) {
	k, vm := openShipped(t)
	im, err := openBytes(moduleFile(t, k, "virtio_net"), vm, symversOf(t, k).Module)
	if err != nil {
		t.Fatal(err)
	}
	modules, percpu := map[string]bool{}, 0
	for i, r := range im.Relocs {
		modules[r.Object] = true
		if i > 0 && cmp.Compare(im.Relocs[i-1].Addr, r.Addr) > 0 {
			t.Fatal("the relocations are not sorted")
		}
		if r.Object == VmlinuxName && vm.Exports[r.Symbol].Addr < 1<<32 {
			percpu++
		}
	}
	if !modules[VmlinuxName] || !modules["virtio_ring"] || !modules["virtio_net"] || percpu == 0 {
		t.Errorf("relocations refer to %v, %d to per-cpu variables", modules, percpu)
	}
	fentry := vm.Exports["__fentry__"].Addr
	for _, s := range im.Sites {
		if s.Kind != SiteMcount {
			continue
		}
		in, err := im.instAt(s.Addr)
		if err != nil || s.Addr+uint64(in.Target) != fentry {
			t.Fatalf("the call at %#x leads to %#x, %v", s.Addr, s.Addr+uint64(in.Target), err)
		}
		if r := im.RelocsIn(s.Addr, 5); len(r) != 1 || r[0].Symbol != "__fentry__" || !r[0].PCRel || r[0].Addend != -4 {
			t.Fatalf("relocations there: %+v", r)
		}
	}
	for _, sym := range []string{"_copy_to_iter", "virtqueue_get_buf"} {
		i := slices.IndexFunc(im.Imports, func(i Import) bool { return i.Name == sym })
		if i < 0 {
			continue
		}
		p, err := im.Refer(im.Imports[i].Addr)
		if err != nil || p.Symbol != sym || p.Object != im.Imports[i].Object || len(im.SymbolAt(im.Imports[i].Addr)) == 0 {
			t.Errorf("%s is found as %+v, %v", sym, p, err)
		}
	}
	// inside a function of the kernel
	if p, err := im.Refer(fentry + 1); err != nil || p.Symbol != "__fentry__" || p.Addend != 1 {
		t.Errorf("behind __fentry__ is %+v, %v", p, err)
	}
	if p, err := im.Refer(1 << 40); err == nil {
		t.Errorf("an address of nothing is %+v", p)
	}
}

func TestPerCPUModule(t *testing.T) {
	k, vm := openShipped(t)
	im, err := openBytes(moduleFile(t, k, "x_tables"), vm, symversOf(t, k).Module)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, r := range im.Relocs {
		if r.Section == perCPU {
			t.Errorf("the relocation at %#x refers to the section of per-cpu variables", r.Addr)
		}
		if r.Object == im.Name && r.Symbol != "" {
			n++
		}
	}
	if n == 0 {
		t.Error("x_tables does not refer to its per-cpu variables")
	}
}

func TestPackedModule(t *testing.T) {
	k, vm := openShipped(t)
	b := moduleFile(t, k, "virtio_blk")
	var gz bytes.Buffer
	w := gzip.NewWriter(&gz)
	w.Write(b)
	w.Close()
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	want, err := openBytes(b, vm, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, p := range map[string][]byte{
		"gz": gz.Bytes(), "zst": enc.EncodeAll(b, nil),
		"xz": pipe(t, b, "xz", "--check=crc32", "--lzma2=dict=1MiB"),
	} {
		im, err := openBytes(p, vm, nil)
		if err != nil || im.BuildID != want.BuildID || len(im.Symbols) != len(want.Symbols) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestForeignModule(t *testing.T) {
	k, vm := openShipped(t)
	b := moduleFile(t, k, "virtio_blk")
	change := func(old, to string) []byte { return bytes.ReplaceAll(b, []byte(old), []byte(to)) }
	versions := bytes.Clone(b)
	at := bytes.Index(versions, append([]byte("module_layout"), 0)) // in __versions, after its CRC
	versions[at-8] ^= 1
	field := bytes.Clone(b)
	im, err := openBytes(b, vm, nil)
	if err != nil {
		t.Fatal(err)
	}
	text := im.section(".text")
	unlinked := bytes.Clone(text.Data[:64])
	for _, r := range im.RelocsIn(text.Addr, 64) {
		clear(unlinked[r.Addr-text.Addr:][:r.Len])
	}
	if at = bytes.Index(field, unlinked); at < 0 {
		t.Fatal("the module's text is not in the file")
	}
	field[uint64(at)+im.RelocsIn(text.Addr, 64)[0].Addr-text.Addr] = 1
	other := strings.Replace(k.Release, k.Release[:1], "9", 1)
	for name, c := range map[string]struct {
		file   []byte
		ex     Exporter
		reason string
	}{
		"another release":   {change(k.Release, other), nil, "is for \"" + other},
		"another CRC":       {versions, nil, "module_layout with CRC"},
		"no module":         {change(".modinfo", ".madinfo"), nil, "no kernel module"},
		"name":              {change("\x00name=virtio_blk", "\x00name=virtio/blk"), nil, "gives it the name"},
		"no build id":       {change(".note.gnu.build-id", ".note.gnu.build_id"), nil, "no GNU build id"},
		"a field":           {field, nil, "section .text"},
		"not an export":     {b, func(string) (string, bool) { return VmlinuxName, true }, "and does not"},
		"cut off":           {b[:len(b)/2], nil, "reading module"},
		"something else":    {bytes.Repeat([]byte("text"), 100), nil, "neither an ELF file"},
		"the kernel itself": {vm.Vmlinux, nil, "reading module"},
	} {
		if _, err := openBytes(c.file, vm, c.ex); err == nil || !strings.Contains(err.Error(), c.reason) {
			t.Errorf("%s: %v, expected %q", name, err, c.reason)
		}
	}
	// Nobody knows who exports what: that is no reason to refuse it as a whole.
	if !slices.ContainsFunc(im.Imports, func(i Import) bool { return i.Object == "" && i.Addr >= importBase }) {
		t.Error("no import without a known exporter")
	}
}

func TestUnstablePosition(t *testing.T) {
	k, vm := openShipped(t)
	b := moduleFile(t, k, "virtio_blk")
	im, err := openBytes(b, vm, nil)
	if err != nil {
		t.Fatal(err)
	}
	fn := im.Lookup("virtblk_done")
	if len(fn) != 1 {
		t.Fatal("virtio_blk has no virtblk_done")
	}
	if pos, ambiguous := im.Sympos("virtblk_done", fn[0].Addr); pos != 1 || ambiguous {
		t.Errorf("Sympos = %d, %v", pos, ambiguous)
	}
	// virtio_blk_init gets the name of another function: it is freed after the start.
	twin := bytes.ReplaceAll(b, []byte("\x00virtio_blk_init\x00"), []byte("\x00virtblk_done\x00\x00\x00\x00"))
	if im, err = openBytes(twin, vm, nil); err != nil {
		t.Fatal(err)
	}
	if pos, ambiguous := im.Sympos("virtblk_done", fn[0].Addr); pos != 0 || !ambiguous {
		t.Errorf("with a twin among what is freed: Sympos = %d, %v", pos, ambiguous)
	}
	if n := len(im.Lookup("virtblk_done")); n != 1 {
		t.Errorf("%d symbols virtblk_done", n)
	}
}

func TestReadSymvers(t *testing.T) {
	const good = "0x1\ta\tvmlinux\tEXPORT_SYMBOL\t\n0x2\tb\tdrivers/net/some-thing\tEXPORT_SYMBOL_GPL\tNS\n"
	sv, err := ReadSymvers(strings.NewReader(good))
	if err != nil {
		t.Fatal(err)
	}
	if m, ok := sv.Module("b"); m != "some_thing" || !ok {
		t.Errorf("b is exported by %q, %v", m, ok)
	}
	if m, ok := sv.Module("c"); m != "" || ok {
		t.Errorf("c is exported by %q, %v", m, ok)
	}
	for _, bad := range []string{"0x1\ta\n", "0x1\t\tvmlinux\tX\n", "0x1\ta\t\tX\n", good + "0x3\ta\tother\tEXPORT_SYMBOL\t\n", strings.Repeat("x", maxSymversLine+1)} {
		if _, err := ReadSymvers(strings.NewReader(bad)); err == nil {
			t.Errorf("%.40q is accepted", bad)
		}
	}
}

func FuzzReadSymvers(f *testing.F) {
	f.Add("0x1\ta\tvmlinux\tEXPORT_SYMBOL\t\n")
	f.Fuzz(func(t *testing.T, s string) {
		sv, err := ReadSymvers(strings.NewReader(s))
		for name, m := range sv {
			if err == nil && (name == "" || m == "" || strings.Contains(m, "-")) {
				t.Errorf("%q is exported by %q", name, m)
			}
		}
	})
}
