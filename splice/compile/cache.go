// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/upsplice/upsplice/splice/kbuild"
)

// The cache has two levels. A recipe is named after all that is known before a
// compilation: arguments, tools. It lists, for the last few results, the files
// that were read and their digests. The object is named after both.

// maxResults is how many results of one recipe are remembered.
const maxResults = 8

type result struct {
	Deps   []string `json:"deps"`
	Digest []string `json:"digests"` // of the files at Deps
	Object string   `json:"object"`  // name of the file
	Size   int64    `json:"size"`    // of the object: after a power cut the name may stand for nothing
}

type recipe struct {
	Results []result `json:"results"`
}

// cacheFormat goes into every key: a change of what is done to a unit must not
// find objects of earlier versions.
const cacheFormat = "upsplice object 1"

func hashOf(parts ...any) string {
	h := sha256.New()
	json.NewEncoder(h).Encode(parts)
	return hex.EncodeToString(h.Sum(nil)[:20])
}

// find looks for a result whose files all are as they were.
func (c *Compiler) find(dir, key string) *result {
	text, err := os.ReadFile(filepath.Join(dir, key+".json"))
	if err != nil {
		return nil
	}
	var r recipe
	if json.Unmarshal(text, &r) != nil {
		return nil
	}
	for _, res := range r.Results {
		if st, err := os.Lstat(filepath.Join(dir, res.Object)); err == nil && st.Size() == res.Size && c.current(res) {
			return &res
		}
	}
	return nil
}

func (c *Compiler) current(r result) bool {
	if len(r.Deps) == 0 || len(r.Deps) != len(r.Digest) || r.Object != filepath.Base(r.Object) {
		return false
	}
	for i, dep := range r.Deps {
		d, err := c.digests.of(locate(dep, c.Output))
		if err != nil || d != r.Digest[i] {
			return false
		}
	}
	return true
}

// keep moves a finished object into the cache and then writes it into the recipe:
// killed in between, there is an object that nobody finds.
func (c *Compiler) keep(dir, tmp, key string, u kbuild.Unit, object string, deps []string) (string, error) {
	res := result{Deps: deps}
	for _, dep := range deps {
		d, err := c.digests.of(locate(dep, c.Output))
		if err != nil {
			return "", fmt.Errorf("reading a dependency of %s: %w", u.Object, err)
		}
		res.Digest = append(res.Digest, d)
	}
	st, err := os.Stat(object)
	if err != nil {
		return "", err
	}
	res.Size = st.Size()
	res.Object = hashOf(key, res.Deps, res.Digest) + ".o"
	final := filepath.Join(dir, res.Object)
	if err := os.Rename(object, final); err != nil {
		return "", err
	}
	if assembler(u) {
		return final, nil
	}

	c.digests.recipes.Lock()
	defer c.digests.recipes.Unlock()
	r := recipe{Results: []result{res}}
	var old recipe
	if text, err := os.ReadFile(filepath.Join(dir, key+".json")); err == nil && json.Unmarshal(text, &old) == nil {
		for _, o := range old.Results {
			if len(r.Results) < maxResults && o.Object != res.Object {
				r.Results = append(r.Results, o)
			}
		}
	}
	text, err := json.Marshal(r)
	if err != nil {
		return "", err
	}
	draft := filepath.Join(tmp, key+".json")
	if err := os.WriteFile(draft, text, 0o644); err != nil {
		return "", err
	}
	return final, os.Rename(draft, filepath.Join(dir, key+".json"))
}

// digests remembers the digests of files by inode: the trees of pre and post share
// most of them, and units most headers. Files of a prepared tree do not change.
type digests struct {
	mu      sync.Mutex
	known   map[inode]string
	recipes sync.Mutex
}

type inode struct {
	dev, ino uint64
	size     int64
	mtime    syscall.Timespec
	ctime    syscall.Timespec
}

func (d *digests) of(path string) (string, error) {
	st, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok || !st.Mode().IsRegular() {
		return "", &fs.PathError{Op: "read", Path: path, Err: fs.ErrInvalid}
	}
	id := inode{dev: uint64(sys.Dev), ino: sys.Ino, size: sys.Size, mtime: sys.Mtim, ctime: sys.Ctim}
	d.mu.Lock()
	sum, ok := d.known[id]
	d.mu.Unlock()
	if ok {
		return sum, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	sum = hex.EncodeToString(h.Sum(nil)[:16])
	d.mu.Lock()
	if d.known == nil {
		d.known = make(map[inode]string)
	}
	d.known[id] = sum
	d.mu.Unlock()
	return sum, nil
}
