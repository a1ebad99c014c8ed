// SPDX-License-Identifier: Apache-2.0

// Package host finds backends, starts those that may be trusted, and stands
// between them and the rest of upsplice.
//
// What is trusted: a regular file in a directory that only root can write to,
// whose checksum is the recorded one. What is not: anything the process says.
// It parses downloads, so it runs as another user where the host is root, with
// an environment of its own, over a connection that only it can answer (AutoMTLS
// on a socket in a directory made for it); calls have time limits, answers are
// checked before they are passed on, and Close ends its whole process group.
package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	plugin "github.com/hashicorp/go-plugin"
	"github.com/hashicorp/go-plugin/runner"

	"github.com/upsplice/upsplice/distro/osrelease"
	"github.com/upsplice/upsplice/plugins/backend"
)

// Credential is who a backend runs as.
type Credential struct {
	UID, GID uint32
}

// Options of Open. The zero value is what an installed upsplice uses, except that
// root should set Credential.
type Options struct {
	Dir        string       // of the backends, "": DefaultDir
	Owner      int          // user, beside root, that backends may belong to
	Credential *Credential  // nil: the host's own
	Home       string       // of the backend, "": /nonexistent
	Env        []string     // further variables, such as UPSPLICE_SNAPSHOT=URL
	TempDir    string       // where the socket's directory is made, "": os.TempDir()
	Logger     *slog.Logger // nil: none
	Limits     Limits
}

// Limits on time. Zero values mean the defaults.
type Limits struct {
	Start time.Duration // until it answers: 30 s
	Call  time.Duration // of every call but Fetch: 2 min
	Fetch time.Duration // of a whole Fetch: 2 h
	Idle  time.Duration // of Fetch without any progress: 10 min
	Close time.Duration // until it is killed: 3 s
}

func (o Options) withDefaults() Options {
	set := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	set(&o.Limits.Start, 30*time.Second)
	set(&o.Limits.Call, 2*time.Minute)
	set(&o.Limits.Fetch, 2*time.Hour)
	set(&o.Limits.Idle, 10*time.Minute)
	set(&o.Limits.Close, 3*time.Second)
	if o.Dir == "" {
		o.Dir = DefaultDir
	}
	if o.Home == "" {
		o.Home = "/nonexistent"
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// Backend is a started backend. Its methods may be called concurrently; their
// errors are *backend.Error, *TimeoutError and those of the context.
type Backend struct {
	backend.Backend // checked and limited

	Name string

	client *plugin.Client
	proc   atomic.Pointer[process] // set when go-plugin starts it
	dir    string
	grace  time.Duration
}

// Open starts the backend of the given name. Errors: *NoBackendError,
// *UntrustedError, and *backend.Error of kind Internal if it does not come up.
// The backend must be closed.
func Open(ctx context.Context, name string, opt Options) (*Backend, error) {
	opt = opt.withDefaults()
	path, err := verify(name, opt)
	if err != nil {
		return nil, err
	}
	// go-plugin makes its own directory below this one.
	dir, err := os.MkdirTemp(opt.TempDir, "upsplice-backend-")
	if err != nil {
		return nil, fmt.Errorf("starting backend: %w", err)
	}
	if c := opt.Credential; c != nil {
		if err := os.Chown(dir, int(c.UID), int(c.GID)); err != nil {
			os.RemoveAll(dir)
			return nil, fmt.Errorf("starting backend: %w", err)
		}
	}
	b := &Backend{Name: name, dir: dir, grace: opt.Limits.Close}
	log := newBridge(opt.Logger.With("backend", name))
	b.client = plugin.NewClient(&plugin.ClientConfig{
		HandshakeConfig:  backend.Handshake,
		Plugins:          backend.Plugins(nil),
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC},
		AutoMTLS:         true,
		SkipHostEnv:      true,
		GRPCDialOptions:  backend.DialOptions(),
		StartTimeout:     opt.Limits.Start,
		UnixSocketConfig: &plugin.UnixSocketConfig{TempDir: dir},
		Logger:           log,
		SyncStdout:       io.Discard,
		SyncStderr:       log.Named(name).StandardWriter(nil),
		RunnerFunc: func(_ hclog.Logger, spec *exec.Cmd, socketDir string) (runner.Runner, error) {
			p, err := newProcess(path, opt, spec, socketDir)
			if err != nil {
				return nil, err
			}
			b.proc.Store(p)
			return p, nil
		},
	})
	raw, err := b.dial(ctx, opt.Limits.Start)
	if err != nil {
		detail := err.Error()
		b.Close()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if p := b.proc.Load(); p != nil {
			if how := p.ended(); how != "" {
				detail += "; it ended with " + how
			}
		}
		return nil, &backend.Error{Kind: backend.Internal, What: "backend " + name,
			Detail: "starting it: " + cleanText(detail, maxText)}
	}
	b.Backend = &limited{next: Validate(raw), limits: opt.Limits, proc: b.proc.Load(), name: name}
	return b, nil
}

// dial is bounded here as well: a process that takes the connection and then says
// nothing would keep go-plugin waiting.
func (b *Backend) dial(ctx context.Context, limit time.Duration) (backend.Backend, error) {
	type result struct {
		raw any
		err error
	}
	done := make(chan result, 1)
	go func() {
		c, err := b.client.Client()
		if err == nil {
			err = c.Ping()
		}
		var raw any
		if err == nil {
			raw, err = c.Dispense(backend.PluginName)
		}
		done <- result{raw, err}
	}()
	// go-plugin's own limit is the same and has the better message.
	timeout := time.NewTimer(limit + time.Second)
	defer timeout.Stop()
	select {
	case r := <-done:
		if r.err != nil {
			return nil, r.err
		}
		return r.raw.(backend.Backend), nil
	case <-timeout.C:
		return nil, fmt.Errorf("no answer within %v", limit)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// OpenSystem starts the backend for a system: the one named like its os-release
// ID, else one of ID_LIKE, closest first. A backend that says it does not serve
// the system is not used.
func OpenSystem(ctx context.Context, system osrelease.Release, opt Options) (*Backend, error) {
	opt = opt.withDefaults()
	for _, id := range append([]string{system.ID}, system.IDLike...) {
		b, err := Open(ctx, id, opt)
		var none *NoBackendError
		if errors.As(err, &none) {
			continue
		}
		if err != nil {
			return nil, err
		}
		d, err := b.Describe(ctx)
		if err == nil && slices.Contains(d.Systems, id) {
			return b, nil
		}
		b.Close()
		if err != nil {
			return nil, err
		}
	}
	return nil, &NoBackendError{Name: system.ID, Dir: opt.Dir}
}

// Close ends the backend and everything it started. It takes no longer than
// Limits.Close and may be called more than once.
func (b *Backend) Close() error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.client.Kill()
	}()
	wait := time.NewTimer(b.grace)
	defer wait.Stop()
	select {
	case <-done:
	case <-wait.C:
	}
	// Always, also after an orderly end: children of the backend may be left.
	var err error
	if p := b.proc.Load(); p != nil {
		err = p.Kill(context.Background())
	}
	// A child that left the process group could hold the pipes open and keep
	// go-plugin waiting; nothing depends on that.
	wait.Reset(time.Second)
	select {
	case <-done:
	case <-wait.C:
	}
	return errors.Join(err, os.RemoveAll(b.dir))
}
