// SPDX-License-Identifier: Apache-2.0

package tree

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// compressed writes the same tar in every format and returns the paths.
func compressed(t *testing.T, tar []byte) []string {
	t.Helper()
	dir := t.TempDir()
	var paths []string
	for name, wrap := range map[string]func(io.Writer) (io.WriteCloser, error){
		"a.tar":     nil,
		"a.tar.xz":  func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) },
		"a.tar.zst": func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) },
		"a.tar.gz":  func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil },
	} {
		var b bytes.Buffer
		if wrap == nil {
			b.Write(tar)
		} else {
			w, err := wrap(&b)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(tar); err != nil {
				t.Fatal(err)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	return paths
}

func extractFile(ctx context.Context, path, dir string) error {
	r, err := OpenTar(ctx, path)
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = Extract(ctx, r, dir, Options{})
	return err
}

// noise is text that does not compress to nothing.
func noise(n int) string {
	rnd := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte('a' + rnd.IntN(26))
	}
	return string(b)
}

func TestOpenTar(t *testing.T) {
	text := noise(60_000)
	archive := archiveOf(t, file("l/Makefile", "all:\n"), file("l/fs/a.c", text))
	for _, command := range []string{"xz", "no-such-command"} {
		xzCommand = command
		defer func() { xzCommand = "xz" }()
		for _, path := range compressed(t, archive) {
			t.Run(command+"/"+filepath.Base(path), func(t *testing.T) {
				dir := filepath.Join(t.TempDir(), "tree")
				if err := extractFile(t.Context(), path, dir); err != nil {
					t.Fatal(err)
				}
				if got, err := os.ReadFile(filepath.Join(dir, "fs/a.c")); err != nil || string(got) != text {
					t.Errorf("%d bytes, %v", len(got), err)
				}

				whole, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				damaged := map[string][]byte{
					"truncated": whole[:len(whole)/2],
					"short":     whole[:20],
					// Only the checks at the end of the stream are missing.
					"no end": whole[:len(whole)-6],
				}
				if filepath.Ext(path) != ".tar" { // a tar has no checksum of its contents
					flipped := bytes.Clone(whole)
					flipped[len(flipped)/2] ^= 0x10
					damaged["flipped"] = flipped
				} else {
					damaged["no end"] = whole[:len(whole)-600]
				}
				for name, data := range damaged {
					bad := filepath.Join(t.TempDir(), "bad")
					if err := os.WriteFile(bad, data, 0o644); err != nil {
						t.Fatal(err)
					}
					dir := filepath.Join(t.TempDir(), "tree")
					err := extractFile(t.Context(), bad, dir)
					if err == nil || !strings.Contains(err.Error(), bad) {
						t.Errorf("%s: got %v, want an error that names the archive", name, err)
					}
					if _, err := os.Stat(dir); err == nil {
						t.Errorf("%s: the tree exists", name)
					}
				}
			})
		}
	}
}

func TestOpenTarMissing(t *testing.T) {
	_, err := OpenTar(t.Context(), "/nowhere/linux.tar.xz")
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

// The command must not outlive its reader.
func TestOpenTarCloseEarly(t *testing.T) {
	for _, path := range compressed(t, archiveOf(t, file("l/a", noise(300_000)))) {
		if filepath.Ext(path) != ".xz" {
			continue
		}
		r, err := OpenTar(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(r, make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
		a := r.(*archive)
		if a.cmd == nil {
			t.Fatal("the xz command is not used; it is part of what these tests need")
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		if a.cmd.ProcessState == nil {
			t.Error("the command was not waited for")
		}
	}
}

func TestOpenTarCancel(t *testing.T) {
	for _, path := range compressed(t, archiveOf(t, file("l/a", noise(300_000)))) {
		ctx, cancel := context.WithCancel(t.Context())
		r, err := OpenTar(ctx, path)
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		if _, err := io.Copy(io.Discard, r); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: got %v, want context.Canceled", filepath.Base(path), err)
		}
		r.Close()
	}
}
