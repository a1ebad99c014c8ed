// SPDX-License-Identifier: Apache-2.0

package kbuild

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// generator is a program of the kernel's source that writes what units include and
// no package has. kbuild would build it for the machine that it runs on.
type generator struct {
	config  string   // of the kernels that need it
	source  []string // of the program, where one version or another has it
	include []string
	// arguments gives what to run it with, in the output directory, and what is made.
	arguments func(src string) ([][]string, error)
}

var generators = []generator{
	{
		config:  "CONFIG_SECURITY_SELINUX",
		source:  []string{"scripts/selinux/genheaders/genheaders.c", "security/selinux/genheaders.c"},
		include: []string{"include/uapi", "include", "security/selinux/include"},
		arguments: func(string) ([][]string, error) {
			return [][]string{{"security/selinux/flask.h", "security/selinux/av_permissions.h"}}, nil
		},
	},
	{
		config:    "CONFIG_ASN1",
		source:    []string{"scripts/asn1_compiler.c"},
		include:   []string{"include"},
		arguments: asn1,
	},
}

// asn1 are the grammars of the kernel, each of which becomes a source and a header.
func asn1(src string) ([][]string, error) {
	var runs [][]string
	for _, top := range []string{"crypto", "fs", "net", "security"} {
		err := filepath.WalkDir(filepath.Join(src, top), func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil || !d.Type().IsRegular() || filepath.Ext(path) != ".asn1" {
				return err
			}
			name, err := filepath.Rel(src, path)
			runs = append(runs, []string{path, name + ".c", name + ".h"})
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return runs, nil
}

// generate makes what no package has. Where a kernel does it in another way, the
// units concerned do not compile, and that names the missing file.
func (m Materials) generate(ctx context.Context, dir string) error {
	config, err := os.ReadFile(filepath.Join(dir, ".config"))
	if err != nil {
		return err
	}
	lines := strings.Split(string(config), "\n")
	for _, g := range generators {
		if !slices.Contains(lines, g.config+"=y") && !slices.Contains(lines, g.config+"=m") {
			continue
		}
		i := slices.IndexFunc(g.source, func(s string) bool { return exists(filepath.Join(m.Source, s)) })
		if i < 0 {
			continue
		}
		if err := m.run(ctx, g, g.source[i], dir); err != nil {
			return err
		}
	}
	return nil
}

func (m Materials) run(ctx context.Context, g generator, source, dir string) error {
	tmp, err := os.MkdirTemp("", "upsplice-generate-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	program := filepath.Join(tmp, "program")
	args := []string{"-O1", "-o", program}
	for _, i := range g.include {
		args = append(args, "-I"+filepath.Join(m.Source, i))
	}
	if ok, err := tool(ctx, dir, m.CC, append(args, filepath.Join(m.Source, source))...); err != nil || !ok {
		return err
	}
	runs, err := g.arguments(m.Source)
	if err != nil {
		return err
	}
	for _, r := range runs {
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(r[len(r)-1])), 0o755); err != nil {
			return err
		}
		if _, err := tool(ctx, dir, program, r...); err != nil {
			return err
		}
	}
	return nil
}

// tool runs a program; false if it does not do its work.
func tool(ctx context.Context, dir, name string, args ...string) (bool, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "TMPDIR=" + os.TempDir()}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 10 * time.Second
	var exit *exec.ExitError
	err := cmd.Run()
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	if errors.As(err, &exit) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("generating headers: %w", err)
	}
	return true, nil
}
