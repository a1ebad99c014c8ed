// SPDX-License-Identifier: Apache-2.0

package kbuild

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// generators are programs that write headers; in the output directory are placeholders
// until one is needed.
var generators = []string{"scripts/asn1_compiler", "scripts/selinux/genheaders/genheaders", "scripts/bin2c"}

// GenerateError: kbuild has no rule for a file, or cannot make it.
type GenerateError struct {
	Name   string
	Output string // what make said last
	Err    error
}

func (e *GenerateError) Error() string {
	return fmt.Sprintf("making %s with the kernel's own build: %v: %s", e.Name, e.Err, e.Output)
}

// Unwrap returns the cause.
func (e *GenerateError) Unwrap() error { return e.Err }

// generate runs kbuild for one directory (scripts/Makefile.build), with what the
// Makefile at the top would have passed on: that one wants the whole kernel to be
// prepared first.
func (o *Output) generate(ctx context.Context, name string) error {
	if !filepath.IsLocal(name) || strings.ContainsAny(name, "= \t\n") {
		return fmt.Errorf("making %q: not a file of the output directory", name)
	}
	lock, err := os.OpenFile(filepath.Join(o.Dir, ".generate.lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return err
	}
	if o.exists(name) {
		return nil // another one was faster
	}
	for _, g := range generators {
		path := filepath.Join(o.Dir, g)
		if st, err := os.Stat(path); err == nil && st.Size() > 0 {
			continue
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := o.rule(ctx, g); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			// This kernel has no such program, or makes it somewhere else.
			if err := placeholder(o.Dir, g); err != nil {
				return err
			}
		}
	}
	return o.rule(ctx, name)
}

func (o *Output) rule(ctx context.Context, name string) error {
	args := []string{
		"-rR", "--no-print-directory", "-C", o.Dir, "-f", filepath.Join(o.Source, "scripts/Makefile.build"),
		"obj=" + path.Dir(name), "need-builtin=1", "need-modorder=1",
		"srctree=" + o.Source, "objtree=.", "VPATH=" + o.Source, "building_out_of_srctree=1", "ARCH=" + o.Arch, "SRCARCH=" + o.Arch,
		"HOSTCC=" + o.CC, "KBUILD_HOSTCFLAGS=-O1", "CC=false", "CONFIG_SHELL=sh", "PERL=perl", "AWK=awk", "Q=@", "quiet=quiet_", name,
	}
	cmd := o.make(ctx, args...)
	var out bytes.Buffer
	w := &limitedWriter{w: &out, left: 1 << 20}
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Run(); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			return startError("make", err)
		}
		// A rule that was interrupted leaves half a file.
		os.Remove(filepath.Join(o.Dir, name))
		return &GenerateError{Name: name, Output: lastLines(out.Bytes()), Err: err}
	}
	if !o.exists(name) {
		return &GenerateError{Name: name, Output: lastLines(out.Bytes()), Err: errors.New("make did nothing")}
	}
	return nil
}

// places are where a unit can find a file that it includes and that is generated:
// beside its object and above it, and where its options say.
func places(u Unit, include string) []string {
	var list []string
	if u.Source == "O:"+include {
		list = append(list, include)
	}
	for dir, n := path.Dir(u.Object), 0; dir != "." && n < 3; dir, n = path.Dir(dir), n+1 {
		list = append(list, path.Join(dir, include))
	}
	for _, a := range u.Args {
		if dir, ok := strings.CutPrefix(a, "-I"); ok && filepath.IsLocal(dir) {
			if name := path.Join(dir, include); !slices.Contains(list, name) {
				list = append(list, name)
			}
		}
	}
	return list
}
