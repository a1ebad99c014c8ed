// SPDX-License-Identifier: Apache-2.0

package freeze

import (
	"slices"
	"sort"
	"strings"

	"github.com/upsplice/upsplice/splice/clex"
)

// item is a piece of a file: something at its top level, or a group of conditions
// with all that is between them. Pieces follow each other without a gap; what is
// between two items belongs to the second one.
type item struct {
	about
	src        string // the file
	from       int    // of the piece
	start, end int    // first token; end of the line with the last one
	within     string // conditions around it

	branches []*branch // of a group
	closing  *item     // its #endif
}

// branch is a condition of a group and what depends on it.
type branch struct {
	cond  *item // the directive
	items []*item
}

func (i *item) piece() string { return i.src[i.from:i.end] }
func (i *item) text() string  { return i.src[i.start:i.end] }

// lead is the text with the comment directly in front of it.
func (i *item) lead() string { return i.src[i.from+comment(i.src[i.from:i.start]) : i.end] }

// cutter collects what the splitter finds.
type cutter struct {
	src    string
	solids []*item
	dirs   []*item
	toks   [][]clex.Token // of dirs
}

func (c *cutter) add(a about, start, end int) {
	c.solids = append(c.solids, &item{about: a, src: c.src, start: start, end: end})
}

func (c *cutter) Directive(toks []clex.Token, _ bool) {
	d := &item{src: c.src, start: int(toks[0].Pos), end: int(toks[len(toks)-1].End)}
	d.about = directive(toks)
	c.dirs = append(c.dirs, d)
	c.toks = append(c.toks, toks)
}

func (c *cutter) Macro(bool, []clex.Token, []clex.Condition)   {}
func (c *cutter) Include([]clex.Token, bool, []clex.Condition) {}

func (c *cutter) Stray(toks []clex.Token) {
	start, end := int(toks[0].Pos), int(toks[len(toks)-1].End)
	if n := len(c.solids); n > 0 && toks[0].Is(";") && (len(c.dirs) == 0 || c.dirs[len(c.dirs)-1].start < c.solids[n-1].end) {
		c.solids[n-1].end = end
		return
	}
	c.add(nameless(toks), start, end)
}

func (c *cutter) Entity(toks []clex.Token, _ []clex.Condition, _ bool) {
	if n := len(c.toks); n > 0 && len(c.toks[n-1]) > 1 && c.toks[n-1][1].Pos == toks[0].Pos {
		return // a pragma, known as a directive
	}
	for len(toks) > 0 {
		if marker(toks[0]) {
			n := slices.IndexFunc(toks[1:], marker) + 1
			toks = toks[max(n, 0)+1:]
			continue
		}
		n := bare(toks)
		last := n
		for marker(toks[last-1]) { // conditions behind it
			last = before(toks[:last])
		}
		c.add(classify(toks[:last]), int(toks[0].Pos), int(toks[last-1].End))
		toks = toks[n:]
	}
}

// marker says whether a token stands around a directive within an item.
func marker(t clex.Token) bool { return t.End == 0 }

// before is the length of a list that ends in a directive, without that.
func before(toks []clex.Token) int {
	n := len(toks) - 1
	for n--; n > 0 && !marker(toks[n]); n-- {
	}
	return max(n, 1)
}

// bare is the number of tokens of the macro that is called at the beginning of a
// list without a semicolon; if there is none, of the whole list. Only the line
// break tells where such a call ends.
func bare(toks []clex.Token) int {
	name := toks[0]
	call := name.Kind == clex.Ident && (name.Text == strings.ToUpper(name.Text) || strings.HasPrefix(name.Text, "module_") || strings.HasSuffix(name.Text, "_initcall"))
	if !call || len(toks) < 3 || !toks[1].Is("(") || marker(toks[1]) {
		return len(toks)
	}
	depth := 0
	for i, t := range toks[1:] {
		switch {
		case marker(t):
			return len(toks)
		case t.Is("("):
			depth++
		case t.Is(")"):
			if depth--; depth > 0 {
				break
			}
			n := i + 2
			if n == len(toks) || marker(toks[n]) || toks[n].First && toks[n].Kind == clex.Ident {
				return n
			}
			return len(toks)
		}
	}
	return len(toks)
}

// maxFile is the size above which a file is not cut up.
const maxFile = 32 << 20

// cut cuts a file up. It returns the items at the top and the offset behind the
// last one; false if the file is not understood.
func cut(src string) (items []*item, end int, ok bool) {
	if len(src) > maxFile || strings.IndexByte(src, 0) >= 0 {
		return nil, 0, false
	}
	c := &cutter{src: src}
	if !clex.Split(src, c) {
		return nil, 0, false
	}
	for i := 1; i < len(c.solids); i++ {
		if c.solids[i].start < c.solids[i-1].end {
			return nil, 0, false // a brace that closes nothing, within an item
		}
	}
	groups, ok := c.groups()
	if !ok {
		return nil, 0, false
	}
	c.join(groups)
	b := builder{list: c.sequence()}
	items, ok = b.items("", 0)
	return items, b.at, ok && len(b.list) == 0
}

// conditional says what a directive is to conditions: 'i', 'e' or 'x' for #endif.
func conditional(toks []clex.Token) byte {
	if len(toks) > 1 {
		switch toks[1].Text {
		case "if", "ifdef", "ifndef":
			return 'i'
		case "elif", "else", "elifdef", "elifndef":
			return 'e'
		case "endif":
			return 'x'
		}
	}
	return 0
}

