// SPDX-License-Identifier: Apache-2.0

package patch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// gitCommand is looked up in PATH.
const gitCommand = "git"

// gitSettings are given to each call: nothing of the repository's configuration may
// start a program, and nothing of it may change the form of the diff.
var gitSettings = []string{
	"--no-pager", "--no-replace-objects", "--literal-pathspecs",
	"-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c", "protocol.allow=never",
	"-c", "core.quotePath=true", "-c", "diff.relative=false", "-c", "diff.orderFile=/dev/null",
	"-c", "diff.suppressBlankEmpty=false", "-c", "diff.interHunkContext=0", "-c", "core.attributesFile=/dev/null",
	"-c", "diff.renameLimit=1000",
}

// FromGit returns the patch of one commit of the repository in dir, which may be a
// linked worktree or bare. commit is anything that names one: a hash, a tag, HEAD~2.
// No hook, external diff, text conversion or transport of the repository is run.
// Merges and first commits are refused.
func FromGit(ctx context.Context, dir, commit string) ([]byte, error) {
	text, err := fromGit(ctx, dir, commit)
	if err != nil {
		return nil, fmt.Errorf("taking commit %q of %s: %w", commit, dir, err)
	}
	return text, nil
}

// CommitID returns the full hash of a commit, for a name that stays true.
func CommitID(ctx context.Context, dir, commit string) (string, error) {
	id, err := commitID(ctx, dir, commit)
	if err != nil {
		return "", fmt.Errorf("looking for commit %q of %s: %w", commit, dir, err)
	}
	return id, nil
}

func commitID(ctx context.Context, dir, commit string) (string, error) {
	if commit == "" || strings.HasPrefix(commit, "-") || strings.ContainsAny(commit, "\x00\n") {
		return "", errors.New("not the name of a commit")
	}
	if strings.Contains(commit, "..") {
		return "", errors.New("a range of commits; give one commit, or make a patch of the range (git diff) and use --patch")
	}
	if st, err := os.Stat(dir); err != nil {
		return "", err
	} else if !st.IsDir() {
		return "", errors.New("not a directory")
	}
	if _, err := git(ctx, dir, "rev-parse", "--git-dir"); err != nil {
		return "", err
	}
	// The whole form, so that a file called like the commit cannot be meant.
	hash, err := git(ctx, dir, "rev-parse", "--verify", "--end-of-options", commit+"^{commit}")
	if err != nil {
		return "", fmt.Errorf("the repository has no such commit: %w", err)
	}
	return strings.TrimSpace(string(hash)), nil
}

func fromGit(ctx context.Context, dir, commit string) ([]byte, error) {
	id, err := commitID(ctx, dir, commit)
	if err != nil {
		return nil, err
	}
	line, err := git(ctx, dir, "rev-list", "--parents", "--max-count=1", id)
	if err != nil {
		return nil, err
	}
	switch parents := strings.Fields(string(line))[1:]; len(parents) {
	case 0:
		return nil, errors.New("it has no parent to compare with: the first commit of a repository, or the oldest one of a shallow clone (git fetch --deepen 1)")
	case 1:
	default:
		return nil, fmt.Errorf("a merge of %d commits; make a patch to the parent that is meant (git diff %.12s %.12s) and use --patch", len(parents), parents[0], id)
	}
	text, err := git(ctx, dir, "diff-tree", "--patch", "--no-commit-id", "-r", "--find-renames", "--unified=3", "--no-color",
		"--no-ext-diff", "--no-textconv", "--src-prefix=a/", "--dst-prefix=b/", "--diff-algorithm=myers", "--indent-heuristic",
		"--submodule=short", "--ignore-submodules=none", "--full-index", "--no-relative", id)
	if err != nil {
		return nil, err
	}
	if len(text) == 0 {
		return nil, errors.New("it changes nothing")
	}
	return text, nil
}

// git runs one command that only reads.
func git(ctx context.Context, dir string, args ...string) ([]byte, error) {
	path, err := exec.LookPath(gitCommand)
	if err != nil {
		return nil, errors.New("git is not installed; install it, or use --patch")
	}
	cmd := exec.CommandContext(ctx, path, append(append([]string{"-C", dir}, gitSettings...), args...)...)
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "HOME=/nonexistent", "XDG_CONFIG_HOME=/nonexistent",
		"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_ATTR_NOSYSTEM=1",
		"GIT_OPTIONAL_LOCKS=0", "GIT_TERMINAL_PROMPT=0", "GIT_NO_LAZY_FETCH=1", "GIT_FLUSH=1",
	}
	// git believes root in a repository of the user who called sudo.
	if id := os.Getenv("SUDO_UID"); id != "" {
		cmd.Env = append(cmd.Env, "SUDO_UID="+id)
	}
	out := &bounded{limit: MaxBytes}
	said := &bounded{limit: 4096, cut: true}
	cmd.Stdout, cmd.Stderr = out, said
	err = cmd.Run()
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case out.full:
		return nil, fmt.Errorf("git %s: more than %d bytes", args[0], MaxBytes)
	case err != nil && strings.Contains(said.buf.String(), "dubious ownership"):
		return nil, errors.New("git does not trust a repository of another user; as that user, run git show COMMIT > FILE, and use --patch FILE")
	case err != nil:
		first, _, _ := strings.Cut(strings.TrimSpace(said.buf.String()), "\n")
		if first == "" {
			first = err.Error()
		}
		return nil, fmt.Errorf("git %s: %s", args[0], first)
	}
	return out.buf.Bytes(), nil
}

// bounded takes up to limit bytes; what comes then is an error, or dropped.
type bounded struct {
	buf   bytes.Buffer
	limit int
	cut   bool
	full  bool
}

func (b *bounded) Write(p []byte) (int, error) {
	room := b.limit - b.buf.Len()
	if len(p) <= room {
		return b.buf.Write(p)
	}
	b.full = !b.cut
	if b.full {
		return 0, errors.New("too much")
	}
	b.buf.Write(p[:room])
	return len(p), nil
}
