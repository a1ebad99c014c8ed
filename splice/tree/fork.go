// SPDX-License-Identifier: Apache-2.0

package tree

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sort"
	"strings"
)

// Kind is what a path is to a tree that was extracted.
type Kind int

// Kinds of paths.
const (
	Absent  Kind = iota
	Kept         // a file with its contents
	Dropped      // a file of the archive that no object is made from; only its name is known
	Link         // a symbolic link
	Dir          // a directory with something in it
)

// Base is an extracted tree that others are forked from.
type Base struct {
	dir   string
	index map[string]entry
	dirs  map[string]bool
	archs map[string]bool // below arch/ that were kept
}

// Change is what a fork has in the place of one path.
type Change struct {
	Text    []byte
	Exec    bool // the owner may execute it
	Removed bool
}

// OpenBase opens a tree that Extract or Fork made.
func OpenBase(dir string) (*Base, error) {
	index, err := loadIndex(dir)
	if err != nil {
		return nil, err
	}
	b := &Base{dir: dir, index: index, dirs: make(map[string]bool), archs: make(map[string]bool)}
	for name, e := range index {
		if rest, ok := strings.CutPrefix(name, "arch/"); ok && e.kind == 'k' {
			if arch, _, inDir := strings.Cut(rest, "/"); inDir {
				b.archs[arch] = true
			}
		}
		for d := path.Dir(name); d != "." && !b.dirs[d]; d = path.Dir(d) {
			b.dirs[d] = true
		}
	}
	return b, nil
}

// Kind says what the path, relative and slash separated, is.
func (b *Base) Kind(name string) Kind {
	switch b.index[name].kind {
	case 'k':
		return Kept
	case 'd':
		return Dropped
	case 'l':
		return Link
	}
	if b.dirs[name] || name == "." {
		return Dir
	}
	return Absent
}

// Keeps says whether a file of that name would be kept: the rule of Extract for the
// architecture that the tree was extracted for.
func (b *Base) Keeps(name string) bool {
	if rest, ok := strings.CutPrefix(name, "arch/"); ok {
		arch, _, inDir := strings.Cut(rest, "/")
		return !inDir || b.archs[arch]
	}
	return keeps(name, "")
}

// Read returns the contents of a kept file and whether its owner may execute it.
func (b *Base) Read(name string) (text []byte, exec bool, err error) {
	if b.Kind(name) != Kept {
		return nil, false, fmt.Errorf("reading %s of %s: not a file that the tree keeps", name, b.dir)
	}
	had, mode, err := readBase(filepath.Join(b.dir, name))
	if err != nil {
		return nil, false, err
	}
	text = slices.Clone(*had)
	buffers.Put(had)
	return text, mode&0o100 != 0, nil
}

// Fork makes dir, which must not exist, a copy of the tree with the changes, keyed
// by path, and returns the delta to it. What does not change is linked; what does
// is a file of its own, so that the base stays as it is. The contents of a change
// to a path that the tree does not keep are not looked at: it is only counted. dir
// appears complete or not at all.
func (b *Base) Fork(ctx context.Context, dir string, changes map[string]Change) (*Delta, error) {
	d, err := b.fork(ctx, dir, changes)
	if err != nil {
		return nil, fmt.Errorf("copying the tree %s: %w", b.dir, err)
	}
	return d, nil
}

func (b *Base) fork(ctx context.Context, dir string, changes map[string]Change) (_ *Delta, err error) {
	if _, err := os.Lstat(dir); err == nil {
		return nil, fmt.Errorf("%s exists already", dir)
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return nil, err
	}
	x := &extractor{index: make(map[string]entry, len(b.index)), dirs: make(map[string]bool)}
	if x.tmp, err = os.MkdirTemp(filepath.Dir(dir), filepath.Base(dir)+".tmp-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			os.RemoveAll(x.tmp)
		}
	}()
	if err := os.Chmod(x.tmp, 0o755); err != nil {
		return nil, err
	}
	delta := &Delta{Files: []File{}}
	for name, c := range changes {
		f, err := b.change(x, name, c)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if f.Kind != "" {
			delta.Files = append(delta.Files, f)
		}
	}
	for name, e := range b.index {
		if _, changed := changes[name]; changed {
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := b.link(x, name, e); err != nil {
			return nil, err
		}
	}
	if err := writeIndex(x.tmp, x.index); err != nil {
		return nil, err
	}
	if err := os.Rename(x.tmp, dir); err != nil {
		return nil, err
	}
	sort.Slice(delta.Files, func(i, j int) bool { return delta.Files[i].Path < delta.Files[j].Path })
	return delta, nil
}

// change brings one changed path into the fork.
func (b *Base) change(x *extractor, name string, c Change) (File, error) {
	f := File{Path: name, Kind: "changed", Kept: b.Keeps(name)}
	if !usable(name) {
		return f, errors.New("no usable file name")
	}
	var old []byte
	switch kind := b.Kind(name); {
	case kind == Link || kind == Dir:
		return f, errors.New("not a regular file of the tree")
	case kind == Absent && c.Removed:
		return f, errors.New("not in the tree")
	case kind == Absent:
		f.Kind = "new"
	case c.Removed:
		f.Kind = "removed"
	}
	for d := path.Dir(name); d != "."; d = path.Dir(d) {
		if _, isFile := b.index[d]; isFile {
			return f, fmt.Errorf("%s is not a directory", d)
		}
	}
	if !f.Kept {
		if !c.Removed {
			// Neither size nor sum are known: to later versions it differs.
			x.index[name] = entry{kind: 'd', size: -1}
		}
		return f, nil
	}
	if f.Kind != "new" {
		had, exec, err := b.Read(name)
		if err != nil {
			return f, err
		}
		if old = had; !c.Removed && string(old) == string(c.Text) {
			f = File{} // of its mode nothing is compiled
			c.Exec = c.Exec || exec
		}
	}
	if f.Kind != "" {
		count(&f, old, c.Text)
	}
	if c.Removed {
		return f, nil
	}
	x.index[name] = entry{kind: 'k'}
	if err := x.mkdirs(path.Dir(name)); err != nil {
		return f, err
	}
	mode := os.FileMode(0o644)
	if c.Exec {
		mode = 0o755
	}
	return f, writeFile(filepath.Join(x.tmp, name), c.Text, mode)
}

// link brings one path into the fork as the base has it.
func (b *Base) link(x *extractor, name string, e entry) error {
	x.index[name] = e
	if e.kind == 'd' || e.kind == 'l' && !b.Keeps(name) {
		return nil
	}
	if err := x.mkdirs(path.Dir(name)); err != nil {
		return err
	}
	from, to := filepath.Join(b.dir, name), filepath.Join(x.tmp, name)
	if e.kind == 'l' {
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return os.Symlink(target, to)
	}
	if os.Link(from, to) == nil {
		return nil
	}
	// Another file system, or too many links: a copy serves as well.
	text, mode, err := readBase(from)
	if err != nil {
		return err
	}
	defer buffers.Put(text)
	return writeFile(to, *text, mode&0o755)
}

// usable says whether a path can stand in a tree and its index.
func usable(name string) bool {
	return name != "" && name == path.Clean(name) && name != "." && name != ".." && !path.IsAbs(name) &&
		!strings.HasPrefix(name, "../") && len(name) <= maxPath && !strings.ContainsAny(name, "\n\x00") &&
		name != indexName && !strings.HasPrefix(name, indexName+"/")
}
