// SPDX-License-Identifier: Apache-2.0

package layout

import (
	"fmt"
	"slices"
	"strings"
)

// maxSource is the limit for preprocessed source; those of kernels have some
// megabytes.
const maxSource = 256 << 20 // bytes

// source knows the identifiers in each item at the top level of preprocessed C.
type source struct {
	items []item
	named map[string][]int // items by what they define or declare
}

type item struct {
	idents []string // without keywords
	body   bool     // it is a function's definition
}

// readSource cuts preprocessed C at the top level. It need not understand it: an item
// goes by each identifier that can be what it declares. What stands between the
// braces of types is left to the debug information.
func readSource(text []byte) (*source, error) {
	if len(text) > maxSource {
		return nil, fmt.Errorf("reading preprocessed source: %d bytes are more than the limit of %d", len(text), maxSource)
	}
	s := &source{named: map[string][]int{}}
	c := cutter{s: s}
	lex(string(text), c.token)
	if c.broken || len(c.open) > 0 || len(c.idents) > 0 {
		return nil, fmt.Errorf("reading preprocessed source: it ends within a declaration: %w", ErrFormat)
	}
	return s, nil
}

// names are the identifiers that the source of a function has, with those of all
// that they can name in turn: functions, prototypes, data. It is false for a
// function that is not found.
func (s *source) names(function string) (map[string]bool, bool) {
	if s == nil || !slices.ContainsFunc(s.named[function], func(i int) bool { return s.items[i].body }) {
		return nil, false
	}
	seen := map[string]bool{function: true}
	done := make([]bool, len(s.items))
	queue := []string{function}
	for len(queue) > 0 {
		name := queue[0]
		queue = queue[1:]
		for _, i := range s.named[name] {
			if done[i] {
				continue
			}
			done[i] = true
			for _, id := range s.items[i].idents {
				if !seen[id] {
					seen[id] = true
					queue = append(queue, id)
				}
			}
		}
	}
	return seen, true
}

// lex calls f with each identifier and punctuation mark. Lines that begin with #
// say where the text is from.
func lex(s string, f func(token string, ident bool)) {
	first := true
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == '\n':
			first = true
			i++
			continue
		case c == ' ' || c == '\t' || c == '\r' || c == '\f' || c == '\v':
			i++
			continue
		case c == '#' && first:
			if n := strings.IndexByte(s[i:], '\n'); n >= 0 {
				i += n
			} else {
				i = len(s)
			}
			continue
		case c == '"' || c == '\'':
			j := i + 1
			for j < len(s) && s[j] != c && s[j] != '\n' {
				if s[j] == '\\' {
					j++
				}
				j++
			}
			i = min(j+1, len(s))
		case identByte(c) && (c < '0' || c > '9'):
			j := i + 1
			for j < len(s) && identByte(s[j]) {
				j++
			}
			f(s[i:j], true)
			i = j
		case c >= '0' && c <= '9':
			for i < len(s) && (identByte(s[i]) || s[i] == '.') {
				i++
			}
		default:
			f(s[i:i+1], false)
			i++
		}
		first = false
	}
}

func identByte(c byte) bool {
	return c == '_' || c == '$' || c >= 0x80 || c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9'
}
