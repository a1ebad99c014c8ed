// SPDX-License-Identifier: Apache-2.0

// Demo shows the main job whole: a Debian system in a virtual machine runs an
// older kernel, apt upgrades it, and the running kernel starts to execute the new
// code. It exits 0 only if every check at its end holds.
package main

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/upsplice/upsplice/hook/rig"
	"github.com/upsplice/upsplice/kmod/lab"
	"github.com/upsplice/upsplice/kmod/vmtest"
)

//go:embed guest.sh
var guestScript string

const unit = `[Unit]
Description=upsplice demonstration
After=upsplice-boot.service upsplice-prepare.service
[Service]
Type=idle
Environment=TERM=dumb
ExecStart=/root/guest.sh
StandardInput=tty
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
[Install]
WantedBy=multi-user.target
`

func main() {
	pkg := flag.String("package", "", "the upsplice .deb")
	keep := flag.String("dir", "", "where to put the disks (default: a temporary directory)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *pkg, *keep); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, pkg, dir string) error {
	if pkg == "" {
		return errors.New("-package is required: the upsplice .deb")
	}
	start := time.Now()
	if dir == "" {
		tmp, err := os.MkdirTemp("", "upsplice-demo-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(tmp)
		dir = tmp
	}

	heading("Choosing the newest adjacent pair of kernels with a small difference")
	from, to, err := lab.SmallPair(ctx)
	if err != nil {
		return err
	}
	for _, k := range []*lab.Kernel{&from, &to} {
		if err := lab.Fetch(ctx, k); err != nil {
			return err
		}
		fmt.Printf("%s (%s)\n", k.Release, k.Version)
	}

	// The throwaway boot needs nothing of the system that is made next, and both
	// leave the machine time to spare.
	type controlled struct {
		facts   *facts
		console bytes.Buffer
		err     error
	}
	control := make(chan *controlled, 1)
	go func() {
		c := &controlled{}
		c.facts, c.err = throwaway(ctx, from, dir, &c.console)
		control <- c
	}()

	heading("Making a Debian system that runs " + from.Release + ", with upsplice prepared")
	sys, err := rig.Build(ctx, dir, rig.Options{
		From: from, To: to, Package: pkg, Prepared: true, Log: os.Stdout,
		Files: map[string]string{
			"/root/guest.sh":                   guestScript,
			"/root/sources-new":                rig.SourcesNew + "\n",
			"/etc/systemd/system/demo.service": unit,
		},
		Enable: []string{"demo.service"},
	})
	if err != nil {
		return err
	}

	heading("A throwaway boot of the kernel as it is: does the fault of this pair show?")
	c := <-control
	os.Stdout.Write(c.console.Bytes())
	if c.err != nil {
		return c.err
	}
	oops := c.facts.oopsed("control-begin")
	if oops {
		fmt.Println("It does: the unpatched kernel faults when it drops its caches under the write load.")
	} else {
		fmt.Println("It does not for this pair: the proof rests on the kernel's own book-keeping.")
	}

	heading("The real thing: apt upgrades " + from.Release + " to " + to.Release)
	env := map[string]string{"demo_to": to.Release}
	if oops {
		env["demo_control"] = "oops"
	}
	got, err := upgrade(ctx, sys, env)
	if err != nil {
		return err
	}

	heading("Checks")
	failed := 0
	for _, c := range checks(from, to, oops, got) {
		mark := "ok    "
		if !c.ok {
			mark, failed = "FAILED", failed+1
		}
		fmt.Printf("%s %s\n", mark, c.what)
	}
	fmt.Printf("\n%d minutes %d seconds\n", int(time.Since(start).Minutes()), int(time.Since(start).Seconds())%60)
	if failed > 0 {
		return fmt.Errorf("%d checks failed", failed)
	}
	return nil
}

func heading(text string) { fmt.Printf("\n== %s\n", text) }

// facts are the "#demo" lines of a boot.
type facts struct {
	values map[string][]string
	last   string
	ended  func()
	oopses []string // for each fault of the kernel, the key of the line before it
}

// oopsed tells whether the kernel faulted after the line with this key.
func (f *facts) oopsed(after string) bool { return slices.Contains(f.oopses, after) }

func (f *facts) has(key string) bool { return f.values[key] != nil }

func (f *facts) get(key string) string { return strings.Join(f.values[key], "; ") }

func (f *facts) number(key string) int {
	n, err := strconv.Atoi(f.get(key))
	if err != nil {
		return -1
	}
	return n
}

// throwaway boots the kernel with a system of nothing but a shell, and provokes
// the fault that is known of one pair.
func throwaway(ctx context.Context, k lab.Kernel, dir string, console io.Writer) (*facts, error) {
	root := filepath.Join(dir, "throwaway")
	if err := vmtest.Minimal(root, nil, "demo_phase=control; "+guestScript); err != nil {
		return nil, err
	}
	disk := filepath.Join(dir, "throwaway.ext4")
	if err := vmtest.Ext4FromDir(ctx, root, disk, 400); err != nil {
		return nil, err
	}
	return boot(ctx, console, vmtest.Machine{
		Kernel: k.Vmlinuz, CPUs: 1, MemoryMB: 512, Timeout: 3 * time.Minute,
		Disks: []vmtest.Disk{{Path: disk, Unsafe: true}},
	})
}

// upgrade boots the Debian system. The guest gets its orders on the kernel
// command line.
func upgrade(ctx context.Context, sys *rig.System, env map[string]string) (*facts, error) {
	orders := " demo_phase=main"
	for k, v := range env {
		orders += " " + k + "=" + v
	}
	return boot(ctx, os.Stdout, vmtest.Machine{
		Kernel: sys.From.Vmlinuz, CPUs: 2, MemoryMB: 4096, Timeout: 13 * time.Minute,
		Append: "quiet systemd.show_status=0" + orders,
		Disks: []vmtest.Disk{
			{Path: sys.Disk, Snapshot: true, Unsafe: true, Serial: "root"},
			{Path: sys.Repo, Snapshot: true, Unsafe: true, Serial: "repo"},
		},
	})
}

func boot(ctx context.Context, console io.Writer, m vmtest.Machine) (*facts, error) {
	f := &facts{values: map[string][]string{}}
	// A kernel that has faulted need not be able to switch itself off.
	ctx, f.ended = context.WithCancel(ctx)
	defer f.ended()
	pr, pw := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.read(pr, console)
	}()
	_, err := m.Run(ctx, pw)
	pw.Close()
	<-done
	if err != nil && !f.has("end") && len(f.oopses) == 0 {
		return nil, fmt.Errorf("booting %s: %w", filepath.Base(m.Kernel), err)
	}
	return f, nil
}

// read shows the console and picks the facts out of it.
func (f *facts) read(r io.Reader, show io.Writer) {
	in := bufio.NewScanner(r)
	in.Buffer(nil, 1<<20)
	begin := time.Now()
	for in.Scan() {
		line := strings.TrimRight(in.Text(), "\r")
		if _, rest, ok := strings.Cut(line, "#demo "); ok {
			key, value, _ := strings.Cut(rest, " ")
			f.values[key] = append(f.values[key], strings.TrimSpace(value))
			f.last = key
			if key == "end" {
				f.ended()
			}
		}
		if fault.MatchString(line) {
			f.oopses = append(f.oopses, f.last)
		}
		fmt.Fprintf(show, "%4.0f | %s\n", time.Since(begin).Seconds(), printable(line))
	}
	_, _ = io.Copy(io.Discard, r)
}

var fault = regexp.MustCompile(`BUG: |Oops: |kernel BUG at|general protection fault`)

// printable drops the terminal control that firmware and programs write.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' {
			return -1
		}
		return r
	}, s)
}

