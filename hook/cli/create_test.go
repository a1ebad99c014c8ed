// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/upsplice/upsplice/hook/outcome"
	"github.com/upsplice/upsplice/hook/pipeline"
	"github.com/upsplice/upsplice/hook/report"
	"github.com/upsplice/upsplice/plugins/backend"
	"github.com/upsplice/upsplice/splice/splicefile"
)

func TestCreateForms(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	for _, tt := range []struct{ args, want string }{
		{"", "not said what"},
		{"--kernel 6.1", "not said what"},
		{"--patch a --git D C", "cannot be combined"},
		{"--patch a --to 6.1", "cannot be combined"},
		{"--git D --from " + dir + " --to " + other + " C", "cannot be combined"},
		{"--git D", "needs a COMMIT"},
		{"COMMIT", "goes with --git"},
		{"--patch a COMMIT", "goes with --git"},
		{"--from " + dir + " --to 6.1", "two directories or two releases"},
		{"--from 6.1 --to " + dir, "two directories or two releases"},
		{"--to " + dir, "two directories or two releases"},
		{"--from /nowhere/a --to /nowhere/b", "a directory does not exist"},
		{"--kernel 6.1 --to 6.2", "--kernel is for patches"},
		{"--to 6.2 --description x", "--description is for patches"},
		{"--kernel 6.1 -o x", "--kernel is for patches"},
		{"a b", "accepts at most 1 arg"},
	} {
		var errs bytes.Buffer
		code := Main(append([]string{"create", "--config", "/nonexistent"}, strings.Fields(tt.args)...), strings.NewReader(""), io.Discard, &errs)
		if code != outcome.Usage.ExitCode() || !strings.Contains(errs.String(), tt.want) {
			t.Errorf("create %s: exit code %d, %q, want %q", tt.args, code, errs.String(), tt.want)
		}
		if !strings.HasPrefix(tt.want, "accepts") && !strings.Contains(errs.String(), "--git DIR COMMIT") {
			t.Errorf("create %s does not say the right form: %q", tt.args, errs.String())
		}
	}
	for _, in := range []inputs{
		{patches: []string{"a", "b"}, kernel: "6.1", description: "x"}, {git: dir, commit: "HEAD"}, {from: dir, to: other, kernel: "6.1"},
		{from: "6.1", to: "6.2"}, {to: "6.2", output: "x"}, {output: "x"},
	} {
		if err := in.check(); err != nil {
			t.Errorf("%+v: %v", in, err)
		}
	}
}

