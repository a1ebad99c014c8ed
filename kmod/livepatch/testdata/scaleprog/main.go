// SPDX-License-Identifier: Apache-2.0

// Scaleprog applies and undoes large livepatches in a guest that is thrown away, and
// prints where the time went. It exits with 1 at the first surprise.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/upsplice/upsplice/kmod/livepatch"
)

const deadline = time.Minute

var (
	modules = flag.String("modules", "", "modules to load first, in order, with commas")
	cycles  = flag.Int("cycles", 0, "how often the livepatches named follow one another and are undone, under load")
	measure = flag.Bool("calibrate", false, "only time a loop, to compare machines")
)

var (
	sys = livepatch.Host()
	ctx = context.Background()
)

func check(ok bool, format string, args ...any) {
	if !ok {
		fmt.Printf("\nscaleprog: "+format+"\n", args...)
		os.Exit(1)
	}
}

func need(err error, what string) { check(err == nil, "%s: %v", what, err) }

func main() {
	flag.Parse()
	if *measure {
		fmt.Printf("calibrated: %v\n", calibrate())
		return
	}
	if *modules != "" {
		for _, m := range strings.Split(*modules, ",") {
			raw, err := os.ReadFile("/lib/" + m + ".ko")
			need(err, "reading")
			if err := unix.InitModule(raw, ""); !errors.Is(err, unix.EEXIST) {
				need(err, "loading "+m)
			}
		}
	}
	fmt.Printf("calibrated: %v\n", calibrate())
	need(os.WriteFile("/sys/kernel/tracing/events/module/module_load/enable", []byte("1"), 0), "tracing")
	names := flag.Args()
	once(names[0])
	if *cycles == 0 {
		return
	}
	stop := load()
	before := memory()
	for i := range *cycles {
		for _, name := range names {
			start := time.Now()
			apply(name)
			need(sys.Reap("upsplice_"), "reaping")
			fmt.Printf("cycle %d: %s is live after %v\n", i+1, name, time.Since(start).Round(time.Millisecond))
			check(patched(name) > 0, "%s has no functions", name)
		}
		start := time.Now()
		undo(names[len(names)-1])
		fmt.Printf("cycle %d: undone after %v\n", i+1, time.Since(start).Round(time.Millisecond))
	}
	after := memory()
	stop()
	for _, what := range []string{"VmallocUsed", "SUnreclaim", "Percpu"} {
		fmt.Printf("memory: %s was %d kB and is %d kB\n", what, before[what], after[what])
		check(after[what]-before[what] <= before[what]/20+2048, "%s has grown by %d kB", what, after[what]-before[what])
	}
	fmt.Println("scaleprog: done")
}

// once shows how long each part of an apply and an undo takes.
func once(name string) {
	log, err := os.OpenFile("/dev/kmsg", os.O_WRONLY, 0)
	need(err, "opening the log")
	fmt.Fprintf(log, "scaleprog: start\n")
	var loaded time.Duration
	inner := sys.Load
	sys.Load = func(module []byte, params string) error {
		start := time.Now()
		err := inner(module, params)
		loaded = time.Since(start)
		return err
	}
	start := time.Now()
	apply(name)
	total := time.Since(start)
	sys.Load = inner
	at := stages(name)
	fmt.Printf("apply %s, %d functions: %v; init_module %v: load and relocate %v, find functions %v, redirect %v; switch tasks %v\n",
		name, patched(name), total, loaded, at[1]-at[0], at[2]-at[1], at[3]-at[2], at[4]-at[3])
	start = time.Now()
	undo(name)
	fmt.Printf("undo: %v\n", time.Since(start))
}

