// SPDX-License-Identifier: Apache-2.0

package build

import (
	"bufio"
	"bytes"
	"context"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/upsplice/upsplice/splice/kbuild"
)

// included finds the units that include one of the given files, which are sources
// but no units themselves ("#include "rt.c""). Only the last component of the path
// is compared: that may name a unit too many, and never one too few. The result
// maps objects to files.
func included(ctx context.Context, dir string, units []kbuild.Unit, files []string) (map[string]string, error) {
	if len(files) == 0 {
		return nil, nil
	}
	wanted := make(map[string]string) // last component to the changed file
	for _, f := range files {
		wanted[path.Base(f)] = f
	}
	includes := make(map[string][]string) // source to the last components of the sources that it includes
	found := make(map[string]string)
	for _, u := range units {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if strings.HasPrefix(u.Source, "O:") {
			continue
		}
		names, ok := includes[u.Source]
		if !ok {
			var err error
			if names, err = sourcesIncludedBy(dir, u.Source, make(map[string]bool)); err != nil {
				return nil, err
			}
			includes[u.Source] = names
		}
		for _, n := range names {
			if f, ok := wanted[n]; ok {
				found[u.Object] = f
				break
			}
		}
	}
	return found, nil
}

// sourcesIncludedBy returns the last components of all sources that a source
// includes, directly or through others beside it.
func sourcesIncludedBy(dir, source string, seen map[string]bool) ([]string, error) {
	if seen[source] || len(seen) > 1000 {
		return nil, nil
	}
	seen[source] = true
	f, err := os.Open(filepath.Join(dir, source))
	if err != nil {
		if os.IsNotExist(err) {
			return nil, nil // found through an include path, or not at all
		}
		return nil, err
	}
	defer f.Close()
	var names []string
	s := bufio.NewScanner(f)
	s.Buffer(make([]byte, 0, 1<<16), 1<<20)
	for s.Scan() {
		name := includedSource(s.Bytes())
		if name == "" {
			continue
		}
		names = append(names, path.Base(name))
		more, err := sourcesIncludedBy(dir, path.Join(path.Dir(source), name), seen)
		if err != nil {
			return nil, err
		}
		names = append(names, more...)
	}
	slices.Sort(names)
	return slices.Compact(names), s.Err()
}

// includedSource returns the name in an #include of a source, "" for other lines.
func includedSource(line []byte) string {
	line = bytes.TrimLeft(line, " \t")
	if len(line) == 0 || line[0] != '#' {
		return ""
	}
	line = bytes.TrimLeft(line[1:], " \t")
	rest, ok := bytes.CutPrefix(line, []byte("include"))
	if !ok {
		return ""
	}
	rest = bytes.TrimLeft(rest, " \t")
	if len(rest) < 2 || rest[0] != '"' && rest[0] != '<' {
		return ""
	}
	name, _, ok := bytes.Cut(rest[1:], []byte{map[byte]byte{'"': '"', '<': '>'}[rest[0]]})
	if !ok || !bytes.HasSuffix(name, []byte(".c")) && !bytes.HasSuffix(name, []byte(".S")) {
		return ""
	}
	return string(name)
}
