// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/upsplice/upsplice/hook/live"
	"github.com/upsplice/upsplice/hook/outcome"
	"github.com/upsplice/upsplice/hook/words"
	"github.com/upsplice/upsplice/kmod/livepatch"
)

// other is a livepatch on the machine that is not ours. While one is in force no
// splice is applied: it would be replaced.
type other struct {
	Name       string `json:"name"`
	Enabled    bool   `json:"enabled"`
	Transition bool   `json:"transition"`
	Functions  int    `json:"functions"`
}

// waiting is a task that the transition of a livepatch, ours or not, waits for.
type waiting struct {
	Livepatch string   `json:"livepatch"`
	PID       int      `json:"pid"`
	Comm      string   `json:"comm"`
	Stack     []string `json:"stack,omitempty"` // root only
}

// kernelState asks the kernel for what no journal knows.
func kernelState(k *live.Kernel) (others []other, tasks []waiting, err error) {
	states, err := k.Patches.List()
	var refused *livepatch.RefusedError
	if errors.As(err, &refused) {
		return nil, nil, nil // the kernel has no livepatch
	}
	if err != nil {
		return nil, nil, &outcome.Error{Outcome: outcome.Failed, What: "listing livepatches", Err: err}
	}
	for _, s := range states {
		if !strings.HasPrefix(s.Name, live.ModulePrefix) {
			others = append(others, other{s.Name, s.Enabled, s.Transition, s.Functions})
		}
		if !s.Transition {
			continue
		}
		blockers, err := k.Patches.Blockers(s.Name)
		if err != nil {
			return nil, nil, &outcome.Error{Outcome: outcome.Failed, What: "looking for the tasks that " + s.Name + " waits for", Err: err}
		}
		for _, b := range blockers {
			tasks = append(tasks, waiting{s.Name, b.PID, b.Comm, b.Stack})
		}
	}
	return others, tasks, nil
}

func (o other) state() string {
	switch {
	case o.Transition && o.Enabled:
		return "being enabled"
	case o.Transition:
		return "being disabled"
	case o.Enabled:
		return "in force"
	}
	return "disabled"
}

func printKernelState(w io.Writer, others []other, tasks []waiting) {
	for _, o := range others {
		fmt.Fprintf(w, "livepatch\t%s\t%s, not of upsplice: %s\n", o.Name, o.state(), words.Count(o.Functions, "function"))
	}
	for _, t := range tasks {
		where := ""
		if len(t.Stack) > 0 {
			where = " in " + t.Stack[0]
		}
		fmt.Fprintf(w, "switching\t%s\twaits for %s (%d)%s\n", t.Livepatch, t.Comm, t.PID, where)
	}
}
