// SPDX-License-Identifier: Apache-2.0

package freeze

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
)

func read(ctx context.Context, pre, post string, files []string) (*Source, error) {
	s := &Source{pre: pre, post: post, named: make(map[string][]*Entity)}
	files = slices.Clone(files)
	slices.Sort(files)
	files = slices.Compact(files)
	results := make([]*merged, len(files))
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i, f := range files {
		if ext := path.Ext(f); ext != ".c" && ext != ".h" {
			s.others = append(s.others, f)
			continue
		}
		if ctx.Err() != nil {
			break
		}
		g.Go(func() (err error) {
			results[i], err = readFile(pre, post, f)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	known := units{dirs: []string{pre, post}, makefiles: make(map[string]string)}
	for _, m := range results {
		if m == nil {
			continue
		}
		if local := func(e *Entity) bool { return e.Local }; slices.ContainsFunc(m.ents, local) && !known.own(m.file) {
			for _, e := range m.ents {
				e.Local = false
			}
		}
		s.files = append(s.files, m)
		s.Entities = append(s.Entities, m.ents...)
	}
	s.index()
	return s, nil
}

// readFile compares a file; nil if there is nothing to compare: a link, say.
func readFile(pre, post, file string) (*merged, error) {
	var texts [2]string
	var absent [2]bool
	for i, dir := range []string{pre, post} {
		name := filepath.Join(dir, filepath.FromSlash(file))
		st, err := os.Lstat(name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			absent[i] = true
			continue
		case err != nil:
			return nil, fmt.Errorf("comparing %s: %w", file, err)
		case !st.Mode().IsRegular():
			return nil, nil
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("comparing %s: %w", file, err)
		}
		texts[i] = string(text)
	}
	switch {
	case absent[0] && absent[1]:
		return nil, fmt.Errorf("comparing %s: neither tree has it", file)
	case absent[0] || absent[1]:
		m := &merged{file: file, pre: texts[0], post: texts[1], absent: absent}
		m.one()
		return m, nil
	}
	return compare(file, texts[0], texts[1]), nil
}

// index finds what has which name, and what has to be old together.
func (s *Source) index() {
	for _, e := range s.Entities {
		for _, n := range e.Names {
			s.named[n] = append(s.named[n], e)
		}
	}
	join := func(a, b *Entity) {
		if a != b && !slices.Contains(a.With, b) {
			a.With = append(a.With, b)
			b.With = append(b.With, a)
		}
	}
	for _, a := range s.Entities {
		for _, n := range a.Names {
			for _, b := range s.named[n] {
				if (a.Local || b.Local) && a.File != b.File {
					continue
				}
				switch {
				case a == b:
				case a.declares() && b.declares() && a.headed && b.headed && (a.Kind == Declaration || b.Kind == Declaration):
					join(a, b)
				case a.File != b.File && a.old && !a.new && b.new && !b.old:
					was, is := a.parts[0][n], b.parts[1][n]
					if a.Kind == Function && b.Kind == Function || was != "" && is != "" {
						join(a, b)
					}
					if was != "" && is != "" && !same(was, is) {
						a.frozen, b.frozen = true, true // moved, and changed on its way
					}
				}
			}
		}
	}
}

func (e *Entity) declares() bool {
	return e.Kind == Function || e.Kind == Declaration || e.Kind == Data && !strings.HasSuffix(e.File, ".h")
}
