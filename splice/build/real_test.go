// SPDX-License-Identifier: Apache-2.0

package build

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/upsplice/upsplice/kmod/lab"
	"github.com/upsplice/upsplice/splice/kbuild"
	"github.com/upsplice/upsplice/splice/object"
	"github.com/upsplice/upsplice/splice/splicefile"
	"github.com/upsplice/upsplice/splice/tree"
)

func kernelOf(k lab.Kernel) Kernel {
	return Kernel{
		Kernel:        splicefile.Kernel{Release: k.Release, Version: k.Version, Arch: "amd64"},
		SourceArchive: k.SourceArchive, Headers: k.HeadersDir, Kbuild: k.KbuildDir, CC: "gcc-12",
		Image: k.Vmlinuz, Module: k.AnyModule, Modules: filepath.Join(k.Root, "lib/modules", k.Release),
	}
}

func written(t *testing.T, f *splicefile.File) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := splicefile.Write(&b, f); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// linkTree copies a tree by links, which takes seconds where extraction takes ten
// times as long.
func linkTree(t *testing.T, from, to string) {
	t.Helper()
	if out, err := exec.Command("cp", "-al", from, to).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// TestReal builds the splice of a real update. What the archive offers at the time
// decides which; the tests that come with it change the same tree further.
func TestReal(t *testing.T) {
	fromLab, toLab := lab.NeedPair(t, lab.Image, lab.Headers, lab.Source)
	from, to := kernelOf(fromLab), kernelOf(toLab)
	cache := t.TempDir()

	t.Run("killed", func(t *testing.T) { testCancel(t, from, cache) })
	start := time.Now()
	if err := Prepare(t.Context(), from, cache, nil); err != nil {
		t.Fatal(err)
	}
	t.Logf("prepared in %v", time.Since(start))
	var last Event
	res, err := Run(t.Context(), Request{From: from, To: to, Cache: cache, Progress: func(e Event) { last = e }})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range res.Stages {
		t.Logf("%s %.1f s", s.Stage, s.Seconds)
	}
	if last.Stage != "module" {
		t.Errorf("the last event is %+v", last)
	}
	if res.Files == 0 || res.Hunks == 0 {
		t.Errorf("%d files, %d hunks", res.Files, res.Hunks)
	}
	for _, g := range res.Groups {
		if g.Live == (len(g.Reasons) > 0) {
			t.Errorf("group %+v: live and reasons contradict each other", g)
		}
	}
	if res.File == nil {
		t.Fatalf("nothing of the update from %s to %s goes live; every small update so far had something: %+v", from.Version, to.Version, res.Groups)
	}
	m := res.File.Manifest
	if m.PostMatch.Total == 0 || m.PostMatch.Matched != m.PostMatch.Total {
		t.Errorf("matches with the new kernel's image: %+v", m.PostMatch)
	}
	if m.From.BuildID == "" || m.To.BuildID == "" || m.From.BuildID == m.To.BuildID || m.Text == 0 {
		t.Errorf("identities: %+v, %+v, %#x", m.From, m.To, m.Text)
	}
	if len(m.Functions) == 0 || len(m.Expect) < len(m.Functions) {
		t.Errorf("%d functions, %d of them described", len(m.Functions), len(m.Expect))
	}
	for _, data := range res.File.Payload {
		if _, err := object.Read(bytes.NewReader(data), int64(len(data))); err != nil {
			t.Error(err)
		}
	}

	t.Run("units", func(t *testing.T) { testUnits(t, from, cache) })
	t.Run("again", func(t *testing.T) { testAgain(t, from, to, cache, res) })
	t.Run("refuses", func(t *testing.T) { testRefuses(t, from, to, cache) })
	t.Run("compilers", func(t *testing.T) { testCompilers(t, from, to, cache) })
	t.Run("patches", func(t *testing.T) { testPatches(t, from, cache) })
	t.Run("variant", func(t *testing.T) { testVariant(t, from, cache) })
}

// testCancel stops a build in its first stage; the next one finds what it needs or nothing.
func testCancel(t *testing.T, from Kernel, cache string) {
	ctx, cancel := context.WithCancel(t.Context())
	err := Prepare(ctx, from, cache, func(e Event) {
		if e.Done > 0 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(cache, "*", "*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// testUnits compares the list of units with what the distribution built: each
// module that was shipped has units, and no others have.
func testUnits(t *testing.T, from Kernel, cache string) {
	s, err := openStore(t.Context(), cache)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	sd, err := s.side(from)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.output(sd); err != nil {
		t.Fatal(err)
	}
	list, err := s.units(sd)
	if err != nil {
		t.Fatal(err)
	}
	if len(list.Missing) != 0 {
		t.Errorf("not listed: %v", list.Missing)
	}
	listed := make(map[string]bool)
	builtin := 0
	for _, u := range list.Units {
		switch u.Target {
		case kbuild.Vmlinux:
			builtin++
		case kbuild.Elsewhere:
		default:
			listed[u.Target+".ko"] = true
		}
	}
	if builtin < 1000 {
		t.Errorf("only %d units of vmlinux", builtin)
	}
	root, _, _ := strings.Cut(from.Module, "/kernel/")
	root += "/kernel"
	err = filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".ko" {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if !listed[rel] {
			t.Errorf("%s was shipped, but no unit of it is listed", rel)
		}
		delete(listed, rel)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for m := range listed {
		t.Errorf("%s is listed, but was not shipped", m)
	}
}

// testAgain builds in another cache: everything is compiled again, at other paths.
func testAgain(t *testing.T, from, to Kernel, cache string, first *Result) {
	other := t.TempDir()
	linkTree(t, filepath.Join(cache, "trees"), filepath.Join(other, "trees"))
	res, err := Run(t.Context(), Request{From: from, To: to, Cache: other, Jobs: 1})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(written(t, first.File), written(t, res.File)) {
		t.Errorf("two builds of the same differ: %+v and %+v", first.File.Manifest, res.File.Manifest)
	}
}

// edit is a change of the running kernel's tree that a variant makes.
type edit struct{ path, old, new string } // old "": append new

func (e edit) apply(t *testing.T, dir string) {
	t.Helper()
	path := filepath.Join(dir, e.path)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	changed := string(text) + e.new
	if e.old != "" {
		if !strings.Contains(string(text), e.old) {
			t.Fatalf("%s has no %q: the test needs another place", e.path, e.old)
		}
		changed = strings.Replace(string(text), e.old, e.new, 1)
	}
	// The file is a link of the prepared tree's.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(changed), 0o644); err != nil {
		t.Fatal(err)
	}
}

// testVariant makes a new kernel's tree that has one change of each kind.
func testVariant(t *testing.T, from Kernel, cache string) {
	edits := []edit{
		{"drivers/block/loop.c", "", "\n/* changed */\n"},
		{"fs/eventpoll.c", "struct epitem {\n", "struct epitem {\n\tunsigned long upsplice_member;\n"},
		{"fs/readdir.c", "", "\nint upsplice_broken(void) { return upsplice_missing; }\n"},
		{"kernel/panic.c", "int panic_timeout = CONFIG_PANIC_TIMEOUT;", "int panic_timeout = CONFIG_PANIC_TIMEOUT + 17;"},
		{"fs/filesystems.c", "", "\nstatic int __init upsplice_init(void) { return panic_timeout; }\nfs_initcall(upsplice_init);\n"},
		{"mm/util.c", "", "\nunsigned long upsplice_new(unsigned long);\nunsigned long upsplice_new(unsigned long x)\n{\n\tstatic unsigned long count;\n\treturn x + ++count;\n}\n"},
		{"fs/statfs.c", "int vfs_get_fsid(struct dentry *dentry, __kernel_fsid_t *fsid)\n{\n\tstruct kstatfs st;\n\tint error;\n\n", "unsigned long upsplice_new(unsigned long);\nint vfs_get_fsid(struct dentry *dentry, __kernel_fsid_t *fsid)\n{\n\tstruct kstatfs st;\n\tint error;\n\n\tif (!upsplice_new(1))\n\t\treturn -EINTR;\n"},
		{"kernel/sched/rt.c", "", "\n/* changed */\n"},
		{"fs/ext4/ext4.h", "", "\n/* changed */\n"},
		{"fs/ext4/bitmap.c", "", "\n/* changed */\n"},
		{"fs/ext4/Makefile", "", "\nCFLAGS_hash.o += -DUPSPLICE_TEST\n"},
		{"fs/reiserfs/super.c", "", "\n/* changed, and not configured */\n"},
		{"fs/d_path.c", "", "\n/* changed without effect */\n"},
	}
	to := from
	to.Version, to.Image, to.Headers = from.Version+"+variant", "", ""
	to.SourceArchive = filepath.Join(t.TempDir(), "variant.tar")
	if err := os.WriteFile(to.SourceArchive, []byte("its tree is there already"), 0o644); err != nil {
		t.Fatal(err)
	}

	s, err := openStore(t.Context(), cache)
	if err != nil {
		t.Fatal(err)
	}
	pre, err := s.side(from)
	if err != nil {
		t.Fatal(err)
	}
	post, err := s.side(to)
	if err != nil {
		t.Fatal(err)
	}
	linkTree(t, pre.tree, post.tree)
	var d tree.Delta
	for _, e := range edits {
		if _, err := os.Stat(filepath.Join(post.tree, e.path)); err != nil && strings.Contains(e.path, "reiserfs") {
			continue // gone from newer kernels
		}
		e.apply(t, post.tree)
		d.Files = append(d.Files, tree.File{Path: e.path, Kind: "changed", Hunks: 1, Kept: true})
	}
	err = s.write("trees", post.treeID+".delta-"+pre.treeID, func(w io.Writer) error { return json.NewEncoder(w).Encode(d) })
	if err != nil {
		t.Fatal(err)
	}
	s.close()

	res, err := Run(t.Context(), Request{From: from, To: to, Cache: cache})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, g := range res.Groups {
		var reasons []string
		for _, r := range g.Reasons {
			what := r.Code + " " + r.What
			if r.Code == "layout" && r.What != "struct epitem" {
				continue // types that embed it
			}
			if !slices.Contains(reasons, what) {
				reasons = append(reasons, what)
			}
		}
		got = append(got, fmt.Sprintf("%v live=%v %v", g.Units, g.Live, reasons))
	}
	slices.Sort(got)
	want := []string{
		"[fs/eventpoll.o] live=false [init eventpoll_init layout struct epitem]",
		"[fs/ext4/hash.o] live=false [flags fs/ext4/hash.o]",
		"[fs/filesystems.o] live=false [init __initcall__upsplice init upsplice_init]",
		"[fs/readdir.o] live=false [compile fs/readdir.o]",
		"[fs/statfs.o mm/util.o] live=true []",
		"[kernel/panic.o] live=false [data panic_timeout]",
	}
	// The initcall's entry has a name that the compiler makes.
	for i, g := range got {
		if strings.HasPrefix(g, "[fs/filesystems.o] live=false [init ") && strings.Contains(g, "init upsplice_init") {
			got[i] = want[2]
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("groups (-want +got):\n%s", diff)
	}
	if res.File == nil {
		t.Fatal("nothing goes live")
	}
	want = []string{"fs/statfs.o vfs_get_fsid changed", "mm/util.o upsplice_new new"}
	got = nil
	for _, f := range res.File.Manifest.Functions {
		got = append(got, f.Unit+" "+f.Name+" "+f.Kind)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("functions (-want +got):\n%s", diff)
	}
}

func testRefuses(t *testing.T, from, to Kernel, cache string) {
	for name, tc := range map[string]struct {
		change func(*Request)
		want   string
	}{
		"another build id": {func(r *Request) { r.From.BuildID = "00" }, "its build id is"},
		"another release":  {func(r *Request) { r.From.Image = r.To.Image }, "is an image of"},
		"no image":         {func(r *Request) { r.From.Image = "" }, "image of the running kernel is needed"},
		"no module":        {func(r *Request) { r.From.Module = "/nowhere.ko" }, "needing any module"},
		"no headers":       {func(r *Request) { r.From.Headers = "/nowhere" }, "needing the headers"},
		"no archive":       {func(r *Request) { r.To.SourceArchive = "/nowhere" }, "needing the source archive of " + to.Version},
	} {
		req := Request{From: from, To: to, Cache: cache}
		tc.change(&req)
		res, err := Run(t.Context(), req)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %+v, %v, want %q", name, res, err, tc.want)
		}
	}
}

// testCompilers builds without the kernel's compiler. One that is missing is an
// error that names it; one that makes other code is found out by matching.
func testCompilers(t *testing.T, from, to Kernel, cache string) {
	from.CC = "gcc-of-nowhere"
	if res, err := Run(t.Context(), Request{From: from, To: to, Cache: cache}); err == nil || !strings.Contains(err.Error(), from.CC) {
		t.Errorf("without a compiler: got %+v, %v", res, err)
	}
	from.CC = filepath.Join(t.TempDir(), "cc")
	if err := os.WriteFile(from.CC, []byte("#!/bin/sh\nexec gcc-12 \"$@\" -fno-tree-ter -O1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	res, err := Run(t.Context(), Request{From: from, To: to, Cache: cache})
	if err != nil {
		t.Fatal(err)
	}
	if res.File != nil || !slices.ContainsFunc(res.Groups, func(g splicefile.Group) bool {
		return slices.ContainsFunc(g.Reasons, func(r splicefile.Reason) bool { return r.Code == "pre-mismatch" })
	}) {
		t.Errorf("with another compiler: %+v", res.Groups)
	}
}
