// SPDX-License-Identifier: Apache-2.0

package build

import (
	"context"
	"path/filepath"
	"runtime"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/upsplice/upsplice/splice/compile"
	"github.com/upsplice/upsplice/splice/kbuild"
)

// compile compiles both sides of each unit at once. The new side uses the running
// kernel's configuration and generated headers.
func (b *builder) compile(ctx context.Context, list []*candidate) error {
	var pre, post []kbuild.Unit
	for _, c := range list {
		if len(c.reasons) == 0 {
			pre = append(pre, *c.pair.pre)
			post = append(post, *c.pair.post)
		}
	}
	if len(pre) == 0 {
		return nil
	}
	post = moved(post, b.from.tree, b.to.tree)
	if b.set != nil && b.CFiles != "" {
		post = withInclude(post, filepath.Join(b.CFiles, "include"))
	}
	jobs := b.Jobs
	if jobs <= 0 {
		jobs = runtime.NumCPU()
	}
	output := *b.output
	output.Source = b.to.tree
	objects := b.store.path("objects", "")
	sides := [2]*compile.Compiler{
		{Output: b.output, Cache: objects, Jobs: max(1, jobs/2)},
		{Output: &output, Cache: objects, Jobs: max(1, jobs/2)},
	}
	units := [2][]kbuild.Unit{pre, post}
	var results [2][]compile.Object
	var failed [2]map[string]*compile.Error
	progress := make(chan string)
	counted := make(chan struct{})
	go func() {
		defer close(counted)
		n, total := int64(0), int64(len(pre)+len(post))
		b.report.event("compile", "", 0, total)
		for name := range progress {
			n++
			b.report.event("compile", name, n, total)
		}
	}()
	var g errgroup.Group
	for i := range sides {
		g.Go(func() error {
			var err error
			results[i], err = sides[i].Units(ctx, units[i], func(u kbuild.Unit) { progress <- u.Object })
			if ctxErr := ctx.Err(); ctxErr != nil {
				return ctxErr
			}
			failed[i], err = failures(err)
			return err
		})
	}
	err := g.Wait()
	close(progress)
	<-counted
	if err != nil {
		return err
	}
	byObject := [2]map[string]*compile.Object{{}, {}}
	for i := range results {
		for j, o := range results[i] {
			byObject[i][o.Unit.Object] = &results[i][j]
		}
	}
	for _, c := range list {
		if len(c.reasons) > 0 {
			continue
		}
		for i, side := range []string{"the running kernel's source", b.newSource()} {
			if e := failed[i][c.object]; e != nil {
				c.refuse("compile", c.object, side+": "+e.Error())
			}
		}
		c.preObject, c.postObject = byObject[0][c.object], byObject[1][c.object]
	}
	return nil
}

// withInclude adds a directory of headers, behind those of the kernel.
func withInclude(units []kbuild.Unit, dir string) []kbuild.Unit {
	out := slices.Clone(units)
	for i, u := range out {
		n := len(u.Args)
		if n < 5 {
			continue // package compile says what is wrong with the line
		}
		out[i].Args = slices.Insert(slices.Clone(u.Args), n-4, "-I"+dir)
	}
	return out
}

func (b *builder) newSource() string {
	if b.set != nil {
		return "the patched source"
	}
	return "the new source with the running kernel's configuration"
}
