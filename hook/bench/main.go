// SPDX-License-Identifier: Apache-2.0

// Bench measures, for the newest adjacent pair of kernels with a small
// difference: the time from both source archives on disk to a finished splice,
// cold and with the pre side prepared; peak memory; the size of the cache.
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
	req := build.Request{From: rig.Side(from), To: rig.Side(to), Cache: filepath.Join(cache, "cold")}
	cold, err := measure(func() (pipeline.Built, error) { return b.Build(ctx, req, quiet) })
	if err != nil {
		return err
	}
	req.Cache = filepath.Join(cache, "prepared")
	prep, err := measure(func() (pipeline.Built, error) {
		return pipeline.Built{}, b.Prepare(ctx, req.From, req.Cache, quiet)
	})
	if err != nil {
		return err
	}
	warm, err := measure(func() (pipeline.Built, error) { return b.Build(ctx, req, quiet) })
	if err != nil {
		return err
	}
	size, err := usage(req.Cache)
	if err != nil {
		return err
	}
	fmt.Printf("%-28s %8s %8s %12s\n", "", "wall", "CPU", "peak memory")
	for _, row := range []struct {
		name string
		m    measured
	}{{"cold: archives to splice", cold}, {"prepare alone", prep}, {"prepared: archive to splice", warm}} {
		fmt.Printf("%-28s %6.1f s %6.1f s %8d MiB\n", row.name, row.m.wall.Seconds(), row.m.cpu.Seconds(), row.m.peak>>20)
	}
	fmt.Printf("%-28s %28d MiB\n\n", "cache", size>>20)
	fmt.Println("where the time of the prepared build goes:")
	for _, s := range warm.built.Stages {
		fmt.Printf("  %-12s %6.1f s\n", s.Stage, s.Seconds)
	}
	return nil
}

var quiet = progress.SinkFunc(func(progress.Event) {})

type measured struct {
	wall, cpu time.Duration
	peak      int64 // bytes, of all processes together
	built     pipeline.Built
}

func measure(f func() (pipeline.Built, error)) (measured, error) {
	var peak atomic.Int64
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case <-time.After(100 * time.Millisecond):
				peak.Store(max(peak.Load(), descendants(os.Getpid())))
			}
		}
	}()
	before, start := childTime(), time.Now()
	built, err := f()
	m := measured{wall: time.Since(start), cpu: childTime() - before, built: built}
	close(stop)
	<-done
	m.peak = peak.Load()
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
