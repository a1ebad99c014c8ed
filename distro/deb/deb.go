// SPDX-License-Identifier: Apache-2.0

// Package deb reads Debian binary packages (deb(5)): the control fields and the
// files of the data archive. It unpacks nothing, runs nothing and needs no root.
package deb

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"github.com/upsplice/upsplice/distro/archive"
	"github.com/upsplice/upsplice/distro/deb822"
)

// Limits that apply where Options leaves them zero.
const (
	DefaultMaxControl = 32 << 20 // bytes of the unpacked control archive; md5sums is the bulk
	DefaultMaxData    = 8 << 30  // bytes of the unpacked data archive
	DefaultMaxFiles   = 500_000  // members of the data archive
)

const maxControlFile = 1 << 20

// Options of Open.
type Options struct {
	MaxControl int64 // bytes, 0: DefaultMaxControl
	MaxData    int64 // bytes, 0: DefaultMaxData
	MaxFiles   int   // 0: DefaultMaxFiles

	// External replaces decompressors, see archive.Options.
	External map[archive.Format]archive.Decompressor
}

// FormatError says which part of the file is not as it must be.
type FormatError struct {
	Part   string // "archive", "control.tar.xz", ...
	Offset int64  // of the part in the file, in bytes
	Err    error
}

func (e *FormatError) Error() string {
	return fmt.Sprintf("reading .deb: %s at offset %d: %v", e.Part, e.Offset, e.Err)
}

func (e *FormatError) Unwrap() error { return e.Err }

// Package is an opened .deb. Its methods may be called concurrently if the
// io.ReaderAt below allows it.
type Package struct {
	r       io.ReaderAt
	opt     Options
	control arMember
	data    arMember
}

// Open reads the table of contents of the .deb in r, which has size bytes.
// Errors: *FormatError and those of r.
func Open(r io.ReaderAt, size int64, opt Options) (*Package, error) {
	if opt.MaxControl <= 0 {
		opt.MaxControl = DefaultMaxControl
	}
	if opt.MaxData <= 0 {
		opt.MaxData = DefaultMaxData
	}
	if opt.MaxFiles <= 0 {
		opt.MaxFiles = DefaultMaxFiles
	}
	members, err := readAr(r, size)
	if err != nil {
		return nil, err
	}
	p := &Package{r: r, opt: opt}
	if len(members) == 0 || members[0].name != "debian-binary" {
		return nil, &FormatError{Part: "debian-binary", Err: errors.New("is not the first member")}
	}
	version := make([]byte, min(members[0].size, 16))
	if err := readAt(r, version, members[0].offset, size); err != nil {
		return nil, &FormatError{Part: "debian-binary", Offset: members[0].offset, Err: err}
	}
	if !strings.HasPrefix(string(version), "2.") {
		return nil, &FormatError{Part: "debian-binary", Offset: members[0].offset,
			Err: fmt.Errorf("format %.10q is not 2.x", version)}
	}
	for _, m := range members[1:] {
		switch {
		case p.control.name == "" && isTar(m.name, "control.tar"):
			p.control = m
		case p.data.name == "" && isTar(m.name, "data.tar"):
			p.data = m
		}
	}
	for part, m := range map[string]arMember{"control.tar": p.control, "data.tar": p.data} {
		if m.name == "" {
			return nil, &FormatError{Part: part, Offset: size, Err: io.ErrUnexpectedEOF}
		}
	}
	return p, nil
}

func isTar(name, base string) bool { return name == base || strings.HasPrefix(name, base+".") }

// Control returns the fields of the package's control file.
func (p *Package) Control() (deb822.Paragraph, error) {
	var par deb822.Paragraph
	found := false
	err := p.walk(p.control, p.opt.MaxControl, func(h *tar.Header, r io.Reader) error {
		if clean(h.Name) != "control" || h.Typeflag != tar.TypeReg {
			return nil
		}
		if h.Size > maxControlFile {
			return &archive.LimitError{What: "control file", Limit: maxControlFile}
		}
		var err error
		if par, err = deb822.Parse(r); err != nil {
			return err
		}
		found = true
		return fs.SkipAll
	})
	if err == nil && !found {
		err = p.errorf(p.control, errors.New("has no control file"))
	}
	return par, err
}

