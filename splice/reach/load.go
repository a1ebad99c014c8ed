// SPDX-License-Identifier: Apache-2.0

package reach

import (
	"bytes"
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
	"sync"

	"github.com/upsplice/upsplice/splice/kbuild"
)

// generated marks paths in the output directory, as in kbuild.Unit.Source.
const generated = "O:"

const (
	maxFile  = 64 << 20 // bytes; the largest headers are register tables of some megabytes
	maxFiles = 1 << 20
)

// node is a file that units can see.
type node struct {
	path     string
	source   bool    // mentions count, not entities
	versions []*file // one, or two that differ
	edges    []int32 // what it may include
	text     []int32 // those of edges whose text becomes part of it: sources, files within an entity
}

// forest is what all units can see of both trees.
type forest struct {
	t     Trees
	table *table
	nodes []*node
	index map[string]int32
	roots []string // directories that <> is looked up in

	mu   sync.Mutex
	dirs map[string]map[string]bool

	first map[string][]string // name in a root to the roots that have it
	known map[string][]string // answers of global
}

func (f *forest) dir(side, name string) string {
	switch {
	case !strings.HasPrefix(name, generated):
		return filepath.Join(side, name)
	case f.t.Output == "":
		return ""
	}
	return filepath.Join(f.t.Output, name[len(generated):])
}

// list returns the names in a directory of either tree.
func (f *forest) list(dir string) map[string]bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	names, ok := f.dirs[dir]
	if ok {
		return names
	}
	names = make(map[string]bool)
	sides := []string{f.t.Pre, f.t.Post}
	if strings.HasPrefix(dir, generated) {
		sides = sides[:1]
	}
	for _, side := range sides {
		d := f.dir(side, dir)
		if d == "" {
			continue
		}
		h, err := os.Open(d)
		if err != nil {
			continue // no such directory: nothing is found there
		}
		list, _ := h.Readdirnames(-1)
		h.Close()
		for _, n := range list {
			names[n] = true
		}
	}
	f.dirs[dir] = names
	return names
}

// join keeps the mark of generated files in front.
func join(dir, name string) string {
	if rest, ok := strings.CutPrefix(dir, generated); ok {
		return generated + path.Join(rest, name)
	}
	return path.Join(dir, name)
}

func (f *forest) exists(name string) bool {
	mark := ""
	if rest, ok := strings.CutPrefix(name, generated); ok {
		mark, name = generated, rest
	}
	dir, base := path.Split(name)
	return f.list(mark + path.Clean(dir))[base]
}

// resolve returns all files that an #include can mean for some unit.
func (f *forest) resolve(from string, n include) []string {
	var found []string
	add := func(dir string) {
		p := join(dir, n.name)
		if f.exists(p) && !slices.Contains(found, p) {
			found = append(found, p)
		}
	}
	if n.quoted {
		if strings.HasPrefix(from, generated) {
			add(generated + path.Dir(from[len(generated):]))
		} else {
			add(path.Dir(from))
		}
	}
	for _, p := range f.global(n.name) {
		if !slices.Contains(found, p) {
			found = append(found, p)
		}
	}
	// Where the build makes a wrapper for the generic header.
	if rest, ok := strings.CutPrefix(n.name, "asm/"); ok && len(found) == 0 {
		return f.global("asm-generic/" + rest)
	}
	return found
}

// global looks a name up in all directories that some unit's line gives.
func (f *forest) global(name string) []string {
	f.mu.Lock()
	found, ok := f.known[name]
	f.mu.Unlock()
	if ok {
		return found
	}
	first, _, _ := strings.Cut(name, "/")
	roots := f.first[first]
	if first == ".." || first == "." {
		roots = f.roots
	}
	for _, r := range roots {
		if p := join(r, name); f.exists(p) && !slices.Contains(found, p) {
			found = append(found, p)
		}
	}
	f.mu.Lock()
	f.known[name] = found
	f.mu.Unlock()
	return found
}

