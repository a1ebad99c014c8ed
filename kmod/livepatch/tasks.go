// SPDX-License-Identifier: Apache-2.0

package livepatch

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// maxBlockers bounds a report: hundreds of tasks stuck at one place tell no more.
const maxBlockers = 20

// waiting returns the tasks that are not yet at the target of a transition, by
// their directories in /proc. /proc/PID/task/TID/patch_state holds -1 outside of
// transitions, 0 for the old code and 1 for the new.
func (s *System) waiting(target bool) []string {
	old := "0"
	if !target {
		old = "1"
	}
	all, _ := filepath.Glob(filepath.Join(s.Root, "proc/[0-9]*/task/[0-9]*"))
	var dirs []string
	for _, dir := range all {
		// Tasks come and go while this reads: one that cannot be read is not waiting.
		if b, err := os.ReadFile(filepath.Join(dir, "patch_state")); err == nil && strings.TrimSpace(string(b)) == old {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// task is what /proc/PID/task/TID/stat says of interest (proc_pid_stat(5)).
type task struct {
	sleeping bool // interruptible
	kernel   bool // a kernel thread, or one that works for the kernel
	parent   int
}

// Flags of a task (include/linux/sched.h); those that work for io_uring and vhost
// look like user threads and never go there.
const (
	pfIOWorker   = 0x00000010
	pfUserWorker = 0x00004000
	pfKthread    = 0x00200000
)

func parseStat(text string) (t task, ok bool) {
	// The name stands in parentheses and may hold any bytes.
	i := strings.LastIndexByte(text, ')')
	if i < 0 {
		return t, false
	}
	// state ppid pgrp session tty_nr tpgid flags …
	w := strings.Fields(text[i+1:])
	if len(w) < 7 {
		return t, false
	}
	parent, err := strconv.Atoi(w[1])
	if err != nil {
		return t, false
	}
	flags, err := strconv.ParseUint(w[6], 10, 64)
	if err != nil {
		return t, false
	}
	return task{sleeping: w[0] == "S", parent: parent, kernel: flags&(pfKthread|pfIOWorker|pfUserWorker) != 0}, true
}

func (s *System) stat(dir string) (task, bool) {
	b, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return task{}, false
	}
	return parseStat(string(b))
}

// sleepers returns the threads that a transition waits for and that can be
// prodded: those of user space that sleep. A child of ours is left out: whoever
// waits for it here would be told of the stop.
func (s *System) sleepers(target bool) []int {
	var all []int
	for _, dir := range s.waiting(target) {
		if t, ok := s.stat(dir); !ok || t.kernel || !t.sleeping || t.parent == os.Getpid() {
			continue
		}
		if tid, err := strconv.Atoi(filepath.Base(dir)); err == nil {
			all = append(all, tid)
		}
	}
	return all
}

func (s *System) blockersOf(name string) ([]Blocker, error) {
	there, err := s.instance(name)
	if err != nil || there == "" {
		return nil, err
	}
	st, err := s.state(there)
	if err != nil || st == nil || !st.Transition {
		return nil, err
	}
	return s.blockers(st.Enabled), nil
}

func (s *System) blockers(target bool) []Blocker {
	var all []Blocker
	for _, dir := range s.waiting(target) {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		b := Blocker{PID: pid}
		if t, ok := s.stat(dir); ok {
			b.Kernel = t.kernel
		}
		if comm, err := os.ReadFile(filepath.Join(dir, "comm")); err == nil {
			b.Comm = strings.TrimSpace(string(comm))
		}
		if stack, err := os.ReadFile(filepath.Join(dir, "stack")); err == nil {
			for line := range strings.Lines(string(stack)) {
				// "[<0>] function+0x1/0x2"
				if line = strings.TrimSpace(strings.TrimPrefix(line, "[<0>] ")); line != "" {
					b.Stack = append(b.Stack, line)
				}
			}
		}
		all = append(all, b)
	}
	slices.SortFunc(all, func(a, b Blocker) int { return a.PID - b.PID })
	return all[:min(len(all), maxBlockers)]
}