// Walk calls fn for each member of the data archive in its order. Names are as
// path.Clean gives them, without leading "/" or "./"; a member whose name leads
// out of the package is an error. r reads the content. fn may return fs.SkipAll
// to stop early. Errors: *FormatError, which unwraps to *archive.LimitError
// where a limit was passed, and what fn returned, wrapped.
func (p *Package) Walk(fn func(h *tar.Header, r io.Reader) error) error {
	return p.walk(p.data, p.opt.MaxData, func(h *tar.Header, r io.Reader) error {
		h.Name = clean(h.Name)
		if h.Typeflag == tar.TypeLink {
			h.Linkname = clean(h.Linkname)
		}
		return fn(h, r)
	})
}

// Open returns the content of one regular file of the data archive. The reader
// must be closed. Errors: fs.ErrNotExist, and those of Walk.
func (p *Package) Open(name string) (io.ReadCloser, *tar.Header, error) {
	a, tr, err := p.open(p.data, p.opt.MaxData)
	if err != nil {
		return nil, nil, err
	}
	for n := 0; ; n++ {
		h, err := p.next(p.data, tr, n)
		if err == io.EOF {
			err = fmt.Errorf("reading .deb: %s: %w", name, fs.ErrNotExist)
		}
		if err != nil {
			a.Close()
			return nil, nil, err
		}
		if clean(h.Name) == name && h.Typeflag == tar.TypeReg {
			return &file{p: p, r: tr, a: a}, h, nil
		}
	}
}

type file struct {
	p *Package
	r io.Reader
	a io.Closer
}

func (f *file) Read(b []byte) (int, error) {
	n, err := f.r.Read(b)
	if err != nil && err != io.EOF {
		err = f.p.errorf(f.p.data, err)
	}
	return n, err
}

// Close drops the decompressor's own complaint: it is stopped in the middle.
func (f *file) Close() error { f.a.Close(); return nil }

func (p *Package) walk(m arMember, limit int64, fn func(*tar.Header, io.Reader) error) error {
	a, tr, err := p.open(m, limit)
	if err != nil {
		return err
	}
	for n := 0; ; n++ {
		h, err := p.next(m, tr, n)
		if err == io.EOF {
			break
		}
		if err == nil {
			err = fn(h, tr)
			if errors.Is(err, fs.SkipAll) {
				a.Close()
				return nil
			}
			if err != nil {
				err = p.errorf(m, err)
			}
		}
		if err != nil {
			a.Close()
			return err
		}
	}
	// What follows the end of the tar is read too, so that the checksums at the
	// end of the compressed stream are verified.
	_, err = io.Copy(io.Discard, a)
	if cerr := a.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return p.errorf(m, err)
	}
	return nil
}

func (p *Package) open(m arMember, limit int64) (*archive.Reader, *tar.Reader, error) {
	a, err := archive.NewReader(io.NewSectionReader(p.r, m.offset, m.size),
		archive.Options{MaxBytes: limit, External: p.opt.External})
	if err != nil {
		return nil, nil, p.errorf(m, err)
	}
	return a, tar.NewReader(a), nil
}

func (p *Package) next(m arMember, tr *tar.Reader, n int) (*tar.Header, error) {
	h, err := tr.Next()
	switch {
	case err == io.EOF && n == 0:
		// Even an empty package has "./": nothing at all was a damaged stream.
		return nil, p.errorf(m, io.ErrUnexpectedEOF)
	case err == io.EOF:
		return nil, err
	case err != nil:
		return nil, p.errorf(m, err)
	case n >= p.opt.MaxFiles:
		return nil, p.errorf(m, fmt.Errorf("more than %d files", p.opt.MaxFiles))
	}
	if name := clean(h.Name); name == ".." || strings.HasPrefix(name, "../") {
		return nil, p.errorf(m, fmt.Errorf("file name %q leads out of the package", h.Name))
	}
	return h, nil
}

func (p *Package) errorf(m arMember, err error) error {
	var fe *FormatError
	if errors.As(err, &fe) {
		return err
	}
	return &FormatError{Part: m.name, Offset: m.offset, Err: err}
}

func clean(name string) string { return strings.TrimPrefix(path.Clean(name), "/") }
