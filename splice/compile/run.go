// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/upsplice/upsplice/splice/kbuild"
)

const maxOutput = 64 << 10

func (c *Compiler) units(ctx context.Context, units []kbuild.Unit, done func(kbuild.Unit)) (_ []Object, err error) {
	if len(units) == 0 {
		return nil, nil
	}
	if err := c.findTools(ctx); err != nil {
		return nil, err
	}
	dir := c.Cache
	if dir == "" {
		dir = filepath.Join(c.Output.Dir, ".upsplice-objects")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("compiling: %w", err)
	}
	tmp, err := os.MkdirTemp(dir, "tmp-")
	if err != nil {
		return nil, fmt.Errorf("compiling: %w", err)
	}
	defer os.RemoveAll(tmp)

	jobs := c.Jobs
	if jobs <= 0 {
		jobs = runtime.NumCPU()
	}
	objects := make([]*Object, len(units))
	errs := make([]error, len(units))
	var wg sync.WaitGroup
	var finished sync.Mutex
	next := make(chan int)
	for range min(jobs, len(units)) {
		wg.Go(func() {
			for i := range next {
				objects[i], errs[i] = c.one(ctx, units[i], dir, filepath.Join(tmp, fmt.Sprint(i)))
				if done != nil && ctx.Err() == nil {
					finished.Lock()
					done(units[i])
					finished.Unlock()
				}
			}
		})
	}
	for i := range units {
		select {
		case next <- i:
			continue
		case <-ctx.Done():
		}
		break
	}
	close(next)
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var got []Object
	for _, o := range objects {
		if o != nil {
			got = append(got, *o)
		}
	}
	return got, errors.Join(errs...)
}

// one compiles a unit; tmp is a directory of its own.
func (c *Compiler) one(ctx context.Context, u kbuild.Unit, dir, tmp string) (*Object, error) {
	format := cacheFormat
	if c.NoDebug {
		format += " without debug information"
	} else if c.AllTypes {
		format += " with all types"
	}
	if c.Frozen {
		format += " between trees"
	}
	key := hashOf(format, c.tool.identity, u.Object, u.Objtool, u.Target != kbuild.Vmlinux, normalised(u, c.Output.Source))
	if !assembler(u) {
		if r := c.find(dir, key); r != nil {
			return &Object{Unit: u, Path: filepath.Join(dir, r.Object), Deps: r.Deps}, nil
		}
	}
	fail := func(stage, output string, err error) (*Object, error) {
		if strings.Contains(output, syscall.ENOSPC.Error()) || strings.Contains(output, "No space left on device") {
			err = fmt.Errorf("writing to %s: %w", dir, syscall.ENOSPC)
		}
		return nil, &Error{Unit: u.Object, Stage: stage, Output: output, Err: err}
	}
	if err := os.Mkdir(tmp, 0o755); err != nil {
		return fail("compiler", "", err)
	}
	defer os.RemoveAll(tmp)
	object, dep := filepath.Join(tmp, "unit.o"), filepath.Join(tmp, "unit.d")
	args, err := command(u, object, dep, !c.NoDebug)
	if err != nil {
		return fail("compiler", "", err)
	}
	if c.AllTypes && !c.NoDebug && !assembler(u) {
		args = slices.Insert(args, len(args)-4, allTypes)
	}
	if c.Frozen && !assembler(u) {
		args = slices.Insert(args, len(args)-4, strict...)
	}
	output, err := c.run(ctx, tmp, args)
	for n := 0; err != nil && n < mostGenerated && c.generate(ctx, u, output); n++ {
		output, err = c.run(ctx, tmp, args)
	}
	if err != nil {
		if c.Frozen && ctx.Err() == nil {
			if all, err := c.run(ctx, tmp, slices.Insert(args, len(args)-4, verbose...)); err != nil {
				output = all
			}
		}
		return fail("compiler", output, err)
	}
	if u.Objtool && c.tool.objtool != nil {
		args := append([]string{}, c.tool.objtool...)
		if u.Target != kbuild.Vmlinux {
			args = append(args, "--module")
		}
		if output, err := c.run(ctx, tmp, append(args, object)); err != nil {
			return fail("objtool", output, err)
		}
	}
	text, err := os.ReadFile(dep)
	if err != nil {
		return fail("compiler", "", err)
	}
	deps := dependencies(string(text), c.Output.Source)
	if len(deps) == 0 {
		return fail("compiler", "", errors.New("the list of dependencies cannot be read"))
	}
	path, err := c.keep(dir, tmp, key, u, object, deps)
	if err != nil {
		return fail("compiler", "", err)
	}
	return &Object{Unit: u, Path: path, Deps: deps}, nil
}