// groups are the conditions of the file: numbers of the directives of each.
func (c *cutter) groups() (groups [][]int, ok bool) {
	var stack []int
	for i, toks := range c.toks {
		what := conditional(toks)
		if what == 'i' {
			stack = append(stack, len(groups))
			groups = append(groups, nil)
		}
		if what == 0 {
			continue
		}
		if len(stack) == 0 {
			return nil, false
		}
		g := stack[len(stack)-1]
		groups[g] = append(groups[g], i)
		if what == 'x' {
			stack = stack[:len(stack)-1]
		}
	}
	return groups, len(stack) == 0
}

// solid is the number of the item that a place is in, -1 for none.
func (c *cutter) solid(at int) int {
	i := sort.Search(len(c.solids), func(i int) bool { return c.solids[i].end > at })
	if i < len(c.solids) && c.solids[i].start <= at {
		return i
	}
	return -1
}

// join makes one item of items and conditions that are entangled: two heads of a
// function for one body, a body that ends in two branches.
func (c *cutter) join(groups [][]int) {
	for again := true; again; {
		again = false
		for _, g := range groups {
			inside := c.solid(c.dirs[g[0]].start)
			mixed := false
			start, end := c.dirs[g[0]].start, c.dirs[g[len(g)-1]].end
			for _, d := range g {
				s := c.solid(c.dirs[d].start)
				mixed = mixed || s != inside
				if s >= 0 {
					start, end = min(start, c.solids[s].start), max(end, c.solids[s].end)
				}
			}
			if mixed {
				c.melt(start, end)
				again = true
			}
		}
	}
}

// melt makes one item of a range.
func (c *cutter) melt(start, end int) {
	i := sort.Search(len(c.solids), func(i int) bool { return c.solids[i].end > start })
	j := i
	for j < len(c.solids) && c.solids[j].start < end {
		j++
	}
	one := &item{src: c.src, start: start, end: end}
	if i < j {
		one.start, one.end = min(start, c.solids[i].start), max(end, c.solids[j-1].end)
		one.about = c.solids[i].about
		one.head = 0
		for _, s := range c.solids[i+1 : j] {
			one.take(s)
		}
	} else {
		one.about = about{kind: Invocation, key: "text " + c.src[start:end]}
	}
	c.solids = slices.Replace(c.solids, i, j, one)
}

// take adds what another item defines.
func (a *about) take(b *item) {
	for _, n := range b.names {
		if !slices.Contains(a.names, n) {
			a.names = append(a.names[:len(a.names):len(a.names)], n)
		}
	}
	a.defs = append(a.defs[:len(a.defs):len(a.defs)], b.defs...)
	a.types = append(a.types[:len(a.types):len(a.types)], b.types...)
	a.static = a.static && b.static
}

// sequence is all that is left to put in order: items, and conditions that are in none.
func (c *cutter) sequence() []*item {
	var list []*item
	for i, d := range c.dirs {
		if s := c.solid(d.start); s >= 0 {
			if d.kind == Macro {
				c.solids[s].take(d)
			}
			continue
		}
		if what := conditional(c.toks[i]); what != 0 {
			d.key = string(what) + d.key // "i text # ifdef A"
		}
		list = append(list, d)
	}
	list = append(list, c.solids...)
	slices.SortFunc(list, func(a, b *item) int { return a.start - b.start })
	return list
}

// builder makes a tree of a sequence.
type builder struct {
	list []*item
	at   int // end of the last piece
}

// maxNesting of conditions is that of the compiler's own documents, and then some.
const maxNesting = 200

func (b *builder) next() *item {
	i := b.list[0]
	b.list = b.list[1:]
	i.from = b.at
	limit := len(i.src)
	if len(b.list) > 0 {
		limit = b.list[0].start
	}
	i.end = lineEnd(i.src, i.end, limit)
	b.at = i.end
	return i
}

func (b *builder) items(within string, depth int) (items []*item, ok bool) {
	for len(b.list) > 0 {
		switch b.list[0].key[0] {
		case 'e', 'x':
			return items, true
		case 'i':
			g, ok := b.group(within, depth+1)
			if !ok {
				return nil, false
			}
			items = append(items, g)
			continue
		}
		i := b.next()
		i.within = within
		items = append(items, i)
	}
	return items, true
}

func (b *builder) group(within string, depth int) (*item, bool) {
	if depth > maxNesting {
		return nil, false
	}
	g := &item{src: b.list[0].src, from: b.at, start: b.list[0].start, within: within}
	g.key = b.list[0].key
	counts := make(map[Kind]int)
	for len(b.list) > 0 && b.list[0].key[0] != 'x' {
		br := &branch{cond: b.next()}
		within += "\n" + br.cond.key
		var ok bool
		if br.items, ok = b.items(within, depth); !ok {
			return nil, false
		}
		g.branches = append(g.branches, br)
		for k, i := range br.items {
			if len(g.branches) == 1 && k == 0 {
				g.static = i.static
			}
			g.take(i)
			counts[i.kind]++
		}
	}
	if len(b.list) == 0 {
		return nil, false
	}
	g.closing = b.next()
	g.end = g.closing.end
	g.kind = Macro
	for k := Function; k <= Include; k++ {
		if counts[k] > counts[g.kind] {
			g.kind = k
		}
	}
	return g, true
}
