// SPDX-License-Identifier: Apache-2.0

package rehearse

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// troublesome matches the messages of the kernel log that mean that something is
// wrong: its own reports, and those of the parts that a splice goes through.
var troublesome = regexp.MustCompile(`^WARNING: |\bBUG: |kernel BUG at|Oops: |Call Trace:|general protection fault|Kernel panic` +
	`|soft lockup|hard LOCKUP|blocked for more than|detected stalls|self-detected stall` +
	`|^livepatch: .*fail|ftrace bug|ftrace failed|x86/modules: |jump_label: Fatal|Unpatched return thunk` +
	`|refcount_t: |list_(?:add|del) corruption|Objects remaining in|[Bb]ad page state|EXT4-fs error`)

// Trouble returns the messages among lines that mean trouble.
func Trouble(messages []string) []string {
	var bad []string
	for _, m := range messages {
		if troublesome.MatchString(m) {
			bad = append(bad, m)
		}
	}
	return bad
}

// parseRecord reads a record of /dev/kmsg: "priority,sequence,time,flags;message",
// then lines of key=value pairs that begin with a space
// (Documentation/ABI/testing/dev-kmsg).
func parseRecord(record string) (message string, ok bool) {
	head, rest, ok := strings.Cut(record, ";")
	if !ok || strings.Count(head, ",") < 3 {
		return "", false
	}
	message, _, _ = strings.Cut(rest, "\n")
	return message, true
}

// slabs are the slab caches by their names.
type slabs map[string]slab

type slab struct {
	objects int // in use
	size    int // how many objects a slab holds
}

// parseSlabs reads /proc/slabinfo, version 2.1: name, active objects, all objects,
// size of one, objects in a slab, and more (slabinfo(5)).
func parseSlabs(r io.Reader) (slabs, error) {
	all := slabs{}
	sc := bufio.NewScanner(r)
	for sc.Scan() {
		w := strings.Fields(sc.Text())
		if len(w) < 5 || w[0] == "slabinfo" || strings.HasPrefix(w[0], "#") {
			continue
		}
		n, err := strconv.Atoi(w[1])
		size, sizeErr := strconv.Atoi(w[4])
		if err != nil || sizeErr != nil {
			return nil, fmt.Errorf("reading /proc/slabinfo: the line %q has an unknown form", sc.Text())
		}
		all[w[0]] = slab{n, size}
	}
	return all, sc.Err()
}

// fewObjects is what caches vary by from one look to the next for no reason.
const fewObjects = 64

// growing returns the caches that a splice leaks into: those that grew through both
// halves of the rounds by an object or more for nearly every round. What caches grew
// by once stays below that. The kernel counts a slab that a processor holds as full,
// so that a cache grows by one for no reason, which is many objects if they are small.
func growing(before, middle, after slabs, rounds int) []Growth {
	var all []Growth
	for _, name := range slices.Sorted(maps.Keys(after)) {
		b, m, a := before[name].objects, middle[name].objects, after[name].objects
		least := max(rounds*2/5, fewObjects, after[name].size+1)
		if m-b >= least && a-m >= least {
			all = append(all, Growth{name, b, m, a})
		}
	}
	return all
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	if n := len(v) / 2; len(v)%2 == 1 {
		return v[n]
	} else {
		return (v[n-1] + v[n]) / 2
	}
}
