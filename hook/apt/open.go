// SPDX-License-Identifier: Apache-2.0

package apt

import (
	"fmt"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Open returns what apt sends: the file descriptor that APT_HOOK_INFO_FD
// names, else standard input. Close reads what is left, so that apt never
// writes into a pipe without a reader.
func Open() (io.ReadCloser, error) {
	fd := 0
	if s, ok := os.LookupEnv("APT_HOOK_INFO_FD"); ok {
		n, err := strconv.Atoi(s)
		if err != nil || n < 0 {
			return nil, fmt.Errorf("reading APT_HOOK_INFO_FD: %.20q is not a file descriptor", s)
		}
		fd = n
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("reading apt's transaction from file descriptor %d: %w: run this only from apt", fd, err)
	}
	// No child is to keep apt's pipe open.
	unix.CloseOnExec(fd)
	return &input{
		File: os.NewFile(uintptr(fd), "apt's transaction"),
		pipe: st.Mode&unix.S_IFMT == unix.S_IFIFO || st.Mode&unix.S_IFMT == unix.S_IFSOCK,
	}, nil
}

type input struct {
	*os.File
	pipe bool
}

// Close drains a pipe and closes it. A terminal is not drained: nobody would
// end that.
func (in *input) Close() error {
	if in.pipe {
		_, _ = io.Copy(io.Discard, io.LimitReader(in.File, maxTotal))
	}
	return in.File.Close()
}