// stages returns when the load began, the module was complete, its functions had been
// found, were redirected, and all tasks had switched.
func stages(name string) []time.Duration {
	out, err := exec.Command("dmesg").Output()
	need(err, "reading the log")
	trace, err := os.ReadFile("/sys/kernel/tracing/trace")
	need(err, "reading the trace")
	var at []time.Duration
	for _, e := range []struct {
		in      []byte
		pattern string
	}{
		{out, `\[ *([\d.]+)\] scaleprog: start`}, {trace, ` ([\d.]+): module_load: ` + name},
		{out, `\[ *([\d.]+)\] livepatch: enabling patch '` + name}, {out, `\[ *([\d.]+)\] livepatch: '` + name + `': starting patching`},
		{out, `\[ *([\d.]+)\] livepatch: '` + name + `': patching complete`},
	} {
		m := regexp.MustCompile(e.pattern).FindSubmatch(e.in)
		check(m != nil, "the log does not show %s", e.pattern)
		s, err := strconv.ParseFloat(string(m[1]), 64)
		need(err, "reading a time")
		at = append(at, time.Duration(s*float64(time.Second)).Round(time.Microsecond))
	}
	return at
}

func apply(name string) {
	raw, err := os.ReadFile("/lib/" + name + ".ko")
	need(err, "reading")
	need(sys.Apply(ctx, name, raw, deadline, nil), "Apply "+name)
}

func undo(name string) {
	need(sys.Undo(ctx, name, deadline, nil), "Undo "+name)
	left, err := filepath.Glob("/sys/module/upsplice_*")
	need(err, "looking for modules")
	check(len(left) == 0, "modules are left: %v", left)
}

func patched(name string) int {
	list, err := sys.List()
	need(err, "List")
	for _, s := range list {
		if s.Name == name {
			return s.Functions
		}
	}
	return 0
}

// load keeps files, sockets and processes busy until stop is called, and leaves an
// emulated processor some time for the rest.
func load() (stop func()) {
	cmd := exec.Command("sh", "-c", `
		while :; do dd if=/dev/zero of=/root/load bs=64k count=64 2>/dev/null; cat /root/load > /dev/null; rm /root/load; sleep 0.1; done &
		while :; do ls -lR /sys/class > /dev/null; cat /proc/*/stat > /dev/null 2>&1; sleep 0.1; done &
		while :; do echo hello | nc -l -p 99 -s 127.0.0.1 > /dev/null & echo hello | nc 127.0.0.1 99 > /dev/null 2>&1; wait $!; sleep 0.1; done &
		wait`)
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	need(cmd.Start(), "starting the load")
	return func() {
		unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
		cmd.Wait()
	}
}

// memory returns /proc/meminfo in kB, with what is only cached thrown away.
func memory() map[string]int {
	for range 3 {
		unix.Sync()
		need(os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0), "dropping caches")
		time.Sleep(time.Second)
	}
	raw, err := os.ReadFile("/proc/meminfo")
	need(err, "reading")
	kB := map[string]int{}
	for line := range bytes.Lines(raw) {
		f := strings.Fields(string(line))
		if n, err := strconv.Atoi(f[1]); err == nil {
			kB[strings.TrimSuffix(f[0], ":")] = n
		}
	}
	return kB
}

// calibrate times what the kernel's search in its symbol table does: bytes looked up in
// a table of strings, copied one by one and compared.
func calibrate() time.Duration {
	tokens := make([]string, 256)
	for i := range tokens {
		tokens[i] = "_symbol_"[:1+i%4]
	}
	names := make([]byte, 1<<20)
	x := uint32(1)
	for i := range names {
		x = x*1664525 + 1013904223
		names[i] = byte(x >> 24)
	}
	best := time.Duration(0)
	var buf [128]byte
	equal := 0
	for range 5 {
		start := time.Now()
		for at := 0; at+12 <= len(names); at += 12 {
			n := 0
			for _, c := range names[at : at+12] {
				for j := 0; j < len(tokens[c]); j++ {
					buf[n] = tokens[c][j]
					n++
				}
			}
			if buf[0] == 'x' {
				equal++
			}
		}
		if d := time.Since(start); best == 0 || d < best {
			best = d
		}
	}
	check(equal == 0, "%d", equal)
	return best
}
