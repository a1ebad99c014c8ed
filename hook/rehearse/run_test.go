// SPDX-License-Identifier: Apache-2.0

package rehearse

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/upsplice/upsplice/kmod/vm"
	"github.com/upsplice/upsplice/splice/splicefile"
)

func TestWhatIsMissingIsNamed(t *testing.T) {
	opt := Options{Splice: &splicefile.File{Manifest: splicefile.Manifest{From: splicefile.Kernel{Release: "1.2-x"}}}, Image: filepath.Join(t.TempDir(), "vmlinuz")}
	_, err := Run(t.Context(), opt)
	var image *ImageError
	if !errors.As(err, &image) || !strings.Contains(err.Error(), "--image") || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without an image: %v", err)
	}
	t.Setenv("PATH", "")
	_, err = Run(t.Context(), opt)
	var tool *vm.MissingToolError
	if !errors.As(err, &tool) || !strings.Contains(err.Error(), "apt-get install qemu-system-x86") {
		t.Errorf("without QEMU: %v", err)
	}
}

// TestFollower reads a report that grows, with lines that are cut and that are none.
func TestFollower(t *testing.T) {
	path := filepath.Join(t.TempDir(), "report")
	rep := &Report{}
	var seen []string
	f := follower{path: path, rep: rep, step: func(s Step) { seen = append(seen, s.Name) }}
	add := func(text string) {
		w, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.WriteString(text); err != nil {
			t.Fatal(err)
		}
		w.Close()
	}
	off := f.read(0)
	add("noise\r\n{\"step\":{\"name\":\"one\",\"ok\":true}}\r\n{\"step\":{\"na")
	off = f.read(off)
	if d := cmp.Diff([]string{"one"}, seen); d != "" {
		t.Errorf("steps (-want +got):\n%s", d)
	}
	add("me\":\"two\",\"ok\":false}}\r\n{\"final\":{\"kernel\":\"k\",\"apply\":[1,2]}}\r\n")
	f.read(off)
	if d := cmp.Diff([]string{"one", "two"}, seen); d != "" || len(rep.Steps) != 2 || rep.Steps[1].OK {
		t.Errorf("steps (-want +got):\n%s%+v", d, rep.Steps)
	}
	if f.final == nil || f.final.Kernel != "k" || len(f.final.Apply) != 2 {
		t.Errorf("final %+v", f.final)
	}
}

func TestStatic(t *testing.T) {
	for path, want := range map[string]bool{"/bin/busybox": true, "/bin/ls": false, "/etc/passwd": false} {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := Static(data); got != want {
			t.Errorf("Static(%s) = %v", path, got)
		}
	}
}
