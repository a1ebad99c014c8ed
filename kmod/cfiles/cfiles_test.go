// SPDX-License-Identifier: Apache-2.0

package cfiles

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
)

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	path, err := Write(dir)
	if err != nil {
		t.Fatal(err)
	}
	header := filepath.Join(path, "include", "kpatch-macros.h")
	before, err := os.Stat(header)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Write(dir)
	if err != nil || again != path {
		t.Fatalf("a second Write returned %q, %v, want %q", again, err, path)
	}
	if after, err := os.Stat(header); err != nil || !os.SameFile(before, after) {
		t.Errorf("a second Write wrote the files anew (%v)", err)
	}
	list, err := os.ReadDir(dir)
	if err != nil || len(list) != 1 {
		t.Errorf("left behind: %v, %v", list, err)
	}
}

func TestWriteMends(t *testing.T) {
	dir := t.TempDir()
	files := fstest.MapFS{"include/a.h": {Data: []byte("a\n")}, "include/b.h": {Data: []byte("b\n")}}
	path, err := write(files, dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(path, "include", "b.h"), 0); err != nil {
		t.Fatal(err)
	}
	if again, err := write(files, dir); err != nil || again != path {
		t.Fatalf("write = %q, %v, want %q", again, err, path)
	}
	if got, err := os.ReadFile(filepath.Join(path, "include", "b.h")); string(got) != "b\n" {
		t.Errorf("b.h is %q, %v after it was mended", got, err)
	}
	files["include/b.h"] = &fstest.MapFile{Data: []byte("c\n")}
	if other, err := write(files, dir); err != nil || other == path {
		t.Errorf("other contents are in the same directory %q (%v)", other, err)
	}
}

func TestWriteRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Write(file); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("Write into a file: %v", err)
	}
}

// TestLicence: these files become part of kernel modules.
func TestLicence(t *testing.T) {
	count := 0
	err := walk(FS, func(name string, data []byte) error {
		if ext := filepath.Ext(name); ext != ".c" && ext != ".h" && ext != ".S" {
			return nil
		}
		count++
		first, _, _ := strings.Cut(string(data), "\n")
		if !strings.Contains(first, "SPDX-License-Identifier: GPL-2.0-only") {
			t.Errorf("%s begins with %q", name, first)
		}
		return nil
	})
	if err != nil || count < 4 {
		t.Errorf("found %d C files, %v", count, err)
	}
	if _, err := fs.Stat(FS, "include/linux/livepatch_helpers.h"); err != nil {
		t.Error(err)
	}
}
