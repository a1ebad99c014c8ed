// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"io"
	"log"
	"log/slog"
	"slices"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"
)

// bridge lets go-plugin, which speaks hclog, write to a slog.Logger. What the
// library says about itself is debugging information whatever it calls it: the
// caller gets an error. What the backend says keeps its level.
type bridge struct {
	log     *slog.Logger
	name    string
	backend bool
	args    []any
	budget  *atomic.Int64 // bytes of messages still to be written
}

// newBridge writes at most maxLog bytes of messages in the backend's lifetime.
func newBridge(l *slog.Logger) *bridge {
	b := &bridge{log: l, budget: new(atomic.Int64)}
	b.budget.Store(maxLog)
	return b
}

var _ hclog.Logger = (*bridge)(nil)

var slogLevel = map[hclog.Level]slog.Level{
	hclog.Trace: slog.LevelDebug - 4,
	hclog.Debug: slog.LevelDebug,
	hclog.Info:  slog.LevelInfo,
	hclog.Warn:  slog.LevelWarn,
	hclog.Error: slog.LevelError,
}

func (b *bridge) level(l hclog.Level) slog.Level {
	if !b.backend {
		return min(slogLevel[l], slog.LevelDebug)
	}
	return slogLevel[l]
}

// logOverhead is about what a line of a log has beside its message, in bytes.
const logOverhead = 200

// Log passes the message as an attribute: it comes from another process and is no
// constant.
func (b *bridge) Log(level hclog.Level, msg string, args ...any) {
	msg = cleanText(msg, maxText)
	if b.budget.Add(-int64(len(msg)+logOverhead)) < 0 {
		return
	}
	attrs := []any{"message", msg}
	if b.name != "" {
		attrs = append(attrs, "name", b.name)
	}
	for _, a := range slices.Concat(b.args, args) {
		if s, ok := a.(string); ok {
			a = cleanText(s, maxText)
		}
		attrs = append(attrs, a)
	}
	b.log.Log(context.Background(), b.level(level), "backend log", attrs...)
}

func (b *bridge) Trace(msg string, args ...any) { b.Log(hclog.Trace, msg, args...) }
func (b *bridge) Debug(msg string, args ...any) { b.Log(hclog.Debug, msg, args...) }
func (b *bridge) Info(msg string, args ...any)  { b.Log(hclog.Info, msg, args...) }
func (b *bridge) Warn(msg string, args ...any)  { b.Log(hclog.Warn, msg, args...) }
func (b *bridge) Error(msg string, args ...any) { b.Log(hclog.Error, msg, args...) }

func (b *bridge) enabled(l hclog.Level) bool {
	return b.log.Enabled(context.Background(), b.level(l))
}

func (b *bridge) IsTrace() bool { return b.enabled(hclog.Trace) }
func (b *bridge) IsDebug() bool { return b.enabled(hclog.Debug) }
func (b *bridge) IsInfo() bool  { return b.enabled(hclog.Info) }
func (b *bridge) IsWarn() bool  { return b.enabled(hclog.Warn) }
func (b *bridge) IsError() bool { return b.enabled(hclog.Error) }

func (b *bridge) ImpliedArgs() []any { return b.args }
func (b *bridge) Name() string       { return b.name }

func (b *bridge) With(args ...any) hclog.Logger {
	c := *b
	c.args = slices.Concat(b.args, args)
	return &c
}

// Named is how go-plugin marks what comes from the backend.
func (b *bridge) Named(name string) hclog.Logger { return b.ResetNamed(name) }

func (b *bridge) ResetNamed(name string) hclog.Logger {
	c := *b
	c.name, c.backend = name, name != "stdio"
	return &c
}

// SetLevel does nothing: the slog.Logger decides.
func (b *bridge) SetLevel(hclog.Level) {}

// GetLevel is the lowest level that is written.
func (b *bridge) GetLevel() hclog.Level {
	for _, l := range []hclog.Level{hclog.Trace, hclog.Debug, hclog.Info, hclog.Warn, hclog.Error} {
		if b.enabled(l) {
			return l
		}
	}
	return hclog.Off
}

func (b *bridge) StandardLogger(o *hclog.StandardLoggerOptions) *log.Logger {
	return log.New(b.StandardWriter(o), "", 0)
}

func (b *bridge) StandardWriter(*hclog.StandardLoggerOptions) io.Writer { return bridgeWriter{b} }

type bridgeWriter struct{ b *bridge }

func (w bridgeWriter) Write(p []byte) (int, error) {
	w.b.Debug(string(p))
	return len(p), nil
}