// standard are the directories that every kernel build looks in, for all
// architectures if none are given.
func (f *forest) standard(arches map[string]bool) []string {
	roots := []string{"include", "include/uapi"}
	for arch := range f.list("arch") {
		if (len(arches) == 0 || arches[arch]) && f.exists("arch/"+arch+"/include") {
			roots = append(roots, "arch/"+arch+"/include", "arch/"+arch+"/include/uapi", generated+"arch/"+arch+"/include/generated", generated+"arch/"+arch+"/include/generated/uapi")
		}
	}
	slices.Sort(roots[2:])
	return append(roots, generated+"include", generated+"include/generated/uapi")
}

// place turns a directory of a compile line into a path of the forest.
func (f *forest) place(dir string) (string, bool) {
	if !filepath.IsAbs(dir) {
		return generated + path.Clean(dir), true
	}
	for _, side := range []string{f.t.Pre, f.t.Post} {
		if rel, err := filepath.Rel(side, dir); err == nil && rel != ".." && !strings.HasPrefix(rel, "../") {
			return filepath.ToSlash(rel), true
		}
	}
	if f.t.Output != "" {
		if rel, err := filepath.Rel(f.t.Output, dir); err == nil && rel != ".." && !strings.HasPrefix(rel, "../") {
			return generated + filepath.ToSlash(rel), true
		}
	}
	return "", false
}

// line is what matters of a unit's compile line.
type line struct {
	include []string // forced
	defines []string
}

func (f *forest) line(args []string) (line, []string) {
	var l line
	var dirs []string
	for i := 0; i < len(args); i++ {
		a := args[i]
		value := func(flag string) string {
			if len(a) > len(flag) {
				return strings.TrimPrefix(a[len(flag):], "=")
			}
			if i++; i < len(args) {
				return args[i]
			}
			return ""
		}
		switch {
		case strings.HasPrefix(a, "-include"):
			if p, ok := f.place(value("-include")); ok {
				l.include = append(l.include, p)
			}
		case strings.HasPrefix(a, "-isystem"):
			dirs = append(dirs, value("-isystem"))
		case strings.HasPrefix(a, "-iquote"):
			dirs = append(dirs, value("-iquote"))
		case strings.HasPrefix(a, "-idirafter"):
			dirs = append(dirs, value("-idirafter"))
		case strings.HasPrefix(a, "-I"):
			dirs = append(dirs, value("-I"))
		case strings.HasPrefix(a, "-D"):
			l.defines = append(l.defines, value("-D"))
		}
	}
	return l, dirs
}

func newForest(t Trees) *forest {
	clean := func(p string) string {
		if p == "" {
			return ""
		}
		if abs, err := filepath.Abs(p); err == nil {
			return abs
		}
		return filepath.Clean(p)
	}
	t.Pre, t.Post, t.Output = clean(t.Pre), clean(t.Post), clean(t.Output)
	return &forest{t: t, table: newTable(), index: make(map[string]int32), dirs: make(map[string]map[string]bool), first: make(map[string][]string), known: make(map[string][]string)}
}

// load reads the given files and all that they can include.
func (f *forest) load(ctx context.Context, units []kbuild.Unit, more []string) ([]line, error) {
	arches := make(map[string]bool)
	var given []string
	lines := make([]line, len(units))
	known := make(map[string]bool)
	var queue []string
	for i, u := range units {
		l, dirs := f.line(u.Args)
		lines[i] = l
		queue = append(append(queue, u.Source), l.include...)
		for _, d := range dirs {
			if known[d] {
				continue
			}
			known[d] = true
			p, ok := f.place(d)
			if !ok {
				continue
			}
			given = append(given, p)
			if part := strings.Split(p, "/"); len(part) == 3 && part[0] == "arch" && part[2] == "include" {
				arches[part[1]] = true
			}
		}
	}
	f.roots = f.standard(arches)
	for _, p := range given {
		if !slices.Contains(f.roots, p) {
			f.roots = append(f.roots, p)
		}
	}
	for _, r := range f.roots {
		for name := range f.list(r) {
			f.first[name] = append(f.first[name], r)
		}
	}
	return lines, f.read(ctx, append(queue, more...))
}

