// SPDX-License-Identifier: Apache-2.0

package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// store is the cache directory. Everything in it appears complete, by a rename;
// what is named tmp is left over from a build that was killed.
//
//	trees/ID          a prepared source tree
//	trees/ID.delta-ID the difference of two of them
//	out/ID            an output directory of kbuild
//	units/ID          the units of a configuration
//	objects/          see package compile
//	images/ID         an unpacked kernel image
type store struct {
	dir  string
	lock *os.File
}

// formats of what is stored: part of every name, so that another version of the
// program does not find what it would misread.
const storeFormat = 1

const lockPoll = 200 * time.Millisecond

// openStore waits until no other build uses the cache.
func openStore(ctx context.Context, dir string) (*store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("opening the cache: %w", err)
	}
	for _, sub := range []string{"trees", "out", "units", "objects", "images"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, fmt.Errorf("opening the cache: %w", err)
		}
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("opening the cache: %w", err)
	}
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			f.Close()
			return nil, fmt.Errorf("locking %s: %w", f.Name(), err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		case <-time.After(lockPoll):
		}
	}
	s := &store{dir: dir, lock: f}
	s.sweep()
	return s, nil
}

func (s *store) close() { s.lock.Close() }

func (s *store) path(kind, id string) string { return filepath.Join(s.dir, kind, id) }

// sweep removes what a killed build left. An entry that cannot be removed costs
// room and nothing else.
func (s *store) sweep() {
	for _, pattern := range []string{"*/*.tmp-*", "objects/tmp-*"} {
		names, _ := filepath.Glob(filepath.Join(s.dir, pattern))
		for _, n := range names {
			os.RemoveAll(n)
		}
	}
}

// Limits of what stays in the cache: a tree that shares little with the others
// takes 1.2 GB.
const (
	keepTrees   = 2
	keepObjects = 400 << 20 // bytes
)

// prune removes the oldest entries that the current build does not use.
func (s *store) prune(used ...string) {
	keep := func(id string) bool { return slices.Contains(used, id) }
	for _, kind := range []string{"trees", "out", "units", "images"} {
		s.pruneKind(kind, keep)
	}
	s.pruneObjects()
}

func (s *store) pruneKind(kind string, keep func(string) bool) {
	entries, err := os.ReadDir(filepath.Join(s.dir, kind))
	if err != nil {
		return
	}
	kept := map[string]bool{}
	var others []os.FileInfo
	for _, e := range entries {
		id, _, _ := strings.Cut(e.Name(), ".")
		if keep(id) {
			kept[id] = true
		} else if info, err := e.Info(); err == nil {
			others = append(others, info)
		}
	}
	sortByAge(others)
	for _, info := range others {
		id, _, _ := strings.Cut(info.Name(), ".")
		if !kept[id] && len(kept) >= keepTrees {
			os.RemoveAll(filepath.Join(s.dir, kind, info.Name()))
			continue
		}
		kept[id] = true
	}
}

func (s *store) pruneObjects() {
	entries, err := os.ReadDir(filepath.Join(s.dir, "objects"))
	if err != nil {
		return
	}
	var files []os.FileInfo
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
			files = append(files, info)
		}
	}
	sortByAge(files)
	total := int64(0)
	for _, f := range files {
		if total += f.Size(); total > keepObjects {
			os.Remove(filepath.Join(s.dir, "objects", f.Name()))
		}
	}
}

// write puts a file into the store with one rename.
func (s *store) write(kind, id string, fill func(io.Writer) error) error {
	path := s.path(kind, id)
	f, err := os.CreateTemp(filepath.Dir(path), id+".tmp-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // without effect after the rename
	if err := fill(f); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

func (s *store) has(kind, id string) bool {
	_, err := os.Lstat(s.path(kind, id))
	return err == nil
}

// idOf names something after all that it depends on.
func idOf(parts ...any) string {
	h := sha256.New()
	json.NewEncoder(h).Encode(append([]any{storeFormat}, parts...))
	return hex.EncodeToString(h.Sum(nil)[:10])
}

// edge is how much of each end of an archive identifies it.
const edge = 1 << 20

// archiveID identifies an archive that is too large to be read as a whole, by its
// size and both ends: the last bytes of an .xz list the sizes of all its blocks.
// Times are no part of it, since copies of a machine do not keep them.
func archiveID(path string) ([]any, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "open", Path: path, Err: errors.New("not a regular file")}
	}
	h := sha256.New()
	for _, off := range []int64{0, max(st.Size()-edge, 0)} {
		if _, err := io.Copy(h, io.NewSectionReader(f, off, edge)); err != nil {
			return nil, err
		}
	}
	return []any{st.Size(), hex.EncodeToString(h.Sum(nil))}, nil
}

func fileDigest(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
