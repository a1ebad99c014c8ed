// SPDX-License-Identifier: Apache-2.0

// Bench measures, for the newest adjacent pair of kernels with a small
// difference, how a splice is made: from both source archives on disk, and from one
// of them and a patch, cold and with the pre side prepared. Wall clock, processor
// time and peak memory in each stage; the size of the cache.
package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/upsplice/upsplice/hook/builder"
	"github.com/upsplice/upsplice/hook/pipeline"
	"github.com/upsplice/upsplice/hook/progress"
	"github.com/upsplice/upsplice/hook/rig"
	"github.com/upsplice/upsplice/kmod/lab"
	"github.com/upsplice/upsplice/splice/build"
	"github.com/upsplice/upsplice/splice/patch"
)

func main() {
	ctx := context.Background()
	var err error
	if len(os.Args) > 1 && os.Args[1] == builder.Verb {
		err = builder.Serve(ctx, os.Stdin, os.Stdout)
	} else {
		err = run(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	from, to, err := lab.SmallPair(ctx)
	if err != nil {
		return err
	}
	for _, k := range []*lab.Kernel{&from, &to} {
		if err := lab.Fetch(ctx, k); err != nil {
			return err
		}
	}
	cache, err := os.MkdirTemp("/var/tmp", "upsplice-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(cache)
	fmt.Printf("%s (%s) to %s (%s), %d processors\n\n", from.Release, from.Version, to.Release, to.Version, runtime.NumCPU())

	b := &builder.Builder{}
	update := build.Request{From: rig.Side(from), To: rig.Side(to), Cache: filepath.Join(cache, "update")}
	if err := bench(ctx, b, "the update, as the package manager brings it", update); err != nil {
		return err
	}
	// The same change as a patch: no second source archive is read.
	text, err := change(ctx, update.Cache)
	if err != nil {
		return err
	}
	file := filepath.Join(cache, "change.patch")
	if err := os.WriteFile(file, text, 0o644); err != nil {
		return err
	}
	own := build.Request{From: update.From, Patches: []string{file}, Cache: filepath.Join(cache, "patch")}
	return bench(ctx, b, "the same change as a patch", own)
}

// change is the difference of the two trees that the cache has.
func change(ctx context.Context, cache string) ([]byte, error) {
	names, err := filepath.Glob(filepath.Join(cache, "trees", "*.delta-*"))
	if err != nil || len(names) != 1 {
		return nil, fmt.Errorf("looking for the trees in %s: %d deltas, %w", cache, len(names), err)
	}
	to, from, _ := strings.Cut(names[0], ".delta-")
	return patch.FromTrees(ctx, filepath.Join(filepath.Dir(to), from), to)
}

// bench measures a request cold, and again with the pre side prepared.
func bench(ctx context.Context, b *builder.Builder, title string, req build.Request) error {
	cache := req.Cache
	cold, err := measure(func(s progress.Sink) (pipeline.Built, error) { return b.Build(ctx, req, s) })
	if err != nil {
		return err
	}
	req.Cache = cache + "-prepared"
	prep, err := measure(func(s progress.Sink) (pipeline.Built, error) {
		return pipeline.Built{}, b.Prepare(ctx, req.From, req.Cache, s)
	})
	if err != nil {
		return err
	}
	warm, err := measure(func(s progress.Sink) (pipeline.Built, error) { return b.Build(ctx, req, s) })
	if err != nil {
		return err
	}
	size, err := usage(req.Cache)
	if err != nil {
		return err
	}
	fmt.Printf("%-48s %8s %8s %12s\n", title, "wall", "CPU", "peak memory")
	print := func(name string, m measured) {
		fmt.Printf("%-48s %6.1f s %6.1f s %12s\n", name, m.wall.Seconds(), m.cpu.Seconds(), mebibytes(m.peak))
		for _, s := range m.built.Stages {
			fmt.Printf("  %-46s %6.1f s %6.1f s %12s\n", s.Stage, s.Seconds, s.CPU, mebibytes(m.stages[s.Stage]))
		}
	}
	print("cold", cold)
	print("prepare alone", prep)
	print("prepared", warm)
	fmt.Printf("%-48s %28d MiB\n\n", "cache", size>>20)
	return nil
}

// mebibytes writes a number of bytes; 0 stands for a stage that no sample fell in.
func mebibytes(n int64) string {
	if n == 0 {
		return "too short"
	}
	return fmt.Sprintf("%d MiB", n>>20)
}

type measured struct {
	wall, cpu time.Duration
	peak      int64            // bytes, of all processes together
	stages    map[string]int64 // the same in each stage
	built     pipeline.Built
}

// sampling is how often memory is looked at.
const sampling = 50 * time.Millisecond

func measure(f func(progress.Sink) (pipeline.Built, error)) (measured, error) {
	m := measured{stages: map[string]int64{}}
	var stage atomic.Value
	stage.Store("")
	sink := progress.SinkFunc(func(e progress.Event) { stage.Store(e.Stage) })
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case <-time.After(sampling):
				now, s := descendants(os.Getpid()), stage.Load().(string)
				m.peak, m.stages[s] = max(m.peak, now), max(m.stages[s], now)
			}
		}
	}()
	before, start := childTime(), time.Now()
	built, err := f(sink)
	m.wall, m.cpu, m.built = time.Since(start), childTime()-before, built
	close(stop)
	<-done
	return m, err
}

func childTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_CHILDREN, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// descendants adds up the resident memory, in bytes, of all processes below pid.
func descendants(pid int) int64 {
	parent, resident := map[int]int{}, map[int]int64{}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		id, _ := strconv.Atoi(filepath.Base(d))
		stat, err := os.ReadFile(d + "/stat")
		if err != nil {
			continue
		}
		// The command, in parentheses, may contain anything.
		f := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if len(f) < 22 {
			continue
		}
		parent[id], _ = strconv.Atoi(f[1])
		pages, _ := strconv.ParseInt(f[21], 10, 64)
		resident[id] = pages * int64(os.Getpagesize())
	}
	var sum int64
	for id, r := range resident {
		for p := parent[id]; p > 1; p = parent[p] {
			if p == pid {
				sum += r
				break
			}
		}
	}
	return sum
}

// usage is the disk space of a tree in bytes; hard links count once.
func usage(dir string) (int64, error) {
	seen := map[uint64]bool{}
	var sum int64
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && !seen[st.Ino] {
			seen[st.Ino] = true
			sum += st.Blocks * 512
		}
		return nil
	})
	return sum, err
}
