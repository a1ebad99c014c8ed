// SPDX-License-Identifier: Apache-2.0

// Package outcome holds the ways in which a command can end, with the exit
// code of each. There is one table; the README's is made from it.
package outcome

import (
	"errors"
	"fmt"
	"strings"
)

// Outcome is how a command ended. The text is what a person and --json see.
type Outcome string

const (
	// Live: everything that the update changes for this kernel runs now.
	Live Outcome = "live"
	// PartlyLive: some groups run now, others wait for the reboot.
	PartlyLive Outcome = "partly live"
	// NothingToDo: the delta does not reach this build.
	NothingToDo Outcome = "nothing to do"
	// Refused: a safety check said no; Error.Check names it.
	Refused Outcome = "refused"
	// Failed: a tool, the disk or the network did not do its part.
	Failed Outcome = "failed"
	// Done is the end of a command that puts nothing live, such as status.
	Done Outcome = "done"
	// Usage: the command line or the configuration is wrong.
	Usage Outcome = "usage"
)

// Row is one line of the table.
type Row struct {
	Outcome  Outcome
	ExitCode int
	Meaning  string
}

// Table returns every outcome once, in the order of the exit codes. The caller
// owns the slice.
func Table() []Row {
	return []Row{
		{Live, 0, "everything that the update changes for this kernel runs now"},
		{Done, 0, "the command did what it was asked to (`diff`: the objects differ)"},
		{Failed, 1, "a tool, the disk or the network failed; nothing was changed"},
		{Usage, 2, "the command line or the configuration file is wrong"},
		{NothingToDo, 3, "the update does not reach this kernel (`diff`: no difference)"},
		{Refused, 4, "a safety check said no, and is named; nothing was changed"},
		{PartlyLive, 5, "a part runs now, the rest waits for the next boot"},
	}
}

// Markdown returns the table as the README shows it.
func Markdown() string {
	var b strings.Builder
	b.WriteString("| exit code | outcome | meaning |\n|---|---|---|\n")
	for _, r := range Table() {
		fmt.Fprintf(&b, "| %d | %s | %s |\n", r.ExitCode, r.Outcome, r.Meaning)
	}
	return b.String()
}

// ExitCode returns the exit code of o. An outcome that is not in the table is
// a fault of the program, and so a failure.
func (o Outcome) ExitCode() int {
	for _, r := range Table() {
		if r.Outcome == o {
			return r.ExitCode
		}
	}
	return Failed.ExitCode()
}

// Valid tells whether o is in the table.
func (o Outcome) Valid() bool {
	for _, r := range Table() {
		if r.Outcome == o {
			return true
		}
	}
	return false
}

// Error is an error that knows how the command ends.
type Error struct {
	Outcome Outcome
	// Check is the name of the safety check, with Refused.
	Check string
	// What was being done, gerund first: "reading /etc/x".
	What string
	// Remedy is what the person can do about it; may be empty.
	Remedy string
	// Err is the cause; may be nil.
	Err error
}

// Error gives "what: cause: remedy", with the check's name in front of a
// refusal.
func (e *Error) Error() string {
	var parts []string
	switch {
	case e.Outcome == Refused && e.Check != "":
		parts = append(parts, "refused by the check "+e.Check)
	case e.What == "" && e.Err == nil:
		parts = append(parts, string(e.Outcome))
	}
	if e.What != "" {
		parts = append(parts, e.What)
	}
	if e.Err != nil {
		parts = append(parts, e.Err.Error())
	}
	if e.Remedy != "" {
		parts = append(parts, e.Remedy)
	}
	return strings.Join(parts, ": ")
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Of returns the outcome of err: Done for nil, that of the outermost *Error in
// the chain, else Failed. So everything that nobody classified (a full disk,
// the network, a cancelled context) is a failure.
func Of(err error) Outcome {
	if err == nil {
		return Done
	}
	if e, ok := errors.AsType[*Error](err); ok && e.Outcome.Valid() {
		return e.Outcome
	}
	return Failed
}

// ExitCode returns the exit code of err.
func ExitCode(err error) int { return Of(err).ExitCode() }
