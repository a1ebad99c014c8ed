// SPDX-License-Identifier: Apache-2.0

package tree

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"sort"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
)

const (
	defaultMaxBytes = 4 << 30
	maxFile         = 128 << 20 // the largest file of a kernel tree has 25 MB
	inFlight        = 64 << 20  // bytes read and not yet written or compared
)

// fixedTime is the modification time of every file: make must see no difference
// between trees, and sources older than anything that is made from them.
var fixedTime = time.Unix(946684800, 0) // 2000-01-01

// extractor is one run of extract.
type extractor struct {
	opt   Options
	tmp   string
	base  map[string]entry // nil without a base
	index map[string]entry // of this tree
	dirs  map[string]bool  // made in tmp
	top   string           // the archive's leading component
	left  int64            // bytes that may still be unpacked

	budget  *semaphore.Weighted
	group   *errgroup.Group
	changes chan File
}

func extract(ctx context.Context, r io.Reader, dir string, opt Options) (*Delta, error) {
	d, err := extractTree(ctx, r, dir, opt)
	if err == nil {
		return d, nil
	}
	if ctxErr := ctx.Err(); ctxErr != nil {
		err = ctxErr // not the error of a pipe that broke because of it
	}
	name := "source archive"
	if n, ok := r.(interface{ Name() string }); ok {
		name = n.Name()
	}
	return nil, fmt.Errorf("unpacking %s: %w", name, err)
}

func extractTree(ctx context.Context, r io.Reader, dir string, opt Options) (_ *Delta, err error) {
	if _, err := os.Lstat(dir); err == nil {
		return nil, fmt.Errorf("%s exists already", dir)
	}
	if opt.MaxBytes == 0 {
		opt.MaxBytes = defaultMaxBytes
	}
	x := &extractor{
		opt:     opt,
		index:   make(map[string]entry),
		dirs:    make(map[string]bool),
		left:    opt.MaxBytes,
		budget:  semaphore.NewWeighted(inFlight),
		changes: make(chan File, 64),
	}
	if opt.Base != "" {
		if x.base, err = loadIndex(opt.Base); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return nil, err
	}
	if x.tmp, err = os.MkdirTemp(filepath.Dir(dir), filepath.Base(dir)+".tmp-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			os.RemoveAll(x.tmp)
		}
	}()
	if err := os.Chmod(x.tmp, 0o755); err != nil {
		return nil, err
	}

	collected := make(chan *Delta)
	go func() {
		d := &Delta{Files: []File{}}
		for f := range x.changes {
			d.Files = append(d.Files, f)
		}
		collected <- d
	}()
	var workCtx context.Context
	x.group, workCtx = errgroup.WithContext(ctx)
	x.group.SetLimit(max(2, runtime.GOMAXPROCS(0)))
	readErr := x.read(workCtx, r)
	// A worker's error comes first: it is why reading was given up.
	err = x.group.Wait()
	if err == nil {
		err = readErr
	}
	if err == nil {
		x.removed()
	}
	close(x.changes)
	delta := <-collected
	if err != nil {
		return nil, err
	}

	if err := writeIndex(x.tmp, x.index); err != nil {
		return nil, err
	}
	if err := os.Rename(x.tmp, dir); err != nil {
		return nil, err
	}
	if x.base == nil {
		return nil, nil
	}
	sort.Slice(delta.Files, func(i, j int) bool { return delta.Files[i].Path < delta.Files[j].Path })
	return delta, nil
}

// read goes through the archive and hands each file to a worker.
func (x *extractor) read(ctx context.Context, r io.Reader) error {
	counted := &counter{r: r, progress: x.opt.Progress}
	tr := tar.NewReader(counted)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("at byte %d: %w", counted.n, unexpected(err))
		}
		if err := x.entry(ctx, tr, h); err != nil {
			return fmt.Errorf("%q: %w", h.Name, unexpected(err))
		}
	}
	// To the very end: the checksums of the compressed stream come last.
	if _, err := io.Copy(io.Discard, counted); err != nil {
		return err
	}
	if !counted.ended() {
		return fmt.Errorf("at byte %d: %w: the end mark of the archive is missing", counted.n, io.ErrUnexpectedEOF)
	}
	if len(x.index) == 0 {
		return errors.New("the archive holds no files")
	}
	return nil
}

