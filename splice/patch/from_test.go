// SPDX-License-Identifier: Apache-2.0

package patch

import (
	"bytes"
	"context"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// write makes files below dir; "-> x" is a link.
func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		to := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, ok := strings.CutPrefix(text, "-> "); ok {
			err = os.Symlink(target, to)
		} else {
			err = os.WriteFile(to, []byte(text), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func gitIn(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.org",
		"GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.org")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// repository has two commits on main and a merge on top of a side branch.
func repository(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	gitIn(t, dir, "init", "-q", "-b", "main")
	write(t, dir, source())
	gitIn(t, dir, "add", "-A")
	gitIn(t, dir, "commit", "-qm", "first")
	write(t, dir, map[string]string{"fs/a.c": numbered(1, 11) + "new\n" + numbered(13, 30), "fs/new file.c": "n\n"})
	gitIn(t, dir, "mv", "fs/b.c", "fs/moved.c")
	gitIn(t, dir, "add", "-A")
	gitIn(t, dir, "commit", "-qm", "second")
	return dir
}

func TestFromGit(t *testing.T) {
	dir := repository(t)
	marker := filepath.Join(t.TempDir(), "ran")
	script := filepath.Join(t.TempDir(), "driver")
	if err := os.WriteFile(script, []byte("#!/bin/sh\ntouch "+marker+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	// What would change the form of the diff, or run a program for it.
	for _, kv := range [][2]string{
		{"diff.noprefix", "true"}, {"diff.context", "0"}, {"diff.external", script}, {"core.fsmonitor", script}, {"diff.renames", "false"},
		{"diff.evil.command", script}, {"diff.evil.textconv", script}, {"color.ui", "always"}, {"diff.mnemonicPrefix", "true"}, {"core.pager", script},
	} {
		gitIn(t, dir, "config", kv[0], kv[1])
	}
	write(t, dir, map[string]string{".gitattributes": "*.c diff=evil\n"})
	tree := filepath.Join(t.TempDir(), "linked")
	gitIn(t, dir, "worktree", "add", "-q", "--detach", tree, "HEAD")
	os.WriteFile(filepath.Join(tree, ".gitattributes"), []byte("*.c diff=evil\n"), 0o644)
	os.Remove(marker)

	text, err := FromGit(context.Background(), dir, "HEAD")
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []string{tree, filepath.Join(dir, "fs"), filepath.Join(dir, ".git")} {
		again, err := FromGit(context.Background(), at, "main")
		if err != nil || !bytes.Equal(text, again) {
			t.Errorf("%s: %v\n%s", at, err, again)
		}
	}
	if _, err := os.Stat(marker); err == nil {
		t.Error("a program of the repository's configuration ran")
	}
	new := filepath.Join(t.TempDir(), "new")
	if _, _, err := Apply(context.Background(), base(t, source()), new, []*Patch{mustParse(t, "p", string(text))}); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	got := contents(t, new)
	for name, want := range map[string]string{"fs/a.c": numbered(1, 11) + "new\n" + numbered(13, 30), "fs/new file.c": "n\n", "fs/moved.c": "one\ntwo\n"} {
		if got[name] != want {
			t.Errorf("%s: %q", name, got[name])
		}
	}
}

func TestFromGitRefuses(t *testing.T) {
	dir := repository(t)
	gitIn(t, dir, "checkout", "-qb", "side", "HEAD~1")
	gitIn(t, dir, "commit", "-qm", "side", "--allow-empty")
	gitIn(t, dir, "merge", "-qm", "merge", "main")
	for _, tt := range []struct{ dir, commit, want string }{
		{dir, "HEAD", "a merge of 2 commits"},
		{dir, "main~1", "no parent"},
		{dir, "HEAD~1", "changes nothing"},
		{dir, "nowhere", "no such commit"},
		{dir, "fs/a.c", "no such commit"},
		{dir, "main~1..main", "a range"},
		{dir, "--output=/tmp/x", "not the name of a commit"},
		{dir, "", "not the name of a commit"},
		{t.TempDir(), "HEAD", "not a git repository"},
		{filepath.Join(dir, "nowhere"), "HEAD", "no such file"},
		{filepath.Join(dir, "Makefile"), "HEAD", "not a directory"},
	} {
		if _, err := FromGit(context.Background(), tt.dir, tt.commit); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s %s: got %v, want %q", tt.dir, tt.commit, err, tt.want)
		}
	}
	t.Setenv("PATH", "/nonexistent")
	if _, err := FromGit(context.Background(), dir, "main"); err == nil || !strings.Contains(err.Error(), "git is not installed") {
		t.Errorf("without git: %v", err)
	}
}

func TestFromTrees(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	old := source()
	old["fs/old.c"], old["fs/dir/x.c"] = "old\n", "x\n"
	new := maps.Clone(old)
	new["fs/a.c"] = "line 0\n" + numbered(1, 29)
	new["fs/odd \"name\"\t.c"], new["fs/with blank.c"], new["fs/ü.c"] = "q\n", "b\n", "u"
	new["fs/last.c"] = "one\n2"
	delete(new, "fs/old.c")
	new[".git/config"], old["sub/.git"] = "x\n", "gitdir: elsewhere\n"
	write(t, from, old)
	write(t, to, new)
	// Not followed: the one leads nowhere, the other out of the tree.
	write(t, from, map[string]string{"l1": "-> /nowhere", "l2": "-> /etc"})
	write(t, to, map[string]string{"l1": "-> /nowhere", "l2": "-> /etc"})
	text, err := FromTrees(context.Background(), from, to)
	if err != nil {
		t.Fatal(err)
	}
	again, err := FromTrees(context.Background(), from, to)
	if err != nil || !bytes.Equal(text, again) {
		t.Errorf("two runs, two results: %v", err)
	}
	delete(old, "sub/.git")
	delete(new, ".git/config")
	dir := filepath.Join(t.TempDir(), "new")
	if _, _, err := Apply(context.Background(), base(t, old), dir, []*Patch{mustParse(t, "p", string(text))}); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	delete(new, "arch/arm/k.c")
	delete(new, "Documentation/index.rst")
	if d := cmp.Diff(new, contents(t, dir)); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	// git reads it in the same way.
	cmd := exec.Command("git", "apply", "--numstat", "-")
	cmd.Stdin = bytes.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("git apply: %v\n%s", err, out)
	}
}

func TestFromTreesRefuses(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	write(t, from, map[string]string{"a.c": "a\n"})
	write(t, to, map[string]string{"a.c": "a\n"})
	if _, err := FromTrees(context.Background(), from, to); err == nil || !strings.Contains(err.Error(), "do not differ") {
		t.Errorf("equal trees: %v", err)
	}
	write(t, to, map[string]string{"vmlinux.o": "\x7fELF\x00"})
	text, err := FromTrees(context.Background(), from, to)
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = Apply(context.Background(), base(t, map[string]string{"a.c": "a\n"}), filepath.Join(t.TempDir(), "new"), []*Patch{mustParse(t, "p", string(text))})
	if err == nil || !strings.Contains(err.Error(), "vmlinux.o (line 1 of the patch): a binary change") {
		t.Errorf("binary: %v", err)
	}
	write(t, to, map[string]string{"big": ""})
	if err := os.Truncate(filepath.Join(to, "big"), maxTreeFile+1); err != nil {
		t.Fatal(err)
	}
	if _, err := FromTrees(context.Background(), from, to); err == nil || !strings.Contains(err.Error(), "big: more than") {
		t.Errorf("huge: %v", err)
	}
	if _, err := FromTrees(context.Background(), from, "/nonexistent"); err == nil {
		t.Error("a tree that is not there")
	}
}
