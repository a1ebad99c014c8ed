// SPDX-License-Identifier: Apache-2.0

package tree

import (
	"bufio"
	"fmt"
	"hash/crc64"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
)

// indexName is the file in each extracted tree that lists what the archive held.
// It makes two things possible without a look at the tree itself: to know which
// files the next version removed, and to know whether a file that was not kept
// differs.
const indexName = ".upsplice.index"

const (
	indexHeader = "upsplice tree index 1"
	maxEntries  = 1 << 20
	maxPath     = 4096
)

// entry is one file of an archive.
type entry struct {
	kind byte   // 'k' kept file, 'd' file not kept, 'l' symbolic link
	size int64  // of files not kept
	sum  uint64 // of the contents of files not kept, of the target of links
}

// sums tells different contents apart, not hostile ones: a file that is not kept
// influences nothing but the count in the report.
var sums = crc64.MakeTable(crc64.ECMA)

func writeIndex(dir string, index map[string]entry) error {
	paths := make([]string, 0, len(index))
	for p := range index {
		paths = append(paths, p)
	}
	sort.Strings(paths)
	f, err := os.OpenFile(filepath.Join(dir, indexName), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 1<<16)
	fmt.Fprintln(w, indexHeader)
	for _, p := range paths {
		e := index[p]
		fmt.Fprintf(w, "%c %d %x %s\n", e.kind, e.size, e.sum, p)
	}
	if err := w.Flush(); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

func loadIndex(dir string) (map[string]entry, error) {
	f, err := os.Open(filepath.Join(dir, indexName))
	if err != nil {
		return nil, fmt.Errorf("reading the index of the base tree: %w", err)
	}
	defer f.Close()
	index, err := readIndex(f)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", f.Name(), err)
	}
	return index, nil
}

func readIndex(r io.Reader) (map[string]entry, error) {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 1<<16), maxPath+64)
	if !s.Scan() || s.Text() != indexHeader {
		return nil, fmt.Errorf("not an index of this version; remove the tree and extract it again")
	}
	index := make(map[string]entry)
	for line := 2; s.Scan(); line++ {
		f := strings.SplitN(s.Text(), " ", 4)
		if len(f) != 4 || len(f[0]) != 1 || !strings.Contains("kdl", f[0]) || f[3] == "" {
			return nil, fmt.Errorf("line %d: not an entry", line)
		}
		size, err := strconv.ParseInt(f[1], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", line, err)
		}
		sum, err := strconv.ParseUint(f[2], 16, 64)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", line, err)
		}
		if len(index) == maxEntries {
			return nil, fmt.Errorf("line %d: more than %d entries", line, maxEntries)
		}
		index[f[3]] = entry{kind: f[0][0], size: size, sum: sum}
	}
	return index, s.Err()
}
