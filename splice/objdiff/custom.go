// SPDX-License-Identifier: Apache-2.0

package objdiff

import (
	"bytes"
	"debug/elf"
	"fmt"
	"slices"
	"strings"

	"github.com/upsplice/upsplice/splice/object"
)

// What the author of a patch says with macros stands in sections of its own. They
// are read here and go no further.
//
// Formats: the patch author guide of kpatch and the macros that it names
// (.kpatch.callbacks.WHEN: two pointers, the function and the object's name, the
// latter not filled in; .kpatch.ignore.functions: pointers to functions;
// .kpatch.ignore.sections: pointers to strings); include/linux/livepatch_helpers.h
// of Linux 6.19 (.discard.klp_callback_ptrs: pointers to functions, each with a
// symbol that says when).
const (
	customPrefix    = ".kpatch."
	callbackPrefix  = ".kpatch.callbacks."
	ignoreFunctions = ".kpatch.ignore.functions"
	ignoreSections  = ".kpatch.ignore.sections"
	// KPATCH_FORCE_UNSAFE asks to replace a function while it runs. Tasks change
	// over one by one here, so that there is nothing to skip.
	force        = ".kpatch.force"
	callbackPtrs = ".discard.klp_callback_ptrs"

	pointerSize  = 8
	callbackSize = 2 * pointerSize
)

var callbackKinds = []string{"pre_patch", "post_patch", "pre_unpatch", "post_unpatch"}

type custom struct {
	callbacks []Callback // of post, whatever pre has
	functions map[*object.Symbol]bool
	sections  map[string]bool
}

func (d *differ) readCustom(r *Result) {
	d.custom = custom{functions: map[*object.Symbol]bool{}, sections: map[string]bool{}}
	refuse := func(sec *object.Section, format string, args ...any) {
		r.Refusals = append(r.Refusals, Refusal{Section: sec.Name, Reason: "custom code: " + fmt.Sprintf(format, args...)})
	}
	for _, sec := range d.post.obj.Sections {
		switch {
		case sec.Name == callbackPtrs, strings.HasPrefix(sec.Name, callbackPrefix):
			list, err := d.post.callbacks(sec)
			if err != nil {
				refuse(sec, "%v", err)
			}
			d.custom.callbacks = append(d.custom.callbacks, list...)
		case sec.Name == ignoreFunctions:
			for _, rel := range sec.Relocs {
				f := d.post.pointed(rel)
				if f == nil || !d.post.isCode(f) {
					refuse(sec, "the entry at 0x%x names no function of this unit", rel.Offset)
					continue
				}
				d.custom.functions[f] = true
			}
		case sec.Name == ignoreSections:
			for _, rel := range sec.Relocs {
				name, ok := d.post.pointedString(rel)
				if !ok {
					refuse(sec, "the entry at 0x%x is not a string", rel.Offset)
					continue
				}
				d.custom.sections[name] = true
			}
		case sec.Name == force:
		case strings.HasPrefix(sec.Name, customPrefix):
			refuse(sec, "not a section that is known: use the callbacks and KPATCH_IGNORE_… macros")
		}
	}
}

// callbacks reads the callbacks that a section registers.
func (s *side) callbacks(sec *object.Section) ([]Callback, error) {
	var list []Callback
	for _, rel := range sec.Relocs {
		kind, inName := strings.CutPrefix(sec.Name, callbackPrefix)
		if !inName {
			name := ""
			if c := s.index.Covering(sec, rel.Offset); c != nil {
				name = c.Name
			}
			for _, k := range callbackKinds {
				if strings.HasPrefix(name, "__klp_"+k+"_callback_") {
					kind = k
				}
			}
		} else if rel.Offset%callbackSize != 0 || sec.Size%callbackSize != 0 {
			return nil, fmt.Errorf("the entry at 0x%x is not a function and the empty name of an object", rel.Offset)
		}
		if !slices.Contains(callbackKinds, kind) {
			return nil, fmt.Errorf("the entry at 0x%x is for no known event", rel.Offset)
		}
		f := s.pointed(rel)
		if f == nil || !s.isCode(f) {
			return nil, fmt.Errorf("the %s callback is not a function of this unit", kind)
		}
		list = append(list, Callback{When: kind, Function: f})
	}
	return list, nil
}

