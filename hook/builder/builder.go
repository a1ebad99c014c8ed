// SPDX-License-Identifier: Apache-2.0

// Package builder runs the engine in a process of its own, as the unprivileged
// build user: downloaded bytes are never parsed or compiled by root. The process
// is this program again, with the verb Verb; it reads one request as JSON on its
// standard input and answers with JSON lines on its standard output.
package builder

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"

	"github.com/upsplice/upsplice/hook/outcome"
	"github.com/upsplice/upsplice/hook/pipeline"
	"github.com/upsplice/upsplice/hook/progress"
	"github.com/upsplice/upsplice/hook/worker"
	"github.com/upsplice/upsplice/splice/build"
	"github.com/upsplice/upsplice/splice/splicefile"
)

// Verb is the hidden command that serves requests.
const Verb = "build-worker"

// maxLine limits one line of the answer: the groups of a large update.
const maxLine = 256 << 20

// Builder starts the process for each request.
type Builder struct {
	User    string // that it runs as; "" or the user of this process: no change
	Program string // of upsplice; "" for this one
}

var _ pipeline.Builder = (*Builder)(nil)

// request asks to build the splice between two kernels, or that of patches or,
// without To and Patches, to prepare.
type request struct {
	From        build.Kernel  `json:"from"`
	To          *build.Kernel `json:"to,omitempty"`
	Patches     []patchFile   `json:"patches,omitempty"`
	Description string        `json:"description,omitempty"`
	Policy      build.Policy  `json:"policy"`
	Cache       string        `json:"cache"`
	Jobs        int           `json:"jobs"`
}

type answer struct {
	Event   *build.Event    `json:"event,omitempty"`
	Result  *pipeline.Built `json:"result,omitempty"`
	Refused string          `json:"refused,omitempty"` // name of the check
	Error   string          `json:"error,omitempty"`
}

// Build implements pipeline.Builder.
func (b *Builder) Build(ctx context.Context, req build.Request, sink progress.Sink) (pipeline.Built, error) {
	r := request{From: req.From, Description: req.Description, Policy: req.Policy, Cache: req.Cache, Jobs: req.Jobs}
	var err error
	if r.Patches, err = readPatches(req.Patches); err != nil {
		return pipeline.Built{}, err
	}
	if len(r.Patches) == 0 {
		r.To = &req.To
	}
	a, err := b.run(ctx, r, sink)
	if err != nil {
		return pipeline.Built{}, err
	}
	return *a.Result, nil
}

// Prepare implements pipeline.Builder.
func (b *Builder) Prepare(ctx context.Context, k build.Kernel, cache string, sink progress.Sink) error {
	_, err := b.run(ctx, request{From: k, Cache: cache}, sink)
	return err
}

func (b *Builder) run(ctx context.Context, req request, sink progress.Sink) (answer, error) {
	in, err := json.Marshal(req)
	if err != nil {
		return answer{}, err
	}
	cmd, err := b.command(ctx, req.Cache)
	if err != nil {
		return answer{}, err
	}
	var stderr tailBuffer
	cmd.Stdin, cmd.Stderr = bytes.NewReader(in), &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return answer{}, err
	}
	if err := worker.Start(cmd, worker.Limits{}); err != nil {
		return answer{}, &outcome.Error{Outcome: outcome.Failed, What: "starting the build process", Err: err}
	}
	last, readErr := read(out, sink)
	waitErr := cmd.Wait()
	switch {
	case ctx.Err() != nil:
		return last, context.Cause(ctx)
	case last.Refused != "":
		return last, &outcome.Error{Outcome: outcome.Refused, Check: last.Refused, What: "building the splice", Err: errors.New(last.Error)}
	case last.Error != "":
		return last, &outcome.Error{Outcome: outcome.Failed, What: "building the splice", Err: errors.New(last.Error)}
	case waitErr != nil:
		return last, &outcome.Error{Outcome: outcome.Failed, What: "building the splice",
			Err: fmt.Errorf("the build process ended early: %w: %s", waitErr, strings.TrimSpace(stderr.String()))}
	case readErr != nil:
		return last, &outcome.Error{Outcome: outcome.Failed, What: "reading what the build process says", Err: readErr}
	case last.Result == nil:
		return last, &outcome.Error{Outcome: outcome.Failed, What: "building the splice", Err: errors.New("the build process gave no result")}
	}
	return last, nil
}

