// SPDX-License-Identifier: Apache-2.0

package kbuild

import (
	"errors"
	"strings"
)

var (
	errQuote = errors.New("a quote is not closed")
	errShell = errors.New("needs a shell: an expansion outside of quotes")
)

// lastCommand returns the words of the last simple command of a shell command
// line (POSIX shell, section 2.2 quoting, 2.9 lists). Expansions, which no compile
// line of kbuild has, are errors.
func lastCommand(line string) ([]string, error) {
	var words []string
	var word strings.Builder
	inWord := false
	bad := error(nil) // counts for the last command only; traps name $$
	end := func() {
		if inWord {
			words = append(words, word.String())
			word.Reset()
			inWord = false
		}
	}
	for i := 0; i < len(line); i++ {
		switch c := line[i]; c {
		case ' ', '\t', '\n':
			end()
		case ';', '|', '&':
			end()
			// Nothing yet after the last separator: it ends the last command.
			if strings.Trim(line[i:], ";|& \t\n") != "" {
				words, bad = nil, nil
			}
		case '\'':
			n := strings.IndexByte(line[i+1:], '\'')
			if n < 0 {
				return nil, errQuote
			}
			word.WriteString(line[i+1 : i+1+n])
			inWord = true
			i += n + 1
		case '"':
			inWord = true
			for i++; ; i++ {
				if i >= len(line) {
					return nil, errQuote
				}
				if line[i] == '"' {
					break
				}
				if line[i] == '$' || line[i] == '`' {
					bad = errShell
				}
				if line[i] == '\\' && i+1 < len(line) && strings.IndexByte("$`\"\\\n", line[i+1]) >= 0 {
					i++
				}
				word.WriteByte(line[i])
			}
		case '\\':
			if i++; i < len(line) {
				word.WriteByte(line[i])
				inWord = true
			}
		case '$', '`', '(', ')', '<', '>', '*', '?', '[':
			bad = errShell
			word.WriteByte(c)
			inWord = true
		default:
			word.WriteByte(c)
			inWord = true
		}
	}
	end()
	return words, bad
}
