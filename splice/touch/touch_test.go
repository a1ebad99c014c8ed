// SPDX-License-Identifier: Apache-2.0

package touch

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/upsplice/upsplice/splice/kbuild"
	"github.com/upsplice/upsplice/splice/tree"
)

const before = `#include <linux/a.h>

struct thing {
	int a;
};

static const int table[] = { 1, 2 };

static int first(struct thing *t)
{
	if (t->a)
		goto out;
	t->a = 1;
out:
	return 0;
}

SYSCALL_DEFINE2(second, int, fd, int, x)
{
	return 0;
}

int
third(void)
{
	return 3;
}
EXPORT_SYMBOL_GPL(third);
`

func names(parts []Part) (list []string) {
	for _, p := range parts {
		list = append(list, p.Name+": "+strings.Join(p.Words, " "))
	}
	return list
}

func TestParts(t *testing.T) {
	for _, c := range []struct {
		name, from, to string
		want           []string
	}{
		{"nothing", "", "", nil},
		{"member", "int a;", "int a;\n\tlong Extra;", []string{"thing: extra long"}},
		{"after a label", "return 0;\n}\n\nSYS", "return t_lost;\n}\n\nSYS", []string{"first: return t_lost"}},
		{"system call", "return 0;\n}\n\nint", "return fd_gone;\n}\n\nint", []string{"second: fd_gone return"}},
		{"name on its own line", "return 3", "return four", []string{"third: four return"}},
		{"data", "{ 1, 2 }", "{ one, 2 }", []string{"table: const int one static table"}},
		{"include", "a.h", "abc.h", []string{": abc include linux"}},
		{"export", "EXPORT_SYMBOL_GPL(third);\n", "", []string{"third: export_symbol_gpl third"}},
	} {
		post := strings.Replace(before, c.from, c.to, 1)
		if diff := cmp.Diff(c.want, names(Parts([]byte(before), []byte(post)))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
	if got := Parts(nil, []byte(before)); len(got) != 6 {
		t.Errorf("a new file has the parts %q", names(got))
	}
}

func TestFiles(t *testing.T) {
	pre, post := t.TempDir(), t.TempDir()
	for root, files := range map[string]map[string]string{
		pre:  {"a/x.c": "int f(void)\n{\n\treturn 1;\n}\n", "gone.c": "int gone;\n"},
		post: {"a/x.c": "int f(void)\n{\n\treturn two;\n}\n", "new.h": "int fresh;\n"},
	} {
		for name, text := range files {
			path := filepath.Join(root, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	delta := &tree.Delta{Files: []tree.File{
		{Path: "new.h", Kind: "new", Kept: true}, {Path: "Documentation/x", Kind: "changed"},
		{Path: "gone.c", Kind: "removed", Kept: true}, {Path: "a/x.c", Kind: "changed", Kept: true},
	}}
	units := []kbuild.Unit{
		{Source: "a/x.c", Target: kbuild.Vmlinux}, {Source: "a/x.c", Target: "drivers/a/a-mod"},
		{Source: "a/x.c", Target: "drivers/a/a-mod"},
	}
	got, err := Files(context.Background(), pre, post, delta, units)
	if err != nil {
		t.Fatal(err)
	}
	want := []File{
		{Path: "Documentation/x", Kind: "changed"},
		{Path: "a/x.c", Kind: "changed", Targets: []string{"a_mod", "vmlinux"}, Parts: []Part{{"f", []string{"return", "two"}}}},
		{Path: "gone.c", Kind: "removed", Parts: []Part{{"gone", []string{"gone", "int"}}}},
		{Path: "new.h", Kind: "new", Parts: []Part{{"fresh", []string{"fresh", "int"}}}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Files (-want +got):\n%s", diff)
	}
	if got[3].Source() || !got[1].Source() {
		t.Error("which are compiled is not told")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Files(ctx, pre, post, delta, units); err == nil {
		t.Error("goes on when told to stop")
	}
}

func FuzzParts(f *testing.F) {
	f.Add([]byte(before), []byte(strings.ReplaceAll(before, "int", "long")))
	f.Add([]byte("#define X(\n"), []byte("struct {\n\xff("))
	f.Add([]byte("@@ -1 +1 @@\n"), []byte("@@ -9999999999999999999,1 +0 @@\nx"))
	f.Fuzz(func(t *testing.T, pre, post []byte) {
		for _, p := range Parts(pre, post) {
			if len(p.Words) > maxWords {
				t.Errorf("%q has %d words", p.Name, len(p.Words))
			}
		}
	})
}
