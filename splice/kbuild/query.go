// SPDX-License-Identifier: Apache-2.0

package kbuild

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// rounds is how often Query adds placeholders for files that make does not know
// how to make.
const rounds = 3

func (o *Output) query(ctx context.Context, targets []string) ([]Unit, error) {
	for _, t := range targets {
		if t == "" || strings.HasPrefix(t, "-") || strings.ContainsAny(t, "= \t\n") || !filepath.IsLocal(t) {
			return nil, fmt.Errorf("listing units: %q is not a target", t)
		}
	}
	if len(targets) == 0 {
		targets = []string{"./"}
	}
	for round := 1; ; round++ {
		units, stderr, err := o.dryRun(ctx, targets)
		if ctxErr := ctx.Err(); ctxErr != nil {
			return nil, ctxErr
		}
		var exit *exec.ExitError
		// Asked for by its name, make compiles any source.
		units = slices.DeleteFunc(units, func(u Unit) bool {
			return u.Target == Elsewhere && slices.Contains(targets, u.Object)
		})
		if err == nil {
			return units, nil
		} else if !errors.As(err, &exit) {
			return nil, err
		}
		files, messages := missing(bytes.NewReader(stderr))
		files = slices.DeleteFunc(files, func(f string) bool {
			return !filepath.IsLocal(f) || filepath.Ext(f) == ".o" || o.exists(f)
		})
		if round < rounds && len(files) > 0 {
			for _, f := range files {
				if err := placeholder(o.Dir, f); err != nil {
					return nil, fmt.Errorf("listing units: %w", err)
				}
			}
			continue
		}
		// Targets that do not exist are no failure, but a list that may lack
		// something must not pass for a whole one.
		messages = slices.DeleteFunc(messages, func(m string) bool {
			return strings.Contains(m, "No rule to make target") && !strings.Contains(m, "needed by") ||
				strings.Contains(m, " Error ")
		})
		if len(messages) > 0 {
			return units, &IncompleteError{Messages: messages}
		}
		if len(units) == 0 && targets[0] == "./" {
			return nil, fmt.Errorf("listing units: make: %w: %s", err, lastLines(stderr))
		}
		return units, nil
	}
}

func (o *Output) exists(name string) bool { return exists(filepath.Join(o.Dir, name)) }

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// dryRun runs make -n. The variables keep it from wanting to build host tools:
// HOSTCC, LEX and YACC fail if something runs them after all, objtool and BTF are
// handled elsewhere.
func (o *Output) dryRun(ctx context.Context, targets []string) ([]Unit, []byte, error) {
	args := []string{
		"-n", "-k", "-C", o.Source, "O=" + o.Dir, "ARCH=" + o.Arch, "CC=" + o.CC,
		"HOSTCC=false", "LEX=false", "YACC=false", "KERNELRELEASE=" + o.Release,
		"CONFIG_OBJTOOL=", "CONFIG_DEBUG_INFO_BTF=", "KBUILD_BUILTIN=1", "KBUILD_MODULES=1",
		markVariable,
	}
	cmd := o.make(ctx, append(args, targets...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &limitedWriter{w: &stderr, left: 16 << 20}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, nil, startError("make", err)
	}
	units, parseErr := parse(out, o.Source)
	if parseErr != nil {
		cmd.Cancel()
	}
	io.Copy(io.Discard, out)
	err = cmd.Wait()
	if parseErr != nil {
		return nil, nil, parseErr
	}
	return units, stderr.Bytes(), err
}

// make prepares a run of make that takes nothing from the caller's environment
// but the search path, and that dies with all its children.
func (o *Output) make(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "make", args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "TMPDIR=" + os.TempDir()}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

func startError(command string, err error) error {
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("listing units: %w; install the package %s", err, command)
	}
	return fmt.Errorf("listing units: starting %s: %w", command, err)
}

// objtoolMakefile prints the options of objtool by including what kbuild includes.
// Some configurations (CONFIG_X86_KERNEL_IBT) delay objtool until vmlinux.o and the
// modules are linked: --link makes it take a single object the same way.
const objtoolMakefile = `
srctree := %s
objtree := .
obj := .
src := .
include include/config/auto.conf
include $(srctree)/scripts/Kbuild.include
-include $(srctree)/scripts/Makefile.compiler
include $(srctree)/scripts/Makefile.lib
$(info upsplice-objtool=$(if $(CONFIG_OBJTOOL),y) $(objtool-args-y) $(if $(delay-objtool),--link))
all: ;
.DEFAULT_GOAL := all
`

func (o *Output) objtool(ctx context.Context) ([]string, error) {
	cmd := o.make(ctx, "-rR", "-n", "-C", o.Dir, "-f", "-", "all")
	cmd.Stdin = strings.NewReader(fmt.Sprintf(objtoolMakefile, o.Source))
	var stdout, stderr bytes.Buffer
	cmd.Stdout = &limitedWriter{w: &stdout, left: 1 << 20}
	cmd.Stderr = &limitedWriter{w: &stderr, left: 1 << 20}
	if err := cmd.Run(); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			return nil, startError("make", err)
		}
		return nil, fmt.Errorf("asking kbuild for the options of objtool: %w: %s", err, lastLines(stderr.Bytes()))
	}
	_, line, ok := strings.Cut(stdout.String(), "upsplice-objtool=")
	if !ok {
		return nil, errors.New("asking kbuild for the options of objtool: no answer")
	}
	line, _, _ = strings.Cut(line, "\n")
	enabled, options, _ := strings.Cut(line, " ")
	if enabled == "" {
		return nil, nil
	}
	command := filepath.Join(o.Kbuild, "tools/objtool/objtool")
	// Debian's package for several architectures has a wrapper in its place, which
	// chooses by a variable of kbuild.
	if real := command + ".real-" + o.Arch; exists(real) {
		command = real
	}
	args := append([]string{command}, strings.Fields(options)...)
	if len(args) == 1 {
		return nil, errors.New("asking kbuild for the options of objtool: this version of kbuild keeps them in a place that is not known")
	}
	if _, err := os.Stat(args[0]); err != nil {
		return nil, fmt.Errorf("needing objtool of the kbuild package: %w", err)
	}
	return args, nil
}

func lastLines(text []byte) string {
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-3):], "; ")
}

// limitedWriter passes on the first bytes and drops the rest.
type limitedWriter struct {
	w    io.Writer
	left int
}

func (l *limitedWriter) Write(p []byte) (int, error) {
	if n := min(l.left, len(p)); n > 0 {
		l.left -= n
		if _, err := l.w.Write(p[:n]); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}
