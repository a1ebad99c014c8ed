// SPDX-License-Identifier: Apache-2.0

package progress

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"
)

// Prefix starts every line that the program prints in the middle of other
// programs' output.
const Prefix = "upsplice: "

const (
	// A terminal line is redrawn at most this often, so that a fast stage does
	// not flood a slow serial console.
	redraw = 100 * time.Millisecond
	// Without a terminal a running stage says this often that it is alive.
	defaultEvery = 10 * time.Second
)

// Options of a Renderer. The zero value of everything but W is usable.
type Options struct {
	W io.Writer
	// Terminal: one updating line instead of plain ones.
	Terminal bool
	// Width is the terminal's width in columns; nil or 0 means 80.
	Width func() int
	// Quiet: nothing at all.
	Quiet bool
	// Every is the time between plain lines of one stage; 0 means 10 s.
	Every time.Duration
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Renderer shows events. It is a Sink, safe for concurrent use. Errors of the
// writer are dropped: the terminal may be gone while the work goes on.
type Renderer struct {
	opt Options

	mu     sync.Mutex
	stage  string // Stage of the events that come now
	text   string // description of that stage
	last   time.Time
	drawn  bool   // the updating line is on the screen
	latest string // what the updating line says when it is drawn next
}

var _ Sink = (*Renderer)(nil)

// New returns a Renderer.
func New(opt Options) *Renderer {
	if opt.Every == 0 {
		opt.Every = defaultEvery
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.Width == nil {
		opt.Width = func() int { return 0 }
	}
	return &Renderer{opt: opt}
}

// ForFile returns a Renderer that suits f: an updating line if f is a terminal
// that can erase a line, plain lines if not, nothing if quiet.
func ForFile(f *os.File, quiet bool) *Renderer {
	fd := int(f.Fd())
	return New(Options{
		W:        f,
		Quiet:    quiet,
		Terminal: IsTerminal(f) && os.Getenv("TERM") != "dumb",
		Width: func() int {
			w, _, err := term.GetSize(fd)
			if err != nil {
				return 0
			}
			return w
		},
	})
}

// IsTerminal tells whether f is a terminal.
func IsTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// Emit shows e.
func (r *Renderer) Emit(e Event) {
	if r.opt.Quiet {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch e.Kind {
	case Stage:
		r.begin(e)
	case Tick:
		r.tick(e)
	case Note:
		r.line(e.Text)
	case End:
		r.erase()
		r.latest = ""
		if e.Text != "" {
			r.line(e.Text)
		}
	}
}

// Println shows one line, as a Note does.
func (r *Renderer) Println(text string) { r.Emit(Event{Kind: Note, Text: text}) }

// Close takes the updating line off the screen. The Renderer stays usable.
func (r *Renderer) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.erase()
	r.latest = ""
}

func (r *Renderer) begin(e Event) {
	r.stage, r.text = e.Stage, e.Text
	r.last = r.opt.Now()
	if r.text == "" {
		// Nothing to say to people; ticks are shown under the stage's name.
		r.text = e.Stage
		return
	}
	r.latest = describe(r.text, e)
	if r.opt.Terminal {
		r.draw()
		return
	}
	r.print(Prefix + clean(r.latest) + "\n")
}

func (r *Renderer) tick(e Event) {
	if e.Stage != r.stage {
		// The beginning of this stage was missed, as when following starts late.
		r.stage, r.text, r.last = e.Stage, e.Stage, time.Time{}
	}
	text := r.text
	if e.Text != "" {
		text += ": " + e.Text
	}
	r.latest = describe(text, e)
	every := r.opt.Every
	if r.opt.Terminal {
		every = redraw
	}
	now := r.opt.Now()
	complete := e.Total > 0 && e.Done >= e.Total && r.opt.Terminal
	if now.Sub(r.last) < every && !complete {
		return
	}
	r.last = now
	if r.opt.Terminal {
		r.draw()
		return
	}
	r.print(Prefix + clean(r.latest) + "\n")
}

// line shows a line that stays, above the updating one.
func (r *Renderer) line(text string) {
	wasDrawn := r.drawn
	r.erase()
	r.print(Prefix + clean(text) + "\n")
	if wasDrawn {
		r.draw()
	}
}

func (r *Renderer) draw() {
	width := r.opt.Width()
	if width <= 0 {
		width = 80
	}
	// A line as wide as the terminal wraps on some, and then cannot be erased.
	r.print("\r" + cut(Prefix+clean(r.latest), width-1) + "\x1b[K")
	r.drawn = true
}

func (r *Renderer) erase() {
	if r.drawn {
		r.print("\r\x1b[K")
		r.drawn = false
	}
}

func (r *Renderer) print(s string) { _, _ = io.WriteString(r.opt.W, s) }

// describe adds the counts of e to text: "text, 12 of 300 units" or
// "text, 35 %, 48.2 of 137.8 MiB".
func describe(text string, e Event) string {
	if e.Done == 0 && e.Total == 0 {
		return text
	}
	done := max(e.Done, 0)
	if e.Unit == Bytes {
		if e.Total <= 0 {
			return fmt.Sprintf("%s, %s", text, size(done))
		}
		return fmt.Sprintf("%s, %d %%, %s of %s", text, percent(done, e.Total), size(done), size(e.Total))
	}
	unit := ""
	if e.Unit != "" {
		unit = " " + e.Unit
	}
	if e.Total <= 0 {
		return fmt.Sprintf("%s, %d%s", text, done, unit)
	}
	return fmt.Sprintf("%s, %d of %d%s", text, done, e.Total, unit)
}

func percent(done, total int64) int64 {
	if done >= total {
		return 100
	}
	return int64(float64(done) / float64(total) * 100)
}

// size writes n bytes the way people read them.
func size(n int64) string {
	const kib, mib, gib = 1 << 10, 1 << 20, 1 << 30
	switch {
	case n >= gib:
		return fmt.Sprintf("%.1f GiB", float64(n)/gib)
	case n >= mib:
		return fmt.Sprintf("%.1f MiB", float64(n)/mib)
	case n >= kib:
		return fmt.Sprintf("%.0f KiB", float64(n)/kib)
	}
	return fmt.Sprintf("%d B", n)
}

// clean makes text safe for a terminal: names in it come from packages and
// compilers, and an escape sequence among them must not reach the screen.
func clean(text string) string {
	return strings.Map(func(c rune) rune {
		switch {
		case c == '\n' || c == '\t':
			return ' '
		case c == utf8.RuneError || unicode.IsControl(c) || unicode.Is(unicode.Cf, c):
			return '?'
		}
		return c
	}, text)
}

// cut shortens s to width columns, counting one for each rune.
func cut(s string, width int) string {
	if width <= 0 {
		return ""
	}
	runes := []rune(s)
	if len(runes) <= width {
		return s
	}
	return string(runes[:max(width-1, 0)]) + "…"
}
