// SPDX-License-Identifier: Apache-2.0

package kernels

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/upsplice/upsplice/plugins/backend"
)

// store is the directory of a fetch. What stands in it under its own name is
// complete; what is being made has a name that starts with tmpPrefix.
//
//	source/linux-source-6.1_6.1.192-1.tar.xz
//	headers/6.1.0-55-cloud-amd64_6.1.192-1/usr/...
//	image/6.1.0-55-cloud-amd64_6.1.192-1/boot/..., lib/modules/...
//	modules/6.1.0-55-cloud-amd64_6.1.192-1/boot/..., lib/modules/... all of them
//	doc/changelog_6.1.192-1.gz
//	download/*.deb        removed once they are unpacked
type store struct {
	dir  string
	lock *os.File
}

const tmpPrefix = ".tmp-"

// openStore waits for others that fetch into the same directory: the running
// kernel may be prepared while an update comes.
func openStore(ctx context.Context, dir string, waiting func()) (*store, error) {
	if !filepath.IsAbs(dir) {
		return nil, &backend.Error{Kind: backend.Internal, What: "directory " + dir, Detail: "it is not absolute"}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, ".lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	for n := 0; ; n++ {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, fmt.Errorf("locking %s: %w", f.Name(), err)
		}
		if n%20 == 0 {
			waiting()
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, context.Cause(ctx)
		case <-time.After(250 * time.Millisecond):
		}
	}
	s := &store{dir: dir, lock: f}
	if err := s.sweep(); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *store) close() { s.lock.Close() }

// sweep removes what a fetch that was killed has left half done.
func (s *store) sweep() error {
	for _, sub := range []string{"source", "headers", "image", "modules", "doc"} {
		dir := filepath.Join(s.dir, sub)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), tmpPrefix) {
				if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
					return err
				}
			}
		}
	}
	return os.MkdirAll(s.downloads(), 0o755)
}

func (s *store) downloads() string { return filepath.Join(s.dir, "download") }

func (s *store) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

func (s *store) has(elem ...string) bool {
	_, err := os.Lstat(s.path(elem...))
	return err == nil
}

// makeDir makes a directory by filling a temporary one, which then gets its name.
func (s *store) makeDir(fill func(root *os.Root) error, elem ...string) error {
	dst := s.path(elem...)
	tmp, err := os.MkdirTemp(filepath.Dir(dst), tmpPrefix)
	if err != nil {
		return err
	}
	err = func() error {
		if err := os.Chmod(tmp, 0o755); err != nil {
			return err
		}
		root, err := os.OpenRoot(tmp)
		if err != nil {
			return err
		}
		defer root.Close()
		if err := fill(root); err != nil {
			return err
		}
		// After a power failure the name must not stand for files without content.
		if err := syncfs(tmp); err != nil {
			return err
		}
		return os.Rename(tmp, dst)
	}()
	if err != nil {
		os.RemoveAll(tmp)
	}
	return err
}

func syncfs(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return fmt.Errorf("writing %s to disk: %w", dir, err)
	}
	return nil
}

// diskFull tells whether the disk or a quota is why err happened.
func diskFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
