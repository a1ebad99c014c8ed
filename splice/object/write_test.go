// SPDX-License-Identifier: Apache-2.0

package object

import (
	"bytes"
	"debug/elf"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func write(t testing.TB, o *Object) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, o); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// flatten turns an object into values that can be compared: pointers become positions.
func flatten(o *Object) any {
	type reloc struct {
		Offset, Addend any
		Type           uint32
		Symbol         int
	}
	type section struct {
		Section
		Relocs []reloc
		Klp    map[string][]reloc
		Link   int
	}
	type symbol struct {
		Symbol
		Section int
	}
	secs, syms := map[*Section]int{nil: -1}, map[*Symbol]int{nil: -1}
	for i, s := range o.Sections {
		secs[s] = i
	}
	for i, s := range o.Symbols {
		syms[s] = i
	}
	relocs := func(in []Reloc) []reloc {
		var out []reloc
		for _, r := range in {
			out = append(out, reloc{r.Offset, r.Addend, r.Type, syms[r.Symbol]})
		}
		return out
	}
	var flat struct {
		Machine  elf.Machine
		Flags    uint32
		Sections []section
		Symbols  []symbol
	}
	flat.Machine, flat.Flags = o.Machine, o.Flags
	for _, s := range o.Sections {
		f := section{Section: *s, Relocs: relocs(s.Relocs), Klp: map[string][]reloc{}, Link: secs[s.Link]}
		for _, k := range s.KlpRelocs {
			f.Klp[k.Name] = relocs(k.Relocs)
		}
		f.Section.Relocs, f.Section.KlpRelocs, f.Section.Link = nil, nil, nil
		flat.Sections = append(flat.Sections, f)
	}
	for _, s := range o.Symbols {
		f := symbol{Symbol: *s, Section: secs[s.Section]}
		f.Symbol.Section = nil
		flat.Symbols = append(flat.Symbols, f)
	}
	return flat
}

// quietReadelf runs readelf over everything in an object and demands silence on stderr.
func quietReadelf(t *testing.T, b []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "o.o")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	var out, problems bytes.Buffer
	cmd := exec.Command("readelf", "-aW", file)
	cmd.Stdout, cmd.Stderr = &out, &problems
	if err := cmd.Run(); err != nil || problems.Len() > 0 {
		t.Errorf("readelf: %v\n%s", err, problems.String())
	}
	if s := out.String(); strings.Contains(strings.ToLower(s), "warning") {
		t.Errorf("readelf warns:\n%s", s)
	}
	return out.String()
}

func TestWriteRoundTrip(t *testing.T) {
	o := readBytes(t, assemble(t, source))
	b := write(t, o)
	again := readBytes(t, b)
	if d := cmp.Diff(flatten(o), flatten(again)); d != "" {
		t.Errorf("the object changed on its way through Write and Read:\n%s", d)
	}
	if !bytes.Equal(b, write(t, again)) {
		t.Error("writing what was read gives other bytes")
	}
	if !bytes.Equal(b, write(t, o)) {
		t.Error("writing twice gives other bytes")
	}
	quietReadelf(t, b)
}

// The linker is a second reader: what it makes of our file must be what it makes
// of the assembler's.
func TestWriteLinks(t *testing.T) {
	dir := t.TempDir()
	in := assemble(t, source)
	var linked [2][]byte
	for i, b := range [][]byte{in, write(t, readBytes(t, in))} {
		file, out := filepath.Join(dir, "in.o"), filepath.Join(dir, "out.o")
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if msg, err := exec.Command("ld", "-r", "-o", out, file).CombinedOutput(); err != nil || len(msg) > 0 {
			t.Fatalf("ld: %v\n%s", err, msg)
		}
		var err error
		if linked[i], err = os.ReadFile(out); err != nil {
			t.Fatal(err)
		}
	}
	want, have := readBytes(t, linked[0]), readBytes(t, linked[1])
	if d := cmp.Diff(flatten(want), flatten(have)); d != "" {
		t.Errorf("ld -r makes something else of our file:\n%s", d)
	}
}