// pointed returns the symbol that a pointer is to, nil if there is none just there.
func (s *side) pointed(rel object.Reloc) *object.Symbol {
	if elf.R_X86_64(rel.Type) != elf.R_X86_64_64 {
		return nil
	}
	if t := s.target(rel.Symbol, rel.Addend); t.kind == toSymbol && t.off == 0 {
		return t.sym
	}
	return nil
}

// pointedString returns the string that a pointer is to.
func (s *side) pointedString(rel object.Reloc) (string, bool) {
	if rel.Symbol == nil || rel.Symbol.Section == nil || elf.R_X86_64(rel.Type) != elf.R_X86_64_64 {
		return "", false
	}
	data, at := rel.Symbol.Section.Data, int64(rel.Symbol.Value)+rel.Addend
	if at < 0 || at >= int64(len(data)) {
		return "", false
	}
	text, _, ok := bytes.Cut(data[at:], []byte{0})
	return string(text), ok
}

// ignoresSection says that differences of a section do not count, and notes it.
func (d *differ) ignoresSection(r *Result, name string) bool {
	if !d.custom.sections[name] {
		return false
	}
	r.Ignored = append(r.Ignored, name)
	return true
}

// ignores says that differences of a function do not count. What was split off
// from it goes with it.
func (d *differ) ignores(f *object.Symbol) (string, bool) {
	if d.custom.sections[f.Section.Name] {
		return f.Section.Name, true
	}
	if d.custom.functions[f] {
		return f.Name, true
	}
	for g := range d.custom.functions {
		if parentName(f.Name) == g.Name {
			return g.Name, true
		}
	}
	return "", false
}

func (d *differ) ignoreCode(r *Result, v *verdicts) {
	for f := range v.changed {
		if name, ok := d.ignores(f); ok {
			r.Ignored = append(r.Ignored, name)
			delete(v.changed, f)
		}
	}
}

// addCallbacks adds the callbacks that pre does not have.
func (d *differ) addCallbacks(r *Result, v *verdicts) {
	seen := map[string]bool{}
	for _, c := range d.custom.callbacks {
		refuse := func(reason string) {
			r.Refusals = append(r.Refusals, Refusal{Section: c.Function.Section.Name, Symbol: c.Function.Name, Reason: "custom code: " + reason})
		}
		change := v.changed[c.Function]
		switch {
		case seen[c.When]:
			refuse("a second " + c.When + " callback in one unit: call one from the other")
			continue
		case change == nil && d.hadCallback(c):
			continue
		case change == nil:
			refuse("the " + c.When + " callback is a function of the running kernel: write one for the purpose")
		case isBoot(change.Section):
			refuse("the " + c.When + " callback is in a section of boot code: take __init or __exit away")
		}
		seen[c.When] = true
		r.Callbacks = append(r.Callbacks, c)
	}
	slices.SortFunc(r.Callbacks, func(a, b Callback) int {
		return slices.Index(callbackKinds, a.When) - slices.Index(callbackKinds, b.When)
	})
}

func (d *differ) hadCallback(c Callback) bool {
	for _, sec := range d.pre.obj.Sections {
		if !strings.HasPrefix(sec.Name, callbackPrefix) && sec.Name != callbackPtrs {
			continue
		}
		list, _ := d.pre.callbacks(sec)
		for _, old := range list {
			if old.When == c.When && old.Function == d.codeTwin(c.Function) {
				return true
			}
		}
	}
	return false
}

// checkIgnored refuses new code that refers to what is ignored and is not in the
// running kernel.
func (d *differ) checkIgnored(r *Result) {
	if len(d.custom.sections)+len(d.custom.functions) == 0 {
		return
	}
	for _, c := range r.Functions {
		if c.Post == nil {
			continue
		}
		for _, f := range d.post.fields(c.Post) {
			t := f.targets[0]
			if t.kind != toSymbol || d.twin[t.sym] != nil || isContent(t.sym) {
				continue
			}
			if name, ok := d.ignores(t.sym); ok {
				r.Refusals = append(r.Refusals, Refusal{Section: t.sym.Section.Name, Symbol: t.sym.Name,
					Reason: fmt.Sprintf("custom code: %s is ignored, but the new code of %s refers to %s, which the running kernel does not have", name, c.Name, t.sym.Name)})
			}
		}
	}
}
