// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/upsplice/upsplice/hook/rehearse"
	"github.com/upsplice/upsplice/kmod/lab"
	"github.com/upsplice/upsplice/kmod/vmtest"
)

// TestRehearseSeesFaults: a rehearsal is worth what it notices.
func TestRehearseSeesFaults(t *testing.T) {
	from, to := lab.NeedPair(t)
	good := splice(t, from, to)
	dir := t.TempDir()
	other := clone(good)
	other.Manifest.Expect[0].Bytes = slices.Clone(good.Manifest.Expect[0].Bytes)
	other.Manifest.Expect[0].Bytes[len(other.Manifest.Expect[0].Bytes)-1] ^= 1
	script := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	program := vmtest.BuildStatic(t, "github.com/upsplice/upsplice/hook/upsplice", false)
	paths := map[string]string{"good": put(t, dir, "good.splice", good), "other": put(t, dir, "other.splice", other)}
	for name, c := range map[string]struct {
		splice, exec string
		failed       string // step
		says         string
	}{
		"other memory":       {splice: "other", failed: "check", says: "live memory"},
		"failing script":     {splice: "good", exec: script("fails", "echo from the script; ls /sys/kernel/livepatch; exit 3"), failed: "run the script", says: "exit status 3"},
		"kernel complains":   {splice: "good", exec: script("warns", "echo 'WARNING: CPU: 0 PID: 1 at made/up.c:1' >/dev/kmsg"), failed: "kernel log", says: "made/up.c"},
		"kernel dies of it":  {splice: "good", exec: script("dies", "echo c >/proc/sysrq-trigger"), says: "did not survive"},
		"no such image":      {splice: "good", exec: "-", says: "--image"},
		"program not static": {splice: "good", exec: "/bin/ls", says: "statically"},
	} {
		t.Run(name, func(t *testing.T) {
			args := []string{"rehearse", "--json", "--rounds", "0", "--config", "/nonexistent", paths[c.splice]}
			image := from.Vmlinuz
			switch c.exec {
			case "":
			case "-":
				image = "/nonexistent/vmlinuz"
			default:
				args = append(args, "--exec", c.exec)
			}
			args = append(args, "--image", image, "--modules", filepath.Join(from.Root, "lib/modules", from.Release))
			var stdout, stderr bytes.Buffer
			cmd := exec.Command(program, args...)
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			err := cmd.Run()
			code := 0
			var exit *exec.ExitError
			if errors.As(err, &exit) {
				code = exit.ExitCode()
			} else if err != nil {
				t.Fatal(err)
			}
			all := stdout.String() + stderr.String()
			var rep rehearse.Report
			if stdout.Len() > 0 {
				if err := json.Unmarshal(stdout.Bytes(), &rep); err != nil {
					t.Fatalf("%v\n%s", err, all)
				}
			}
			var failed []string
			for _, s := range rep.Steps {
				if !s.OK {
					failed = append(failed, s.Name)
				}
			}
			want := 0
			switch {
			case name == "no such image" || name == "program not static":
				want = 1
			case c.says != "":
				want = 4
			}
			var wantFailed []string
			if c.failed != "" {
				wantFailed = []string{c.failed}
			}
			if d := cmp.Diff(wantFailed, failed); code != want || d != "" || rep.OK != (want == 0) {
				t.Errorf("exit code %d, want %d; failed steps (-want +got):\n%s\n%s", code, want, d, all)
			}
			if name == "kernel dies of it" {
				if len(rep.Log) == 0 || !strings.Contains(strings.Join(rep.Log, "\n"), "sysrq triggered crash") {
					t.Errorf("the log is %q", rep.Log)
				}
			} else if !strings.Contains(all, c.says) {
				t.Errorf("it does not say %q:\n%s", c.says, all)
			}
		})
	}
}

// TestRehearseAModule: the target comes before the splice and after it.
func TestRehearseAModule(t *testing.T) {
	k, _ := lab.NeedPair(t)
	rep, err := rehearse.Run(t.Context(), rehearse.Options{
		Splice: patched(t, k, "cmdline", "serial-first"), Image: k.Vmlinuz, Modules: filepath.Join(k.Root, "lib/modules", k.Release),
		Program: vmtest.BuildStatic(t, "github.com/upsplice/upsplice/hook/upsplice", false), Rounds: 2,
		Step: func(s rehearse.Step) { t.Logf("%v %5.1f s %s: %s", s.OK, s.Seconds, s.Name, s.Detail) },
	})
	if err != nil {
		t.Fatal(err)
	}
	var loaded []string
	for _, s := range rep.Steps {
		if strings.HasPrefix(s.Name, "load modules") || s.Name == "unload modules" {
			loaded = append(loaded, s.Detail)
		}
	}
	want := []string{"virtio_blk", "virtio_blk, virtio, virtio_ring", "virtio_blk"}
	if d := cmp.Diff(want, loaded); d != "" || !rep.OK || rep.Rounds != 2 {
		t.Errorf("loading and unloading (-want +got):\n%s\n%+v", d, rep)
	}
}