// mostGenerated is how many generated files one unit may include.
const mostGenerated = 8

var missingFile = regexp.MustCompile(`fatal error: ([^\s:]+): No such file or directory`)

// generate makes a file that the unit includes and that the packages lack; false if
// that is not what is wrong.
func (c *Compiler) generate(ctx context.Context, u kbuild.Unit, output string) bool {
	m := missingFile.FindStringSubmatch(output)
	if m == nil || ctx.Err() != nil {
		return false
	}
	o := c.Output
	if c.Generator != nil {
		o = c.Generator
	}
	return o.Generate(ctx, u, m[1]) == nil
}

// run runs a tool in the output directory with an environment of its own. A
// cancelled context kills the tool and all its children.
func (c *Compiler) run(ctx context.Context, tmp string, args []string) (string, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir = c.Output.Dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "TMPDIR=" + tmp}
	out := &limited{}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 10 * time.Second
	err := cmd.Run()
	return out.buf.String(), err
}

// toolchain is what the objects depend on beside their sources.
type toolchain struct {
	identity string
	objtool  []string // command and options, nil where the configuration does not use it
}

func (c *Compiler) findTools(ctx context.Context) error {
	c.tools.Lock()
	defer c.tools.Unlock()
	if c.tool != nil {
		return nil
	}
	version, err := c.version(ctx)
	if err != nil {
		return err
	}
	var t toolchain
	parts := []any{version}
	// A compiler that is replaced by an equal one is not the same file; the
	// assembler is part of the result as well.
	for _, name := range []string{strings.Fields(c.Output.CC)[0], "as"} {
		path, err := exec.LookPath(name)
		if err != nil {
			return missing(name, err)
		}
		st, err := os.Stat(path)
		if err != nil {
			return &Error{Stage: "compiler", Err: err}
		}
		parts = append(parts, path, st.Size(), st.ModTime().UnixNano())
	}
	if t.objtool, err = c.Output.ObjtoolArgs(ctx); err != nil {
		return &Error{Stage: "objtool", Err: err}
	}
	if t.objtool != nil {
		digest, err := c.digests.of(t.objtool[0])
		if err != nil {
			return &Error{Stage: "objtool", Err: err}
		}
		parts = append(parts, digest, t.objtool[1:])
		// It comes out of a package that is not installed, so nothing has seen to the
		// libraries it needs.
		output, err := c.run(ctx, os.TempDir(), []string{t.objtool[0], "--help"})
		var exit *exec.ExitError
		if err != nil && (!errors.As(err, &exit) || exit.ExitCode() == 127) {
			return &Error{Stage: "objtool", Output: output, Err: fmt.Errorf("starting %s: %w: %s", t.objtool[0], err, firstLine(output))}
		}
	}
	t.identity = hashOf(parts...)
	c.tool = &t
	return nil
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// missing says which package has the command: on Debian, Fedora and the like the
// compilers' packages are called as their commands are.
func missing(name string, err error) error {
	if !errors.Is(err, exec.ErrNotFound) {
		return &Error{Stage: "compiler", Err: err}
	}
	pkg := name
	if name == "as" {
		pkg = "binutils"
	}
	return &Error{Stage: "compiler", Err: fmt.Errorf("%w; install the package %s", err, pkg)}
}

func (c *Compiler) version(ctx context.Context) (string, error) {
	cc := strings.Fields(c.Output.CC)
	if len(cc) == 0 {
		return "", &Error{Stage: "compiler", Err: errors.New("no compiler is named")}
	}
	if _, err := exec.LookPath(cc[0]); err != nil {
		return "", missing(cc[0], err)
	}
	output, err := c.run(ctx, os.TempDir(), append(cc, "--version"))
	if err != nil {
		if ctxErr := ctx.Err(); ctxErr != nil {
			return "", ctxErr
		}
		return "", &Error{Stage: "compiler", Output: output, Err: err}
	}
	line, _, _ := strings.Cut(output, "\n")
	return strings.TrimSpace(line), nil
}

// limited keeps the beginning of a tool's output.
type limited struct{ buf bytes.Buffer }

func (l *limited) Write(p []byte) (int, error) {
	if room := maxOutput - l.buf.Len(); room > 0 {
		l.buf.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}
