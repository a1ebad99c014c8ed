// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/upsplice/upsplice/plugins/backend"
)

func suite(t *testing.T, b backend.Backend, fx Fixtures) {
	for _, c := range []struct {
		name string
		test func(*testing.T, backend.Backend, Fixtures)
	}{
		{"describe", describe},
		{"kernels", kernels},
		{"installed", installed},
		{"available", available},
		{"compare", compare},
		{"fetch", fetch},
		{"fetch parts", fetchParts},
		{"fetch again", fetchAgain},
		{"fetch at once", fetchAtOnce},
		{"fetch gone", fetchGone},
		{"fetch cancelled", fetchCancelled},
		{"fetch into a file", fetchIntoFile},
		{"changes", changes},
		{"prebuilt", prebuilt},
		{"done contexts", doneContexts},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, b, fx) })
	}
}

func wantKind(t *testing.T, err error, kind backend.Kind) *backend.Error {
	t.Helper()
	var e *backend.Error
	if !errors.As(err, &e) || e.Kind != kind {
		t.Fatalf("error %v, want kind %q", err, kind)
	}
	if e.What == "" {
		t.Errorf("error %v names no thing", err)
	}
	return e
}

func describe(t *testing.T, b backend.Backend, fx Fixtures) {
	d, err := b.Describe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if d.Name == "" || d.Version == "" || !slices.Contains(d.Systems, fx.System) {
		t.Errorf("description %+v, want a name, a version and system %q", d, fx.System)
	}
	again, err := b.Describe(t.Context())
	if err != nil || !cmp.Equal(d, again) {
		t.Errorf("the second description is %+v, %v", again, err)
	}
}

func kernels(t *testing.T, b backend.Backend, fx Fixtures) {
	got, err := b.Kernels(t.Context(), fx.Transaction)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(fx.Kernels, got); d != "" {
		t.Errorf("kernels of the transaction: %s", d)
	}
	if got, err := b.Kernels(t.Context(), nil); err != nil || len(got) != 0 {
		t.Errorf("kernels of an empty transaction: %v, %v", got, err)
	}
	if got, err := b.Kernels(t.Context(), []backend.Package{{Name: "-o", Arch: "x", NewVersion: "\x00"}, {}}); err != nil || len(got) != 0 {
		t.Errorf("kernels of a strange transaction: %v, %v", got, err)
	}
}

func installed(t *testing.T, b backend.Backend, _ Fixtures) {
	for _, release := range []string{"0.0.0-none", "../../etc/passwd", "", strings.Repeat("6", 10_000)} {
		_, err := b.Installed(t.Context(), release)
		wantKind(t, err, backend.NotFound)
	}
}

func available(t *testing.T, b backend.Backend, fx Fixtures) {
	got, err := b.Available(t.Context(), fx.To.Flavour)
	if err != nil {
		t.Fatal(err)
	}
	from := slices.IndexFunc(got, func(k backend.Kernel) bool { return k.Release == fx.From.Release && k.Version == fx.From.Version })
	to := slices.IndexFunc(got, func(k backend.Kernel) bool { return k.Release == fx.To.Release && k.Version == fx.To.Version })
	if from < 0 || to < 0 || from > to {
		t.Errorf("kernels of flavour %s: %v; want %s before %s", fx.To.Flavour, got, fx.From.Release, fx.To.Release)
	}
	for i, k := range got {
		if k.Flavour != fx.To.Flavour {
			t.Errorf("%s is of flavour %q", k.Release, k.Flavour)
		}
		if i == 0 {
			continue
		}
		if d, err := b.Compare(t.Context(), got[i-1], k); err != nil || d > 0 {
			t.Errorf("%s stands before %s, but is not older (%d, %v)", got[i-1].Release, k.Release, d, err)
		}
	}
	all, err := b.Available(t.Context(), "")
	if err != nil || len(all) < len(got) {
		t.Errorf("kernels of all flavours: %d, %v; of flavour %s: %d", len(all), err, fx.To.Flavour, len(got))
	}
	if got, err := b.Available(t.Context(), "no such flavour"); err != nil || len(got) != 0 {
		t.Errorf("kernels of no flavour: %v, %v", got, err)
	}
}

func compare(t *testing.T, b backend.Backend, fx Fixtures) {
	for _, c := range []struct {
		x, y backend.Kernel
		want int
	}{{fx.From, fx.To, -1}, {fx.To, fx.From, 1}, {fx.To, fx.To, 0}} {
		if got, err := b.Compare(t.Context(), c.x, c.y); err != nil || sign(got) != c.want {
			t.Errorf("Compare(%s, %s) = %d, %v; want %d", c.x.Version, c.y.Version, got, err, c.want)
		}
	}
}

func sign(n int) int { return min(max(n, -1), 1) }

func changes(t *testing.T, b backend.Backend, fx Fixtures) {
	// Fetching makes the changelog available where it comes with the source.
	if _, err := b.Fetch(t.Context(), backend.FetchRequest{Kernel: fx.To, Dir: t.TempDir(), Want: []backend.Want{backend.WantSource}}, nil); err != nil {
		t.Fatal(err)
	}
	cs, err := b.Changes(t.Context(), fx.From, fx.To)
	if err != nil {
		t.Fatal(err)
	}
	if len(cs) == 0 {
		t.Errorf("no changes from %s to %s", fx.From.SourceVersion, fx.To.SourceVersion)
	}
	for _, c := range cs {
		if c.Version == "" || c.Text == "" || c.Version == fx.From.SourceVersion {
			t.Errorf("change %+v", c)
		}
		for _, cve := range c.CVEs {
			if !strings.Contains(c.Text, cve) {
				t.Errorf("%s does not stand in %q", cve, c.Text)
			}
		}
	}
	if cs, err := b.Changes(t.Context(), fx.To, fx.To); err != nil || len(cs) != 0 {
		t.Errorf("changes from a version to itself: %v, %v", cs, err)
	}
	_, err = b.Changes(t.Context(), fx.From, fx.Gone)
	wantKind(t, err, backend.NotFound)
}

func prebuilt(t *testing.T, b backend.Backend, fx Fixtures) {
	if _, err := b.Prebuilt(t.Context(), fx.From, fx.To, strings.Repeat("0", 40)); err != nil {
		t.Error(err)
	}
}

// doneContexts: no method works on when its context is done.
func doneContexts(t *testing.T, b backend.Backend, fx Fixtures) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var wg sync.WaitGroup
	for name, call := range map[string]func() error{
		"describe":  func() error { _, err := b.Describe(ctx); return err },
		"kernels":   func() error { _, err := b.Kernels(ctx, fx.Transaction); return err },
		"installed": func() error { _, err := b.Installed(ctx, fx.To.Release); return err },
		"available": func() error { _, err := b.Available(ctx, fx.To.Flavour); return err },
		"compare":   func() error { _, err := b.Compare(ctx, fx.From, fx.To); return err },
		"changes":   func() error { _, err := b.Changes(ctx, fx.From, fx.To); return err },
		"prebuilt":  func() error { _, err := b.Prebuilt(ctx, fx.From, fx.To, ""); return err },
	} {
		wg.Go(func() {
			start := time.Now()
			if err := call(); !errors.Is(err, context.Canceled) {
				t.Errorf("%s: %v, want context.Canceled", name, err)
			}
			if d := time.Since(start); d > 5*time.Second {
				t.Errorf("%s took %v", name, d)
			}
		})
	}
	wg.Wait()
}
