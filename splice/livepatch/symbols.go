// SPDX-License-Identifier: Apache-2.0

package livepatch

import (
	"fmt"
	"sort"

	"github.com/upsplice/upsplice/splice/kimage"
)

// symbols are those of vmlinux or of a module, as the livepatch core finds them.
type symbols struct {
	whose string // "the kernel", "the module virtio_blk"
	img   *kimage.Image
	addrs map[string][]uint64 // of the symbols of a name, in kallsyms order
}

func newSymbols(whose string, img *kimage.Image) symbols {
	k := symbols{whose: whose, img: img, addrs: make(map[string][]uint64, len(img.Symbols))}
	for _, s := range img.Symbols {
		k.addrs[s.Name] = append(k.addrs[s.Name], s.Addr)
	}
	return k
}

// image returns the symbols of vmlinux or of a module, nil if its image was not
// given.
func (b *builder) image(object string) *symbols {
	if object == vmlinux {
		return &b.kernel.symbols
	}
	if s := b.modules[object]; s != nil {
		return s
	}
	img := b.in.Modules[object]
	if img == nil {
		return nil
	}
	s := newSymbols("the module "+object, img)
	b.modules[object] = &s
	return &s
}

// symbol returns the address that a livepatch name and position stand for, by the
// rule of the kernel: position 0 demands that the name is unique.
func (k *symbols) symbol(name string, sympos int) (uint64, error) {
	addrs := k.addrs[name]
	switch {
	case len(addrs) == 0:
		return 0, fmt.Errorf("%s has no symbol %s", k.whose, name)
	case sympos < 0 || sympos > len(addrs):
		return 0, fmt.Errorf("%s has %d symbols %s, not %d", k.whose, len(addrs), name, sympos)
	case sympos == 0 && len(addrs) > 1:
		return 0, fmt.Errorf("%s has %d symbols %s and no position is given", k.whose, len(addrs), name)
	case sympos == 0:
		return addrs[0], nil
	}
	return addrs[sympos-1], nil
}

// fentryWindow is how far behind a function's address its call of __fentry__ may
// start: ENDBR64 comes before it.
const fentryWindow = 8 // bytes

// hasFentry reports whether ftrace can redirect the function at addr.
func (k *symbols) hasFentry(addr uint64) bool {
	sites := k.img.Sites
	i := sort.Search(len(sites), func(i int) bool { return sites[i].Addr >= addr })
	for ; i < len(sites) && sites[i].Addr < addr+fentryWindow; i++ {
		if sites[i].Kind == kimage.SiteMcount {
			return true
		}
	}
	return false
}

// bytes returns the code of the function at addr: what is up to the next symbol or
// the end of its section.
func (k *symbols) bytes(addr uint64) []byte {
	for _, sec := range k.img.Sections {
		if addr < sec.Addr || addr-sec.Addr >= uint64(len(sec.Data)) {
			continue
		}
		data := sec.Data[addr-sec.Addr:]
		for _, s := range k.img.Symbols {
			if s.Addr > addr && s.Addr-addr < uint64(len(data)) {
				data = data[:s.Addr-addr]
			}
		}
		return data
	}
	return nil
}
