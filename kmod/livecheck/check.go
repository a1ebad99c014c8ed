// SPDX-License-Identifier: Apache-2.0

package livecheck

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/upsplice/upsplice/kmod/kallsyms"
)

// slideAlign is what KASLR moves an x86-64 kernel in multiples of (CONFIG_PHYSICAL_ALIGN).
const slideAlign = 2 << 20

// maxFunction bounds what one expectation can make us read.
const maxFunction = 16 << 20

func newKernel(syms *kallsyms.Table, memory io.ReaderAt, exp []Expectation) (Kernel, error) {
	k := Kernel{Text: memory, Symbols: syms.Kernel, InModule: syms.Lookup}
	for name, to := range map[string]*uint64{"_stext": &k.TextStart, "_etext": &k.TextEnd} {
		addrs := syms.Kernel(name)
		if len(addrs) != 1 {
			return Kernel{}, fmt.Errorf("looking for the kernel's text: /proc/kallsyms has %d symbols %s", len(addrs), name)
		}
		*to = addrs[0]
	}
	if len(exp) == 0 {
		return k, nil
	}
	addr, err := k.locate(exp[0])
	if err != nil {
		return Kernel{}, err
	}
	k.Slide = addr - exp[0].Addr
	if k.Slide%slideAlign != 0 {
		return Kernel{}, &Mismatch{Function: exp[0].Name, Offset: -1,
			Reason: fmt.Sprintf("it is at %#x, %#x from its place in the image, which is no distance that KASLR moves a kernel by", addr, k.Slide)}
	}
	return k, nil
}

// locate finds a function by its name and position.
func (k Kernel) locate(e Expectation) (uint64, error) {
	addrs := k.symbols(e.Object, e.Name)
	if e.Sympos < 1 || e.Sympos > len(addrs) {
		return 0, &Mismatch{Function: e.Name, Offset: -1,
			Reason: fmt.Sprintf("/proc/kallsyms has %d symbols of this name, and number %d is expected", len(addrs), e.Sympos)}
	}
	return addrs[e.Sympos-1], nil
}

func check(k Kernel, exp []Expectation) error {
	for _, e := range exp {
		if err := checkOne(k, e); err != nil {
			return err
		}
	}
	return nil
}

func checkOne(k Kernel, e Expectation) error {
	addr, err := k.locate(e)
	if err != nil {
		return err
	}
	want, err := k.place(e)
	if err != nil {
		return err
	}
	if addr != want {
		return &Mismatch{Function: e.Name, Offset: -1, Reason: fmt.Sprintf("it is at %#x, and %#x is expected", addr, want)}
	}
	f, err := newFunction(k, e, addr)
	if err != nil {
		return err
	}
	f.have = make([]byte, len(e.Bytes))
	if _, err := k.Text.ReadAt(f.have, int64(addr)); err != nil && !errors.Is(err, io.EOF) {
		return &Mismatch{Function: e.Name, Offset: -1, Reason: "its code cannot be read", Err: err}
	}
	return f.compare()
}

// function is one function under comparison.
type function struct {
	Kernel
	name   string
	addr   uint64  // live
	want   []byte  // of the image, moved by the slide
	have   []byte  // in memory
	fields []Field // rewritten sites, by offset, the longest first
	next   int     // the first of fields that is not before the current offset
	altEnd int     // end of the alternative that the current offset is in
	unread error   // why a word of memory could not be read
}

func newFunction(k Kernel, e Expectation, addr uint64) (*function, error) {
	bad := func(reason string) error {
		return &Mismatch{Function: e.Name, Offset: -1, Reason: "the expectation is broken: " + reason}
	}
	if len(e.Bytes) == 0 || len(e.Bytes) > maxFunction {
		return nil, bad(fmt.Sprintf("%d bytes", len(e.Bytes)))
	}
	f := &function{Kernel: k, name: e.Name, addr: addr, want: bytes.Clone(e.Bytes)}
	if e.Object != "" {
		f.Slide = 0 // a module has no link addresses, and what Ref says is live
	}
	for _, fd := range e.Fields {
		if fd.Off < 0 || fd.Len <= 0 || fd.Off > len(e.Bytes)-fd.Len {
			return nil, bad(fmt.Sprintf("a field of %d bytes at %d", fd.Len, fd.Off))
		}
		part := f.want[fd.Off : fd.Off+fd.Len]
		switch {
		case strings.HasPrefix(fd.Kind, "ref"):
			if err := k.fill(part, addr+uint64(fd.Off), fd.Kind, fd.Ref); err != nil {
				return nil, bad(err.Error())
			}
			continue
		case e.Object == "" && k.move(part, fd.Kind):
			continue
		case forms[fd.Kind] == nil && fd.Kind != KindAlternative:
			return nil, bad(fmt.Sprintf("a field of kind %q and %d bytes", fd.Kind, fd.Len))
		}
		var err error
		if fd.Kind == KindAlternative {
			fd.Alts, err = k.moveAlts(e.Object != "", addr, fd)
		} else if e.Object != "" {
			fd.Target = 0
			if fd.Ref != nil {
				fd.Target, err = k.resolve(*fd.Ref)
			}
		}
		if err != nil {
			return nil, bad(err.Error())
		}
		f.fields = append(f.fields, fd)
	}
	slices.SortStableFunc(f.fields, func(a, b Field) int {
		if a.Off != b.Off {
			return a.Off - b.Off
		}
		return b.Len - a.Len
	})
	return f, nil
}

