// SPDX-License-Identifier: Apache-2.0

package build

import (
	"context"
)

// reached is what changed headers, and sources that others include, do to units
// whose own source is as it was.
type reached struct {
	units    map[string]bool
	deferred []string // headers of which not all users are examined
}

func (b *builder) reached(ctx context.Context, c changes) (reached, error) {
	r := reached{units: map[string]bool{}}
	includes, err := included(ctx, b.from.tree, b.units, unclaimed(c.sources, b.units, b.moved))
	if err != nil {
		return r, err
	}
	for object := range includes {
		r.units[object] = true
	}
	r.deferred = c.headers
	return r, nil
}
