// SPDX-License-Identifier: Apache-2.0

package host

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	plugin "github.com/hashicorp/go-plugin"
)

const (
	// DefaultDir is where packages put backends.
	DefaultDir = "/usr/lib/upsplice/backends"

	// Checksums is the file in the backend directory that says what may be
	// started, in the form of sha256sum(1). It is written when the package is built.
	Checksums = "SHA256SUMS"

	maxChecksums = 1 << 20 // bytes
)

// UntrustedError says why a backend is not started.
type UntrustedError struct {
	Path   string
	Reason string
}

func (e *UntrustedError) Error() string {
	return fmt.Sprintf("starting backend: %s %s (reinstall the package it came with)", e.Path, e.Reason)
}

// NoBackendError says that there is no backend for what was asked.
type NoBackendError struct {
	Name string // of a backend or of a system
	Dir  string
}

func (e *NoBackendError) Error() string {
	return fmt.Sprintf("choosing a backend: %s has none for %q", e.Dir, e.Name)
}

var nameRE = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)

// List returns the names of the backends in the directory, sorted. They are the
// ones with a checksum; whether they may be started is checked by Open.
func List(opt Options) ([]string, error) {
	opt = opt.withDefaults()
	sums, err := readChecksums(opt)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for name := range sums {
		if _, err := os.Lstat(filepath.Join(opt.Dir, name)); err == nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// verify returns the path of a backend that may be started.
func verify(name string, opt Options) (string, error) {
	if !nameRE.MatchString(name) {
		return "", &NoBackendError{Name: name, Dir: opt.Dir}
	}
	path := filepath.Join(opt.Dir, name)
	switch _, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
		return "", &NoBackendError{Name: name, Dir: opt.Dir}
	case err != nil:
		return "", fmt.Errorf("starting backend: %w", err)
	}
	if err := trustedFile(path, opt.Owner); err != nil {
		return "", err
	}
	sums, err := readChecksums(opt)
	if errors.Is(err, fs.ErrNotExist) {
		return "", &UntrustedError{Path: filepath.Join(opt.Dir, Checksums), Reason: "does not exist"}
	}
	if err != nil {
		return "", err
	}
	sum, ok := sums[name]
	if !ok {
		return "", &UntrustedError{Path: path, Reason: "has no checksum in " + Checksums}
	}
	secure := plugin.SecureConfig{Checksum: sum, Hash: sha256.New()}
	switch ok, err := secure.Check(path); {
	case err != nil:
		return "", fmt.Errorf("starting backend: checking %s: %w", path, err)
	case !ok:
		return "", &UntrustedError{Path: path, Reason: "is not the file whose checksum was recorded"}
	}
	return path, nil
}

// trustedFile checks that nobody but the owner can have changed the file, or can
// put another in its place: the file and every directory above it.
func trustedFile(path string, owner int) error {
	fi, err := os.Lstat(path)
	if err != nil {
		return fmt.Errorf("starting backend: %w", err)
	}
	if !fi.Mode().IsRegular() {
		return &UntrustedError{Path: path, Reason: "is no regular file"}
	}
	if err := trustedOwner(path, fi, owner, false); err != nil {
		return err
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err == nil {
		dir, err = filepath.Abs(dir)
	}
	if err != nil {
		return fmt.Errorf("starting backend: %w", err)
	}
	for {
		fi, err := os.Lstat(dir)
		if err != nil {
			return fmt.Errorf("starting backend: %w", err)
		}
		if err := trustedOwner(dir, fi, owner, true); err != nil {
			return err
		}
		up := filepath.Dir(dir)
		if up == dir {
			return nil
		}
		dir = up
	}
}

func trustedOwner(path string, fi fs.FileInfo, owner int, dir bool) error {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok || int(st.Uid) != owner && st.Uid != 0 {
		return &UntrustedError{Path: path, Reason: fmt.Sprintf("does not belong to user %d", owner)}
	}
	// In a sticky directory only the owner of an entry can replace it.
	sticky := dir && fi.Mode()&fs.ModeSticky != 0
	if fi.Mode().Perm()&0o022 != 0 && !sticky {
		return &UntrustedError{Path: path, Reason: "can be written by others"}
	}
	return nil
}

func readChecksums(opt Options) (map[string][]byte, error) {
	path := filepath.Join(opt.Dir, Checksums)
	if _, err := os.Lstat(path); err != nil {
		return nil, fmt.Errorf("reading checksums of backends: %w", err)
	}
	if err := trustedFile(path, opt.Owner); err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading checksums of backends: %w", err)
	}
	defer f.Close()
	return parseChecksums(f)
}

// parseChecksums reads the output of sha256sum: per line 64 hexadecimal digits, a
// blank, a blank or "*", and the name. Names with a directory are refused.
func parseChecksums(r io.Reader) (map[string][]byte, error) {
	sums := map[string][]byte{}
	s := bufio.NewScanner(io.LimitReader(r, maxChecksums))
	for n := 1; s.Scan(); n++ {
		line := s.Text()
		if line == "" {
			continue
		}
		digits, name, ok := strings.Cut(line, " ")
		sum, err := hex.DecodeString(digits)
		if !ok || err != nil || len(sum) != sha256.Size || name == "" {
			return nil, fmt.Errorf("reading %s: line %d is no checksum", Checksums, n)
		}
		name = strings.TrimPrefix(name[1:], "./")
		if !nameRE.MatchString(name) {
			return nil, fmt.Errorf("reading %s: line %d: %q is no name of a backend", Checksums, n, name)
		}
		if _, dup := sums[name]; dup {
			return nil, fmt.Errorf("reading %s: line %d: %q stands there twice", Checksums, n, name)
		}
		sums[name] = sum
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("reading %s: %w", Checksums, err)
	}
	return sums, nil
}
