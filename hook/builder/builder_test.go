// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/upsplice/upsplice/hook/outcome"
	"github.com/upsplice/upsplice/hook/progress"
	"github.com/upsplice/upsplice/splice/build"
	"github.com/upsplice/upsplice/splice/patch"
)

// program writes a script that stands for the build process.
func program(t *testing.T, script string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestBuildUnderstandsItsProcess(t *testing.T) {
	for _, c := range []struct {
		name, script string
		want         outcome.Outcome
		text         string
	}{
		{"result", `echo '{"event":{"Stage":"compile","Done":1,"Total":2}}'; echo '{"result":{"file":"/x.splice","groups":[]}}'`, outcome.Done, ""},
		{"refused", `echo '{"refused":"run-pre matching","error":"ext4_x differs at 0x10"}'`, outcome.Refused, "run-pre matching"},
		{"failed", `echo '{"error":"no space left on device"}'`, outcome.Failed, "no space left"},
		{"garbage", `echo garbage`, outcome.Failed, "build process"},
		{"nothing", `true`, outcome.Failed, "no result"},
		{"died", `echo "panic: oh" >&2; exit 2`, outcome.Failed, "panic: oh"},
		{"killed", `kill -9 $$`, outcome.Failed, "killed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := &Builder{Program: program(t, c.script)}
			var events []progress.Event
			built, err := b.Build(context.Background(), build.Request{Cache: t.TempDir()}, progress.SinkFunc(func(e progress.Event) { events = append(events, e) }))
			if outcome.Of(err) != c.want || c.text != "" && !strings.Contains(err.Error(), c.text) {
				t.Errorf("Build() = %v, want %s with %q", err, c.want, c.text)
			}
			if c.want == outcome.Done && (built.File != "/x.splice" || len(events) != 1 || events[0].Stage != "compile") {
				t.Errorf("Build() = %+v, events %+v", built, events)
			}
		})
	}
}

func TestBuildEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	start := time.Now()
	b := &Builder{Program: program(t, "exec sleep 60")}
	_, err := b.Build(ctx, build.Request{}, progress.SinkFunc(func(progress.Event) {}))
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 20*time.Second {
		t.Errorf("Build() = %v after %s", err, time.Since(start))
	}
}

func TestPruneKeepsWhatTheRequestIsAbout(t *testing.T) {
	cache := t.TempDir()
	for _, v := range []string{"1.0-1", "1.0-2", "1.0-3"} {
		if err := os.MkdirAll(filepath.Join(cache, "packages", v, "x"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	req := request{Cache: cache}
	req.From.Version = "1.0-2"
	req.To = &build.Kernel{}
	req.To.Version = "1.0-3"
	prune(req)
	left, err := filepath.Glob(filepath.Join(cache, "packages", "*"))
	if err != nil || len(left) != 2 || filepath.Base(left[0]) != "1.0-2" {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestServeAnswersGarbage(t *testing.T) {
	for _, in := range []string{"", "{", `{"from":1}`, "null"} {
		var out bytes.Buffer
		if err := Serve(context.Background(), strings.NewReader(in), &out); err != nil || !strings.Contains(out.String(), `"error"`) {
			t.Errorf("Serve(%q) = %v, %s", in, err, out.String())
		}
	}
}

// A patch reaches the build process by its contents: the file itself may be one that
// only the caller can read.
func TestPatchesReachTheProcess(t *testing.T) {
	dir := t.TempDir()
	var paths []string
	for _, sub := range []string{"a", "b"} {
		path := filepath.Join(dir, sub, "fix.patch")
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("patch "+sub), 0o600); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	got := filepath.Join(t.TempDir(), "request")
	b := &Builder{Program: program(t, "cat >"+got+`; echo '{"result":{"file":"/x.splice","fuzz":["p: hunk 1"],"notes":["n"]}}'`)}
	built, err := b.Build(context.Background(), build.Request{Patches: paths, Description: "why", Cache: t.TempDir()}, progress.SinkFunc(func(progress.Event) {}))
	if err != nil || len(built.Fuzz) != 1 || len(built.Notes) != 1 {
		t.Fatalf("Build() = %+v, %v", built, err)
	}
	text, err := os.ReadFile(got)
	if err != nil {
		t.Fatal(err)
	}
	var req request
	if err := json.Unmarshal(text, &req); err != nil {
		t.Fatal(err)
	}
	req.Cache = t.TempDir()
	if err := os.Mkdir(filepath.Join(req.Cache, "tmp"), 0o755); err != nil {
		t.Fatal(err)
	}
	br, done, err := buildRequest(req)
	if err != nil {
		t.Fatal(err)
	}
	if br.Description != "why" || req.To != nil || len(br.Patches) != 2 {
		t.Errorf("request %+v", br)
	}
	if _, err := os.Stat(filepath.Join(br.CFiles, "include")); err != nil {
		t.Error(err)
	}
	for i, p := range br.Patches {
		text, err := os.ReadFile(p)
		if want := "patch " + string(rune('a'+i)); err != nil || string(text) != want || filepath.Base(p) != "fix.patch" {
			t.Errorf("%s: %q, %v", p, text, err)
		}
	}
	done()
	if left, _ := os.ReadDir(filepath.Join(req.Cache, "tmp")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	for _, name := range []string{"", "..", "a/b", "a\nb", "a\x1b[2J"} {
		req.Patches = []patchFile{{Name: name}}
		if _, _, err := buildRequest(req); err == nil {
			t.Errorf("the name %q was accepted", name)
		}
	}
	if _, err := b.Build(context.Background(), build.Request{Patches: []string{dir + "/nowhere"}}, progress.SinkFunc(func(progress.Event) {})); outcome.Of(err) != outcome.Failed {
		t.Errorf("a patch that is not there: %v", err)
	}
}

// What is wrong with a patch is a refusal that is named, not a failure.
func TestFaultOfPatch(t *testing.T) {
	for _, err := range []error{&patch.HunkError{}, &patch.AppliedError{}, &patch.UnsupportedError{}} {
		if a := fault(fmt.Errorf("building: %w", err)); a.Refused != "patch" {
			t.Errorf("%T: %+v", err, a)
		}
	}
}

// The policy reaches the build process, and no modules are not all modules.
func TestPolicyReachesTheProcess(t *testing.T) {
	for _, modules := range [][]string{nil, {}, {"ext4"}} {
		want := build.Policy{Allow: []string{"fs"}, Deny: []string{":f"}, Fixes: true, Modules: modules}
		file := filepath.Join(t.TempDir(), "request")
		b := &Builder{Program: program(t, "cat > "+file+`; echo '{"result":{"groups":[],"sources":[{"path":"a.c","kind":"changed"}]}}'`)}
		built, err := b.Build(context.Background(), build.Request{Policy: want, Cache: t.TempDir()}, progress.SinkFunc(func(progress.Event) {}))
		if err != nil || len(built.Sources) != 1 {
			t.Fatal(built, err)
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var req request
		if err := json.Unmarshal(text, &req); err != nil {
			t.Fatal(err)
		}
		req.Cache = t.TempDir()
		if err := os.Mkdir(filepath.Join(req.Cache, "tmp"), 0o755); err != nil {
			t.Fatal(err)
		}
		br, done, err := buildRequest(req)
		if err != nil {
			t.Fatal(err)
		}
		done()
		if diff := cmp.Diff(want, br.Policy); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	}
}
