// SPDX-License-Identifier: Apache-2.0

// Package tree unpacks kernel source archives and finds the delta of two of them
// while streaming: a file equal to that of the base tree becomes a hard link, so
// that the second tree costs only what differs.
package tree

import (
	"context"
	"io"
)

// File is one changed path of a delta.
type File struct {
	Path    string `json:"path"`    // relative to the tree, slash separated
	Kind    string `json:"kind"`    // "changed", "new", "removed"
	Hunks   int    `json:"hunks"`   // 0 for files not kept
	Added   int    `json:"added"`   // lines
	Removed int    `json:"removed"` // lines
	Kept    bool   `json:"kept"`    // false: outside what compiling for this architecture needs (Documentation, other architectures)
}

// Delta is the difference of two prepared source trees, sorted by path.
type Delta struct {
	Files []File `json:"files"`
}

// Options of Extract.
type Options struct {
	Arch     string            // kernel's name, "x86"
	Base     string            // directory of the tree to compare with and to link from; "" for none
	Progress func(bytes int64) // uncompressed bytes read so far; may be nil
	MaxBytes int64             // limit on unpacked bytes, 0: 4 GiB
}

// Extract unpacks the tar stream into dir, which must not exist; it appears
// complete or not at all. With Options.Base the delta to it is returned, else nil.
func Extract(ctx context.Context, tar io.Reader, dir string, opt Options) (*Delta, error) {
	return extract(ctx, tar, dir, opt)
}

// OpenTar opens a source archive (.tar, .tar.xz, .tar.zst, .tar.gz) as a tar
// stream. It uses the xz command where there is one: it is several times faster
// and uses every core.
func OpenTar(ctx context.Context, path string) (io.ReadCloser, error) { return openTar(ctx, path) }
