// SPDX-License-Identifier: Apache-2.0

package build

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/upsplice/upsplice/splice/compile"
	"github.com/upsplice/upsplice/splice/kbuild"
	"github.com/upsplice/upsplice/splice/kimage"
	"github.com/upsplice/upsplice/splice/layout"
	"github.com/upsplice/upsplice/splice/match"
	"github.com/upsplice/upsplice/splice/objdiff"
	"github.com/upsplice/upsplice/splice/object"
	"github.com/upsplice/upsplice/splice/splicefile"
)

// candidate is a changed unit on its way to a verdict.
type candidate struct {
	pair
	reached bool                // by a changed header only
	reasons []splicefile.Reason // why it cannot go live
	boot    []splicefile.Reason // what differs without any effect on what runs

	family *family // nil for a unit that was not compared

	img, next             *kimage.Image // what the unit is part of: running and, if at hand, of the new kernel
	preObject, postObject *compile.Object
	pre, post             *object.Object // the compiled objects; they shadow pair's units
	diff                  *objdiff.Result
	found                 *match.Report // pre in the running kernel's image
	postMatch             splicefile.Check
}

func (c *candidate) refuse(code, what, detail string) {
	r := splicefile.Reason{Code: code, What: what, Detail: detail}
	if !slices.Contains(c.reasons, r) {
		c.reasons = append(c.reasons, r)
	}
}

// screen refuses what can be told without compiling.
func (c *candidate) screen() {
	if line := c.line(); line != "" {
		c.refuse("flags", c.object, line)
		return
	}
	if c.pair.pre.Target == kbuild.Elsewhere {
		c.refuse("init", c.object, "boot code, vDSO or the like: not a part of the running kernel that can be redirected")
	}
}

// headers refuses a unit that was compiled from a header whose change goes live
// nowhere.
func (c *candidate) headers(deferred []string) {
	for _, o := range []*compile.Object{c.preObject, c.postObject} {
		for _, d := range o.Deps {
			if slices.Contains(deferred, d) {
				c.refuse("header", d, "compiled from a header that changed and that other units see")
			}
		}
	}
}

// postFailed: only the new code does not compile.
func (c *candidate) postFailed() bool {
	return c.preObject != nil && c.postObject == nil
}

// open finds what the unit is part of in both kernels.
func (c *candidate) open(from, to *images) error {
	var err error
	if c.img, err = from.target(c.pair.pre.Target); errors.Is(err, errNoModule) {
		c.refuse("module", c.pair.pre.Target, err.Error())
		return nil
	} else if err != nil {
		return err
	}
	if !to.known() {
		return nil
	}
	if c.next, err = to.target(c.pair.pre.Target); errors.Is(err, errNoModule) {
		c.refuse("module", c.pair.pre.Target, "the new code cannot be compared with what is shipped: "+err.Error())
		return nil
	}
	return err
}

// compare diffs the two objects. It is false for a unit without any difference.
func (c *candidate) compare(entries map[string]objdiff.Struct) (bool, error) {
	var err error
	if c.pre, err = object.ReadFile(c.preObject.Path); err != nil {
		return false, err
	}
	if c.post, err = object.ReadFile(c.postObject.Path); err != nil {
		return false, err
	}
	c.diff, err = objdiff.CompareWith(c.pre, c.post, entries)
	if err != nil {
		c.refuse("section", c.object, err.Error())
		return true, nil
	}
	return c.diff.Outcome != objdiff.Unchanged, nil
}

// judge turns what the differ refuses into reasons.
func (c *candidate) judge() {
	for _, r := range c.diff.Refusals {
		what := r.Symbol
		if what == "" {
			what = r.Section
		}
		if r.Blocks() {
			c.refuse(refusalCode(r.Reason), what, r.Reason)
		} else {
			c.boot = append(c.boot, splicefile.Reason{Code: refusalCode(r.Reason), What: what, Detail: r.Reason})
		}
	}
	if !c.bootOnly() {
		// The new code may count on what the new boot code would have prepared.
		for _, r := range c.boot {
			c.refuse(r.Code, r.What, r.Detail)
		}
	}
}

// bootOnly units differ in nothing that is used again after boot.
func (c *candidate) bootOnly() bool {
	return len(c.reasons) == 0 && c.diff != nil && len(c.boot) > 0 && len(c.diff.Functions) == 0 && len(c.diff.Data) == 0
}

// refusalCode maps what package objdiff says to the stable codes.
func refusalCode(reason string) string {
	switch {
	case strings.HasPrefix(reason, "init:"):
		return "init"
	case strings.HasPrefix(reason, "no fentry"):
		return "no-fentry"
	case strings.HasPrefix(reason, "existing data changed"):
		return "data"
	case strings.HasPrefix(reason, "weak:"):
		return "weak"
	case strings.HasPrefix(reason, "custom code:"):
		return "custom"
	}
	return "section"
}

