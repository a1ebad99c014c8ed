// SPDX-License-Identifier: Apache-2.0

package freeze

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sort"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/upsplice/upsplice/splice/lines"
	"github.com/upsplice/upsplice/splice/tree"
)

// Made is a tree between the two.
type Made struct {
	Delta *tree.Delta // to the old tree

	source *Source
	dir    string
	base   *tree.Base
	files  map[string]*made
	others []tree.File // of the delta
	old    map[*Entity]bool
}

// made is a file of a tree.
type made struct {
	merge  *merged
	text   string // before it was laid out
	absent bool
	spans  []lineSpan
	delta  tree.File // Kind is "" if it is as the old tree has it
}

// lineSpan are lines of an entity, from 1.
type lineSpan struct {
	from, to int
	ent      *Entity
}

// Make makes dir, which must not exist, a fork of the old tree in which the files
// that were given to Read are between the two: each entity for which old says so is
// as the old tree has it, which can mean that it is left out, and each other one as
// the new tree has it. A file with nothing new is the old one, byte for byte.
//
// Lines that the old tree has, too, keep their numbers (see lines.LayoutUnless). The
// old tree has to be one that tree.Extract or tree.Fork made.
func (s *Source) Make(ctx context.Context, dir string, old func(*Entity) bool) (*Made, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("merging trees: %w", err)
	}
	base, err := tree.OpenBase(s.pre)
	if err != nil {
		return nil, err
	}
	m := &Made{source: s, dir: dir, base: base, files: make(map[string]*made)}
	changes, err := m.merge(ctx, old)
	if err != nil {
		return nil, err
	}
	others, err := s.take(base)
	if err != nil {
		return nil, err
	}
	for name, c := range others {
		changes[name] = c
	}
	for name, c := range changes {
		if c.Removed && base.Kind(name) == tree.Absent {
			delete(changes, name) // a new file that is old: it is not there
		}
	}
	delta, err := base.Fork(ctx, dir, changes)
	if err != nil {
		return nil, err
	}
	for _, f := range delta.Files {
		if of := m.files[f.Path]; of != nil {
			of.delta = f
		} else {
			m.others = append(m.others, f)
		}
	}
	m.Delta = delta
	return m, nil
}

// Again makes the same tree with other entities old. Files that do not differ are
// left alone.
func (m *Made) Again(ctx context.Context, old func(*Entity) bool) error {
	changes, err := m.merge(ctx, old)
	if err != nil {
		return err
	}
	delta, err := m.base.Update(ctx, m.dir, changes)
	if err != nil {
		return err
	}
	for name := range changes {
		m.files[name].delta = tree.File{}
	}
	for _, f := range delta.Files {
		m.files[f.Path].delta = f
	}
	m.Delta = &tree.Delta{Files: slices.Clone(m.others)}
	for _, of := range m.files {
		if of.delta.Kind != "" {
			m.Delta.Files = append(m.Delta.Files, of.delta)
		}
	}
	sort.Slice(m.Delta.Files, func(i, j int) bool { return m.Delta.Files[i].Path < m.Delta.Files[j].Path })
	return nil
}

// Old says whether an entity is old in the tree.
func (m *Made) Old(e *Entity) bool { return m.old[e] }

// merge writes the files that are not as they were, and returns them.
func (m *Made) merge(ctx context.Context, old func(*Entity) bool) (map[string]tree.Change, error) {
	m.old = make(map[*Entity]bool)
	for _, e := range m.source.Entities {
		if old(e) {
			m.old[e] = true
		}
	}
	changes := make(map[string]tree.Change)
	var lock sync.Mutex
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for _, f := range m.source.files {
		if err := ctx.Err(); err != nil {
			break
		}
		g.Go(func() error {
			text, spans := f.write(func(e *Entity) bool { return m.old[e] })
			absent := f.whole != nil && (f.absent[0] && m.old[f.whole] || f.absent[1] && !m.old[f.whole])
			lock.Lock()
			of := m.files[f.file]
			lock.Unlock()
			if of != nil && of.text == text && of.absent == absent {
				return nil
			}
			of = &made{merge: f, text: text, absent: absent}
			laid := text
			if !f.absent[0] && !f.absent[1] {
				laid = string(lines.LayoutUnless([]byte(f.pre), []byte(text)))
			}
			of.spans = number(text, laid, spans)
			lock.Lock()
			defer lock.Unlock()
			m.files[f.file] = of
			changes[f.file] = tree.Change{Text: []byte(laid), Removed: absent}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return changes, ctx.Err()
}

// take returns the files without entities as the new tree has them.
func (s *Source) take(base *tree.Base) (map[string]tree.Change, error) {
	changes := make(map[string]tree.Change)
	for _, name := range s.others {
		kind := base.Kind(name)
		if !base.Keeps(name) || kind == tree.Link || kind == tree.Dir {
			continue
		}
		full := filepath.Join(s.post, filepath.FromSlash(name))
		st, err := os.Lstat(full)
		if errors.Is(err, fs.ErrNotExist) {
			changes[name] = tree.Change{Removed: true}
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading the new tree: %w", err)
		}
		if !st.Mode().IsRegular() {
			continue
		}
		text, err := os.ReadFile(full)
		if err != nil {
			return nil, fmt.Errorf("reading the new tree: %w", err)
		}
		changes[name] = tree.Change{Text: text, Exec: st.Mode()&0o100 != 0}
	}
	return changes, nil
}

// number turns spans of a text into those of its lines once it is laid out.
func number(text, laid string, spans []span) []lineSpan {
	out := make([]lineSpan, 0, len(spans))
	at, line := 0, 1 // in text
	shift := 0       // lines put in up to here
	rest := laid
	next := func() { // goes to the next line
		for strings.HasPrefix(rest, "#ifndef "+lines.Physical+"\n") {
			for range 3 {
				_, rest, _ = strings.Cut(rest, "\n")
				shift++
			}
		}
	}
	next()
	to := func(offset int) int {
		for {
			n := strings.IndexByte(text[at:], '\n')
			if n < 0 || at+n >= offset {
				return line + shift
			}
			at += n + 1
			line++
			_, rest, _ = strings.Cut(rest, "\n")
			next()
		}
	}
	for _, s := range spans {
		if s.to <= s.from {
			continue
		}
		from := to(s.from)
		out = append(out, lineSpan{from, to(s.to - 1), s.ent})
	}
	return out
}

// At says which entity a line of the tree belongs to, counted as the lines stand in
// the file: as the compiler counts them where lines.Physical is defined. The file
// may be given by its path in the tree or by that of the compiler. False: not of the
// tree, or text that both trees have.
func (m *Made) At(file string, line int) (*Entity, bool) {
	f := m.files[m.path(file)]
	if f == nil {
		return nil, false
	}
	i := sort.Search(len(f.spans), func(i int) bool { return f.spans[i].to >= line })
	if i < len(f.spans) && f.spans[i].from <= line {
		return f.spans[i].ent, true
	}
	return nil, false
}

// path is a file's path in the tree.
func (m *Made) path(file string) string {
	file = filepath.Clean(file)
	if rel, err := filepath.Rel(m.dir, file); err == nil && filepath.IsAbs(file) {
		file = rel
	}
	return filepath.ToSlash(file)
}
