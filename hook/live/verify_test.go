// SPDX-License-Identifier: Apache-2.0

package live

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/upsplice/upsplice/kmod/livepatch"
	"github.com/upsplice/upsplice/splice/splicefile"
)

// TestVerify: each function is looked for in its own object, and nothing is demanded of
// a module that is not loaded.
func TestVerify(t *testing.T) {
	const there = "sys/kernel/livepatch/upsplice_1_r2/"
	for _, c := range []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"all", map[string]string{}, ""},
		{"of vmlinux, and it is not patched", map[string]string{there + "vmlinux/patched": "0\n"}, "vmlinux is not patched"},
		{"of vmlinux, and it is not there", map[string]string{there + "vmlinux/f,1/x": "-"}, "f of vmlinux"},
		{"module not loaded", map[string]string{"sys/module/m/initstate": "-", there + "m/patched": "0\n", there + "m/g,2/x": "-"}, ""},
		{"module on its way out", map[string]string{"sys/module/m/initstate": "going\n", there + "m/patched": "0\n"}, ""},
		{"module not patched", map[string]string{there + "m/patched": "0\n"}, "m is not patched"},
		{"in another object only", map[string]string{there + "m/g,2/x": "-", there + "vmlinux/g,2/x": ""}, "g of m"},
	} {
		t.Run(c.name, func(t *testing.T) {
			all := map[string]string{
				there + "vmlinux/f,1/x": "", there + "vmlinux/patched": "1\n",
				there + "m/g,2/x": "", there + "m/patched": "1\n", "sys/module/m/initstate": "live\n",
			}
			for name, text := range c.files {
				all[name] = text
			}
			root := t.TempDir()
			for name, text := range all {
				if text == "-" {
					continue
				}
				name = filepath.Join(root, name)
				if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			k := &Kernel{Root: os.DirFS(root), Patches: &livepatch.System{Root: root}}
			err := k.verify("upsplice_1", splicefile.Manifest{Functions: []splicefile.Function{
				{Name: "f", Kind: "changed"}, {Name: "g", Object: "m", Sympos: 2, Kind: "changed"}, {Name: "h", Object: "m", Kind: "new"},
			}})
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("verify() = %v, want %q", err, c.want)
			}
		})
	}
}
