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

func (s *System) blockers(target bool) []Blocker {
	var all []Blocker
	for _, dir := range s.waiting(target) {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		b := Blocker{PID: pid}
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
