// SPDX-License-Identifier: Apache-2.0

// Package progress carries what a long run has to say from where it works to
// the person who waits: events on the one side, a renderer for a terminal, a
// log or nobody on the other.
package progress

import "time"

// Kind is what an event says.
type Kind string

const (
	// Stage: a stage of the run begins; Stage names it, Text describes it to
	// people. Without a Text it is not shown.
	Stage Kind = "stage"
	// Tick: the stage has come to Done of Total.
	Tick Kind = "tick"
	// Note: a line that a person should see, whatever the renderer.
	Note Kind = "note"
	// End: the run is over; Outcome says how.
	End Kind = "end"
)

// Bytes is the Unit of byte counts, which are shown as MiB and the like.
const Bytes = "bytes"

// Event is one thing that happened in a run. The JSON form is a line of the
// journal's progress file.
type Event struct {
	Time time.Time `json:"time"`
	// Run is the id of the run, filled in by the journal.
	Run  string `json:"run,omitempty"`
	Kind Kind   `json:"kind"`
	// Stage is a short stable name: "fetch", "build", "match", "apply".
	Stage string `json:"stage,omitempty"`
	// Text is for people, without prefix and without a newline.
	Text string `json:"text,omitempty"`
	// Done and Total count in Unit; Total 0 means that it is not known.
	Done  int64 `json:"done,omitempty"`
	Total int64 `json:"total,omitempty"`
	// Unit is Bytes or a plural noun: "units", "functions".
	Unit string `json:"unit,omitempty"`
	// Outcome is how the run ended, with End.
	Outcome string `json:"outcome,omitempty"`
}

// Sink takes events. Emit may be called by several goroutines at once, returns
// soon, and has no error: no run fails because nobody can watch it.
type Sink interface{ Emit(Event) }

// SinkFunc is a function as a Sink.
type SinkFunc func(Event)

// Emit calls f.
func (f SinkFunc) Emit(e Event) { f(e) }

// Tee returns a Sink that passes each event to every one of sinks.
func Tee(sinks ...Sink) Sink {
	return SinkFunc(func(e Event) {
		for _, s := range sinks {
			s.Emit(e)
		}
	})
}
