// SPDX-License-Identifier: Apache-2.0

package tree

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// maxWindow bounds what a decompressor may allocate because the archive says so.
const maxWindow = 128 << 20

// Archive formats are told by their first bytes, not by the file's name: a
// mirror or a user may have renamed it.
var (
	magicXZ   = []byte{0xfd, '7', 'z', 'X', 'Z', 0}
	magicZstd = []byte{0x28, 0xb5, 0x2f, 0xfd}
	magicGzip = []byte{0x1f, 0x8b}
)

// xzCommand is looked up in PATH; the tests of the fallback change it.
var xzCommand = "xz"

func openTar(ctx context.Context, path string) (_ io.ReadCloser, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("opening the source archive: %w", err)
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	head := make([]byte, 6)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	head = head[:n]
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}

	a := &archive{name: path, file: f, ctx: ctx}
	switch {
	case bytes.HasPrefix(head, magicXZ):
		if cmd, lookErr := exec.LookPath(xzCommand); lookErr == nil {
			return a, a.start(ctx, cmd)
		}
		// Without the command: several times slower and on one core only.
		r, err := xz.ReaderConfig{DictCap: maxWindow}.NewReader(bufio.NewReaderSize(f, 1<<20))
		if err != nil {
			return nil, fmt.Errorf("decompressing %s: %w", path, err)
		}
		a.r = r
	case bytes.HasPrefix(head, magicZstd):
		r, err := zstd.NewReader(f, zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, fmt.Errorf("decompressing %s: %w", path, err)
		}
		a.r, a.release = r, r.Close
	case bytes.HasPrefix(head, magicGzip):
		r, err := gzip.NewReader(bufio.NewReaderSize(f, 1<<20))
		if err != nil {
			return nil, fmt.Errorf("decompressing %s: %w", path, err)
		}
		a.r = r
	default:
		a.r = f
	}
	return a, nil
}

// archive is an opened source archive as a tar stream.
type archive struct {
	name    string
	file    *os.File
	ctx     context.Context
	r       io.Reader
	release func()

	cmd    *exec.Cmd // nil where decompression is done in this process
	stderr limited
	waited bool
	err    error // what the stream ends with, once known
}

// start decompresses in a process of its own, beside the work of the caller.
func (a *archive) start(ctx context.Context, command string) error {
	a.cmd = exec.CommandContext(ctx, command, "-T0", "-dc")
	a.cmd.Stdin = a.file
	a.cmd.Stderr = &a.stderr
	out, err := a.cmd.StdoutPipe()
	if err == nil {
		err = a.cmd.Start()
	}
	if err != nil {
		return fmt.Errorf("decompressing %s: starting %s: %w", a.name, command, err)
	}
	a.r = out
	return nil
}

// Name returns the archive's path, for messages.
func (a *archive) Name() string { return a.name }

func (a *archive) Read(p []byte) (int, error) {
	if a.err != nil {
		return 0, a.err
	}
	if err := a.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := a.r.Read(p)
	if err == nil {
		return n, nil
	}
	if err == io.EOF && a.cmd != nil {
		// The command's own verdict: a truncated archive ends like a whole one
		// as far as the pipe is concerned.
		if waitErr := a.wait(); waitErr != nil {
			err = waitErr
		}
	}
	if err != io.EOF {
		if ctxErr := a.ctx.Err(); ctxErr != nil {
			err = ctxErr
		} else {
			err = fmt.Errorf("decompressing %s: %w", filepath.Base(a.name), err)
		}
	}
	a.err = err
	return n, err
}

func (a *archive) wait() error {
	if a.waited {
		return nil
	}
	a.waited = true
	err := a.cmd.Wait()
	if err == nil {
		return nil
	}
	if said := strings.TrimSpace(a.stderr.String()); said != "" {
		return fmt.Errorf("%s: %w", said, err)
	}
	return fmt.Errorf("%s: %w", a.cmd.Path, err)
}

// Close ends the decompression, finished or not.
func (a *archive) Close() error {
	if a.cmd != nil && !a.waited {
		a.cmd.Process.Kill()
		a.waited = true
		a.cmd.Wait()
	}
	if a.release != nil {
		a.release()
	}
	a.err = os.ErrClosed
	return a.file.Close()
}

// limited keeps the beginning of what a command says.
type limited struct{ buf bytes.Buffer }

func (l *limited) Write(p []byte) (int, error) {
	if room := 4096 - l.buf.Len(); room > 0 {
		l.buf.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

func (l *limited) String() string { return l.buf.String() }
