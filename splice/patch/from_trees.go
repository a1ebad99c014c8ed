// SPDX-License-Identifier: Apache-2.0

package patch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/rogpeppe/go-internal/diff"
)

// Limits of FromTrees.
const (
	maxTreeFile = 32 << 20 // bytes of a file that differs
	maxEntries  = 2_000_000
)

// FromTrees returns the patch from one source tree to another, in git's form, sorted
// by path: the same trees give the same bytes. Links are compared, not followed, and
// directories called .git are left out. Binary files that differ are named in the
// patch, without their contents; a tree that was compiled in has many, which Apply
// refuses.
func FromTrees(ctx context.Context, from, to string) ([]byte, error) {
	text, err := fromTrees(ctx, from, to)
	if err != nil {
		return nil, fmt.Errorf("comparing %s and %s: %w", from, to, err)
	}
	return text, nil
}

func fromTrees(ctx context.Context, from, to string) ([]byte, error) {
	a, err := os.OpenRoot(from)
	if err != nil {
		return nil, err
	}
	defer a.Close()
	b, err := os.OpenRoot(to)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	c := &comparison{ctx: ctx, a: a, b: b}
	if err := c.dir(".", true, true); err != nil {
		return nil, err
	}
	if c.out.Len() == 0 {
		return nil, errors.New("they do not differ")
	}
	return c.out.Bytes(), nil
}

// comparison of two trees.
type comparison struct {
	ctx     context.Context
	a, b    *os.Root
	entries int
	out     bytes.Buffer
}

// dir compares what is in a directory that is on these sides.
func (c *comparison) dir(name string, inA, inB bool) error {
	var old, new []fs.DirEntry
	var err error
	if inA {
		if old, err = fs.ReadDir(c.a.FS(), name); err != nil {
			return err
		}
	}
	if inB {
		if new, err = fs.ReadDir(c.b.FS(), name); err != nil {
			return err
		}
	}
	for len(old) > 0 || len(new) > 0 {
		var a, b fs.DirEntry
		if len(new) == 0 || len(old) > 0 && old[0].Name() <= new[0].Name() {
			a = old[0]
		}
		if len(old) == 0 || len(new) > 0 && new[0].Name() <= old[0].Name() {
			b = new[0]
		}
		if a != nil {
			old = old[1:]
		}
		if b != nil {
			new = new[1:]
		}
		if c.entries++; c.entries > maxEntries {
			return fmt.Errorf("more than %d files", maxEntries)
		}
		if err := c.ctx.Err(); err != nil {
			return context.Cause(c.ctx)
		}
		if err := c.pair(name, a, b); err != nil {
			return err
		}
	}
	return nil
}

// pair compares two entries of one name, of which one may be nil.
func (c *comparison) pair(dir string, a, b fs.DirEntry) error {
	isDir := func(e fs.DirEntry) bool { return e != nil && e.IsDir() }
	any := a
	if any == nil {
		any = b
	}
	if any.Name() == ".git" {
		return nil
	}
	name := path.Join(dir, any.Name())
	if isDir(a) || isDir(b) {
		if err := c.dir(name, isDir(a), isDir(b)); err != nil {
			return err
		}
		// A file in the place of a directory.
		if a != nil && isDir(a) {
			a = nil
		}
		if b != nil && isDir(b) {
			b = nil
		}
		if a == nil && b == nil {
			return nil
		}
	}
	old, err := read(c.a, name, a)
	if err != nil {
		return err
	}
	new, err := read(c.b, name, b)
	if err != nil {
		return err
	}
	if err := c.file(name, old, new); err != nil {
		return err
	}
	if c.out.Len() > MaxBytes {
		return fmt.Errorf("they differ by more than %d bytes", MaxBytes)
	}
	return nil
}

// side is one file of a pair.
type side struct {
	mode uint32 // of git; 0 if there is none
	text []byte
	size int64
	read func() ([]byte, error)
}

