// SPDX-License-Identifier: Apache-2.0

package freeze

import (
	"os"
	"path"
	"path/filepath"
	"strings"
)

// units knows which sources are compiled on their own. What is static in a source
// that others include belongs to those, too.
type units struct {
	dirs      []string // of trees
	makefiles map[string]string
}

// own says whether some makefile names the object of a source: that of its directory,
// or one above it. Whoever includes a source does so because it is not compiled.
func (u *units) own(source string) bool {
	object := strings.TrimSuffix(path.Base(source), ".c") + ".o"
	for dir := path.Dir(source); ; dir = path.Dir(dir) {
		if mentionsFile(u.makefile(dir), object) {
			return true
		}
		if dir == "." {
			return false
		}
	}
}

func (u *units) makefile(dir string) string {
	text, ok := u.makefiles[dir]
	if !ok {
		for _, tree := range u.dirs {
			for _, name := range []string{"Makefile", "Kbuild"} {
				// One that is not there names nothing.
				part, _ := os.ReadFile(filepath.Join(tree, filepath.FromSlash(dir), name))
				text += string(part) + "\n"
			}
		}
		u.makefiles[dir] = text
	}
	return text
}

func mentionsFile(text, name string) bool {
	for {
		i := strings.Index(text, name)
		if i < 0 {
			return false
		}
		if before := text[:i]; before == "" || strings.ContainsAny(before[len(before)-1:], " \t\n/=:(,)") {
			return true
		}
		text = text[i+len(name):]
	}
}
