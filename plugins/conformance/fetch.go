// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/upsplice/upsplice/plugins/backend"
)

// fetch checks the materials of both kernels. Where the paths may lie is checked
// by host.Validate, which stands between.
func fetch(t *testing.T, b backend.Backend, fx Fixtures) {
	for _, k := range []backend.Kernel{fx.From, fx.To} {
		parent := t.TempDir()
		dir := filepath.Join(parent, "dir")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		var progress []backend.Progress
		m, err := b.Fetch(t.Context(), backend.FetchRequest{Kernel: k, Dir: dir}, func(p backend.Progress) { progress = append(progress, p) })
		if err != nil {
			t.Fatalf("fetching %s: %v", k.Release, err)
		}
		for name, path := range map[string]string{"source archive": m.SourceArchive, "config": m.Config, "image": m.Image, "module": m.Module} {
			if fi, err := os.Stat(path); err != nil || fi.Size() == 0 {
				t.Errorf("%s of %s: %v", name, k.Release, err)
			}
		}
		if n := countModules(t, m.Modules); n == 0 {
			t.Errorf("no modules of %s below %q", k.Release, filepath.Join(m.Modules, "kernel"))
		}
		if len(progress) == 0 {
			t.Errorf("no progress while fetching %s", k.Release)
		}
		for _, p := range progress {
			if p.Text == "" || p.Total > 0 && p.Done > p.Total {
				t.Errorf("progress %+v", p)
			}
		}
		if entries, err := os.ReadDir(parent); err != nil || len(entries) != 1 {
			t.Errorf("fetching wrote outside of its directory: %v, %v", entries, err)
		}
	}
}

// countModules counts the modules that a build will look for.
func countModules(t *testing.T, dir string) int {
	t.Helper()
	n := 0
	err := filepath.WalkDir(filepath.Join(dir, "kernel"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && strings.Contains(d.Name(), ".ko") {
			n++
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	return n
}

// fetchParts asks for one thing at a time; only that must be there.
func fetchParts(t *testing.T, b backend.Backend, fx Fixtures) {
	dir := t.TempDir()
	for _, want := range []backend.Want{backend.WantImage, backend.WantModules, backend.WantSource, backend.WantHeaders} {
		m, err := b.Fetch(t.Context(), backend.FetchRequest{Kernel: fx.From, Dir: dir, Want: []backend.Want{want}}, nil)
		if err != nil {
			t.Fatalf("fetching %s: %v", want, err)
		}
		if got := map[backend.Want]string{backend.WantImage: m.Image, backend.WantModules: m.Modules, backend.WantSource: m.SourceArchive, backend.WantHeaders: m.Headers}[want]; got == "" {
			t.Errorf("%s is missing in %+v", want, m)
		}
	}
}

// fetchAgain: what is there is used, not made again.
func fetchAgain(t *testing.T, b backend.Backend, fx Fixtures) {
	req := backend.FetchRequest{Kernel: fx.From, Dir: t.TempDir()}
	first, err := b.Fetch(t.Context(), req, nil)
	if err != nil {
		t.Fatal(err)
	}
	before := inodes(t, first)
	second, err := b.Fetch(t.Context(), req, nil)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(first, second); d != "" {
		t.Errorf("the second fetch gives other materials: %s", d)
	}
	for path, fi := range inodes(t, second) {
		if !os.SameFile(fi, before[path]) || !fi.ModTime().Equal(before[path].ModTime()) {
			t.Errorf("the second fetch made %s again", path)
		}
	}
}

func inodes(t *testing.T, m backend.Materials) map[string]fs.FileInfo {
	t.Helper()
	out := map[string]fs.FileInfo{}
	for _, p := range []string{m.SourceArchive, m.Headers, m.Config, m.Image, m.Modules} {
		fi, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		out[p] = fi
	}
	return out
}

// fetchAtOnce: two callers with one directory do not disturb each other.
func fetchAtOnce(t *testing.T, b backend.Backend, fx Fixtures) {
	dir := t.TempDir()
	results := make([]backend.Materials, 3)
	var wg sync.WaitGroup
	for i := range results {
		wg.Go(func() {
			var err error
			if results[i], err = b.Fetch(t.Context(), backend.FetchRequest{Kernel: fx.From, Dir: dir}, nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, m := range results[1:] {
		if d := cmp.Diff(results[0], m); d != "" {
			t.Error(d)
		}
	}
}

func fetchGone(t *testing.T, b backend.Backend, fx Fixtures) {
	dir := t.TempDir()
	_, err := b.Fetch(t.Context(), backend.FetchRequest{Kernel: fx.Gone, Dir: dir}, nil)
	if e := wantKind(t, err, backend.NotFound); e.Remedy == "" {
		t.Errorf("error %v says no remedy", err)
	}
	if _, err := b.Fetch(t.Context(), backend.FetchRequest{Kernel: fx.From, Dir: dir}, nil); err != nil {
		t.Errorf("after an error the directory serves no more: %v", err)
	}
}

// fetchCancelled stops at the first sign of life, and later: the directory must be
// fit for the next fetch each time.
func fetchCancelled(t *testing.T, b backend.Backend, fx Fixtures) {
	dir := t.TempDir()
	for after := range 4 {
		ctx, cancel := context.WithCancel(t.Context())
		var stopped time.Time
		n := 0
		_, err := b.Fetch(ctx, backend.FetchRequest{Kernel: fx.From, Dir: dir}, func(backend.Progress) {
			if n++; n > after && stopped.IsZero() {
				stopped = time.Now()
				cancel()
			}
		})
		cancel()
		if stopped.IsZero() {
			break // it was done before
		}
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled at message %d: %v", after, err)
		}
		if d := time.Since(stopped); d > 10*time.Second {
			t.Errorf("cancelled at message %d: it went on for %v", after, d)
		}
	}
	if _, err := b.Fetch(t.Context(), backend.FetchRequest{Kernel: fx.From, Dir: dir}, nil); err != nil {
		t.Errorf("after cancelled fetches: %v", err)
	}
}

func fetchIntoFile(t *testing.T, b backend.Backend, fx Fixtures) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{filepath.Join(file, "dir"), "relative", ""} {
		_, err := b.Fetch(t.Context(), backend.FetchRequest{Kernel: fx.From, Dir: dir}, nil)
		wantKind(t, err, backend.Internal)
	}
}
