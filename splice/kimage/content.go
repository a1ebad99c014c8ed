// SPDX-License-Identifier: Apache-2.0

package kimage

import (
	"fmt"
	"slices"
)

// content is what an alternative may be, with the fields that depend on the KASLR
// slide.
type content struct {
	bytes []byte
	slid  []AltSlid // sorted by offset
}

// cut returns n bytes at off.
func (c content) cut(off, n int) content {
	var slid []AltSlid
	for _, f := range c.slid {
		if f.Off >= off && f.Off < off+n {
			slid = append(slid, AltSlid{f.Off - off, f.Kind})
		}
	}
	return content{c.bytes[off : off+n], slid}
}

// with returns c with other bytes at off.
func (c content) with(off int, part content) content {
	end := off + len(part.bytes)
	var slid []AltSlid
	for _, f := range c.slid {
		if f.Off < off {
			slid = append(slid, f)
		}
	}
	for _, f := range part.slid {
		slid = append(slid, AltSlid{f.Off + off, f.Kind})
	}
	for _, f := range c.slid {
		if f.Off >= end {
			slid = append(slid, f)
		}
	}
	return content{slices.Concat(c.bytes[:off], part.bytes, c.bytes[end:]), slid}
}

func (c content) key() string { return fmt.Sprintf("%s %v", c.bytes, c.slid) }

// contents is a set that remembers the order.
type contents struct {
	list []content
	seen map[string]bool
}

func newContents() *contents { return &contents{seen: map[string]bool{}} }

func (s *contents) add(c content) {
	if k := c.key(); !s.seen[k] {
		s.seen[k] = true
		s.list = append(s.list, c)
	}
}