func TestWriteLivepatch(t *testing.T) {
	text := &Section{Name: ".text.f", Type: elf.SHT_PROGBITS, Flags: elf.SHF_ALLOC | elf.SHF_EXECINSTR, Align: 16, Data: make([]byte, 16), Size: 16}
	klp := &Symbol{Name: ".klp.sym.vmlinux.g,0", Bind: elf.STB_GLOBAL, Special: SHN_LIVEPATCH}
	local := &Symbol{Name: "f", Type: elf.STT_FUNC, Section: text, Size: 16}
	text.KlpRelocs = []KlpRelocs{{
		Name:   ".klp.rela.vmlinux..text.f",
		Relocs: []Reloc{{Offset: 4, Type: uint32(elf.R_X86_64_PC32), Symbol: klp, Addend: -4}},
	}}
	// the global symbol is listed first, the format wants it last
	o := &Object{Machine: elf.EM_X86_64, Sections: []*Section{text}, Symbols: []*Symbol{klp, local}}
	b := write(t, o)
	again := readBytes(t, b)
	if again.Symbols[0].Name != "f" || again.Symbols[1].Special != SHN_LIVEPATCH {
		t.Errorf("symbols are %v and %v", again.Symbols[0], again.Symbols[1])
	}
	got := again.Sections[0].KlpRelocs
	if len(got) != 1 || got[0].Name != ".klp.rela.vmlinux..text.f" || len(got[0].Relocs) != 1 || got[0].Relocs[0].Symbol != again.Symbols[1] {
		t.Errorf("livepatch relocations are %+v", got)
	}
	listing := quietReadelf(t, b)
	for _, want := range []string{"OS [0xff20] .klp.sym.vmlinux.g,0", "AIo"} {
		if !strings.Contains(listing, want) {
			t.Errorf("readelf does not show %q", want)
		}
	}
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	symtab := f.SectionByType(elf.SHT_SYMTAB)
	if symtab.Info != 2 {
		t.Errorf("the first global symbol is said to be %d, want 2", symtab.Info)
	}
	rela := f.Section(".klp.rela.vmlinux..text.f")
	if f.Sections[rela.Info].Name != ".text.f" || f.Sections[rela.Link] != symtab {
		t.Errorf("relocation section has link %d and info %d", rela.Link, rela.Info)
	}
}

func TestWriteRefuses(t *testing.T) {
	section := func() *Section {
		return &Section{Name: ".data", Type: elf.SHT_PROGBITS, Align: 8, Data: make([]byte, 8), Size: 8}
	}
	tests := map[string]struct {
		change func(*Object)
		want   string
	}{
		"foreign symbol": {func(o *Object) {
			o.Sections[0].Relocs = []Reloc{{Type: uint32(elf.R_X86_64_64), Symbol: &Symbol{Name: "stray"}}}
		}, "stray"},
		"foreign section": {func(o *Object) { o.Symbols = []*Symbol{{Name: "stray", Section: section()}} }, "stray"},
		"foreign link":    {func(o *Object) { o.Sections[0].Link = section() }, ".data"},
		"link order":      {func(o *Object) { o.Sections[0].Flags = elf.SHF_LINK_ORDER }, "does not say which"},
		"twice":           {func(o *Object) { o.Sections = append(o.Sections, o.Sections[0]) }, "listed twice"},
		"size":            {func(o *Object) { o.Sections[0].Size = 9 }, "has 8 bytes and says 9"},
		"alignment":       {func(o *Object) { o.Sections[0].Align = 12 }, "alignment 12"},
		"huge alignment":  {func(o *Object) { o.Sections[0].Align = 1 << 40 }, "alignment"},
		"nobits contents": {func(o *Object) { o.Sections[0].Type = elf.SHT_NOBITS }, "SHT_NOBITS"},
		"relocation beyond the end": {func(o *Object) {
			o.Sections[0].Relocs = []Reloc{{Offset: 5, Type: uint32(elf.R_X86_64_32)}}
		}, "0x5"},
		"symbol beyond the end": {func(o *Object) {
			o.Symbols = []*Symbol{{Name: "wide", Section: o.Sections[0], Size: 9}}
		}, "wide"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			o := &Object{Machine: elf.EM_X86_64, Sections: []*Section{section()}}
			tt.change(o)
			var b bytes.Buffer
			err := Write(&b, o)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error is %v, want one that names %q", err, tt.want)
			}
			if b.Len() > 0 {
				t.Error("a part of the refused object was written")
			}
		})
	}
}

type fullDisk struct{}

var errFull = errors.New("no space left")

func (fullDisk) Write([]byte) (int, error) { return 0, errFull }

func TestWriteFullDisk(t *testing.T) {
	if err := Write(fullDisk{}, &Object{Machine: elf.EM_X86_64}); !errors.Is(err, errFull) {
		t.Errorf("error is %v, want the writer's", err)
	}
}

// FuzzWrite demands that what Read accepts survives Write and another Read.
func FuzzWrite(f *testing.F) {
	f.Add(assemble(f, source))
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := Read(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		var out bytes.Buffer
		if Write(&out, o) != nil {
			return // more than Write can say, such as a relocation at a place without contents
		}
		again, err := Read(bytes.NewReader(out.Bytes()), int64(out.Len()))
		if err != nil {
			t.Fatalf("reading back: %v", err)
		}
		var once bytes.Buffer
		if err := Write(&once, again); err != nil || !bytes.Equal(once.Bytes(), out.Bytes()) {
			t.Fatalf("the second round differs: %v", err)
		}
	})
}
