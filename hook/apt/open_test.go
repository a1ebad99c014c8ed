// SPDX-License-Identifier: Apache-2.0

package apt

import (
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// dupPipe returns a pipe whose read end has a number that no os.File of this
// process closes behind Open's back.
func dupPipe(t *testing.T) (fd int, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	fd, err = unix.Dup(int(r.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	return fd, w
}

func TestOpenReadsTheNamedDescriptor(t *testing.T) {
	fd, w := dupPipe(t)
	t.Setenv("APT_HOOK_INFO_FD", strconv.Itoa(fd))
	in, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("children inherit the descriptor (flags %#x, %v)", flags, err)
	}
	wrote := make(chan error, 1)
	go func() {
		// More than a pipe holds: apt would block, or fail, without a reader.
		_, err := io.WriteString(w, "VERSION 9\n"+strings.Repeat("x", 1<<20))
		w.Close()
		wrote <- err
	}()
	if _, err := Parse(in); err == nil {
		t.Error("garbage is accepted")
	}
	if err := in.Close(); err != nil {
		t.Error(err)
	}
	if err := <-wrote; err != nil {
		t.Errorf("apt's write: %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	fd, w := dupPipe(t)
	w.Close()
	unix.Close(fd)
	for _, s := range []string{"", "x", "-1", "99999999999999999999", strconv.Itoa(fd)} {
		t.Setenv("APT_HOOK_INFO_FD", s)
		if in, err := Open(); err == nil {
			t.Errorf("%q is accepted", s)
			in.Close()
		}
	}
}

// TestOpenStandardInput runs this test binary as the hook, as apt without
// InfoFD does.
func TestOpenStandardInput(t *testing.T) {
	if os.Getenv("APT_TEST_CHILD") != "" {
		in, err := Open()
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		tr, err := Parse(in)
		if err != nil {
			t.Fatal(err)
		}
		if got := len(tr.Changes()); got != 4 {
			t.Fatalf("%d changes, want 4", got)
		}
		return
	}
	f, err := os.Open("testdata/v3-upgrade.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := exec.Command(os.Args[0], "-test.run=^TestOpenStandardInput$")
	cmd.Env = append(os.Environ(), "APT_TEST_CHILD=1")
	cmd.Stdin = f
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