func read(root *os.Root, name string, e fs.DirEntry) (side, error) {
	if e == nil {
		return side{}, nil
	}
	st, err := root.Lstat(name)
	if err != nil {
		return side{}, err
	}
	switch {
	case st.Mode()&fs.ModeSymlink != 0:
		target, err := root.Readlink(name)
		return side{mode: modeLink, text: []byte(target), size: int64(len(target))}, err
	case !st.Mode().IsRegular():
		return side{}, fmt.Errorf("%s: a %v; a source tree has only files, directories and symbolic links", name, st.Mode().Type())
	}
	s := side{mode: modeFile, size: st.Size()}
	if st.Mode()&0o100 != 0 {
		s.mode = modeExec
	}
	s.read = func() ([]byte, error) {
		f, err := root.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		text, err := io.ReadAll(io.LimitReader(f, maxTreeFile+1))
		if err == nil && len(text) > maxTreeFile {
			err = fmt.Errorf("%s: more than %d bytes", name, maxTreeFile)
		}
		return text, err
	}
	return s, nil
}

func (s *side) load() (err error) {
	if s.read != nil {
		s.text, err = s.read()
	}
	return err
}

// file writes the difference of two files, if there is one.
func (c *comparison) file(name string, old, new side) error {
	if old.size > maxTreeFile && old.size == new.size && old.mode == new.mode {
		// Not worth the memory; that of a kernel's sources is less.
		return fmt.Errorf("%s: %d bytes, more than the limit of %d", name, old.size, maxTreeFile)
	}
	for _, s := range []*side{&old, &new} {
		if err := s.load(); err != nil {
			return err
		}
	}
	same := bytes.Equal(old.text, new.text)
	if same && old.mode == new.mode {
		return nil
	}
	// git knows no change of the kind of a file: one goes, another comes.
	if old.mode != 0 && new.mode != 0 && old.mode&0o170000 != new.mode&0o170000 {
		if err := c.file(name, old, side{}); err != nil {
			return err
		}
		return c.file(name, side{}, new)
	}
	a, b := quote("a/"+name), quote("b/"+name)
	fmt.Fprintf(&c.out, "diff --git %s %s\n", a, b)
	switch {
	case old.mode == 0:
		fmt.Fprintf(&c.out, "new file mode %o\n", new.mode)
		a = "/dev/null"
	case new.mode == 0:
		fmt.Fprintf(&c.out, "deleted file mode %o\n", old.mode)
		b = "/dev/null"
	case old.mode != new.mode:
		fmt.Fprintf(&c.out, "old mode %o\nnew mode %o\n", old.mode, new.mode)
	}
	if same {
		return nil
	}
	if isBinary(old.text) || isBinary(new.text) {
		fmt.Fprintf(&c.out, "Binary files %s and %s differ\n", a, b)
		return nil
	}
	text := diff.Diff("a", old.text, "b", new.text)
	at := bytes.Index(text, []byte("\n@@ "))
	if at < 0 {
		return fmt.Errorf("%s: no difference found in what differs", name)
	}
	// A tab ends a name with blanks, as git has it.
	fmt.Fprintf(&c.out, "--- %s%s\n+++ %s%s\n", a, tab(a), b, tab(b))
	c.out.Write(text[at+1:])
	return nil
}

func tab(name string) string {
	if strings.Contains(name, " ") && !strings.HasPrefix(name, `"`) {
		return "\t"
	}
	return ""
}

func isBinary(text []byte) bool { return bytes.IndexByte(text, 0) >= 0 }

// quote writes a name as git does: in quotes if it has special characters.
func quote(name string) string {
	var b strings.Builder
	special := false
	for i := range len(name) {
		switch c := name[i]; {
		case c == '"' || c == '\\':
			special = true
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < ' ' || c >= 0x7f:
			special = true
			fmt.Fprintf(&b, "\\%03o", c)
		default:
			b.WriteByte(c)
		}
	}
	if !special {
		return name
	}
	return `"` + b.String() + `"`
}
