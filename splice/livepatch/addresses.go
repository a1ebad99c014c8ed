// SPDX-License-Identifier: Apache-2.0

package livepatch

import (
	"bytes"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"math"

	"github.com/upsplice/upsplice/splice/object"
)

// enablePatch is exported and referred to by every livepatch module, so that all other
// addresses of vmlinux can count from it.
const enablePatch = "klp_enable_patch"

// fixed is the kernel proper as one block, which KASLR moves as a whole: what the
// linker put at a distance stays at it. References to symbols that are not exported
// are relocations against one that is, with the distance added. A livepatch symbol
// each would be safer on a kernel of another build, and on Linux 6.1 takes the kernel
// a walk through all its symbols for every relocation, some 10 ms each. So the init
// function of the module looks at the build id, and what the kernel uses before it
// calls that is looked up by name: see byName.
type fixed struct {
	anchor *object.Symbol // enablePatch
	addr   uint64         // its link address
	note   uint64         // link address of the build id
	id     []byte
}

// maxBuildID is what checkBuild has room for, in bytes: as much as SHA-256 gives.
const maxBuildID = 32

// newFixed returns nil if the image does not say which build it is.
func (b *builder) newFixed() (*fixed, error) {
	img := b.in.Image
	id, err := hex.DecodeString(img.BuildID)
	if err != nil {
		return nil, fmt.Errorf("the image has the build id %q, which is no number", img.BuildID)
	}
	export, ok := img.Exports[enablePatch]
	if len(id) == 0 || len(id) > maxBuildID || len(id)%4 != 0 || !ok {
		return nil, nil
	}
	f := &fixed{addr: export.Addr, id: id}
	for _, s := range img.Sections {
		if s.Name != ".notes" {
			continue
		}
		if bytes.Count(s.Data, id) != 1 {
			return nil, errors.New("the notes of the image do not have its build id once")
		}
		f.note = s.Addr + uint64(bytes.Index(s.Data, id))
	}
	if f.note == 0 {
		return nil, nil
	}
	t, err := b.outside(vmlinux, Resolution{Source: Exported, Object: vmlinux, Name: enablePatch}, false)
	f.anchor = t.symbol
	return f, err
}

// at is the target of a link address, if it is one of those that move together.
// Per-CPU symbols are no such addresses, nor are those that only bound something.
func (f *fixed) at(where *symbols, addr uint64) (target, bool) {
	if f == nil || addr <= math.MaxUint32 {
		return target{}, false
	}
	if _, ok := where.img.SectionAt(addr); !ok {
		return target{}, false
	}
	return target{symbol: f.anchor, addend: int64(addr - f.addr), addr: addr, outside: true}, true
}

// byName reports whether what a section refers to has to be found by its name. The
// kernel follows these references before it calls the module's init function, which
// is the first that can see whether this is another kernel; all others lie still in
// the module until then.
func byName(from *object.Section) bool {
	return from != nil && (from.Name == "__jump_table" || from.Name == ".static_call_sites")
}

// checkBuild appends code that jumps to the end of what the caller writes, past bytes
// from here, if the kernel has another build id than the image:
//
//	mov $part,%rax; cmp %rax,id(%rip); jne fail
//
// for each eight bytes, and the same with %eax for the last four. (Intel SDM, volume
// 2: MOV, CMP, Jcc.)
func (b *builder) checkBuild(s *object.Section, past int) {
	f := b.fixed
	if f == nil {
		return
	}
	var jumps []int
	for at := 0; at < len(f.id); {
		part := f.id[at:min(at+8, len(f.id))]
		move, compare := []byte{0x48, 0xb8}, []byte{0x48, 0x39, 0x05}
		if len(part) == 4 {
			move, compare = move[1:], compare[1:]
		}
		s.Data = append(append(append(s.Data, move...), part...), compare...)
		const field = 4
		reloc(s, uint64(len(s.Data)), elf.R_X86_64_PC32, f.anchor, int64(f.note-f.addr)+int64(at)-field)
		s.Data = append(s.Data, 0, 0, 0, 0, 0x75, 0)
		jumps = append(jumps, len(s.Data))
		at += len(part)
	}
	for _, next := range jumps {
		s.Data[next-1] = byte(len(s.Data) + past - next)
	}
}
