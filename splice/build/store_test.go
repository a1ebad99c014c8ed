// SPDX-License-Identifier: Apache-2.0

package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestStoreLockAndSweep(t *testing.T) {
	dir := t.TempDir()
	s, err := openStore(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*lockPoll)
	defer cancel()
	if _, err := openStore(ctx, dir); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a second build at once: %v", err)
	}
	// What a killed build leaves.
	for _, name := range []string{"trees/a.tmp-1/x", "out/b.tmp-2/x", "objects/tmp-3/x", "units/c.tmp-4/x", "trees/good/x"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s.close()
	s, err = openStore(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	left, _ := filepath.Glob(filepath.Join(dir, "*", "*"))
	if len(left) != 1 || filepath.Base(left[0]) != "good" {
		t.Errorf("left: %v", left)
	}
}

func TestStoreWrite(t *testing.T) {
	s, err := openStore(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	broken := fmt.Errorf("half: %w", syscall.ENOSPC)
	if err := s.write("units", "x", func(w io.Writer) error { io.WriteString(w, "half"); return broken }); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v", err)
	}
	if left, _ := os.ReadDir(s.path("units", "")); len(left) != 0 || s.has("units", "x") {
		t.Errorf("left behind: %v", left)
	}
	if err := s.write("units", "x", func(w io.Writer) error { _, err := io.WriteString(w, "whole"); return err }); err != nil || !s.has("units", "x") {
		t.Errorf("got %v", err)
	}
	err = named("/cache", broken)
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "/cache") {
		t.Errorf("full disk: %v", err)
	}
}

func TestPrune(t *testing.T) {
	s, err := openStore(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	for i, id := range []string{"old", "older", "new", "used"} {
		when := time.Now().Add(-time.Duration([]int{3, 4, 1, 9}[i]) * time.Hour)
		if err := os.MkdirAll(filepath.Join(s.path("trees", id), "fs"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(s.path("trees", id), when, when); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3 {
		path := s.path("objects", fmt.Sprint(i))
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Truncate(keepObjects / 2); err != nil {
			t.Fatal(err)
		}
		f.Close()
		when := time.Now().Add(-time.Duration(i) * time.Hour)
		if err := os.Chtimes(path, when, when); err != nil {
			t.Fatal(err)
		}
	}
	s.prune("used")
	for id, want := range map[string]bool{"used": true, "new": true, "old": false, "older": false} {
		if s.has("trees", id) != want {
			t.Errorf("%s: kept %v", id, !want)
		}
	}
	if !s.has("objects", "0") || !s.has("objects", "1") || s.has("objects", "2") {
		t.Error("objects: not the oldest one was removed")
	}
}

func TestSideErrors(t *testing.T) {
	s, err := openStore(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	k := Kernel{SourceArchive: "/nowhere/linux.tar.xz"}
	k.Arch, k.Version = "amd64", "6.1.1-1"
	if _, err := s.side(k); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "source archive of 6.1.1-1") {
		t.Errorf("no archive: %v", err)
	}
	k.Arch = "s390x"
	if _, err := s.side(k); err == nil || !strings.Contains(err.Error(), `"s390x" is not known`) {
		t.Errorf("another architecture: %v", err)
	}
	if _, err := openStore(t.Context(), "/dev/null/cache"); err == nil {
		t.Error("a cache that is no directory: no error")
	}
}
