// SPDX-License-Identifier: Apache-2.0

package build

import (
	"context"
	"fmt"

	"github.com/upsplice/upsplice/splice/reach"
)

// mostReached is how many units an update may have compiled for the sake of its
// headers. A large one reaches most of the kernel; a patch that somebody wrote is
// examined whatever it takes.
const mostReached = 300

// reached is what changed headers, and sources that others include, do to units
// whose own source is as it was.
type reached struct {
	units    map[string]bool
	deferred []string // headers of which not all users are examined
}

func (b *builder) reached(ctx context.Context, c changes) (reached, error) {
	r := reached{units: map[string]bool{}}
	trees := reach.Trees{Pre: b.from.tree, Post: b.to.tree, Output: b.output.Dir}
	if files := unclaimed(c.sources, b.units, b.moved); len(files) > 0 {
		including, err := reach.Sources(ctx, trees, b.units, files)
		if err != nil {
			return r, err
		}
		for object := range including {
			r.units[object] = true
		}
	}
	if len(c.headers) == 0 {
		return r, nil
	}
	b.report.event("units", fmt.Sprintf("looking for the users of %d changed headers", len(c.headers)), 0, 0)
	list, err := reach.Changes(ctx, trees, c.headers)
	if err != nil {
		return r, err
	}
	found, err := reach.Units(ctx, trees, b.units, list)
	if err != nil {
		return r, err
	}
	if b.set == nil && len(found) > mostReached {
		r.deferred = c.headers
		return r, nil
	}
	for object := range found {
		r.units[object] = true
	}
	return r, nil
}
