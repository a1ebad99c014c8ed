// SPDX-License-Identifier: Apache-2.0

package build

import (
	"context"
	"slices"
)

// firstReached is how many units that a changed header reaches are looked at first.
const firstReached = 8

// examine finds out what can go live of the units. A patch goes live whole or not
// at all: where a few units, those that it changes itself first, are refused, the
// hundreds that a header may reach need not be compiled.
func (b *builder) examine(ctx context.Context, list []*candidate) ([]*candidate, error) {
	if b.set == nil {
		return b.examineAll(ctx, list)
	}
	var few []*candidate
	others := 0
	for _, c := range list {
		if c.reached {
			others++
		}
		if !c.reached || others <= firstReached {
			few = append(few, c)
		}
	}
	if len(few) == len(list) {
		return b.examineAll(ctx, list)
	}
	seen, err := b.examineAll(ctx, few)
	if err != nil || slices.ContainsFunc(seen, func(c *candidate) bool { return len(c.reasons) > 0 }) {
		return seen, err
	}
	for i, c := range list {
		list[i] = &candidate{pair: c.pair, reached: c.reached}
		list[i].screen()
	}
	return b.examineAll(ctx, list)
}

// examineAll compiles what was not refused so far, and finds reasons to refuse more
// of it. Units without any difference are dropped.
func (b *builder) examineAll(ctx context.Context, list []*candidate) ([]*candidate, error) {
	stop := b.report.time("compile")
	if err := b.compile(ctx, list); err != nil {
		return nil, err
	}
	stop()
	if err := ctx.Err(); err != nil {
		return nil, err
	}

	stop = b.report.time("diff")
	list, err := b.compare(list)
	if err != nil {
		return nil, err
	}
	all := families(list)
	for _, c := range list {
		if c.diff != nil {
			c.judge()
		}
		if err := b.layouts(c); err != nil {
			return nil, err
		}
	}
	stop()

	stop = b.report.time("match")
	for _, f := range all {
		if err := b.match(ctx, f); err != nil {
			return nil, err
		}
	}
	stop()
	return list, nil
}

// compare diffs the objects of each unit.
func (b *builder) compare(list []*candidate) ([]*candidate, error) {
	if len(list) == 0 {
		return nil, nil
	}
	entries, err := b.images.from.entries()
	if err != nil {
		return nil, err
	}
	var kept []*candidate
	for i, c := range list {
		b.report.event("diff", c.object, int64(i), int64(len(list)))
		if c.preObject == nil || c.postObject == nil {
			kept = append(kept, c)
			continue
		}
		differs, err := c.compare(entries)
		if err != nil {
			return nil, err
		}
		if differs || len(c.reasons) > 0 {
			c.headers(b.deferred)
			kept = append(kept, c)
		}
	}
	return kept, nil
}

// layouts opens what a unit is part of and compares the types of the three: the
// running kernel, the old and the new code.
func (b *builder) layouts(c *candidate) error {
	if c.preObject == nil || c.postObject == nil || c.bootOnly() {
		return nil
	}
	if err := c.open(b.images.from, b.images.to); err != nil || c.img == nil {
		return err
	}
	running, err := b.images.from.layouts(c.pair.pre.Target)
	if err != nil {
		return err
	}
	return c.layouts(running)
}

// match finds the units of a target in the images.
func (b *builder) match(ctx context.Context, f *family) error {
	w := f.want()
	for i, c := range f.members {
		if err := ctx.Err(); err != nil {
			return err
		}
		b.report.event("match", c.object, int64(i), int64(len(f.members)))
		if c.settled() {
			continue
		}
		if err := c.matchPre(w); err != nil {
			return err
		}
		if c.next != nil {
			if err := c.matchPost(); err != nil {
				return err
			}
		}
	}
	return nil
}
