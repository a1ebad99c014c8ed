// SPDX-License-Identifier: Apache-2.0

package build

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/upsplice/upsplice/splice/compile"
	"github.com/upsplice/upsplice/splice/kbuild"
	"github.com/upsplice/upsplice/splice/livepatch"
	"github.com/upsplice/upsplice/splice/object"
)

// supportSource is what modules need of our own beside their new code.
const supportSource = "support/target.c"

// support compiles the support code of livepatches of modules, nil where no unit
// needs it.
func (b *builder) support(ctx context.Context, units []livepatch.Unit) (*object.Object, error) {
	if !slices.ContainsFunc(units, func(u livepatch.Unit) bool { return u.Target != kbuild.Vmlinux }) || b.CFiles == "" {
		return nil, nil
	}
	i := slices.IndexFunc(b.units, func(u kbuild.Unit) bool {
		return u.Target != kbuild.Vmlinux && u.Target != kbuild.Elsewhere && u.Objtool && filepath.Ext(u.Source) == ".c"
	})
	if i < 0 {
		return nil, errors.New("compiling the support code of modules: this kernel has no module to take the options from")
	}
	u := b.units[i]
	u.Args = slices.Clone(u.Args)
	u.Source = filepath.Join(b.CFiles, supportSource)
	u.Object = "upsplice/support.o"
	u.Args[len(u.Args)-1] = u.Source
	cc := &compile.Compiler{Output: b.output, Cache: b.store.path("objects", ""), Jobs: 1}
	objects, err := cc.Units(ctx, []kbuild.Unit{u}, nil)
	if err != nil {
		return nil, fmt.Errorf("compiling the support code of modules: %w", err)
	}
	return object.ReadFile(objects[0].Path)
}