func (b *Builder) command(ctx context.Context, cache string) (*exec.Cmd, error) {
	program := b.Program
	if program == "" {
		self, err := os.Executable()
		if err != nil {
			return nil, err
		}
		program = self
	}
	if os.Geteuid() != 0 || b.User == "" {
		cmd := exec.CommandContext(ctx, program, Verb)
		cmd.Env = worker.Environ()
		return cmd, nil
	}
	return worker.RunAs(ctx, b.User, worker.RunOptions{Env: []string{"HOME=" + cache, "TMPDIR=" + filepath.Join(cache, "tmp")}}, program, Verb)
}

// read passes events on and returns the final line.
func read(r io.Reader, sink progress.Sink) (answer, error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		var a answer
		if err := json.Unmarshal(lines.Bytes(), &a); err != nil {
			return answer{}, fmt.Errorf("parsing a line of the build process: %w", err)
		}
		if a.Event == nil {
			_, _ = io.Copy(io.Discard, r)
			return a, nil
		}
		e := a.Event
		sink.Emit(progress.Event{Kind: progress.Tick, Stage: e.Stage, Text: e.Text, Done: e.Done, Total: e.Total, Unit: e.Unit})
	}
	return answer{}, lines.Err()
}

// Serve answers one request; it is the other end, run as the build user.
func Serve(ctx context.Context, in io.Reader, out io.Writer) error {
	enc := json.NewEncoder(out)
	var req request
	if err := json.NewDecoder(in).Decode(&req); err != nil {
		return enc.Encode(answer{Error: "reading the request: " + err.Error()})
	}
	if !filepath.IsAbs(req.Cache) {
		return enc.Encode(answer{Error: fmt.Sprintf("reading the request: the cache directory %q is not absolute", req.Cache)})
	}
	if err := os.MkdirAll(filepath.Join(req.Cache, "tmp"), 0o755); err != nil {
		return enc.Encode(answer{Error: err.Error()})
	}
	event := func(e build.Event) { _ = enc.Encode(answer{Event: &e}) }
	if req.To == nil && len(req.Patches) == 0 {
		if err := build.Prepare(ctx, req.From, req.Cache, event); err != nil {
			return enc.Encode(fault(err))
		}
		prune(req)
		return enc.Encode(answer{Result: &pipeline.Built{}})
	}
	br, done, err := buildRequest(req)
	if err != nil {
		return enc.Encode(answer{Error: err.Error()})
	}
	defer done()
	br.Progress = event
	res, err := build.Run(ctx, br)
	if err != nil {
		return enc.Encode(fault(err))
	}
	if req.To != nil {
		// A patch may be for a kernel that is not the running one, whose source must
		// stay.
		prune(req)
	}
	built := pipeline.Built{Groups: res.Groups, Sources: res.Sources, Files: res.Files, Hunks: res.Hunks, Units: res.Units,
		Notes: res.Notes, Fuzz: res.Fuzz, Stages: res.Stages}
	if res.File != nil {
		if built.File, err = store(req.Cache, res.File); err != nil {
			return enc.Encode(answer{Error: err.Error()})
		}
	}
	return enc.Encode(answer{Result: &built})
}

// prune removes downloaded packages of kernels that the request is not about; the
// engine sees to its own part of the cache. What cannot be removed costs room and
// nothing else.
func prune(req request) {
	dir := filepath.Join(req.Cache, pipeline.Packages)
	versions, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, v := range versions {
		if v.Name() == req.From.Version || req.To != nil && v.Name() == req.To.Version {
			continue
		}
		_ = os.RemoveAll(filepath.Join(dir, v.Name()))
	}
}

func fault(err error) answer {
	a := answer{Error: err.Error()}
	var refused *build.RefusedError
	switch {
	case errors.As(err, &refused):
		a.Refused = refused.Check
	case ofPatch(err):
		a.Refused = "patch"
	}
	return a
}

func store(cache string, f *splicefile.File) (string, error) {
	dir := filepath.Join(cache, "splices")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	var buf bytes.Buffer
	if err := splicefile.Write(&buf, f); err != nil {
		return "", err
	}
	path := filepath.Join(dir, f.Manifest.ID+".splice")
	return path, renameio.WriteFile(path, buf.Bytes(), 0o644)
}

// tailBuffer keeps the end of what is written.
type tailBuffer struct{ b []byte }

func (t *tailBuffer) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if n := len(t.b) - 4096; n > 0 {
		t.b = t.b[n:]
	}
	return len(p), nil
}

func (t *tailBuffer) String() string { return string(t.b) }