// Each form ends in files that the build process gets the contents of.
func TestCreateFiles(t *testing.T) {
	from, to, repo := t.TempDir(), t.TempDir(), t.TempDir()
	put := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	git := func(args ...string) {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-C", repo, "-c", "user.name=a", "-c", "user.email=a@example.org"}, args...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	put(filepath.Join(from, "a.c"), "a\n")
	put(filepath.Join(to, "a.c"), "b\n")
	git("init", "-q")
	for _, text := range []string{"a\n", "b\n"} {
		put(filepath.Join(repo, "a.c"), text)
		git("add", "-A")
		git("commit", "-qm", text)
	}
	own := filepath.Join(t.TempDir(), "fix.patch")
	put(own, "text")
	for _, tt := range []struct {
		name string
		in   inputs
		file string
	}{
		{"patch", inputs{patches: []string{own}}, "fix.patch"},
		{"git", inputs{git: repo, commit: "HEAD"}, ".patch"},
		{"trees", inputs{from: from, to: to, trees: true}, filepath.Base(from) + "-to-" + filepath.Base(to) + ".patch"},
	} {
		files, done, err := tt.in.files(context.Background())
		if err != nil || len(files) != 1 || !strings.HasSuffix(files[0], tt.file) {
			t.Errorf("%s: %v, %v", tt.name, files, err)
			continue
		}
		text, err := os.ReadFile(files[0])
		if want := "-a\n+b\n"; err != nil || tt.name != "patch" && !strings.Contains(string(text), want) {
			t.Errorf("%s: %q, %v", tt.name, text, err)
		}
		done()
		if _, err := os.Stat(files[0]); (err == nil) != (tt.name == "patch") {
			t.Errorf("%s: after it: %v", tt.name, err)
		}
	}
	for _, in := range []inputs{{patches: []string{"/nowhere/x"}}, {git: repo, commit: "nowhere"}, {git: repo, commit: "HEAD~1"}, {from: from, to: from, trees: true}} {
		if _, _, err := in.files(context.Background()); err == nil {
			t.Errorf("%+v: no error", in)
		}
	}
}

// What a person and a program see of a splice of patches.
func TestCreatePrints(t *testing.T) {
	dir := t.TempDir()
	f := &splicefile.File{
		Manifest: splicefile.Manifest{Groups: []splicefile.Group{{Units: []string{"fs/a.o"}, Live: true}},
			Modules: []splicefile.Module{{Name: "upsplice_1", File: "upsplice_1.ko"}}},
		Payload: map[string][]byte{"upsplice_1": []byte("module")},
	}
	made := filepath.Join(dir, "made.splice")
	out, err := os.Create(made)
	if err != nil {
		t.Fatal(err)
	}
	if err := splicefile.Write(out, f); err != nil {
		t.Fatal(err)
	}
	out.Close()
	k := backend.Kernel{Release: "6.1-x", SourceVersion: "6.1-1", Arch: "amd64"}
	step := pipeline.Step{From: k, To: k, Patches: []string{"/tmp/fix.patch"}, Description: "why"}
	built := pipeline.Built{File: made, Files: 1, Hunks: 2, Units: 1, Fuzz: []string{"fix.patch: fs/a.c: hunk 1 applied at line 9, fuzz 1"}, Notes: []string{"n"},
		Groups: []splicefile.Group{
			{Units: []string{"fs/a.o"}, Functions: []string{"f"}, Live: true},
			{Units: []string{"fs/b.o"}, Functions: []string{"g"}, Reasons: []splicefile.Reason{{Code: "layout", What: "struct s", Detail: "it grew"}}},
			{Units: []string{"fs/c.o"}, Functions: []string{"h"}, Boot: true},
		}}
	var text bytes.Buffer
	a := &app{out: &text, err: io.Discard}
	target := filepath.Join(dir, "out.splice")
	if err := a.planned(inputs{output: target}, step, built); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"kernel      6.1-x   6.1-1\n", "patch       fix.patch\n", "inexact     fix.patch: fs/a.c: hunk 1", "live        fs/a.o\n              f\n",
		"deferred    fs/b.o\n              g\n              layout: struct s: it grew\n", "at boot     fs/c.o", "note        n\n", "written     " + target} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("%q is missing in\n%s", want, text.String())
		}
	}
	want, _ := os.ReadFile(made)
	if got, err := os.ReadFile(target); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the file: %v", err)
	}
	text.Reset()
	if err := a.planned(inputs{json: true}, step, built); outcome.Of(err) != outcome.PartlyLive {
		t.Fatal(err)
	}
	var v report.Report
	if err := json.Unmarshal(text.Bytes(), &v); err != nil || len(v.Fuzz) != 1 || v.Patches[0] != "fix.patch" || v.Description != "why" || len(v.Groups) != 3 || v.ID == "" {
		t.Errorf("JSON: %v\n%s", err, text.String())
	}
	text.Reset()
	page := filepath.Join(dir, "page.html")
	if err := a.planned(inputs{html: page}, step, built); outcome.Of(err) != outcome.PartlyLive || !strings.Contains(text.String(), "live        would be 1 of 2 fixes") {
		t.Errorf("HTML: %v\n%s", err, text.String())
	}
	if b, err := os.ReadFile(page); err != nil || !bytes.Contains(b, []byte("1 of 2 fixes would be live.")) {
		t.Errorf("the page: %v\n%s", err, b)
	}
	text.Reset()
	if err := a.planned(inputs{html: "-"}, step, built); outcome.Of(err) != outcome.PartlyLive || !strings.HasPrefix(text.String(), "<!DOCTYPE html>") {
		t.Errorf("HTML on standard output: %v\n%s", err, text.String())
	}
	// Nothing to write is said by the outcome, and nothing is written.
	built.File, built.Groups = "", nil
	nowhere := filepath.Join(dir, "nothing.splice")
	if err := a.planned(inputs{output: nowhere}, step, built); outcome.Of(err) != outcome.NothingToDo {
		t.Errorf("nothing made: %v", err)
	}
	if _, err := os.Stat(nowhere); err == nil {
		t.Error("a file was written")
	}
}
