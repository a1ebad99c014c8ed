// SPDX-License-Identifier: Apache-2.0

package tree

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sort"
)

// Update changes paths of a tree that Fork made from b, and returns the delta of
// these paths to b; all others are left alone. Removed takes out a path that only
// the fork has, too. A tree that Update fails in is to be removed.
func (b *Base) Update(ctx context.Context, dir string, changes map[string]Change) (*Delta, error) {
	d, err := b.update(ctx, dir, changes)
	if err != nil {
		return nil, fmt.Errorf("changing the tree %s: %w", dir, err)
	}
	return d, nil
}

func (b *Base) update(ctx context.Context, dir string, changes map[string]Change) (*Delta, error) {
	index, err := loadIndex(dir)
	if err != nil {
		return nil, err
	}
	x := &extractor{tmp: dir, index: index, dirs: make(map[string]bool)}
	listed := false // the index differs
	delta := &Delta{Files: []File{}}
	for name, c := range changes {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if !usable(name) {
			return nil, fmt.Errorf("%s: no usable file name", name)
		}
		full := filepath.Join(dir, name)
		was, known := index[name]
		if known && was.kind == 'k' {
			if err := os.Remove(full); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
		}
		delete(index, name)
		if c.Removed && b.Kind(name) == Absent {
			listed = listed || known
			continue
		}
		for d := path.Dir(name); d != "."; d = path.Dir(d) {
			if st, err := os.Stat(filepath.Join(dir, d)); err == nil && st.IsDir() {
				x.dirs[d] = true
			}
		}
		f, err := b.change(x, name, c)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		now, still := index[name]
		listed = listed || still != known || now != was
		if f.Kind != "" {
			delta.Files = append(delta.Files, f)
		}
	}
	if listed {
		if err := os.Remove(filepath.Join(dir, indexName)); err != nil {
			return nil, err
		}
		if err := writeIndex(dir, index); err != nil {
			return nil, err
		}
	}
	sort.Slice(delta.Files, func(i, j int) bool { return delta.Files[i].Path < delta.Files[j].Path })
	return delta, nil
}