type check struct {
	ok   bool
	what string
}

func checks(from, to lab.Kernel, oops bool, f *facts) []check {
	patched := len(f.values["patched"])
	hits := 0
	for _, h := range f.values["hits"] {
		_, n, _ := strings.Cut(h, " ")
		if v, err := strconv.Atoi(strings.TrimSpace(n)); err == nil {
			hits += v
		}
	}
	all := []check{
		{f.get("apt-status") == "0", "apt ended with status " + f.get("apt-status")},
		{f.get("installed") == "install ok installed "+to.Version && f.has("next-boot") && f.get("next-boot") != "",
			"the new kernel package is installed for the next boot: " + f.get("installed")},
		{f.get("running") == from.Release && f.get("running-after") == from.Release, "uname -r is unchanged: " + f.get("running-after")},
		{f.get("effective-before") == from.Release && f.get("effective-after") == to.Release,
			fmt.Sprintf("upsplice uname -r went from %s to %s", f.get("effective-before"), f.get("effective-after"))},
		{patched > 0 && f.number("redirected") >= patched,
			fmt.Sprintf("the kernel lists %s redirected functions for the %d patched: %s", f.get("redirected"), patched, f.get("patched"))},
		{f.get("load-errors") == "0" && f.number("load-rounds") > 0,
			fmt.Sprintf("the ext4 write load ran %s rounds through the switch, errors: %s", f.get("load-rounds"), f.get("load-errors"))},
		{f.has("load-rounds") && !f.has("kernel-log") && f.has("kernel-log-read"), "no WARNING, BUG or Oops in the kernel log " + f.get("kernel-log")},
		{f.get("undo-status") == "0" && f.number("undone-patches") == 0 && f.number("undone-redirected") == 0 && f.number("undone-modules") == 0,
			"undo left no livepatch, no redirected function and no module"},
		{f.get("undone-effective") == from.Release, "upsplice uname -r is back at " + f.get("undone-effective")},
	}
	if oops {
		all = append(all,
			check{hits > 0, fmt.Sprintf("the new functions were called %d times: %s", hits, f.get("hits"))},
			check{f.has("load-rounds") && !slices.ContainsFunc(f.oopses, func(k string) bool { return k != "undone-begin" && k != "undone-end" }),
				"with the splice the kernel survived what it had not survived before"},
			check{f.oopsed("undone-begin"), "after undo the old code faults again as in the throwaway boot"})
	}
	return all
}
