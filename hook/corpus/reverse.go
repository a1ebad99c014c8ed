// SPDX-License-Identifier: Apache-2.0

package corpus

import (
	"bytes"
	"fmt"
	"regexp"
)

var hunkHeader = regexp.MustCompile(`^@@ -(\S+) \+(\S+) @@(.*)$`)

// reverse turns a patch round, as patch -R applies it. The patches of the corpus
// change files in place, which is all that it knows.
func reverse(text []byte) []byte {
	var out, added bytes.Buffer
	flush := func() {
		out.Write(added.Bytes())
		added.Reset()
	}
	inHunk := false
	for line := range bytes.Lines(text) {
		m := hunkHeader.FindSubmatch(bytes.TrimRight(line, "\n"))
		switch {
		case m != nil:
			flush()
			inHunk = true
			fmt.Fprintf(&out, "@@ -%s +%s @@%s\n", m[2], m[1], m[3])
		case bytes.HasPrefix(line, []byte("--- a/")), bytes.HasPrefix(line, []byte("+++ b/")):
			// The same file on both sides.
			flush()
			inHunk = false
			out.Write(line)
		case !inHunk:
			out.Write(line)
		case line[0] == '-':
			// What is added stands behind what is removed.
			added.WriteByte('+')
			added.Write(line[1:])
		case line[0] == '+':
			out.WriteByte('-')
			out.Write(line[1:])
		default:
			flush()
			out.Write(line)
		}
	}
	flush()
	return out.Bytes()
}
