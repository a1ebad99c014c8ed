// SPDX-License-Identifier: Apache-2.0

package pipeline

import (
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/upsplice/upsplice/hook/journal"
	"github.com/upsplice/upsplice/hook/outcome"
	"github.com/upsplice/upsplice/splice/splicefile"
)

// result says how an update ended, in the few lines that a person reads.
func (p *Pipeline) result(u journal.Update, rec journal.Record, b Built, took time.Duration, err error) journal.Result {
	r := journal.Result{Outcome: outcome.Of(err), Reasons: Reasons(b.Groups)}
	switch {
	case err != nil:
		r.Message = []string{fmt.Sprintf("%s after %s: %v", r.Outcome, round(took), err)}
		if r.Outcome != outcome.NothingToDo {
			r.Message = append(r.Message, u.To.Release+" takes effect at the next boot, as without upsplice")
		}
	case rec.State == journal.Live && b.File == "":
		r.Outcome = rec.Outcome
		r.Message = []string{fmt.Sprintf("splice %s for %s is live already", rec.ShortID, rec.To.Release)}
	case b.File == "" && len(b.Groups) == 0:
		r.Outcome = outcome.NothingToDo
		r.Message = []string{fmt.Sprintf("nothing to do: none of the %s that %s changes is part of this kernel",
			count(b.Files, "file"), u.To.Version)}
	case b.File == "":
		r.Outcome = outcome.Refused
		r.Message = []string{
			fmt.Sprintf("nothing of %s can be live: %s", u.To.Version, why(b.Groups)),
			u.To.Release + " takes effect at the next boot, as without upsplice",
		}
	default:
		r.Outcome = rec.Outcome
		m := splicefile.Manifest{Groups: b.Groups, To: splicefile.Kernel{Version: rec.To.Version}}
		m.Functions = make([]splicefile.Function, rec.LiveFunctions)
		r.Message = []string{fmt.Sprintf("live after %s: %s", round(took), effect(m))}
		if n := deferred(b.Groups); n == 0 {
			r.Message = append(r.Message, "this update needs no reboot")
		} else {
			r.Message = append(r.Message, fmt.Sprintf("%d wait for the next boot: %s (upsplice status --why)", n, why(b.Groups)))
		}
	}
	return r
}

// effect says what a splice does: "2 functions of fs/ext4 now run the code of 6.1.192-2".
func effect(m splicefile.Manifest) string {
	dirs := map[string]bool{}
	for _, g := range m.Groups {
		for _, u := range g.Units {
			if g.Live {
				dirs[u[:max(strings.LastIndexByte(u, '/'), 0)]] = true
			}
		}
	}
	where := ""
	if len(dirs) > 0 && len(dirs) <= 3 {
		where = " of " + strings.Join(sorted(dirs), ", ")
	}
	verb := "run"
	if len(m.Functions) == 1 {
		verb = "runs"
	}
	if len(m.Patches) > 0 {
		return fmt.Sprintf("%s%s now %s the patched code", count(len(m.Functions), "function"), where, verb)
	}
	return fmt.Sprintf("%s%s now %s the code of %s", count(len(m.Functions), "function"), where, verb, m.To.Version)
}

// why counts the reasons of deferred groups by kind, most frequent first.
func why(groups []splicefile.Group) string {
	n := map[string]int{}
	for _, g := range groups {
		if g.Waits() && len(g.Reasons) > 0 {
			n[g.Reasons[0].Code]++
		}
	}
	codes := make([]string, 0, len(n))
	for c := range n {
		codes = append(codes, c)
	}
	sort.Slice(codes, func(i, j int) bool {
		if n[codes[i]] != n[codes[j]] {
			return n[codes[i]] > n[codes[j]]
		}
		return codes[i] < codes[j]
	})
	parts := make([]string, len(codes))
	for i, c := range codes {
		parts[i] = fmt.Sprintf("%d %s", n[c], c)
	}
	return strings.Join(parts, ", ")
}

// Reasons lists the deferred groups, a line each.
func Reasons(groups []splicefile.Group) []string {
	var lines []string
	for _, g := range groups {
		if g.Live {
			continue
		}
		for _, r := range g.Reasons {
			lines = append(lines, fmt.Sprintf("%s: %s: %s", strings.Join(g.Units, ", "), r.What, r.Detail))
		}
	}
	return lines
}

// BuildError turns a build that made nothing into the error that its outcome is,
// for verbs that were asked for a splice.
func BuildError(s Step, b Built) error {
	what := "making a splice to " + s.To.SourceVersion
	if len(s.Patches) > 0 {
		what = "making a splice of " + count(len(s.Patches), "patch")
	}
	switch {
	case b.File != "":
		return nil
	case !slices.ContainsFunc(b.Groups, func(g splicefile.Group) bool { return !g.Boot }) && len(b.Groups) > 0:
		return &outcome.Error{Outcome: outcome.NothingToDo, What: what,
			Err: errors.New("all that it changes in this kernel has done its work by the time the kernel has booted: it has no live effect")}
	case len(b.Groups) == 0:
		return &outcome.Error{Outcome: outcome.NothingToDo, What: what,
			Err: fmt.Errorf("none of the %s that it changes is part of this kernel", count(b.Files, "file"))}
	}
	return &outcome.Error{Outcome: outcome.Refused, Check: "deferred", What: what,
		Err: errors.New(why(b.Groups))}
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	if strings.HasSuffix(noun, "ch") {
		noun += "e"
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// round gives a time in the two units that matter: "24 s", "9 min".
func round(d time.Duration) string {
	if d < 2*time.Minute {
		return fmt.Sprintf("%.0f s", d.Seconds())
	}
	return fmt.Sprintf("%.0f min", d.Minutes())
}

func sorted(set map[string]bool) []string {
	keys := make([]string, 0, len(set))
	for k := range set {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
