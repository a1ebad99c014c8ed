// SPDX-License-Identifier: Apache-2.0

//go:build scale

package livepatch

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/upsplice/upsplice/kmod/lab"
	"github.com/upsplice/upsplice/kmod/vmtest"
	"github.com/upsplice/upsplice/splice/kimage"
)

// The environment of TestScale:
//
//	UPSPLICE_SCALE         how many functions the splice replaces; 100 if it is not set
//	UPSPLICE_SCALE_KERNEL  "backport": a kernel of a newer series
//	UPSPLICE_SCALE_DIR     where the written module is kept
func TestScale(t *testing.T) {
	n := 100
	if v := os.Getenv("UPSPLICE_SCALE"); v != "" {
		var err error
		if n, err = strconv.Atoi(v); err != nil || n < 2*scaleShare {
			t.Fatalf("UPSPLICE_SCALE=%s is no number of functions, or too few", v)
		}
	}
	parts := []lab.Part{lab.Image, lab.Headers, lab.Source}
	var k lab.Kernel
	if os.Getenv("UPSPLICE_SCALE_KERNEL") == "backport" {
		k = lab.NeedBackport(t, lab.Cloud, parts...)
	} else {
		k = lab.NeedNewest(t, parts...)
	}
	s := newScaled(t, k, n)
	s.checkAddresses(t, n)

	program := vmtest.BuildStatic(t, "../../kmod/livepatch/testdata/scaleprog", false)
	files := map[string]string{"bin/scaleprog": program}
	dir := cmp.Or(os.Getenv("UPSPLICE_SCALE_DIR"), t.TempDir())
	names := []string{"upsplice_a", "upsplice_b", "upsplice_c"}
	for i, name := range names {
		m := s.write(t, name, n-n/10*i) // what A had and B has not goes back
		files["lib/"+name+".ko"] = filepath.Join(dir, name+".ko")
		if err := os.WriteFile(files["lib/"+name+".ko"], m.Data, 0o600); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			checkModule(t, m.Data)
			t.Logf("%d functions of %d units and %d modules: %d bytes, %s", n, len(s.units), len(s.modules), len(m.Data), count(read(t, m.Data)))
		}
	}
	load := s.closure(t, files)
	host, err := exec.CommandContext(t.Context(), program, "-calibrate").Output()
	if err != nil {
		t.Fatal(err)
	}
	cycles := cmp.Or(os.Getenv("UPSPLICE_SCALE_CYCLES"), "5")
	script := fmt.Sprintf("/bin/scaleprog -modules %s -cycles %s %s", strings.Join(load, ","), cycles, strings.Join(names, " "))
	r := vmtest.RunInVM(t, k, script, files, func(m *vmtest.Machine) {
		m.CPUs, m.MemoryMB = 2, 1024
		m.Timeout = 5*time.Minute + time.Duration(n)*10*time.Second
	})
	t.Logf("on the host: %s", host)
	for line := range strings.Lines(r.Console) {
		if regexp.MustCompile(`^(calibrated|apply|undo|cycle|memory)`).MatchString(line) {
			t.Logf("in the guest: %s", strings.TrimSpace(line))
		}
	}
	if err := r.Err(); err != nil {
		t.Error(err)
		t.Log(r.Console)
	}
}

// closure puts the modules that are patched into files, with all that they depend on,
// and returns them in the order in which they can be loaded.
func (s *scaled) closure(t *testing.T, files map[string]string) []string {
	t.Helper()
	var order []string
	done := map[string]bool{}
	var add func(name string)
	add = func(name string) {
		if done[name] {
			return
		}
		done[name] = true
		img := s.modules[name]
		if img == nil {
			var err error
			if img, err = kimage.OpenModuleFile(s.paths[name], s.image, s.symvers.Module); err != nil {
				t.Fatal(err)
			}
		}
		for _, d := range img.Depends {
			add(strings.ReplaceAll(d, "-", "_"))
		}
		files["lib/"+name+".ko"] = plainModule(t, s.paths[name])
		order = append(order, name)
	}
	for _, name := range slices.Sorted(maps.Keys(s.modules)) {
		add(name)
	}
	return order
}

// plainModule returns the path of a module as the kernel takes it.
func plainModule(t *testing.T, path string) string {
	t.Helper()
	if !strings.HasSuffix(path, ".xz") {
		return path
	}
	raw, err := exec.CommandContext(t.Context(), "xz", "-dc", path).Output()
	if err != nil {
		t.Fatal(err)
	}
	plain := filepath.Join(t.TempDir(), strings.TrimSuffix(filepath.Base(path), ".xz"))
	if err := os.WriteFile(plain, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return plain
}
