// SPDX-License-Identifier: Apache-2.0

package rehearse

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/upsplice/upsplice/hook/words"
)

// rounds applies, uses and undoes again and again while the machine is under load,
// and looks at what grows.
func (g *guest) rounds(ctx context.Context) (string, error) {
	total := g.plan.Rounds
	samples := make([]slabs, 3)
	modules := 0
	sample := func(i int) error {
		n, err := loadedModules()
		if err != nil {
			return err
		}
		if i == 0 {
			modules = n
		} else if n != modules {
			return fmt.Errorf("%s loaded after %s, %d before", words.Count(n, "module"), words.Count(len(g.final.Undo), "round"), modules)
		}
		samples[i], err = g.quietSlabs()
		return err
	}
	// The first rounds fill caches that stay.
	if err := g.someRounds(ctx, 2); err != nil {
		return "", err
	}
	g.final.Apply, g.final.Undo = nil, nil
	if err := sample(0); err != nil {
		return "", err
	}
	for i, n := range []int{total / 2, total - total/2} {
		if err := g.someRounds(ctx, n); err != nil {
			return "", fmt.Errorf("in round %d of %d: %w", len(g.final.Undo)+1, total, err)
		}
		if err := sample(i + 1); err != nil {
			return "", err
		}
	}
	if g.final.Slabs = growing(samples[0], samples[1], samples[2], total); len(g.final.Slabs) > 0 {
		s := g.final.Slabs[0]
		return "", fmt.Errorf("%s %s from round to round, the first: %s from %d to %d to %d objects",
			words.Count(len(g.final.Slabs), "slab cache"), words.Verb(len(g.final.Slabs), "grow"), s.Cache, s.Before, s.Middle, s.After)
	}
	return fmt.Sprintf("%s under load, medians: apply %.2f s, undo %.2f s; %s and %s do not grow",
		words.Count(total, "round"), median(g.final.Apply), median(g.final.Undo), words.Count(len(samples[2]), "slab cache"), words.Count(modules, "module")), nil
}

func (g *guest) someRounds(ctx context.Context, n int) (err error) {
	loadCtx, stop := context.WithCancel(ctx)
	l := startLoad(loadCtx, filepath.Join(scratch, "load"))
	defer func() {
		stop()
		if loadErr := l.wait(); err == nil && loadErr != nil {
			err = fmt.Errorf("under load: %w", loadErr)
		}
	}()
	for range n {
		start := time.Now()
		if err := g.kernel.Apply(ctx, g.splice, nil); err != nil {
			return err
		}
		applied := time.Now()
		if err := g.isLive(); err != nil {
			return err
		}
		if _, err := exercise(ctx, scratch); err != nil {
			return err
		}
		used := time.Now()
		if err := g.kernel.Undo(ctx, g.splice, nil); err != nil {
			return err
		}
		g.final.Apply = append(g.final.Apply, applied.Sub(start).Seconds())
		g.final.Undo = append(g.final.Undo, time.Since(used).Seconds())
		if err := g.isGone(); err != nil {
			return err
		}
		if g.final.Log = append(g.final.Log, Trouble(Messages(g.log))...); len(g.final.Log) > 0 {
			return errors.New("the kernel log says: " + g.final.Log[0])
		}
	}
	return nil
}

func loadedModules() (int, error) {
	b, err := os.ReadFile("/proc/modules")
	return strings.Count(string(b), "\n"), err
}

// quietSlabs counts objects while nothing runs: the file system is mounted anew, for
// what it remembers of its files, and what processors keep for themselves is put
// back where the kernel can be asked to.
func (g *guest) quietSlabs() (slabs, error) {
	if err := unix.Unmount(scratch, 0); err != nil {
		return nil, fmt.Errorf("unmounting %s: %w", scratch, err)
	}
	// Let deferred work be done: freeing after a grace period, closed connections.
	time.Sleep(2 * time.Second)
	files, _ := filepath.Glob("/sys/kernel/slab/*/shrink")
	for _, f := range files {
		_ = os.WriteFile(f, []byte("1"), 0) // a help only
	}
	f, err := os.Open("/proc/slabinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	s, err := parseSlabs(f)
	if err != nil {
		return nil, err
	}
	return s, g.mount()
}
