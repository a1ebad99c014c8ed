// SPDX-License-Identifier: Apache-2.0

package build

import (
	"cmp"
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/upsplice/upsplice/splice/kimage"
	"github.com/upsplice/upsplice/splice/livepatch"
	"github.com/upsplice/upsplice/splice/match"
	"github.com/upsplice/upsplice/splice/objdiff"
	"github.com/upsplice/upsplice/splice/object"
	"github.com/upsplice/upsplice/splice/splicefile"
)

// draftName is as long as the name that the module gets once its contents, which
// the name is made from, are known.
const draftName = "upsplice_000000000000"

// module writes the module of all live groups. A unit that the writer refuses
// defers its group; then the rest is tried again.
func (b *builder) module(ctx context.Context, groups []*group, vermagic string) (name string, m livepatch.Module, err error) {
	core, err := b.images.from.vmlinux()
	if err != nil {
		return "", m, err
	}
	from, to, err := b.identities()
	if err != nil {
		return "", m, err
	}
	for {
		in := livepatch.Input{Name: draftName, Vermagic: vermagic, Image: core, Modules: b.images.from.opened(), Replace: true}
		if in.Units = b.liveUnits(groups, core); len(in.Units) == 0 {
			return "", m, nil
		}
		if in.Support, err = b.support(ctx, in.Units); err != nil {
			return "", m, err
		}
		draft, err := livepatch.Write(in)
		var unsupported *livepatch.UnsupportedError
		if errors.As(err, &unsupported) {
			if !deferUnit(groups, unsupported) {
				return "", m, err
			}
			continue
		}
		if err != nil {
			return "", m, err
		}
		h := sha256.New()
		json.NewEncoder(h).Encode([]any{from, to})
		h.Write(draft.Data)
		in.Name = "upsplice_" + hex.EncodeToString(h.Sum(nil)[:6])
		m, err = livepatch.Write(in)
		return in.Name, m, err
	}
}

// deferUnit gives the group of a refused unit the reason; false if it is of none.
func deferUnit(groups []*group, e *livepatch.UnsupportedError) bool {
	for _, g := range groups {
		for _, c := range g.members {
			if c.object == e.Unit && g.live() {
				what := cmp.Or(e.Symbol, e.Section, e.Unit)
				code := "section"
				if e.Err != nil {
					code = "pre-mismatch" // something that the new code refers to was not found
				}
				g.reasons = append(g.reasons, splicefile.Reason{Code: code, What: what, Detail: e.Error()})
				return true
			}
		}
	}
	return false
}

func (b *builder) liveUnits(groups []*group, core *kimage.Image) []livepatch.Unit {
	added := make(map[string]bool)
	var members []*candidate
	for _, g := range groups {
		if !g.live() {
			continue
		}
		for _, c := range g.members {
			members = append(members, c)
			for _, list := range [][]objdiff.Change{c.diff.Functions, c.diff.Data} {
				for _, f := range list {
					if (f.Kind == objdiff.KindNew || f.Moved) && f.Post.Bind != elf.STB_LOCAL {
						added[f.Name] = true
					}
				}
			}
		}
	}
	slices.SortFunc(members, func(a, b *candidate) int { return cmp.Compare(a.object, b.object) })
	var units []livepatch.Unit
	for _, c := range members {
		r := &resolver{candidate: c, core: core, added: added, exporter: b.images.from.symvers.Module}
		u := livepatch.Unit{Name: c.object, Target: c.img.Name, Post: c.post, Resolve: r.resolve}
		for _, cb := range c.diff.Callbacks {
			u.Callbacks = append(u.Callbacks, livepatch.Callback{When: cb.When, Function: cb.Function})
		}
		for _, f := range c.diff.Functions {
			if f.Post == nil {
				continue
			}
			lf := livepatch.Function{Post: f.Post}
			if f.Redirected() {
				old, _ := c.function(f.Pre)
				lf.OldName = old.Name
				if !old.Unique {
					lf.OldSympos = old.Sympos
				}
			}
			u.Functions = append(u.Functions, lf)
		}
		units = append(units, u)
	}
	return units
}

// fill writes what goes live into the manifest.
func (b *builder) fill(m *splicefile.Manifest, groups []*group) error {
	img, err := b.images.from.vmlinux()
	if err != nil {
		return err
	}
	if m.Targets, err = b.targets(groups); err != nil {
		return err
	}
	text := img.Lookup("_text")
	if len(text) != 1 {
		return fmt.Errorf("reading the image of %s: it has %d symbols _text", img.Release, len(text))
	}
	m.Text = text[0].Addr
	m.Functions, m.Expect = []splicefile.Function{}, []match.Expectation{}
	for _, g := range groups {
		if !g.live() {
			continue
		}
		for _, c := range g.members {
			m.PostMatch.Matched += c.postMatch.Matched
			m.PostMatch.Total += c.postMatch.Total
			for _, f := range c.diff.Functions {
				switch {
				case f.Post == nil:
				case f.Redirected():
					old, _ := c.function(f.Pre)
					m.Functions = append(m.Functions, splicefile.Function{Name: old.Name, Object: c.img.Name, Sympos: old.Sympos, Unit: c.object, Kind: string(objdiff.KindChanged)})
				default:
					m.Functions = append(m.Functions, splicefile.Function{Name: f.Name, Object: c.img.Name, Unit: c.object, Kind: string(objdiff.KindNew)})
				}
			}
			m.Expect = append(m.Expect, match.Expect(c.img, c.pre, c.expected())...)
		}
	}
	slices.SortFunc(m.Functions, func(a, b splicefile.Function) int {
		return cmp.Or(cmp.Compare(a.Unit, b.Unit), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Sympos, b.Sympos))
	})
	slices.SortFunc(m.Expect, func(a, b match.Expectation) int {
		return cmp.Or(cmp.Compare(a.Object, b.Object), cmp.Compare(a.Section, b.Section), cmp.Compare(a.Addr, b.Addr))
	})
	m.Expect = slices.CompactFunc(m.Expect, func(a, b match.Expectation) bool {
		return a.Object == b.Object && a.Section == b.Section && a.Addr == b.Addr
	})
	return nil
}

// expected are the functions that live memory is compared with before anything is
// loaded: those to be replaced and those of the unit that the new code calls.
func (c *candidate) expected() []match.Found {
	var list []match.Found
	for _, f := range c.diff.Functions {
		if found, ok := c.function(f.Pre); ok {
			list = append(list, found)
		}
	}
	for _, s := range c.referred() {
		if twin := c.diff.Twin[s]; twin != nil {
			if found, ok := c.function(twin); ok {
				list = append(list, found)
			}
		}
	}
	if len(list) == 0 {
		// Custom code alone, which changes data: what uses the unit's data is there.
		for s, found := range c.found.Found {
			if !boots(s) {
				list = append(list, found)
			}
		}
	}
	slices.SortFunc(list, func(a, b match.Found) int { return cmp.Compare(a.Addr, b.Addr) })
	return slices.CompactFunc(list, func(a, b match.Found) bool { return a.Addr == b.Addr })
}

// boots: the memory of the function has been given away.
func boots(s *object.Symbol) bool {
	return strings.HasPrefix(s.Section.Name, ".init") || strings.HasPrefix(s.Section.Name, ".exit")
}

func vermagicOf(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("needing any module of the running kernel: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return "", err
	}
	v, err := livepatch.Vermagic(f, st.Size())
	if err != nil {
		return "", fmt.Errorf("reading %s: %w", path, err)
	}
	return v, nil
}