// unexpected makes sure that an archive that stops early is not taken for one
// that ends.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (x *extractor) entry(ctx context.Context, tr *tar.Reader, h *tar.Header) error {
	switch h.Typeflag {
	case tar.TypeXGlobalHeader:
		return nil // git archive notes the commit in one
	case tar.TypeDir, tar.TypeReg, tar.TypeSymlink:
	default:
		return fmt.Errorf("entry of type %q: a source tree has only files, directories and symbolic links", h.Typeflag)
	}
	name, err := x.name(h.Name)
	if err != nil || name == "" {
		return err
	}
	if h.Typeflag == tar.TypeDir {
		return nil // made when a file needs it
	}
	if _, twice := x.index[name]; twice {
		return errors.New("twice in the archive")
	}
	if len(x.index) == maxEntries {
		return fmt.Errorf("more than %d files", maxEntries)
	}
	kept := keeps(name, x.opt.Arch)
	if h.Typeflag == tar.TypeSymlink {
		return x.symlink(name, h.Linkname, kept)
	}
	if h.Size > maxFile {
		return fmt.Errorf("%d bytes: more than the limit of %d for one file", h.Size, maxFile)
	}
	if x.left -= h.Size; x.left < 0 {
		return fmt.Errorf("more than %d bytes in the archive", x.opt.MaxBytes)
	}
	if !kept {
		sum := crc64.New(sums)
		if _, err := io.CopyN(sum, tr, h.Size); err != nil {
			return err
		}
		x.note(name, entry{kind: 'd', size: h.Size, sum: sum.Sum64()})
		return nil
	}

	if err := x.mkdirs(path.Dir(name)); err != nil {
		return err
	}
	weight := min(h.Size, inFlight)
	if err := x.budget.Acquire(ctx, weight); err != nil {
		return err
	}
	text := getBuffer(h.Size)
	if _, err := io.ReadFull(tr, *text); err != nil {
		x.budget.Release(weight)
		return err
	}
	x.note(name, entry{kind: 'k'})
	was := x.base[name].kind
	mode := os.FileMode(0o644)
	if h.Mode&0o100 != 0 {
		mode = 0o755
	}
	x.group.Go(func() error {
		defer x.budget.Release(weight)
		defer buffers.Put(text)
		return x.put(name, *text, mode, was)
	})
	return nil
}

// name checks the path of an entry and strips its leading component.
func (x *extractor) name(full string) (string, error) {
	clean := path.Clean(full)
	if path.IsAbs(full) || clean == ".." || strings.HasPrefix(clean, "../") || strings.Contains("/"+full+"/", "/../") {
		return "", errors.New("leads out of the tree")
	}
	if len(clean) > maxPath || strings.ContainsAny(clean, "\n\x00") {
		return "", errors.New("no usable file name")
	}
	if clean == "." {
		return "", nil
	}
	top, rest, _ := strings.Cut(clean, "/")
	if x.top == "" {
		x.top = top
	}
	if top != x.top {
		return "", fmt.Errorf("not below %s/ like the entries before it", x.top)
	}
	if rest == indexName {
		return "", errors.New("a name that only an extracted tree has")
	}
	return rest, nil
}

// note records a file and, if its contents are not kept, compares it with the
// base. Files that are kept are compared by the workers, who have the lines.
func (x *extractor) note(name string, e entry) {
	x.index[name] = e
	if x.base == nil || e.kind == 'k' {
		return
	}
	kept := e.kind == 'l' && keeps(name, x.opt.Arch)
	if old, ok := x.base[name]; !ok {
		x.changes <- File{Path: name, Kind: "new", Kept: kept}
	} else if old != e {
		x.changes <- File{Path: name, Kind: "changed", Kept: kept}
	}
}

// mkdirs makes the directory and its parents. A path that exists but was not made
// here is a file or a link in the place of a directory: writing through it could
// lead anywhere.
func (x *extractor) mkdirs(dir string) error {
	if dir == "." || x.dirs[dir] {
		return nil
	}
	if err := x.mkdirs(path.Dir(dir)); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(x.tmp, dir), 0o755); err != nil {
		return err
	}
	x.dirs[dir] = true
	return nil
}

