// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"testing"

	"github.com/upsplice/upsplice/splice/freeze"
)

func TestUnwanted(t *testing.T) {
	inode := Change{"fs/ext4/inode.c", "ext4_write_end"}
	exit := Change{"kernel/exit.c", "do_exit"}
	table := Change{"drivers/net/tap.c", ""}
	for _, c := range []struct {
		name        string
		allow, deny []string
		changes     []Change
		want        string // What of the reason
	}{
		{"nothing said", nil, nil, []Change{inode, exit}, ""},
		{"directory", nil, []string{"fs/ext4"}, []Change{exit, inode}, "ext4_write_end"},
		{"directory with a slash", nil, []string{"fs/ext4/"}, []Change{inode}, "ext4_write_end"},
		{"directory pattern", nil, []string{"drivers/*"}, []Change{table}, "drivers/net/tap.c"},
		{"upper directory", nil, []string{"fs"}, []Change{inode}, "ext4_write_end"},
		{"file", nil, []string{"fs/*/inode.c"}, []Change{inode}, "ext4_write_end"},
		{"name is not a prefix", nil, []string{"fs/ext"}, []Change{inode}, ""},
		{"function", nil, []string{":do_exit"}, []Change{inode, exit}, "do_exit"},
		{"function pattern elsewhere", nil, []string{"net:do_*"}, []Change{exit}, ""},
		{"function pattern here", nil, []string{"kernel:do_*"}, []Change{exit}, "do_exit"},
		{"a function pattern is not for data", nil, []string{":*"}, []Change{table}, ""},
		{"allowed", []string{"fs"}, nil, []Change{inode}, ""},
		{"half allowed", []string{"fs"}, nil, []Change{inode, exit}, "do_exit"},
		{"allowed by two", []string{"fs", ":do_exit"}, nil, []Change{inode, exit}, ""},
		{"deny goes before allow", []string{"fs"}, []string{"fs/ext4"}, []Change{inode}, "ext4_write_end"},
		{"no change, nothing to allow", []string{"fs"}, nil, nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := New(c.allow, c.deny)
			if err != nil {
				t.Fatal(err)
			}
			got, unwanted := r.Unwanted(c.changes)
			if got.What != c.want || unwanted != (c.want != "") || unwanted && (got.Code != Code || got.Detail == "") {
				t.Errorf("Unwanted() = %+v, %v, want %q", got, unwanted, c.want)
			}
		})
	}
}

func TestWrongPatterns(t *testing.T) {
	for _, p := range []string{"", ":", "fs:", "a:b:c", "/fs", "../fs", "fs/[", ":a[", "fs ext4", "./fs", ":a/b", "fs//ext4"} {
		_, err := New(nil, []string{p})
		var pe *PatternError
		if !errors.As(err, &pe) || pe.Pattern != p {
			t.Errorf("New(%q) = %v, want a *PatternError", p, err)
		}
	}
}

func TestAddition(t *testing.T) {
	for _, c := range []struct {
		name     string
		entities []freeze.Entity
		want     string
	}{
		{"changed function", []freeze.Entity{{File: "a.c", Kind: freeze.Function, Names: []string{"f"}, Pre: "x", Post: "y"}}, ""},
		{"new helper", []freeze.Entity{{File: "a.c", Kind: freeze.Function, Names: []string{"f"}, Post: "y"}}, ""},
		{"new file", []freeze.Entity{{File: "a.c", Kind: freeze.Whole, Post: "y"}}, "a.c"},
		{"file that cannot be cut", []freeze.Entity{{File: "a.c", Kind: freeze.Whole, Pre: "x", Post: "y"}}, ""},
		{"new export", []freeze.Entity{{File: "a.c", Kind: freeze.Invocation, Post: "/* c */\nEXPORT_SYMBOL_GPL(f);"}}, "f"},
		{"export that moves", []freeze.Entity{
			{File: "a.c", Kind: freeze.Invocation, Post: "EXPORT_SYMBOL_GPL(f);"},
			{File: "b.c", Kind: freeze.Invocation, Pre: "EXPORT_SYMBOL(f);"},
		}, ""},
		{"new parameter", []freeze.Entity{{File: "a.c", Kind: freeze.Invocation, Post: "module_param_named(p, q, int, 0);"}}, "p"},
		{"new device id", []freeze.Entity{{File: "a.c", Kind: freeze.Data, Names: []string{"ids"},
			Pre:  "static const struct pci_device_id ids[] = {\n\t{ 1 },\n};",
			Post: "static const struct pci_device_id ids[] = {\n\t{ 1 },\n\t{ 2 },\n};"}}, "ids"},
		{"device id gone", []freeze.Entity{{File: "a.c", Kind: freeze.Data, Names: []string{"ids"},
			Pre:  "static const struct pci_device_id ids[] = {\n\t{ 1 },\n\t{ 2 },\n};",
			Post: "static const struct pci_device_id ids[] = {\n\t{ 1 },\n};"}}, ""},
	} {
		got, ok := Addition(c.entities)
		if got.What != c.want || ok != (c.want != "") {
			t.Errorf("%s: Addition() = %+v, %v, want %q", c.name, got, ok, c.want)
		}
	}
}

func FuzzPattern(f *testing.F) {
	for _, s := range []string{"fs/ext4", "drivers/*", "fs/*:ext4_*", ":do_exit", "[", "a\\", "::", "/"} {
		f.Add(s, "fs/ext4/inode.c", "ext4_write_end")
	}
	f.Fuzz(func(t *testing.T, p, file, function string) {
		r, err := New([]string{p}, nil)
		if err != nil {
			return
		}
		_, unwanted := r.Unwanted([]Change{{file, function}})
		if d, err := New(nil, []string{p}); err != nil {
			t.Error(err)
		} else if _, denied := d.Unwanted([]Change{{file, function}}); denied == unwanted {
			t.Errorf("%q allows and denies alike %q %q", p, file, function)
		}
	})
}
