// SPDX-License-Identifier: Apache-2.0

// Package cfiles carries the C files that building a splice needs: in include/ the
// headers for custom code in patches, to be added to the kernel's own flags with
// -I; in support/ the code that goes into livepatch modules. They become part of a
// kernel module and are GPL-2.0-only.
package cfiles

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// FS has the directories include and support.
//
//go:embed include support
var FS embed.FS

// Write writes the files into a directory of dir that is named after their
// contents, unless they are there already, and returns its path. It may run in
// several processes at once.
func Write(dir string) (string, error) {
	path, err := write(FS, dir)
	if err != nil {
		return "", fmt.Errorf("writing C files for splices: %w", err)
	}
	return path, nil
}

func write(files fs.FS, dir string) (string, error) {
	h := sha256.New()
	err := walk(files, func(name string, data []byte) error {
		_, err := fmt.Fprintf(h, "%s\x00%d\x00%s", name, len(data), data)
		return err
	})
	if err != nil {
		return "", err
	}
	final := filepath.Join(dir, hex.EncodeToString(h.Sum(nil)[:8]))
	if same(files, final) {
		return final, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	// A reader sees all files or none.
	tmp, err := os.MkdirTemp(dir, "new-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	if err := os.Chmod(tmp, 0o755); err != nil {
		return "", err
	}
	err = walk(files, func(name string, data []byte) error {
		out := filepath.Join(tmp, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
			return err
		}
		return os.WriteFile(out, data, 0o644)
	})
	if err != nil {
		return "", err
	}
	if err := os.Rename(tmp, final); err == nil || same(files, final) {
		return final, nil // by us, or by somebody else in the meantime
	}
	// After a power cut the files may be there and empty.
	if err := os.RemoveAll(final); err != nil {
		return "", err
	}
	return final, os.Rename(tmp, final)
}

func walk(files fs.FS, do func(name string, data []byte) error) error {
	return fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(files, name)
		if err != nil {
			return err
		}
		return do(name, data)
	})
}

func same(files fs.FS, dir string) bool {
	return walk(files, func(name string, want []byte) error {
		got, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(name)))
		if err == nil && !bytes.Equal(got, want) {
			err = fs.ErrInvalid
		}
		return err
	}) == nil
}