func (x *extractor) symlink(name, target string, kept bool) error {
	if !inside(name, target) {
		return fmt.Errorf("symbolic link to %q leads out of the tree", target)
	}
	if kept {
		if err := x.mkdirs(path.Dir(name)); err != nil {
			return err
		}
		if err := os.Symlink(target, filepath.Join(x.tmp, name)); err != nil {
			return err
		}
	}
	x.note(name, entry{kind: 'l', size: int64(len(target)), sum: crc64.Checksum([]byte(target), sums)})
	return nil
}

// inside says whether the target of the link called name is in the tree. Only the
// form "../../dir/file" is: as no directory on the way to a link is a link itself,
// such a target stays in the tree whatever else is linked.
func inside(name, target string) bool {
	if target == "" || path.IsAbs(target) {
		return false
	}
	up, down := 0, false
	for part := range strings.SplitSeq(target, "/") {
		switch part {
		case "", ".":
		case "..":
			if up++; down {
				return false
			}
		default:
			down = true
		}
	}
	return up <= strings.Count(name, "/")
}

// put brings one kept file into the tree: as a link where the base has the same.
// was is what the base's index calls the file, 0 if it has none.
func (x *extractor) put(name string, text []byte, mode os.FileMode, was byte) error {
	to := filepath.Join(x.tmp, name)
	f := File{Path: name, Kind: "changed", Kept: true}
	var old []byte
	switch was {
	case 0:
		f.Kind = "new"
	case 'k':
		from := filepath.Join(x.opt.Base, name)
		had, oldMode, err := readBase(from)
		if err != nil {
			return fmt.Errorf("reading the base tree: %w", err)
		}
		defer buffers.Put(had)
		if bytes.Equal(*had, text) {
			if oldMode&0o100 == mode&0o100 && os.Link(from, to) == nil {
				return nil
			}
			// Another file system, or too many links: a copy serves as well.
			return writeFile(to, text, mode)
		}
		old = *had
	}
	if x.base != nil {
		count(&f, old, text)
		x.changes <- f
	}
	return writeFile(to, text, mode)
}

// buffers are used again: the files of two trees are 2 GB, most of them small.
var buffers sync.Pool

func getBuffer(size int64) *[]byte {
	if b, ok := buffers.Get().(*[]byte); ok {
		if int64(cap(*b)) >= size {
			*b = (*b)[:size]
			return b
		}
		buffers.Put(b)
	}
	b := make([]byte, size, max(size, 64<<10))
	return &b
}

func readBase(name string) (*[]byte, os.FileMode, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	if !st.Mode().IsRegular() || st.Size() > maxFile {
		return nil, 0, fmt.Errorf("%s: not as it was extracted; remove the tree", name)
	}
	text := getBuffer(st.Size())
	_, err = io.ReadFull(f, *text)
	return text, st.Mode(), err
}

func writeFile(name string, text []byte, mode os.FileMode) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	if _, err := f.Write(text); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Chtimes(name, fixedTime, fixedTime)
}

// removed reports what the base has and this tree has not.
func (x *extractor) removed() {
	for name, e := range x.base {
		if _, ok := x.index[name]; ok {
			continue
		}
		f := File{Path: name, Kind: "removed", Kept: e.kind != 'd' && keeps(name, x.opt.Arch)}
		if e.kind == 'k' {
			if old, _, err := readBase(filepath.Join(x.opt.Base, name)); err == nil {
				count(&f, *old, nil)
				buffers.Put(old)
			}
		}
		x.changes <- f
	}
}

// counter counts the bytes of the tar stream and remembers how it ended.
type counter struct {
	r        io.Reader
	n        int64
	told     int64
	zeros    int64 // zero bytes at the end so far
	progress func(int64)
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	trimmed := len(bytes.TrimRight(p[:n], "\x00"))
	if trimmed > 0 {
		c.zeros = 0
	}
	c.zeros += int64(n - trimmed)
	if c.progress != nil && (c.n-c.told >= 4<<20 || err == io.EOF) {
		c.told = c.n
		c.progress(c.n)
	}
	return n, err
}

// ended says whether the stream ended with the two zero blocks that POSIX demands.
func (c *counter) ended() bool { return c.zeros >= 1024 }
