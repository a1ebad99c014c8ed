// SPDX-License-Identifier: Apache-2.0

package livepatch

import (
	"debug/elf"
	"fmt"
	"strings"

	"github.com/upsplice/upsplice/splice/object"
)

// key returns the key of a jump label or static call, and where that is.
func (u *unit) key(t table, sec *object.Section, at uint64, relocs []object.Reloc) (*object.Symbol, Resolution, error) {
	layout, err := u.b.kernel.structure(t.structure)
	if err != nil {
		return nil, Resolution{}, err
	}
	key, err := layout.member("key")
	if err != nil {
		return nil, Resolution{}, err
	}
	for _, r := range relocs {
		if r.Offset != at+key.offset || r.Symbol == nil {
			continue
		}
		s := r.Symbol
		if s.Type == elf.STT_SECTION && s.Section != nil {
			if s = u.namedAt(s.Section, s.Value+uint64(r.Addend)); s == nil {
				break
			}
		}
		res, err := u.resolve(sec, s)
		return s, res, err
	}
	return nil, Resolution{}, u.unsupported(sec, "", fmt.Sprintf("the entry at 0x%x has no key with a name", at))
}

// ofModule reports whether something is in a module that may be loaded later.
func (r Resolution) ofModule() bool { return r.Source == Running && r.Object != vmlinux }

// keepJumpLabel says whether the entry of a jump label is carried. The kernel's
// module loader handles keys of vmlinux, and keys that the module brings along with
// their initial state (jump_label_add_module in kernel/jump_label.c). It looks at
// the key at once, so the address of one in another module would have to be known
// when the livepatch is loaded: nothing can be done for those but to leave the
// code as it was compiled, which for debugging aids is off.
func (u *unit) keepJumpLabel(t table, sec *object.Section, at uint64, relocs []object.Reloc, where site) (bool, error) {
	s, res, err := u.key(t, sec, at, relocs)
	if err != nil {
		return false, err
	}
	if !res.ofModule() {
		if u.b.readOnly(res) && len(u.b.kernel.symbols.addrs["jump_label_init_ro"]) == 0 {
			return false, u.unsupported(sec, s.Name, "the static key is read-only once the kernel has booted, and loading the module would make this kernel write to it, which is an Oops")
		}
		return true, nil
	}
	what := ""
	switch {
	case strings.HasPrefix(s.Name, "__tracepoint_"):
		what = "tracepoint " + strings.TrimPrefix(s.Name, "__tracepoint_")
	case s.Section != nil && s.Section.Name == dynamicDebug:
		what = "dynamic debug message"
	default:
		return false, u.unsupported(sec, s.Name, fmt.Sprintf(
			"the static key is in the module %s, and the kernel cannot switch code of a livepatch by it; write static_key_enabled() where it is tested, as the kernel's advice to livepatch authors is", res.Object))
	}
	u.b.note(fmt.Sprintf("%s: %s: the %s of the module %s stays off in the new code", u.Name, u.nameIn(where.chunk), what, res.Object))
	return false, nil
}

// keepStaticCall says whether the entry of a static call is carried. A site that is
// not announced calls the trampoline, which the kernel keeps up to date: slower by
// one jump, and right. That is the way for keys in modules; and for new keys of a
// module's code, whose functions may not be known when the kernel reads the keys
// (static_call_add_module in kernel/static_call_inline.c). A new key of vmlinux's
// code is handled as that of any module; a key that is not exported is known by
// its trampoline.
func (u *unit) keepStaticCall(t table, sec *object.Section, at uint64, relocs []object.Reloc) bool {
	_, res, err := u.key(t, sec, at, relocs)
	return err == nil && !res.ofModule() && !u.b.readOnly(res) && (res.Source != Copied || u.Target == vmlinux)
}

// readOnly reports whether a key of vmlinux is in data that the kernel makes read-only
// at the end of the boot (__ro_after_init). The kernel enters the module in every key
// that it refers to, and leaves out those for jump labels alone, if it seals them
// (jump_label_init_ro, Linux 6.10).
func (b *builder) readOnly(res Resolution) bool {
	var addr uint64
	switch res.Source {
	case Exported:
		addr = b.in.Image.Exports[res.Name].Addr
	case Running:
		var err error
		if addr, err = b.kernel.symbol(res.Name, res.Sympos); err != nil {
			return false // said where the reference is made
		}
	default:
		return false
	}
	start, end := b.kernel.symbols.addrs["__start_ro_after_init"], b.kernel.symbols.addrs["__end_ro_after_init"]
	return len(start) == 1 && len(end) == 1 && start[0] <= addr && addr < end[0]
}
