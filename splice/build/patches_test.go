// SPDX-License-Identifier: Apache-2.0

package build

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/diff"

	"github.com/upsplice/upsplice/kmod/cfiles"
)

// patchOf writes edits of a tree as a patch.
func patchOf(t *testing.T, dir string, edits ...edit) string {
	t.Helper()
	var text bytes.Buffer
	for _, e := range edits {
		old, err := os.ReadFile(filepath.Join(dir, e.path))
		if os.IsNotExist(err) {
			n := strings.Count(e.new, "\n")
			fmt.Fprintf(&text, "--- /dev/null\n+++ b/%s\n@@ -0,0 +1,%d @@\n+%s\n", e.path, n, strings.ReplaceAll(strings.TrimSuffix(e.new, "\n"), "\n", "\n+"))
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		changed := string(old) + e.new
		if e.old != "" {
			if !strings.Contains(string(old), e.old) {
				t.Fatalf("%s has no %q: the test needs another place", e.path, e.old)
			}
			changed = strings.Replace(string(old), e.old, e.new, 1)
		}
		text.Write(diff.Diff("a/"+e.path, old, "b/"+e.path, []byte(changed)))
	}
	name := filepath.Join(t.TempDir(), strings.ReplaceAll(t.Name(), "/", "-")+".patch")
	if err := os.WriteFile(name, text.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

// Edits that several patches share.
var (
	greeting = edit{"fs/proc/cmdline.c", "\tseq_putc(m, '\\n');\n", "\tseq_puts(m, \" upsplice\\n\");\n"}
	geometry = edit{"drivers/block/virtio_blk.c", "geo->heads = 1 << 6;", "geo->heads = 1 << 5;"}
)

// testPatches makes splices from patches: one of each kind of change.
func testPatches(t *testing.T, from Kernel, cache string) {
	s, err := openStore(t.Context(), cache)
	if err != nil {
		t.Fatal(err)
	}
	pre, err := s.side(from)
	if err != nil {
		t.Fatal(err)
	}
	s.close()
	files, err := cfiles.Write(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name    string
		patches [][]edit
		groups  []string // what goes live, boot or waits, with the reasons
		live    []string // functions
	}{
		{
			name:    "function",
			patches: [][]edit{{greeting}},
			groups:  []string{"[fs/proc/cmdline.o] live []"},
			live:    []string{"vmlinux cmdline_proc_show changed"},
		},
		{
			name:    "lines only",
			patches: [][]edit{{{"mm/vmalloc.c", "#include <linux/vmalloc.h>\n", "/*\n * Longer.\n */\n\n#include <linux/vmalloc.h>\n"}}},
		},
		{
			name:    "module",
			patches: [][]edit{{geometry}},
			groups:  []string{"[drivers/block/virtio_blk.o] live []"},
			live:    []string{"virtio_blk virtblk_getgeo changed"},
		},
		{
			name:    "two targets from two patches",
			patches: [][]edit{{greeting}, {geometry}},
			groups:  []string{"[drivers/block/virtio_blk.o fs/proc/cmdline.o] live []"},
			live:    []string{"virtio_blk virtblk_getgeo changed", "vmlinux cmdline_proc_show changed"},
		},
		{
			name: "one of two is refused",
			patches: [][]edit{{greeting}, {
				{"kernel/panic.c", "int panic_timeout = CONFIG_PANIC_TIMEOUT;", "int panic_timeout = CONFIG_PANIC_TIMEOUT + 17;"},
			}},
			groups: []string{"[fs/proc/cmdline.o kernel/panic.o] waits [data panic_timeout]"},
		},
		{
			name:    "boot code only",
			patches: [][]edit{{{"fs/filesystems.c", "proc_create_single(\"filesystems\", 0, NULL", "proc_create_single(\"filesystems\", 0400, NULL"}}},
			groups:  []string{"[fs/filesystems.o] boot [init proc_filesystems_init]"},
		},
		{
			name:    "header",
			patches: [][]edit{{{"fs/proc/internal.h", "return PROC_I(inode)->pid;", "return inode->i_ino ? PROC_I(inode)->pid : NULL;"}}},
			groups:  nil, // checked below
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			req := Request{From: from, Cache: cache, CFiles: files, Description: tc.name}
			for i, edits := range tc.patches {
				t.Run(fmt.Sprint("patch", i), func(t *testing.T) {
					name := patchOf(t, pre.tree, edits...)
					kept := filepath.Join(cache, fmt.Sprintf("test-%d.patch", i))
					if err := os.Rename(name, kept); err != nil {
						t.Fatal(err)
					}
					req.Patches = append(req.Patches, kept)
				})
			}
			res, err := Run(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			var groups, live []string
			for _, g := range res.Groups {
				state := map[bool]string{true: "live", false: "waits"}[g.Live]
				if g.Boot {
					state = "boot"
				}
				var reasons []string
				for _, r := range g.Reasons {
					reasons = append(reasons, r.Code+" "+r.What)
				}
				groups = append(groups, fmt.Sprintf("%v %s %v", g.Units, state, reasons))
			}
			if res.File != nil {
				for _, f := range res.File.Manifest.Functions {
					live = append(live, f.Object+" "+f.Name+" "+f.Kind)
				}
				if m := res.File.Manifest; m.Description != tc.name || len(m.Patches) != len(tc.patches) {
					t.Errorf("the manifest has the description %q and %d patches", m.Description, len(m.Patches))
				}
			}
			if tc.name == "header" {
				// Which functions take the inline in is the compiler's choice.
				if res.File == nil || len(live) < 2 || !slices.ContainsFunc(live, func(f string) bool { return strings.HasPrefix(f, "vmlinux proc_pid") }) {
					t.Errorf("live: %v; groups: %v", live, groups)
				}
				return
			}
			if d := cmp.Diff(tc.groups, groups); d != "" {
				t.Errorf("groups (-want +got):\n%s", d)
			}
			if d := cmp.Diff(tc.live, live); d != "" {
				t.Errorf("functions (-want +got):\n%s", d)
			}
		})
	}
}
