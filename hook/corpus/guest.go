// SPDX-License-Identifier: Apache-2.0

package corpus

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/upsplice/upsplice/hook/live"
	"github.com/upsplice/upsplice/hook/rehearse"
	"github.com/upsplice/upsplice/splice/splicefile"
)

// Where the guest finds what is for it.
const (
	guestDir    = "/corpus"
	guestReport = "/dev/ttyS1"
	tracing     = "/sys/kernel/tracing"
)

// trial is one splice that the guest tries.
type trial struct {
	Name     string   `json:"name"`
	Splice   string   `json:"splice"` // file in guestDir
	Targets  []string `json:"targets"`
	Function string   `json:"function"`
	Exercise string   `json:"exercise"`
}

// Outcome is what became of a trial.
type Outcome struct {
	Name    string  `json:"name"`
	Started bool    `json:"started"` // of a line that only says so
	OK      bool    `json:"ok"`
	Step    string  `json:"step"` // at which it went wrong
	Error   string  `json:"error"`
	Calls   int     `json:"calls"` // of the new function during the exercise
	Note    string  `json:"note"`
	Seconds float64 `json:"seconds"`
}

// Guest tries all splices of the plan and reports each. It is for the machine that
// Try starts.
func Guest(ctx context.Context) error {
	report, err := os.OpenFile(guestReport, os.O_WRONLY|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	kmsg, err := os.OpenFile("/dev/kmsg", os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(guestDir, "plan"))
	if err != nil {
		return err
	}
	var plan []trial
	if err := json.Unmarshal(text, &plan); err != nil {
		return err
	}
	enc := json.NewEncoder(report)
	for _, t := range plan {
		if err := enc.Encode(Outcome{Name: t.Name, Started: true}); err != nil {
			return err
		}
		rehearse.Messages(kmsg)
		start := time.Now()
		o := t.run(ctx)
		if bad := rehearse.Trouble(rehearse.Messages(kmsg)); len(bad) > 0 && o.OK {
			o.OK, o.Step, o.Error = false, "kernel log", bad[0]
		}
		o.Name, o.Seconds = t.Name, time.Since(start).Seconds()
		if err := enc.Encode(o); err != nil {
			return err
		}
		if !o.OK {
			return nil // the kernel is not to be trusted any more: the next machine goes on
		}
	}
	return nil
}

// run applies the splice, uses it, undoes it, and does all that again.
func (t trial) run(ctx context.Context) Outcome {
	o := Outcome{Step: "read"}
	fail := func(err error) Outcome {
		o.Error = err.Error()
		return o
	}
	f, err := os.Open(filepath.Join(guestDir, t.Splice))
	if err != nil {
		return fail(err)
	}
	defer f.Close()
	s, err := splicefile.Read(f)
	if err != nil {
		return fail(err)
	}
	for _, target := range t.Targets {
		if out, err := exec.CommandContext(ctx, "modprobe", target).CombinedOutput(); err != nil {
			o.Note = strings.TrimSpace("not loaded: " + target + ": " + string(out))
		}
	}
	k := live.Host(time.Minute)
	for _, round := range []string{"", " again"} {
		o.Step = "check" + round
		if err := k.Check(s); err != nil {
			return fail(err)
		}
		o.Step = "apply" + round
		if err := k.Apply(ctx, s, nil); err != nil {
			return fail(err)
		}
		o.Step = "use" + round
		calls, err := t.use(ctx, s.Manifest)
		if err != nil {
			return fail(err)
		}
		o.Calls = max(o.Calls, calls)
		o.Step = "undo" + round
		if err := k.Undo(ctx, s, nil); err != nil {
			return fail(err)
		}
		if on, err := k.IsLive(s); err != nil || on {
			return fail(fmt.Errorf("it is still in force: %w", err))
		}
	}
	o.Step, o.OK = "", true
	return o
}

// use runs the exercise and counts the calls of the new functions.
func (t trial) use(ctx context.Context, m splicefile.Manifest) (calls int, err error) {
	if t.Exercise == "" {
		return 0, nil
	}
	write := func(file, text string) error {
		f, err := os.OpenFile(filepath.Join(tracing, file), os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteString(text)
		return errors.Join(err, f.Close())
	}
	probes := 0
	var last error
	for i, f := range m.Functions {
		// A new one may be a callback, or code without a place for a probe.
		if f.Kind != "changed" || i >= maxProbes {
			continue
		}
		if err := write("kprobe_events", fmt.Sprintf("p:corpus/c%d %s:%s\n", i, m.Modules[0].Name, f.Name)); err != nil {
			last = fmt.Errorf("counting the calls of %s: %w", f.Name, err)
			continue
		}
		probes++
	}
	if probes == 0 {
		return 0, last
	}
	defer func() {
		// Opening the list to write it anew removes all probes.
		err = errors.Join(err, write("events/corpus/enable", "0"), os.WriteFile(filepath.Join(tracing, "kprobe_events"), nil, 0))
	}()
	if err := write("events/corpus/enable", "1"); err != nil {
		return 0, err
	}
	limited, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(limited, "sh", "-c", ". "+guestDir+"/guest.sh; "+t.Exercise)
	cmd.WaitDelay = 5 * time.Second
	out, runErr := cmd.CombinedOutput()
	profile, err := os.Open(filepath.Join(tracing, "kprobe_profile"))
	if err != nil {
		return 0, err
	}
	defer profile.Close()
	if calls, err = hits(profile); err != nil {
		return 0, err
	}
	if calls == 0 {
		// An exercise may end in an error: that can be what it is about.
		return 0, fmt.Errorf("the exercise ran none of the new functions (it ended with %v: %s)", runErr, lastLine(out))
	}
	return calls, nil
}

// maxProbes bounds how many functions of a splice are counted.
const maxProbes = 50

// hits adds up the counts of all probes (Documentation/trace/kprobetrace.rst).
func hits(r io.Reader) (sum int, err error) {
	s := bufio.NewScanner(r)
	for s.Scan() {
		var name string
		var n int
		if _, err := fmt.Sscan(s.Text(), &name, &n); err != nil {
			return 0, fmt.Errorf("reading kprobe_profile: %q: %w", s.Text(), err)
		}
		sum += n
	}
	return sum, s.Err()
}

func lastLine(out []byte) string {
	text := strings.TrimSpace(string(out))
	return text[strings.LastIndexByte(text, '\n')+1:]
}
