// SPDX-License-Identifier: Apache-2.0

// Package touch says of each file of a delta what it changes, in words: the names
// of the functions, types and data at the top level, and the words of the lines
// that differ. It is a label for people, to which the lines of a changelog can be
// laid; nothing that decides about code may use it.
package touch

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/upsplice/upsplice/splice/kbuild"
	"github.com/upsplice/upsplice/splice/tree"
)

// Limits; what is beyond them has fewer words.
const (
	maxFile  = 4 << 20 // bytes of a text that is looked at
	maxWords = 300     // of one part
	maxParts = 2000    // of one file
)

// File is one changed file of the delta.
type File struct {
	Path string `json:"path"` // from the root of the tree
	Kind string `json:"kind"` // "changed", "new", "removed"
	// Targets are what it is compiled into: "vmlinux", modules by name
	// ("virtio_blk"), "elsewhere". None: it is not in this build, or a header.
	Targets []string `json:"targets,omitempty"`
	Parts   []Part   `json:"parts,omitempty"`
}

// Source says that the file is one that is compiled itself. Who includes others is
// not said.
func (f File) Source() bool {
	ext := path.Ext(f.Path)
	return ext == ".c" || ext == ".S"
}

// Part is one function, type or datum in which lines differ, with the words of
// those lines in lower case, sorted.
type Part struct {
	Name  string   `json:"name"` // "" for lines before the first
	Words []string `json:"words,omitempty"`
}

// Files describes the files of delta, sorted by path; those that the engine does not
// keep have no Parts. units are those of both sides.
func Files(ctx context.Context, pre, post string, delta *tree.Delta, units []kbuild.Unit) ([]File, error) {
	targets := map[string][]string{}
	for _, u := range units {
		name := u.Target
		if name != kbuild.Vmlinux && name != kbuild.Elsewhere {
			name = strings.ReplaceAll(path.Base(name), "-", "_")
		}
		if !slices.Contains(targets[u.Source], name) {
			targets[u.Source] = append(targets[u.Source], name)
		}
	}
	var files []File
	for _, f := range delta.Files {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if !f.Kept {
			files = append(files, File{Path: f.Path, Kind: f.Kind})
			continue
		}
		before, err := text(pre, f.Path)
		if err != nil {
			return nil, err
		}
		after, err := text(post, f.Path)
		if err != nil {
			return nil, err
		}
		slices.Sort(targets[f.Path])
		files = append(files, File{Path: f.Path, Kind: f.Kind, Targets: targets[f.Path], Parts: Parts(before, after)})
	}
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	return files, nil
}

// text reads a file; one that is not there or too large has none.
func text(root, name string) ([]byte, error) {
	f, err := os.Open(filepath.Join(root, filepath.FromSlash(name)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() || st.Size() > maxFile {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(f, maxFile))
}
