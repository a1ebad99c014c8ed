// SPDX-License-Identifier: Apache-2.0

package kbuild

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// configTime is the time of .config: older than everything that is made from it,
// so that make does not want to make it again.
var configTime = time.Unix(946684800, 0) // 2000-01-01

// placeholders are host tools that the distribution's packages leave out. `make -n`
// runs none of them, but does not list the units behind them if they are missing.
// Others that turn out to be missing are added by Query at the cost of a second run.
var placeholders = []string{"scripts/asn1_compiler", "scripts/selinux/genheaders/genheaders"}

func seed(ctx context.Context, dir string, m Materials) (_ *Output, err error) {
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("seeding an output directory for %s: %w", m.Release, err)
	}
	if _, err := os.Lstat(dir); err == nil {
		return nil, fmt.Errorf("seeding %s: it exists already", dir)
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return nil, err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), filepath.Base(dir)+".tmp-")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			os.RemoveAll(tmp)
		}
	}()
	if err := os.Chmod(tmp, 0o755); err != nil {
		return nil, err
	}
	if err := m.fill(ctx, tmp); err != nil {
		return nil, fmt.Errorf("seeding %s: %w", dir, err)
	}
	if err := os.Rename(tmp, dir); err != nil {
		return nil, err
	}
	return &Output{Dir: dir, Materials: m}, nil
}

// check looks for what an unpacked package of the wrong kind, version or release
// would lack, before make says it in its own words.
func (m Materials) check() error {
	if m.Arch == "" || strings.ContainsAny(m.Arch, "/ ") {
		return fmt.Errorf("no architecture %q", m.Arch)
	}
	for _, f := range []struct{ path, what string }{
		{filepath.Join(m.Source, "Makefile"), "prepared source tree"},
		{filepath.Join(m.Headers, ".config"), "headers package of this kernel"},
		{filepath.Join(m.Headers, "include/config/auto.conf"), "headers package of this kernel"},
		{filepath.Join(m.Headers, "include/generated/autoconf.h"), "headers package of this kernel"},
		{filepath.Join(m.Kbuild, "scripts/basic/fixdep"), "kbuild package of this kernel"},
	} {
		if _, err := os.Stat(f.path); err != nil {
			return fmt.Errorf("needing the %s: %w", f.what, err)
		}
	}
	// Not include/config/kernel.release: distributions that set KERNELRELEASE on
	// make's command line have the upstream version in it.
	text, err := os.ReadFile(filepath.Join(m.Headers, "include/generated/utsrelease.h"))
	if err != nil {
		return err
	}
	if want := fmt.Sprintf("#define UTS_RELEASE %q\n", m.Release); !strings.HasPrefix(string(text), want) {
		return fmt.Errorf("the headers in %s are of another release: %.100q", m.Headers, text)
	}
	return nil
}

// fill copies rather than links: the packages may be removed, and another user's
// files cannot be linked everywhere.
func (m Materials) fill(ctx context.Context, dir string) error {
	for _, sub := range []string{"include/generated", "arch/" + m.Arch + "/include/generated"} {
		if err := copyTree(ctx, filepath.Join(m.Headers, sub), filepath.Join(dir, sub)); err != nil {
			return err
		}
	}
	for _, name := range []string{"include/config/auto.conf", "include/config/kernel.release", ".config"} {
		if err := copyFile(filepath.Join(m.Headers, name), filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	if err := copyFile(filepath.Join(m.Kbuild, "scripts/basic/fixdep"), filepath.Join(dir, "scripts/basic/fixdep")); err != nil {
		return err
	}
	if err := os.Chtimes(filepath.Join(dir, ".config"), configTime, configTime); err != nil {
		return err
	}
	// init/version.c has one that make writes anew in each build.
	version := filepath.Join(m.Headers, "include/generated/utsversion.h")
	if _, err := os.Stat(version); err == nil {
		if err := copyFile(version, filepath.Join(dir, "init/utsversion-tmp.h")); err != nil {
			return err
		}
	}
	// The packages leave these out; kbuild only wants to see them.
	missing := append([]string{"include/config/auto.conf.cmd", "include/generated/rustc_cfg"}, placeholders...)
	if key := signingKey(filepath.Join(dir, ".config")); key != "" {
		missing = append(missing, key)
	}
	for _, name := range missing {
		if err := placeholder(dir, name); err != nil {
			return err
		}
	}
	return nil
}

// signingKey returns the file that the distribution signs modules with, which only
// the distribution has, if it is named relative to the output directory.
func signingKey(config string) string {
	text, err := os.ReadFile(config)
	if err != nil {
		return ""
	}
	_, rest, _ := strings.Cut(string(text), "\nCONFIG_MODULE_SIG_KEY=\"")
	name, _, ok := strings.Cut(rest, "\"")
	if !ok || !filepath.IsLocal(name) {
		return ""
	}
	return name
}

// placeholder makes an empty file, if there is none of the name.
func placeholder(dir, name string) error {
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return f.Close()
}

func copyTree(ctx context.Context, from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		}
		return copyFile(path, filepath.Join(to, rel))
	})
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	st, err := in.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return fmt.Errorf("%s: not a regular file", from)
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644|st.Mode()&0o111)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}