// move changes a field as KASLR does; false if b is none of the kind.
func (k Kernel) move(b []byte, kind string) bool {
	le := binary.LittleEndian
	switch {
	case kind == KindAbs32 && len(b) == 4:
		le.PutUint32(b, le.Uint32(b)+uint32(k.Slide))
	case kind == KindAbs64 && len(b) == 8:
		le.PutUint64(b, le.Uint64(b)+k.Slide)
	case kind == KindRel32Fixed && len(b) == 4:
		le.PutUint32(b, le.Uint32(b)-uint32(k.Slide))
	default:
		return false
	}
	return true
}

// moveAlts returns the contents of an alternative as they are in the running kernel,
// in a function at addr.
func (k Kernel) moveAlts(module bool, addr uint64, fd Field) ([][]byte, error) {
	if len(fd.AltFields) == 0 {
		return fd.Alts, nil
	}
	alts := make([][]byte, len(fd.Alts))
	for i, alt := range fd.Alts {
		alts[i] = bytes.Clone(alt)
	}
	for _, part := range fd.AltFields {
		n := 4
		if part.Kind == KindAbs64 || part.Kind == KindRef64 || part.Kind == KindRefPC64 {
			n = 8
		}
		if part.Alt < 0 || part.Alt >= len(alts) || part.Off < 0 || part.Off > len(alts[part.Alt])-n {
			return nil, fmt.Errorf("a part of kind %q at %d of content %d", part.Kind, part.Off, part.Alt)
		}
		b := alts[part.Alt][part.Off : part.Off+n]
		if !module && k.move(b, part.Kind) {
			continue
		}
		if err := k.fill(b, addr+uint64(fd.Off)+uint64(part.Off), part.Kind, part.Ref); err != nil {
			return nil, err
		}
	}
	return alts, nil
}

// compare walks through the function. At a site, the forms of its kind are tried
// over its whole length; elsewhere each byte must be the expected one.
func (f *function) compare() error {
	for at := 0; at < len(f.want); {
		for f.next < len(f.fields) && f.fields[f.next].Off < at {
			f.next++
		}
		if n := f.site(at); n > 0 {
			at += n
			continue
		}
		// The kernel joins the NOPs of an alternative that it does not replace.
		if at < f.altEnd {
			if n := sameNops(f.have[at:f.altEnd], f.want[at:f.altEnd]); n > 0 {
				at += n
				continue
			}
		}
		if f.have[at] != f.want[at] {
			return f.mismatch(at)
		}
		at++
	}
	return nil
}

// site tries the fields that start at an offset, and returns the length of the
// one that explains what is there, or 0.
func (f *function) site(at int) int {
	for _, fd := range f.fields[f.next:] {
		if fd.Off != at {
			break
		}
		s := site{f: f, addr: f.addr + uint64(at), orig: f.want[at : at+fd.Len], have: f.have[at : at+fd.Len], field: fd}
		if fd.Kind == KindAlternative {
			f.altEnd = max(f.altEnd, at+fd.Len)
			if f.alternative(s) {
				return fd.Len
			}
			continue
		}
		if forms[fd.Kind](s) {
			return fd.Len
		}
	}
	return 0
}

// alternative accepts a replacement, or the original with the paravirt calls in
// it in their present form. The kernel applies alternatives last, and joins the
// NOPs over the whole length.
func (f *function) alternative(s site) bool {
	orig := bytes.Clone(s.orig)
	for _, fd := range f.fields[f.next:] {
		if fd.Off >= s.field.Off+s.field.Len {
			break
		}
		if fd.Kind != KindParavirt || fd.Off < s.field.Off || fd.Off+fd.Len > s.field.Off+s.field.Len {
			continue
		}
		inner := site{f: f, addr: f.addr + uint64(fd.Off), orig: f.want[fd.Off : fd.Off+fd.Len]}
		if b := inner.paravirtNow(); b != nil {
			copy(orig[fd.Off-s.field.Off:], b)
		}
	}
	if equalCode(s.have, orig) {
		return true
	}
	return slices.ContainsFunc(append([][]byte{orig}, s.field.Alts...), func(alt []byte) bool {
		return len(alt) == len(s.have) && (equalCode(s.have, alt) || s.sameJump(alt) || s.counted(alt))
	})
}

// mismatch reports the bytes from an offset on.
func (f *function) mismatch(at int) error {
	end := min(at+16, len(f.want))
	m := &Mismatch{Function: f.name, Offset: at, Want: f.want[at:end], Have: f.have[at:end], Reason: "the code is not that of the shipped kernel", Err: f.unread}
	for _, fd := range f.fields {
		if fd.Off <= at && at < fd.Off+fd.Len {
			m.Reason = fmt.Sprintf("the %s site at offset %d has no known form", fd.Kind, fd.Off)
			m.Offset, m.Want, m.Have = fd.Off, f.want[fd.Off:fd.Off+fd.Len], f.have[fd.Off:fd.Off+fd.Len]
			break
		}
	}
	return m
}

func (m *Mismatch) error() string {
	s := "checking " + m.Function + " in memory: " + m.Reason
	if m.Offset >= 0 {
		s += fmt.Sprintf(": at offset %d there is % x, and % x is expected", m.Offset, m.Have, m.Want)
	}
	if m.Err != nil {
		s += ": " + m.Err.Error()
	}
	return s
}