// layouts refuses a unit whose two sides, or whose pre side and the running
// kernel, disagree about a type.
func (c *candidate) layouts(running *layout.Types) error {
	pre, err := typesOf(c.preObject.Path)
	if err != nil {
		return err
	}
	post, err := typesOf(c.postObject.Path)
	if err != nil {
		return err
	}
	for _, d := range layout.Compare(pre, post) {
		c.refuse("layout", d.Type, d.Detail)
	}
	if running == nil {
		return nil
	}
	for _, d := range layout.Compare(running, pre) {
		c.refuse("layout", d.Type, "as compiled it is not that of the running kernel: "+d.Detail)
	}
	return nil
}

func typesOf(path string) (*layout.Types, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	t, err := layout.FromDWARF(f)
	if err != nil {
		return nil, fmt.Errorf("reading the types of %s: %w", path, err)
	}
	return t, nil
}

// settled units have nothing to be looked for: they cannot go live, or need not.
func (c *candidate) settled() bool { return len(c.reasons) > 0 || c.bootOnly() }

// matchPre finds what is wanted of the unit in the running kernel's image.
func (c *candidate) matchPre(w wanted) error {
	// The places of data are read out of the code that refers to them: of every
	// function of the unit that can be found.
	var want []*object.Symbol
	for _, f := range c.pre.Functions() {
		if w.functions[f] || slices.ContainsFunc(references(c.pre, f), func(s *object.Symbol) bool { return w.data[s] }) {
			want = append(want, f)
		}
	}
	for _, f := range c.diff.Functions {
		if f.Kind != objdiff.KindNew || f.Post.Bind == elf.STB_LOCAL {
			continue
		}
		if _, err := global(c.img, f.Name); !errors.Is(err, errNotRunning) {
			c.refuse("weak", f.Name, "the function is new in this unit, and another one of this name runs: it would have to take its place")
		}
	}
	var err error
	if c.found, err = match.Functions(c.pre, c.img, want); err != nil {
		return fmt.Errorf("matching %s with %s of %s: %w", c.object, c.img.Name, c.img.Release, err)
	}
	for _, m := range c.found.Failed {
		for f := range w.functions {
			if f.Name == m.Function && c.family.owner[f] == c {
				c.refuse("pre-mismatch", m.Function, m.Error())
				break
			}
		}
	}
	return nil
}

// matchPost checks the new code against the new kernel's image: it proves that
// source, configuration, compiler and options reproduce what the vendor ships.
func (c *candidate) matchPost() error {
	var want []*object.Symbol
	for _, f := range c.diff.Functions {
		if f.Post != nil {
			want = append(want, f.Post)
		}
	}
	r, err := match.Functions(c.post, c.next, want)
	if err != nil {
		return fmt.Errorf("matching %s with %s: %w", c.object, c.next.Name+" of "+c.next.Release, err)
	}
	for _, f := range want {
		c.postMatch.Total++
		if _, ok := r.Found[f]; ok {
			c.postMatch.Matched++
		}
	}
	wanted := make(map[string]bool)
	for _, f := range want {
		wanted[f.Name] = true
	}
	for _, m := range r.Failed {
		if wanted[m.Function] {
			c.refuse("post-mismatch", m.Function, m.Error())
		}
	}
	return nil
}

// referred are the symbols that the new code refers to.
func (c *candidate) referred() []*object.Symbol {
	var list []*object.Symbol
	for _, f := range c.diff.Functions {
		if f.Post != nil {
			list = append(list, references(c.post, f.Post)...)
		}
	}
	return list
}

// references are the symbols that a function's relocations name. Those of a
// section stand for all symbols in it.
func references(o *object.Object, f *object.Symbol) []*object.Symbol {
	if f.Section == nil {
		return nil
	}
	var list []*object.Symbol
	for _, r := range f.Section.Relocs {
		if r.Offset < f.Value || r.Offset >= f.Value+f.Size || r.Symbol == nil {
			continue
		}
		if r.Symbol.Section == nil || r.Symbol.Name != "" && r.Symbol.Name != r.Symbol.Section.Name {
			list = append(list, r.Symbol)
			continue
		}
		for _, s := range o.Symbols {
			if s.Section == r.Symbol.Section && s != r.Symbol {
				list = append(list, s)
			}
		}
	}
	return list
}

// failures maps the objects that did not compile to why, and returns any other error.
func failures(err error) (map[string]*compile.Error, error) {
	failed := make(map[string]*compile.Error)
	var list []error
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		list = joined.Unwrap()
	} else if err != nil {
		list = []error{err}
	}
	for _, e := range list {
		var ce *compile.Error
		if !errors.As(e, &ce) || ce.Unit == "" || fatal(e) {
			return nil, e
		}
		failed[ce.Unit] = ce
	}
	return failed, nil
}
