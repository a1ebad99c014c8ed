// SPDX-License-Identifier: Apache-2.0

// Package unpack takes files out of .debs. A name or a link in a package cannot
// lead a write out of the directory: everything goes through os.Root.
package unpack

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/upsplice/upsplice/distro/archive"
	"github.com/upsplice/upsplice/distro/deb"
)

// Open opens the .deb at path. It reads with the xz command where there is one.
// Close the file after the package was used.
func Open(ctx context.Context, path string) (*deb.Package, io.Closer, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	fi, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	opt := deb.Options{}
	if xz, err := exec.LookPath("xz"); err == nil {
		opt.External = map[archive.Format]archive.Decompressor{archive.Xz: xzCommand(ctx, xz)}
	}
	p, err := deb.Open(f, fi.Size(), opt)
	if err != nil {
		f.Close()
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	return p, f, nil
}

// xzMemory bounds what the command may use, as archive.DefaultMaxWindow bounds the
// built-in decompressor.
const xzMemory = "512MiB"

func xzCommand(ctx context.Context, xz string) archive.Decompressor {
	return func(r io.Reader) (io.ReadCloser, error) {
		cmd := exec.CommandContext(ctx, xz, "-dc", "-T0", "-M", xzMemory)
		cmd.Stdin = r
		cmd.WaitDelay = time.Second
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		stderr := &strings.Builder{}
		cmd.Stderr = stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			return nil, err
		}
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		return &xzReader{ctx: ctx, cmd: cmd, out: out, stderr: stderr}, nil
	}
}

type xzReader struct {
	ctx    context.Context
	cmd    *exec.Cmd
	out    io.ReadCloser
	stderr *strings.Builder
	done   bool
	err    error
}

// Read turns the end of the output into the command's verdict: xz writes what it
// could read of a damaged file before it complains.
func (x *xzReader) Read(p []byte) (int, error) {
	if x.done {
		return 0, x.err
	}
	n, err := x.out.Read(p)
	if err == nil {
		return n, nil
	}
	x.done, x.err = true, err
	if werr := x.cmd.Wait(); err == io.EOF && werr != nil {
		x.err = werr
		if x.ctx.Err() != nil {
			x.err = context.Cause(x.ctx)
		} else if msg := strings.TrimSpace(x.stderr.String()); msg != "" {
			x.err = errors.New(msg)
		}
	}
	return n, x.err
}

func (x *xzReader) Close() error {
	if x.done {
		return nil
	}
	x.done, x.err = true, fs.ErrClosed
	x.out.Close()
	x.cmd.Process.Kill()
	x.cmd.Wait() // it was killed: how it ended says nothing
	return nil
}

// Tree writes the files of p whose names wanted accepts into root, with their
// directories. Owners are dropped, times kept. Absolute links into the package's
// tree are made relative, others that lead out of it are left out, and so is
// everything that is neither file, directory nor link.
func Tree(p *deb.Package, root *os.Root, wanted func(name string) bool, progress func(files int)) error {
	n := 0
	return p.Walk(func(h *tar.Header, r io.Reader) error {
		if h.Name == "." || !wanted(h.Name) {
			return nil
		}
		if n++; n%200 == 0 {
			progress(n)
		}
		return write(root, h, r)
	})
}

func write(root *os.Root, h *tar.Header, r io.Reader) error {
	if h.Typeflag == tar.TypeDir {
		return root.MkdirAll(h.Name, 0o755)
	}
	if dir := path.Dir(h.Name); dir != "." {
		if err := root.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	switch h.Typeflag {
	case tar.TypeReg:
		return writeFile(root, h, r)
	case tar.TypeSymlink:
		if target, ok := inside(h.Name, h.Linkname); ok {
			return replace(root, h.Name, func() error { return root.Symlink(target, h.Name) })
		}
	case tar.TypeLink:
		return replace(root, h.Name, func() error { return root.Link(h.Linkname, h.Name) })
	}
	return nil
}

func replace(root *os.Root, name string, create func() error) error {
	err := create()
	if errors.Is(err, fs.ErrExist) {
		if err := root.Remove(name); err != nil {
			return err
		}
		err = create()
	}
	return err
}

func writeFile(root *os.Root, h *tar.Header, r io.Reader) error {
	f, err := root.OpenFile(h.Name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, fs.FileMode(h.Mode&0o755)|0o600)
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, r); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	// make decides by times.
	return root.Chtimes(h.Name, h.ModTime, h.ModTime)
}

// inside returns the relative target of a link in the package's tree.
func inside(name, target string) (string, bool) {
	if !path.IsAbs(target) {
		out := path.Join(path.Dir(name), target)
		return target, out != ".." && !strings.HasPrefix(out, "../")
	}
	rel, err := filepath.Rel(path.Join("/", path.Dir(name)), path.Clean(target))
	return rel, err == nil
}

// File copies r to path atomically.
func File(dst string, r io.Reader) (err error) {
	f, err := os.CreateTemp(filepath.Dir(dst), ".tmp-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if _, err := io.Copy(f, r); err != nil {
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), dst)
}
