// SPDX-License-Identifier: Apache-2.0

package kallsyms

import (
	"errors"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

const text = `0000000000000000 A fixed_percpu_data
0000000000001000 A cpu_debug_store
ffffffff81000000 T _stext
ffffffff81000100 t _rs.24
ffffffff81000200 t dup
ffffffff81000180 t dup
ffffffff81000300 t dup
ffffffffc0001000 t dup	[virtio_blk]
ffffffffc0001010 t virtblk_done	[virtio_blk]
ffffffffc0002000 t bpf_prog_6deef7357e7b4530	[bpf]
`

func TestParse(t *testing.T) {
	tab, err := Open(fstest.MapFS{"proc/kallsyms": {Data: []byte(text)}})
	if err != nil {
		t.Fatal(err)
	}
	if got := len(tab.All()); got != 10 {
		t.Errorf("%d symbols", got)
	}
	if d := cmp.Diff(Symbol{"virtblk_done", 0xffffffffc0001010, 't', "virtio_blk"}, tab.All()[8]); d != "" {
		t.Error(d)
	}
	for _, c := range []struct {
		module, name string
		want         []uint64
	}{
		{"", "dup", []uint64{0xffffffff81000200, 0xffffffff81000180, 0xffffffff81000300}}, // file order, not address order
		{"virtio_blk", "dup", []uint64{0xffffffffc0001000}},
		{"", "virtblk_done", nil},
		{"", "_stext", []uint64{0xffffffff81000000}},
		{"zzz", "zzz", nil},
		{"", "", nil},
	} {
		if d := cmp.Diff(c.want, tab.Lookup(c.module, c.name)); d != "" {
			t.Errorf("Lookup(%q, %q): %s", c.module, c.name, d)
		}
	}
}

func TestRestricted(t *testing.T) {
	hidden := "0000000000000000 T _stext\n0000000000000000 t f\t[m]\n"
	var restricted *RestrictedError
	if _, err := Parse(strings.NewReader(hidden)); !errors.As(err, &restricted) || !strings.Contains(err.Error(), "kptr_restrict") {
		t.Errorf("Parse: %v", err)
	}
	if err := Shown(strings.NewReader(hidden)); !errors.As(err, &restricted) {
		t.Errorf("Shown: %v", err)
	}
	if err := Shown(strings.NewReader(text)); err != nil {
		t.Errorf("Shown: %v", err)
	}
}

func TestBadInput(t *testing.T) {
	for _, in := range []string{
		"", "\n", "zz T x\n", "ffffffff81000000\n", "ffffffff81000000 T\n", "ffffffff81000000 T \n",
		"ffffffff81000000 TT x\n", "fffffffff81000000 T x\n", "ffffffff81000000 T x\tm\n", "ffffffff81000000 T x\t[]\n",
	} {
		var restricted *RestrictedError
		if _, err := Parse(strings.NewReader(in)); err == nil || errors.As(err, &restricted) {
			t.Errorf("Parse(%q): %v", in, err)
		}
		if err := Shown(strings.NewReader(in)); err == nil || errors.As(err, &restricted) {
			t.Errorf("Shown(%q): %v", in, err)
		}
	}
	if _, err := Open(fstest.MapFS{}); err == nil {
		t.Error("a missing file was read")
	}
}

func FuzzParse(f *testing.F) {
	f.Add(text)
	f.Add("0 T x\n")
	f.Add("ffffffff81000000 T x\t[m]")
	f.Fuzz(func(t *testing.T, in string) {
		tab, err := Parse(strings.NewReader(in))
		if err != nil {
			return
		}
		// Every symbol must be found again at its position.
		seen := map[[2]string]int{}
		for _, s := range tab.All() {
			key := [2]string{s.Module, s.Name}
			got := tab.Lookup(s.Module, s.Name)
			if n := seen[key]; n >= len(got) || got[n] != s.Addr {
				t.Fatalf("symbol %v not at position %d of %x", s, n+1, got)
			}
			seen[key]++
		}
	})
}

func TestModule(t *testing.T) {
	tab, err := Parse(strings.NewReader("ffffffff81000000 T a\nffffffffc0000010 t b\t[one]\nffffffffc0000000 t a\t[one]\nffffffffc1000000 t c\t[two]\n"))
	if err != nil {
		t.Fatal(err)
	}
	if m := tab.Module("one"); len(m) != 2 || m[0].Name != "b" || m[1].Addr != 0xffffffffc0000000 {
		t.Errorf("module one has %+v", m)
	}
	if m := tab.Module("three"); len(m) != 0 {
		t.Errorf("module three has %+v", m)
	}
}