// read parses files by breadth, each level in parallel.
func (f *forest) read(ctx context.Context, queue []string) error {
	var level []*node
	add := func(p string) int32 {
		if i, ok := f.index[p]; ok {
			return i
		}
		i := int32(len(f.nodes))
		n := &node{path: p, source: !strings.HasSuffix(p, ".h")}
		f.index[p] = i
		f.nodes = append(f.nodes, n)
		level = append(level, n)
		return i
	}
	for _, p := range queue {
		add(p)
	}
	jobs := runtime.GOMAXPROCS(0)
	workers := make([]*worker, jobs)
	for i := range workers {
		names := newInterner(f.table)
		workers[i] = &worker{f: f, names: names, scan: scanner{names: names, seen: make(map[uint32]use)}}
	}
	for len(level) > 0 {
		if len(f.nodes) > maxFiles {
			return fmt.Errorf("reading the sources of %s: more than %d files", f.t.Pre, maxFiles)
		}
		todo := level
		level = nil
		found := make([][]edge, len(todo))
		next := make(chan int)
		errs := make([]error, jobs)
		var wg sync.WaitGroup
		for j, w := range workers {
			wg.Go(func() {
				for i := range next {
					if errs[j] == nil {
						found[i], errs[j] = w.node(todo[i])
					}
				}
			})
		}
		for i := range todo {
			if ctx.Err() != nil {
				break
			}
			next <- i
		}
		close(next)
		wg.Wait()
		if err := errors.Join(append(errs, ctx.Err())...); err != nil {
			return err
		}
		for i, n := range todo {
			for _, e := range found[i] {
				to := add(e.path)
				n.edges = append(n.edges, to)
				if e.inside || f.nodes[to].source {
					n.text = append(n.text, to)
				}
			}
		}
	}
	return nil
}

type edge struct {
	path   string
	inside bool
}

type worker struct {
	f     *forest
	names *interner
	scan  scanner
}

// node reads and parses both versions of a file and says what it includes.
func (w *worker) node(n *node) ([]edge, error) {
	texts, err := w.f.texts(n.path)
	if err != nil {
		return nil, err
	}
	var edges []edge
	for _, text := range texts {
		var v *file
		if n.source {
			v = w.scan.parse(text)
		} else {
			v = parse(w.names, text)
			// Plain numbers, of which tables of registers have a million, lead to nothing.
			v.ents = slices.Clone(slices.DeleteFunc(v.ents, func(e entity) bool {
				return e.kind == kindMacro && len(e.uses)+len(e.pastes)+len(e.conds) == 0
			}))
		}
		n.versions = append(n.versions, v)
		for _, inc := range v.includes {
			if inc.name == "" {
				continue
			}
			for _, p := range w.f.resolve(n.path, inc) {
				if i := slices.IndexFunc(edges, func(e edge) bool { return e.path == p }); i >= 0 {
					edges[i].inside = edges[i].inside || inc.inside
				} else {
					edges = append(edges, edge{p, inc.inside})
				}
			}
		}
	}
	return edges, nil
}

// texts returns the versions of a file, none if it is in neither tree.
func (f *forest) texts(p string) ([]string, error) {
	if strings.HasPrefix(p, generated) {
		d := f.dir("", p)
		if d == "" {
			return nil, nil
		}
		b, err := readFile(d)
		if b == nil || err != nil {
			return nil, err
		}
		return []string{string(b)}, nil
	}
	a, b := f.dir(f.t.Pre, p), f.dir(f.t.Post, p)
	if same(a, b) {
		b = ""
	}
	pre, err := readFile(a)
	if err != nil {
		return nil, err
	}
	var post []byte
	if b != "" {
		if post, err = readFile(b); err != nil {
			return nil, err
		}
	}
	var out []string
	if pre != nil {
		out = append(out, string(pre))
	}
	if post != nil && !bytes.Equal(pre, post) {
		out = append(out, string(post))
	}
	return out, nil
}

// same says whether two names are links of one file.
func same(a, b string) bool {
	if a == b {
		return true
	}
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}

// readFile returns nil for a file that is not there.
func readFile(name string) ([]byte, error) {
	info, err := os.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, nil
	case info.Size() > maxFile:
		return nil, fmt.Errorf("reading %s: %d bytes are more than the limit of %d", name, info.Size(), maxFile)
	}
	b, err := os.ReadFile(name)
	if b == nil && err == nil {
		b = []byte{}
	}
	return b, err
}
