// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// SmallDelta is the number of differing source files up to which a pair counts as small.
const SmallDelta = 50

// maxMeasured bounds how many pairs are measured where no small one turns up:
// each costs two source archives.
const maxMeasured = 4

// SmallPair returns the newest pair of adjacent kernels whose sources differ in
// few files, or else the one with the smallest difference among the newest. Only
// Release, Version and the like are filled in, see Fetch.
func SmallPair(ctx context.Context) (from, to Kernel, err error) {
	own, err := ownSeries(ctx)
	if err != nil {
		return from, to, err
	}
	best := -1
	for i, p := range candidates(own) {
		if i == maxMeasured {
			break
		}
		n, err := delta(ctx, p[0], p[1])
		if err != nil {
			return from, to, fmt.Errorf("comparing the sources of %s and %s: %w", p[0], p[1], err)
		}
		if best < 0 || n < best {
			best, from, to = n, p[0], p[1]
		}
		if n <= SmallDelta {
			return p[0], p[1], nil
		}
	}
	if best < 0 {
		return from, to, &ArchiveError{What: "two kernels with source and headers", Remedy: "the archive has only one version; add the security archive or a snapshot to the sources of apt"}
	}
	return from, to, nil
}

// candidates returns the adjacent pairs for which the archive has everything,
// those of one upstream version first, then newest first: a rebuild with a few
// patches changes little, an upstream release changes thousands of files.
func candidates(kernels []Kernel) [][2]Kernel {
	var same, others [][2]Kernel
	for i := len(kernels) - 1; i > 0; i-- {
		a, b := kernels[i-1], kernels[i]
		if !a.HasSource || !b.HasSource || !a.HasHeaders || !b.HasHeaders || a.Version == b.Version {
			continue
		}
		if upstream(a.Version) == upstream(b.Version) {
			same = append(same, [2]Kernel{a, b})
		} else {
			others = append(others, [2]Kernel{a, b})
		}
	}
	return append(same, others...)
}

func upstream(version string) string {
	if i := strings.LastIndexByte(version, '-'); i >= 0 {
		return version[:i]
	}
	return version
}

// delta counts the files that differ between two source archives. Answers are kept.
func delta(ctx context.Context, a, b Kernel) (int, error) {
	unlock, err := lockDir(ctx, "delta.lock")
	if err != nil {
		return 0, err
	}
	defer unlock()
	cache := filepath.Join(Dir(), fmt.Sprintf("delta-%s_%s_%s.json", a.Series, a.Version, b.Version))
	if data, err := os.ReadFile(cache); err == nil {
		var n int
		if json.Unmarshal(data, &n) == nil {
			return n, nil
		}
	}
	for _, k := range []*Kernel{&a, &b} {
		if err := Fetch(ctx, k, Source); err != nil {
			return 0, err
		}
	}
	type digest struct {
		sums map[string][sha256.Size]byte
		err  error
	}
	other := make(chan digest, 1)
	go func() {
		s, err := digests(ctx, a.SourceArchive)
		other <- digest{s, err}
	}()
	sb, err := digests(ctx, b.SourceArchive)
	oa := <-other
	if err := errors.Join(err, oa.err); err != nil {
		return 0, err
	}
	n := countDifferent(oa.sums, sb)
	return n, writeAtomic(cache, strings.NewReader(fmt.Sprintln(n)))
}

func countDifferent(a, b map[string][sha256.Size]byte) int {
	n := 0
	for name, sum := range a {
		if s, ok := b[name]; !ok || s != sum {
			n++
		}
	}
	for name := range b {
		if _, ok := a[name]; !ok {
			n++
		}
	}
	return n
}

// digests returns the digest of each file in a source archive, without its first directory.
func digests(ctx context.Context, archive string) (map[string][sha256.Size]byte, error) {
	cmd := exec.CommandContext(ctx, "xz", "-dc", "--", archive)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("unpacking %s: %w (install xz-utils)", archive, err)
	}
	sums, err := tarDigests(pipe)
	// What follows the end mark is read too, lest xz dies of a closed pipe.
	_, copyErr := io.Copy(io.Discard, pipe)
	if err := errors.Join(err, copyErr, cmd.Wait()); err != nil {
		return nil, fmt.Errorf("unpacking %s: %w %s", archive, err, lastLines(stderr.String(), 1))
	}
	return sums, nil
}

func tarDigests(r io.Reader) (map[string][sha256.Size]byte, error) {
	sums := map[string][sha256.Size]byte{}
	tr := tar.NewReader(r)
	h := sha256.New()
	for {
		hdr, err := tr.Next()
		if err == io.EOF {
			return sums, nil
		}
		if err != nil {
			return nil, err
		}
		if hdr.Typeflag == tar.TypeDir {
			continue
		}
		h.Reset()
		fmt.Fprintf(h, "%c%s\x00", hdr.Typeflag, hdr.Linkname)
		if _, err := io.Copy(h, tr); err != nil {
			return nil, err
		}
		_, name, _ := strings.Cut(strings.TrimPrefix(hdr.Name, "./"), "/")
		sums[name] = [sha256.Size]byte(h.Sum(nil))
	}
}
