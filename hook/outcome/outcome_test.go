// SPDX-License-Identifier: Apache-2.0

package outcome

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTableIsComplete(t *testing.T) {
	want := map[Outcome]int{
		Live: 0, Done: 0, Failed: 1, Usage: 2, NothingToDo: 3, Refused: 4, PartlyLive: 5,
	}
	got := map[Outcome]int{}
	last := -1
	for _, r := range Table() {
		if _, twice := got[r.Outcome]; twice {
			t.Errorf("%q is in the table twice", r.Outcome)
		}
		if r.Meaning == "" {
			t.Errorf("%q has no meaning", r.Outcome)
		}
		if r.ExitCode < last {
			t.Errorf("%q is out of order", r.Outcome)
		}
		last = r.ExitCode
		got[r.Outcome] = r.ExitCode
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("exit codes (-want +got):\n%s", d)
	}
}

func TestMarkdownHasEveryRow(t *testing.T) {
	md := Markdown()
	for _, r := range Table() {
		if line := fmt.Sprintf("| %d | %s | %s |\n", r.ExitCode, r.Outcome, r.Meaning); !strings.Contains(md, line) {
			t.Errorf("the table lacks %q", line)
		}
	}
	if got, want := strings.Count(md, "\n"), len(Table())+2; got != want {
		t.Errorf("%d lines, want %d", got, want)
	}
}

func TestOf(t *testing.T) {
	refused := &Error{Outcome: Refused, Check: "build id", What: "loading x.splice"}
	for _, tc := range []struct {
		name string
		err  error
		want Outcome
		code int
	}{
		{"nil", nil, Done, 0},
		{"plain", errors.New("x"), Failed, 1},
		{"full disk", fmt.Errorf("writing: %w", syscall.ENOSPC), Failed, 1},
		{"cancelled", context.Canceled, Failed, 1},
		{"typed", refused, Refused, 4},
		{"wrapped", fmt.Errorf("applying: %w", refused), Refused, 4},
		{"outermost wins", &Error{Outcome: Failed, Err: refused}, Failed, 1},
		{"joined", errors.Join(errors.New("x"), refused), Refused, 4},
		{"unknown outcome", &Error{Outcome: "perhaps"}, Failed, 1},
		{"usage", &Error{Outcome: Usage}, Usage, 2},
		{"nothing to do", &Error{Outcome: NothingToDo}, NothingToDo, 3},
		{"partly", &Error{Outcome: PartlyLive}, PartlyLive, 5},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := Of(tc.err); got != tc.want {
				t.Errorf("Of = %q, want %q", got, tc.want)
			}
			if got := ExitCode(tc.err); got != tc.code {
				t.Errorf("ExitCode = %d, want %d", got, tc.code)
			}
		})
	}
	if got := Outcome("perhaps").ExitCode(); got != 1 {
		t.Errorf("an unknown outcome exits with %d, want 1", got)
	}
}

func TestErrorText(t *testing.T) {
	cause := errors.New("no space left on device")
	for _, tc := range []struct {
		err  *Error
		want string
	}{
		{&Error{Outcome: Failed, What: "writing /a", Err: cause, Remedy: "free some space"},
			"writing /a: no space left on device: free some space"},
		{&Error{Outcome: Refused, Check: "build id", What: "loading b.splice"},
			"refused by the check build id: loading b.splice"},
		{&Error{Outcome: NothingToDo}, "nothing to do"},
		{&Error{Outcome: Failed, Err: cause}, "no space left on device"},
	} {
		if got := tc.err.Error(); got != tc.want {
			t.Errorf("got %q, want %q", got, tc.want)
		}
	}
	if !errors.Is(&Error{Outcome: Failed, Err: cause}, cause) {
		t.Error("the cause is lost")
	}
}
