// SPDX-License-Identifier: Apache-2.0

package corpus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/upsplice/upsplice/hook/rehearse"
	"github.com/upsplice/upsplice/hook/words"
	"github.com/upsplice/upsplice/splice/patch"
	"github.com/upsplice/upsplice/splice/splicefile"
)

// Row is a change with all that became of it.
type Row struct {
	Change
	Custom  bool // with its custom code
	Made    Made
	Err     error    // of making it
	Outcome *Outcome // of trying it, nil if nothing went live
}

// name of a row: a change can have two.
func (r Row) name() string {
	if r.Custom {
		return r.Change.Name + " (custom)"
	}
	return r.Change.Name
}

// expected is the verdict that the row has to have.
func (r Row) expected() string {
	if r.Custom {
		return Live
	}
	return r.Expect
}

// Fault says in what the row is not as it has to be, "" if it is.
func (r Row) Fault() string {
	if r.stale() {
		return ""
	}
	if r.Err != nil {
		return r.Err.Error()
	}
	verdict, codes := r.Made.Verdict()
	switch {
	case verdict != r.expected():
		return fmt.Sprintf("%s instead of %s: %s", verdict, r.expected(), r.Made.Reason())
	case verdict == Refused && !slices.Contains(codes, r.Code):
		return fmt.Sprintf("refused for %s instead of %s: %s", strings.Join(codes, ", "), r.Code, r.Made.Reason())
	case verdict != Live:
		return ""
	case r.Outcome == nil:
		return "it was not tried"
	case !r.Outcome.OK:
		return r.Outcome.Step + ": " + r.Outcome.Error
	}
	return ""
}

// stale rows are changes that a later one has covered.
func (r Row) stale() bool {
	var hunk *patch.HunkError
	return errors.As(r.Err, &hunk)
}

// Run makes and tries changes, kernel by kernel, and calls done with each row. The
// cache directory takes some gigabytes for each kernel. program is this one, linked
// statically.
func Run(ctx context.Context, changes []Change, cache, program string, say func(format string, arg ...any), done func(Row)) error {
	text, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	if !rehearse.Static(text) {
		return fmt.Errorf("%s is linked dynamically and cannot run in the guest: build it with CGO_ENABLED=0", program)
	}
	byKernel := make(map[[2]string][]Change)
	for _, c := range changes {
		key := [2]string{c.Series, c.Flavour}
		byKernel[key] = append(byKernel[key], c)
	}
	for _, key := range slices.SortedFunc(maps.Keys(byKernel), func(a, b [2]string) int { return slices.Compare(a[:], b[:]) }) {
		k, err := Kernel(ctx, key[0], key[1])
		if err != nil {
			return err
		}
		say("%s (%s): making %d changes", k.Release, k.Version, len(byKernel[key]))
		m := &Maker{Kernel: k, Cache: filepath.Join(cache, k.Release)}
		var rows []*Row
		var trials []Trial
		for _, c := range byKernel[key] {
			for _, custom := range []bool{false, true} {
				if custom && c.Custom == "" {
					continue
				}
				r := &Row{Change: c, Custom: custom}
				if r.Made, r.Err = m.Make(ctx, c, custom); ctx.Err() != nil {
					return ctx.Err()
				}
				rows = append(rows, r)
				if r.Made.File != nil {
					trials = append(trials, Trial{Change: c, Name: r.name(), File: r.Made.File})
				}
				say("  %s: %s", r.name(), r.progress())
			}
		}
		say("%s: trying %d splices", k.Release, len(trials))
		err = Try(ctx, k, program, trials, func(o Outcome) {
			for _, r := range rows {
				if r.name() == o.Name {
					r.Outcome = &o
				}
			}
			say("  %s: %s", o.Name, o.progress())
		})
		if err != nil {
			return err
		}
		for _, r := range rows {
			done(*r)
		}
	}
	return nil
}

func (r Row) progress() string {
	if r.Err != nil {
		return r.Err.Error()
	}
	verdict, _ := r.Made.Verdict()
	if f := r.Made.File; f != nil {
		return verdict + ", " + words.Count(len(f.Manifest.Functions), "function")
	}
	return strings.TrimSpace(verdict + " " + r.Made.Reason())
}

func (o Outcome) progress() string {
	if !o.OK {
		return "failed at " + o.Step + ": " + o.Error
	}
	return fmt.Sprintf("ok, %d calls, %.1f s", o.Calls, o.Seconds)
}

// Print writes the table and its sums.
func Print(w io.Writer, rows []Row) {
	slices.SortStableFunc(rows, func(a, b Row) int {
		return cmp.Or(cmp.Compare(a.Series, b.Series), cmp.Compare(a.Flavour, b.Flavour), cmp.Compare(a.name(), b.name()))
	})
	fmt.Fprintf(w, "%-44s %-17s %-22s %-14s %6s  %s\n", "change", "kernel", "target", "verdict", "calls", "")
	var plain, custom, ran, bad, stale int
	refused := map[string]int{}
	for _, r := range rows {
		verdict, codes := r.Made.Verdict()
		if verdict == Refused {
			verdict += " " + codes[0]
			if !r.Custom {
				refused[codes[0]]++
			}
		}
		if r.stale() {
			verdict = "does not apply"
			stale++
		}
		calls := ""
		if r.Outcome != nil && r.Outcome.OK {
			if r.Exercise != "" {
				calls = fmt.Sprint(r.Outcome.Calls)
				ran++
			}
			if r.Custom {
				custom++
			} else {
				plain++
			}
		}
		fault := r.Fault()
		if fault != "" {
			bad++
			fault = "NOT AS EXPECTED: " + fault
		} else if r.Outcome != nil {
			fault = r.Outcome.Note
		}
		fmt.Fprintf(w, "%-44s %-17s %-22s %-14s %6s  %s\n", r.name(), r.Series+" "+r.Flavour, targets(r.Made.File, r.Target), verdict, calls, fault)
	}
	fmt.Fprintf(w, "\n%d changes tried: %d live without custom code, %d with; the new code of %d was seen running", len(rows), plain, custom, ran)
	for _, code := range slices.Sorted(maps.Keys(refused)) {
		fmt.Fprintf(w, "; refused for %s: %d", code, refused[code])
	}
	fmt.Fprintf(w, "; do not apply to today's kernels: %d; not as expected: %d\n", stale, bad)
}

func targets(f *splicefile.File, target string) string {
	if f == nil {
		return target
	}
	var names []string
	for _, t := range f.Manifest.Targets {
		names = append(names, t.Name)
	}
	return strings.Join(names, " ")
}
