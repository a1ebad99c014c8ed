// SPDX-License-Identifier: Apache-2.0

package kimage

import "sort"

// indexSymbols chains the symbols of each name. Those of vmlinux are in order of
// address, so that addresses need no index of their own.
func (im *Image) indexSymbols() {
	if im.byAddr == nil {
		im.byAddr = im.Symbols
	}
	im.byName = make(map[string]int32, len(im.Symbols))
	im.next = make([]int32, len(im.Symbols))
	for i := len(im.Symbols) - 1; i >= 0; i-- {
		name := im.Symbols[i].Name
		after, ok := im.byName[name]
		if !ok {
			after = -1
		}
		im.next[i] = after
		im.byName[name] = int32(i)
	}
}

func (im *Image) lookup(name string) []Symbol {
	i, ok := im.byName[name]
	if !ok {
		return nil
	}
	var out []Symbol
	for ; i >= 0; i = im.next[i] {
		out = append(out, im.Symbols[i])
	}
	return out
}

func (im *Image) sympos(name string, addr uint64) (pos int, ambiguous bool) {
	i, ok := im.byName[name]
	if !ok {
		return 0, false
	}
	n := 0
	for ; i >= 0; i = im.next[i] {
		n++
		if pos == 0 && im.Symbols[i].Addr == addr {
			pos = n
		}
	}
	if im.unstable[name] {
		return 0, true
	}
	return pos, n > 1
}

// firstAt returns the index of the first symbol at or above addr.
func (im *Image) firstAt(addr uint64) int {
	return sort.Search(len(im.byAddr), func(i int) bool { return im.byAddr[i].Addr >= addr })
}

func (im *Image) symbolAt(addr uint64) []Symbol {
	i := im.firstAt(addr)
	j := i
	for j < len(im.byAddr) && im.byAddr[j].Addr == addr {
		j++
	}
	return im.byAddr[i:j:j]
}

func (im *Image) symbolAfter(addr uint64) uint64 {
	if i := im.firstAt(addr + 1); i < len(im.byAddr) {
		return im.byAddr[i].Addr
	}
	return 0
}
