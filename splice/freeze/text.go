// SPDX-License-Identifier: Apache-2.0

package freeze

import (
	"slices"
	"strings"

	"github.com/upsplice/upsplice/splice/clex"
)

// lineEnd is the place behind the line in which an item ends, with the comments
// that begin in it. If something else begins in it, the item ends where it ends.
func lineEnd(src string, end, limit int) int {
	for i := end; i < limit; {
		switch c := src[i]; {
		case c == '\n':
			return i + 1
		case c <= ' ':
			i++
		case c == '\\':
			i++ // a continued line: what follows it is blank, too
			for i < limit && src[i] <= ' ' && src[i] != '\n' {
				i++
			}
			i++
		case strings.HasPrefix(src[i:limit], "/*"):
			n := strings.Index(src[i+2:limit], "*/")
			if n < 0 {
				return limit
			}
			i += n + 4
		case strings.HasPrefix(src[i:limit], "//"):
			n := strings.IndexByte(src[i:limit], '\n')
			if n < 0 {
				return limit
			}
			i += n
		default:
			return end
		}
	}
	if limit == len(src) {
		return limit
	}
	return end
}

// comment is where the comment begins that ends a gap between two items, without
// an empty line behind it.
func comment(gap string) int {
	at, found, newlines := 0, false, 0
	for i := 0; i < len(gap); {
		n := 0
		switch {
		case gap[i] == '\n':
			if newlines++; newlines > 1 {
				found = false
			}
			i++
			continue
		case strings.HasPrefix(gap[i:], "/*"):
			if n = strings.Index(gap[i+2:], "*/"); n >= 0 {
				n += 4
			}
		case strings.HasPrefix(gap[i:], "//"):
			n = strings.IndexByte(gap[i:], '\n')
		default:
			i++
			continue
		}
		if !found {
			at, found = i, true
		}
		newlines = 0
		if n < 0 {
			break
		}
		i += n
	}
	if !found {
		return len(gap)
	}
	return at
}

// canonical is a text without what does not matter to the compiler.
func canonical(text string) string {
	var b strings.Builder
	b.Grow(len(text))
	l := clex.NewLexer(text)
	var last clex.Token
	in, nth := false, 0 // a directive, and which of its tokens comes
	name := ""
	for t := l.Next(); t.Kind != clex.EOF; t = l.Next() {
		if t.First {
			if in {
				b.WriteByte('\n')
			}
			in, nth, name = t.Is("#"), 0, ""
			if in {
				b.WriteByte('\n')
			}
		}
		switch {
		case joins(last, t), in && nth == 3 && name == "define" && t.Is("(") && t.Pos == last.End:
			// Only here it matters that there is no blank.
		default:
			b.WriteByte(' ')
		}
		b.WriteString(t.Text)
		if nth == 1 {
			name = t.Text
		}
		nth++
		last = t
	}
	if in {
		b.WriteByte('\n')
	}
	return b.String()
}

// joins says whether two punctuation marks are one operator.
func joins(a, b clex.Token) bool {
	if a.Kind != clex.Punct || b.Kind != clex.Punct || a.End != b.Pos || len(b.Text) != 1 {
		return false
	}
	switch b.Text[0] {
	case '=':
		return len(a.Text) == 1 && strings.Contains("<>=!&|^+-*/%", a.Text)
	case '<', '>', '&', '|':
		return a.Text == b.Text
	}
	return false
}

// same says whether two texts are the same to the compiler.
func same(a, b string) bool { return a == b || canonical(a) == canonical(b) }

// mentions are the names in a text, sorted, without keywords and those given.
func mentions(text string, without []string) []string {
	if text == "" {
		return nil
	}
	seen := make(map[string]bool)
	l := clex.NewLexer(text)
	hash := false
	for t := l.Next(); t.Kind != clex.EOF; t = l.Next() {
		if t.Kind == clex.Ident && !clex.Keyword(t.Text) && !hash {
			seen[t.Text] = true
		}
		hash = t.First && t.Is("#")
	}
	for _, n := range without {
		delete(seen, n)
	}
	list := make([]string, 0, len(seen))
	for n := range seen {
		list = append(list, strings.Clone(n))
	}
	slices.Sort(list)
	return list
}
