// SPDX-License-Identifier: Apache-2.0

package reach

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/upsplice/upsplice/kmod/lab"
	"github.com/upsplice/upsplice/splice/compile"
	"github.com/upsplice/upsplice/splice/kbuild"
	"github.com/upsplice/upsplice/splice/objdiff"
	"github.com/upsplice/upsplice/splice/object"
	"github.com/upsplice/upsplice/splice/tree"
)

// sampled is how many units that were not named are compiled from both trees.
const sampled = 24

// kernel is a real tree with its units.
type kernel struct {
	out   *kbuild.Output
	units []kbuild.Unit
}

func realKernel(t *testing.T) *kernel {
	t.Helper()
	k := lab.NeedNewest(t, lab.Headers, lab.Source)
	src := filepath.Join(lab.Dir(), "tree-"+k.Version)
	if _, err := os.Stat(src); err != nil {
		r, err := tree.OpenTar(t.Context(), k.SourceArchive)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		// Another test may have been faster.
		if _, err := tree.Extract(t.Context(), r, src, tree.Options{Arch: "x86"}); err != nil {
			if _, there := os.Stat(src); there != nil {
				t.Fatal(err)
			}
		}
	}
	o, err := kbuild.Seed(t.Context(), filepath.Join(t.TempDir(), "out"), kbuild.Materials{
		Release: k.Release, Arch: "x86", Source: src, Headers: k.HeadersDir, Kbuild: k.KbuildDir, CC: "gcc-12",
	})
	if err != nil {
		t.Fatal(err)
	}
	units, err := o.Query(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return &kernel{o, units}
}

// edit is a change of a header, and units that it must reach. Of them the first
// really compiles to something else.
type edit struct {
	what, header string
	place        string // regular expression
	now          string
	known        []string
}

var edits = []edit{
	{"body of an inline function", "include/linux/sched/signal.h", `(static inline int signal_pending\(struct task_struct \*p\)\n\{)`,
		"$1\n\tif (p->exit_code == 12345)\n\t\treturn 0;\n", []string{"fs/eventpoll.o", "fs/readdir.o", "kernel/signal.o"}},
	{"body of a macro", "include/linux/jiffies.h", `(#define time_is_before_jiffies\(a\) time_after\(jiffies)`, "$1 + 1", []string{"fs/fs-writeback.o", "drivers/char/random.o"}},
	{"member at the end", "include/linux/hw_random.h", `(?s)(struct hwrng \{.*?)\n\};`, "$1\n\tu64 upsplice;\n};", []string{"drivers/char/hw_random/core.o", "drivers/char/tpm/tpm_crb.o"}},
	{"member in the middle, and a constant", "include/linux/pipe_fs_i.h", `(wait_queue_head_t rd_wait, wr_wait;)`, "$1\n\tu64 upsplice;\n", []string{"fs/pipe.o", "fs/splice.o"}},
	{"value of an enum", "include/linux/kobject.h", `(enum kobject_action \{\n\tKOBJ_ADD,)`, "$1 KOBJ_UPSPLICE,", []string{"drivers/base/core.o", "lib/kobject.o"}},
	{"prototype", "include/linux/statfs.h", `(extern int vfs_get_fsid\(.*\));`, "$1 __attribute__((cold));", []string{"fs/notify/fanotify/fanotify_user.o"}},
	{"used only through a macro with ##", "arch/x86/include/asm/percpu.h", `(#define this_cpu_xchg_8\(pcp, nval\).*), nval\)`, "$1, ({ mb(); (nval); }))", []string{"kernel/fork.o"}},
	{"trace point", "include/trace/events/filelock.h", `TP_printk\("fl=`, `TP_printk("FL=`, []string{"fs/locks.o"}},
	{"constant", "include/linux/sysctl.h", `(#define SYSCTL_ONE_HUNDRED\s+)\(\(void \*\)&sysctl_vals\[\d+\]\)`, "$1((void *)&sysctl_vals[0])", []string{"kernel/sysctl.o"}},
	{"comment", "include/linux/list.h", `(static inline void INIT_LIST_HEAD)`, "/* upsplice */\n\n$1", nil},
}

func TestKernel(t *testing.T) {
	k := realKernel(t)
	pre := k.out.Source
	// Beside the other tree: links do not cross file systems.
	post, err := os.MkdirTemp(lab.Dir(), "reach-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(post) })
	if out, err := exec.Command("cp", "-al", pre+"/.", post).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var headers []string
	for _, e := range edits {
		headers = append(headers, e.header)
		path := filepath.Join(post, e.header)
		old, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		re := regexp.MustCompile(e.place)
		at := re.FindSubmatchIndex(old)
		if at == nil {
			t.Fatalf("%s has no %s: the test needs another place", e.header, e.place)
		}
		text := slices.Concat(old[:at[0]], re.Expand(nil, []byte(e.now), old, at), old[at[1]:])
		if err := os.Remove(path); err != nil { // a link
			t.Fatal(err)
		}
		if err := os.WriteFile(path, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}

	trees := Trees{Pre: pre, Post: post, Output: k.out.Dir}
	start := time.Now()
	list, err := Changes(t.Context(), trees, headers)
	if err != nil {
		t.Fatal(err)
	}
	found, err := Units(t.Context(), trees, k.units, list)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d of %d units in %v", len(found), len(k.units), time.Since(start))
	if len(list) != len(edits)-1 {
		t.Errorf("changes of %d headers, want those of all but the one with a new comment: %+v", len(list), list)
	}
	changed := make(map[string]bool) // units that are to be compiled, and to differ
	for _, e := range edits {
		n := 0
		for _, reasons := range found {
			if slices.ContainsFunc(reasons, func(r Reason) bool { return r.Header == e.header }) {
				n++
			}
		}
		t.Logf("%-40s %4d units, %.1f %%", e.what, n, 100*float64(n)/float64(len(k.units)))
		for i, o := range e.known {
			if !slices.ContainsFunc(found[o], func(r Reason) bool { return r.Header == e.header }) {
				t.Errorf("%s: %s is not named", e.what, o)
			}
			if i == 0 {
				changed[o] = true
			}
		}
	}

	seed := uint64(time.Now().UnixNano())
	if v := os.Getenv("UPSPLICE_REACH_SEED"); v != "" {
		var err error
		if seed, err = strconv.ParseUint(v, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	var units []kbuild.Unit
	for _, i := range rng.Perm(len(k.units)) {
		u := k.units[i]
		if _, ok := found[u.Object]; ok == changed[u.Object] && (ok || len(units) < sampled) && !strings.HasPrefix(u.Source, generated) && u.Target != kbuild.Elsewhere {
			units = append(units, u)
		}
	}
	for _, u := range k.units {
		if changed[u.Object] && !slices.ContainsFunc(units, func(o kbuild.Unit) bool { return o.Object == u.Object }) {
			units = append(units, u)
		}
	}
	checkObjects(t, k, units, post, headers, changed)
}

// checkObjects compiles units from both trees: those that are to differ must, no
// others may.
func checkObjects(t *testing.T, k *kernel, units []kbuild.Unit, post string, headers []string, changed map[string]bool) {
	t.Helper()
	var objects [2]map[string]compile.Object
	for i, src := range []string{k.out.Source, post} {
		o := *k.out
		o.Source = src
		var side []kbuild.Unit
		for _, u := range units {
			if _, ok := objects[0][u.Object]; i == 1 && !ok {
				continue // needs what only a full build generates
			}
			u.Args = slices.Clone(u.Args)
			for n, a := range u.Args {
				u.Args[n] = strings.ReplaceAll(a, k.out.Source, src)
			}
			side = append(side, u)
		}
		c := &compile.Compiler{Output: &o, Cache: t.TempDir()}
		list, err := c.Units(t.Context(), side, nil)
		if err != nil && i == 1 {
			t.Fatal(err)
		}
		objects[i] = make(map[string]compile.Object)
		for _, o := range list {
			objects[i][o.Unit.Object] = o
		}
	}
	including := 0
	for _, u := range units {
		before, ok := objects[0][u.Object]
		if !ok {
			t.Logf("%s does not compile", u.Object)
			if changed[u.Object] {
				t.Errorf("%s does not compile", u.Object)
			}
			continue
		}
		a, err := object.ReadFile(before.Path)
		if err != nil {
			t.Fatal(err)
		}
		b, err := object.ReadFile(objects[1][u.Object].Path)
		if err != nil {
			t.Fatal(err)
		}
		r, err := objdiff.Compare(a, b)
		if err != nil {
			t.Fatalf("%s: %v", u.Object, err)
		}
		differs := r.Outcome != objdiff.Unchanged
		if differs != changed[u.Object] {
			t.Errorf("%s: %s, want a difference: %v; %+v %+v", u.Object, r.Outcome, changed[u.Object], r.Functions, r.Data)
		}
		if !differs && slices.ContainsFunc(headers, func(h string) bool { return slices.Contains(before.Deps, h) }) {
			including++
		}
	}
	t.Logf("%d units compiled, %d of those that were not named include a changed header", len(objects[1]), including)
	if including < sampled/2 {
		t.Errorf("only %d of the units that were not named include a changed header: the check means little", including)
	}
}
