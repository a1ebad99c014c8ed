// SPDX-License-Identifier: Apache-2.0

package build

import (
	"context"
	"slices"

	"github.com/upsplice/upsplice/splice/freeze"
	"github.com/upsplice/upsplice/splice/kbuild"
	"github.com/upsplice/upsplice/splice/policy"
	"github.com/upsplice/upsplice/splice/splicefile"
)

// restrict defers what of an update the administrator does not want live.
func (b *builder) restrict(ctx context.Context, groups []*group) error {
	rules, err := policy.New(b.Policy.Allow, b.Policy.Deny)
	if err != nil {
		return err
	}
	for _, g := range groups {
		if g.boot() {
			continue
		}
		var changes []policy.Change
		var files []string
		for _, c := range g.members {
			source := c.source()
			files = append(files, source)
			changes = append(changes, c.changes(source)...)
			if c.pair.pre != nil && !b.wanted(c.pair.pre.Target) {
				g.reasons = append(g.reasons, splicefile.Reason{Code: policy.Code, What: c.object,
					Detail: "its module is not loaded, and the configuration leaves such modules out"})
			}
		}
		if r, unwanted := rules.Unwanted(changes); unwanted {
			g.reasons = append(g.reasons, r)
		}
		if !b.Policy.Fixes {
			continue
		}
		slices.Sort(files)
		src, err := freeze.Read(ctx, b.from.tree, b.to.tree, slices.Compact(files))
		if err != nil {
			return err
		}
		var entities []freeze.Entity
		for _, e := range src.Entities {
			entities = append(entities, *e)
		}
		if r, adds := policy.Addition(entities); adds {
			g.reasons = append(g.reasons, r)
		}
	}
	return nil
}

// source is what the unit is compiled from.
func (c *candidate) source() string {
	if c.pair.pre != nil {
		return c.pair.pre.Source
	}
	return c.pair.post.Source
}

func (c *candidate) changes(source string) []policy.Change {
	if c.diff == nil || len(c.diff.Functions) == 0 {
		return []policy.Change{{File: source}}
	}
	var list []policy.Change
	for _, f := range c.diff.Functions {
		list = append(list, policy.Change{File: source, Function: f.Name})
	}
	return list
}

// wanted says whether a target is to be patched at all.
func (b *builder) wanted(target string) bool {
	return b.Policy.Modules == nil || target == kbuild.Vmlinux || slices.Contains(b.Policy.Modules, moduleName(target))
}
