// SPDX-License-Identifier: Apache-2.0

package progress

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

type fakeClock struct{ now time.Time }

func (c *fakeClock) Now() time.Time          { return c.now }
func (c *fakeClock) advance(d time.Duration) { c.now = c.now.Add(d) }
func newClock() *fakeClock                   { return &fakeClock{time.Unix(1000, 0)} }

func TestPlainLines(t *testing.T) {
	var out bytes.Buffer
	c := newClock()
	r := New(Options{W: &out, Now: c.Now})
	r.Emit(Event{Kind: Stage, Stage: "start"})
	r.Emit(Event{Kind: Stage, Stage: "fetch", Text: "fetching the source"})
	for i := range int64(25) {
		c.advance(time.Second)
		r.Emit(Event{Kind: Tick, Stage: "fetch", Done: (i + 1) << 20, Total: 25 << 20, Unit: Bytes})
	}
	r.Emit(Event{Kind: Stage, Stage: "build", Text: "building"})
	r.Emit(Event{Kind: Tick, Stage: "build", Done: 3, Total: 12, Unit: "units"})
	r.Println("a note")
	r.Emit(Event{Kind: End, Text: "live after 24 s", Outcome: "live"})
	want := `upsplice: fetching the source
upsplice: fetching the source, 40 %, 10.0 MiB of 25.0 MiB
upsplice: fetching the source, 80 %, 20.0 MiB of 25.0 MiB
upsplice: building
upsplice: a note
upsplice: live after 24 s
`
	if d := cmp.Diff(want, out.String()); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

func TestQuiet(t *testing.T) {
	var out bytes.Buffer
	r := New(Options{W: &out, Quiet: true, Terminal: true})
	for _, k := range []Kind{Stage, Tick, Note, End} {
		r.Emit(Event{Kind: k, Stage: "x", Text: "y"})
	}
	r.Close()
	if out.Len() != 0 {
		t.Errorf("%q", out.String())
	}
}

// screen is what a terminal shows after s: it knows \r, \n and erase-to-end.
func screen(s string) []string {
	lines := [][]rune{nil}
	col := 0
	rs := []rune(s)
	for i := 0; i < len(rs); i++ {
		last := len(lines) - 1
		switch {
		case rs[i] == '\r':
			col = 0
		case rs[i] == '\n':
			lines, col = append(lines, nil), 0
		case rs[i] == 0x1b && i+2 < len(rs) && rs[i+1] == '[' && rs[i+2] == 'K':
			lines[last] = lines[last][:col]
			i += 2
		default:
			lines[last] = append(lines[last][:col], append([]rune{rs[i]}, lines[last][min(col+1, len(lines[last])):]...)...)
			col++
		}
	}
	var out []string
	for _, l := range lines {
		out = append(out, string(l))
	}
	return out
}

func TestTerminal(t *testing.T) {
	var out bytes.Buffer
	c := newClock()
	r := New(Options{W: &out, Terminal: true, Now: c.Now, Width: func() int { return 60 }})
	check := func(want ...string) {
		t.Helper()
		if d := cmp.Diff(want, screen(out.String())); d != "" {
			t.Errorf("screen (-want +got):\n%s", d)
		}
	}
	r.Emit(Event{Kind: Stage, Stage: "fetch", Text: "fetching the source of linux"})
	check("upsplice: fetching the source of linux")
	c.advance(time.Second)
	r.Emit(Event{Kind: Tick, Stage: "fetch", Done: 1 << 20, Total: 4 << 20, Unit: Bytes})
	check("upsplice: fetching the source of linux, 25 %, 1.0 MiB of 4…")
	// Too soon to draw, but the end is always drawn.
	r.Emit(Event{Kind: Tick, Stage: "fetch", Done: 2 << 20, Total: 4 << 20, Unit: Bytes})
	check("upsplice: fetching the source of linux, 25 %, 1.0 MiB of 4…")
	r.Emit(Event{Kind: Tick, Stage: "fetch", Done: 4 << 20, Total: 4 << 20, Unit: Bytes})
	check("upsplice: fetching the source of linux, 100 %, 4.0 MiB of …")
	// A shorter line leaves nothing of a longer one.
	r.Emit(Event{Kind: Stage, Stage: "build", Text: "building"})
	check("upsplice: building")
	r.Emit(Event{Kind: Note, Text: "unit x deferred"})
	check("upsplice: unit x deferred", "upsplice: building")
	r.Emit(Event{Kind: End, Text: "live"})
	check("upsplice: unit x deferred", "upsplice: live", "")
	r.Close()
	check("upsplice: unit x deferred", "upsplice: live", "")
}

func TestTerminalLineNeverWraps(t *testing.T) {
	for _, width := range []int{1, 2, 10, 11, 20, 79, 0} {
		var out bytes.Buffer
		r := New(Options{W: &out, Terminal: true, Width: func() int { return width }})
		r.Emit(Event{Kind: Stage, Stage: "x", Text: strings.Repeat("ü", 300)})
		limit := width
		if width == 0 {
			limit = 80
		}
		if got := len([]rune(screen(out.String())[0])); got >= limit && got > 0 {
			t.Errorf("width %d: %d columns", width, got)
		}
	}
}

func TestTickOfAStageWhoseBeginningWasMissed(t *testing.T) {
	var out bytes.Buffer
	c := newClock()
	r := New(Options{W: &out, Now: c.Now})
	r.Emit(Event{Kind: Tick, Stage: "match", Done: 5, Unit: "functions"})
	if got, want := out.String(), "upsplice: match, 5 functions\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestNoControlCharactersReachTheScreen(t *testing.T) {
	for _, terminal := range []bool{false, true} {
		var out bytes.Buffer
		r := New(Options{W: &out, Terminal: terminal})
		const evil = "a\x1b[2Jb\nc\rd\u202ee\xff\u009bf"
		r.Emit(Event{Kind: Stage, Stage: "x", Text: evil})
		r.Emit(Event{Kind: Note, Text: evil})
		r.Emit(Event{Kind: End, Text: evil})
		text := strings.ReplaceAll(strings.ReplaceAll(out.String(), "\r", ""), "\x1b[K", "")
		if strings.ContainsAny(text, "\x1b\u202e\u009b") || !utf8.ValidString(text) || strings.Contains(text, "b\nc") {
			t.Errorf("terminal %v: %q", terminal, out.String())
		}
		if !strings.Contains(text, "upsplice: a?[2Jb c?d?e??f\n") {
			t.Errorf("terminal %v: the text is lost: %q", terminal, out.String())
		}
	}
}

func TestDescribe(t *testing.T) {
	for _, tc := range []struct {
		e    Event
		want string
	}{
		{Event{}, "x"},
		{Event{Done: 3}, "x, 3"},
		{Event{Done: 3, Total: 9, Unit: "units"}, "x, 3 of 9 units"},
		{Event{Done: 500, Unit: Bytes}, "x, 500 B"},
		{Event{Done: 5000, Total: 1 << 40, Unit: Bytes}, "x, 0 %, 5 KiB of 1024.0 GiB"},
		{Event{Done: 12, Total: 10, Unit: Bytes}, "x, 100 %, 12 B of 10 B"},
		{Event{Done: -5, Total: 10, Unit: Bytes}, "x, 0 %, 0 B of 10 B"},
		{Event{Done: 1 << 62, Total: 1<<63 - 1, Unit: "functions"}, "x, 4611686018427387904 of 9223372036854775807 functions"},
	} {
		if got := describe("x", tc.e); got != tc.want {
			t.Errorf("%+v: %q, want %q", tc.e, got, tc.want)
		}
	}
	if got := percent(1<<62, 1<<63-1); got != 50 {
		t.Errorf("%d %%", got)
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("gone") }

func TestABrokenWriterDoesNotMatter(t *testing.T) {
	r := New(Options{W: brokenWriter{}, Terminal: true})
	r.Emit(Event{Kind: Stage, Text: "x"})
	r.Emit(Event{Kind: End, Text: "x"})
}

func TestForFileWithoutATerminal(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if IsTerminal(f) {
		t.Error("a file is a terminal")
	}
	ForFile(f, false).Println("x")
	ForFile(f, true).Println("y")
	b, err := os.ReadFile(f.Name())
	if err != nil || string(b) != "upsplice: x\n" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestConcurrentUse(t *testing.T) {
	var out bytes.Buffer
	var n int
	var mu sync.Mutex
	count := SinkFunc(func(Event) { mu.Lock(); defer mu.Unlock(); n++ })
	sink := Tee(New(Options{W: &out}), count)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				sink.Emit(Event{Kind: Note, Text: "x"})
			}
		})
	}
	wg.Wait()
	if lines := strings.Count(out.String(), "upsplice: x\n"); lines != 400 || n != 400 {
		t.Errorf("%d lines, %d events; want 400", lines, n)
	}
}
