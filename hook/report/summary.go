// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/upsplice/upsplice/hook/words"
)

// Share is the part of the groups that is live: "473 of 566 fixes".
func (r *Report) Share() string { return share(r.Sums.Groups) }

func share(t Tally) string {
	return fmt.Sprintf("%d of %s", t.Live, words.Count(t.Total, "fix"))
}

func (r *Report) summary(took time.Duration) []string {
	lines := []string{fmt.Sprintf("live after %s: %s", words.Duration(took), r.Effect())}
	if r.Sums.Groups.Deferred == 0 {
		return append(lines, "this update needs no reboot")
	}
	return append(lines, r.Waits()+" (upsplice status --why)")
}

// Effect says what the splice does: in a word or two where it does little.
func (r *Report) Effect() string {
	n := r.Sums.Functions.Live
	dirs := r.liveDirs()
	if r.Sums.Groups.Deferred > 0 && r.Sums.Groups.Total > 3 || len(dirs) > 3 {
		return r.sums()
	}
	where := ""
	if len(dirs) > 0 {
		where = " of " + strings.Join(dirs, ", ")
	}
	code := "the patched code"
	if len(r.Patches) == 0 {
		code = "the code of " + r.To.Version
	}
	return fmt.Sprintf("%s%s now %s %s", words.Count(n, "function"), where, words.Verb(n, "run"), code)
}

// sums is the line of a large update.
func (r *Report) sums() string {
	parts := []string{share(r.Sums.Groups), words.Count(r.Sums.Functions.Live, "function")}
	if c := r.Sums.CVEs; c.Reach > 0 {
		// Which code a CVE is about is guessed from words.
		parts = append(parts, fmt.Sprintf("about %d of the %s that %s this machine", c.Live, words.Count(c.Reach, "CVE"), words.Verb(c.Reach, "reach")))
	}
	return strings.Join(parts, ", ")
}

func (r *Report) liveDirs() []string {
	var dirs []string
	for _, g := range r.Groups {
		if g.State != Live {
			continue
		}
		for _, f := range files(g.Group) {
			dirs = append(dirs, path.Dir(f))
		}
	}
	slices.Sort(dirs)
	return slices.Compact(dirs)
}

// Waits says how many groups wait, and why most of them do: "93 wait for the next
// boot: 71 need new struct members, 15 run only at boot, 7 others".
func (r *Report) Waits() string {
	n := r.Sums.Groups.Deferred
	return fmt.Sprintf("%d %s for the next boot: %s", n, words.Verb(n, "wait"), r.Why())
}

// Why counts the reasons of groups that wait by kind, most frequent first.
func (r *Report) Why() string {
	var kinds []Deferral
	for _, d := range r.Deferred {
		if d.Groups > 0 {
			kinds = append(kinds, d)
		}
	}
	shown := kinds
	if len(kinds) > 3 {
		shown = kinds[:2]
	}
	var parts []string
	rest := r.Sums.Groups.Deferred
	for _, d := range shown {
		parts = append(parts, fmt.Sprintf("%d %s", d.Groups, phrase(d.Code, d.Groups)))
		rest -= d.Groups
	}
	if rest > 0 {
		parts = append(parts, words.Count(rest, "other"))
	}
	return strings.Join(parts, ", ")
}

// Reasons lists the groups that have one, a line for each reason.
func (r *Report) Reasons() []string {
	var lines []string
	for _, g := range r.Groups {
		if g.Live {
			continue
		}
		for _, why := range g.Reasons {
			where := strings.Join(files(g.Group), ", ")
			if where == why.What {
				where = why.Code
			}
			lines = append(lines, fmt.Sprintf("%s: %s: %s", where, why.What, why.Detail))
		}
	}
	return lines
}
