// SPDX-License-Identifier: Apache-2.0

package touch

import (
	"bytes"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/diff"
)

var (
	word    = regexp.MustCompile(`[A-Za-z_][A-Za-z0-9_]{2,}`)
	call    = regexp.MustCompile(`([A-Za-z_]\w*)\s*\(\s*([A-Za-z_]\w*)?`)
	define  = regexp.MustCompile(`^#\s*define\s+(\w+)`)
	tagged  = regexp.MustCompile(`^(?:typedef\s+|static\s+|const\s+)*(?:struct|union|enum)\s+(\w+)\s*\{`)
	object  = regexp.MustCompile(`([A-Za-z_]\w*)\s*(?:\[[^\]]*\]\s*)*(?:=|;|\{)`)
	hunkRE  = regexp.MustCompile(`^@@ -(\d+)(?:,\d+)? \+(\d+)(?:,\d+)? @@`)
	capital = regexp.MustCompile(`^[A-Z0-9_]+$`)
)

// Parts lists where the lines of two texts differ, in the order of their names.
// Without the one or the other text every line differs.
func Parts(pre, post []byte) []Part {
	found := map[string]map[string]bool{}
	old, cur := heads(pre), heads(post)
	var p, q int // index of the next line of pre and of post
	inside := false
	for line := range bytes.Lines(diff.Diff("a", pre, "b", post)) {
		if m := hunkRE.FindSubmatch(line); m != nil {
			// Of an empty side the line before it is named.
			p, q, inside = number(m[1]), number(m[2]), true
			continue
		}
		if !inside || len(line) == 0 {
			continue
		}
		switch line[0] {
		case '-':
			add(found, at(old, p), line[1:])
			p++
		case '+':
			add(found, at(cur, q), line[1:])
			q++
		case ' ':
			p, q = p+1, q+1
		}
	}
	parts := make([]Part, 0, len(found))
	for name, words := range found {
		part := Part{Name: name}
		for w := range words {
			part.Words = append(part.Words, w)
		}
		slices.Sort(part.Words)
		parts = append(parts, part)
	}
	slices.SortFunc(parts, func(a, b Part) int { return strings.Compare(a.Name, b.Name) })
	return parts
}

func number(text []byte) int {
	n, err := strconv.Atoi(string(text))
	if err != nil || n < 1 {
		return 0
	}
	return n - 1
}

func at(heads []string, line int) string {
	if line < 0 || line >= len(heads) {
		return ""
	}
	return heads[line]
}

func add(found map[string]map[string]bool, name string, line []byte) {
	if found[name] == nil {
		if len(found) >= maxParts {
			return
		}
		found[name] = map[string]bool{}
	}
	for _, w := range word.FindAll(line, -1) {
		if len(found[name]) >= maxWords {
			return
		}
		if len(w) <= 64 {
			found[name][string(bytes.ToLower(w))] = true
		}
	}
}

// heads names for each line what it stands in: the nearest line above that begins
// at the margin says so, as in what diff -p prints. A blank line and a comment
// above a function belong to what is before them.
func heads(text []byte) []string {
	var list []string
	name := ""
	for line := range bytes.Lines(text) {
		if n, ok := head(string(bytes.TrimRight(line, "\r\n"))); ok {
			name = n
		}
		list = append(list, name)
	}
	return list
}

func head(line string) (string, bool) {
	if m := define.FindStringSubmatch(line); m != nil {
		return m[1], true
	}
	if line == "" || !(line[0] == '_' || line[0] >= 'a' && line[0] <= 'z' || line[0] >= 'A' && line[0] <= 'Z') {
		return "", false
	}
	// A label.
	if i := strings.IndexByte(line, ':'); i >= 0 && !strings.ContainsAny(line[:i], " \t(") {
		return "", false
	}
	if m := tagged.FindStringSubmatch(line); m != nil {
		return m[1], true
	}
	if m := call.FindStringSubmatch(line); m != nil && !strings.Contains(line[:strings.Index(line, m[0])], "=") {
		// SYSCALL_DEFINE3(name, ...), EXPORT_SYMBOL(name)
		if capital.MatchString(m[1]) && m[2] != "" {
			return m[2], true
		}
		return m[1], true
	}
	if m := object.FindStringSubmatch(line); m != nil {
		return m[1], true
	}
	return "", false
}
