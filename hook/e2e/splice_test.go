// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/upsplice/upsplice/hook/rig"
	"github.com/upsplice/upsplice/kmod/lab"
	"github.com/upsplice/upsplice/kmod/vmtest"
	"github.com/upsplice/upsplice/splice/build"
	"github.com/upsplice/upsplice/splice/splicefile"
)

// splice builds the splice of the small pair. The cache outlives the test run:
// its keys are contents.
func splice(t *testing.T, from, to lab.Kernel) *splicefile.File {
	t.Helper()
	res, err := build.Run(context.Background(), build.Request{From: rig.Side(from), To: rig.Side(to),
		Cache: filepath.Join(lab.Dir(), "cache")})
	if err != nil {
		t.Fatal(err)
	}
	if res.File == nil {
		t.Fatalf("nothing goes live: %+v", res.Groups)
	}
	return res.File
}

func put(t *testing.T, dir, name string, f *splicefile.File) string {
	t.Helper()
	var b bytes.Buffer
	if err := splicefile.Write(&b, f); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// clone copies what the test changes.
func clone(f *splicefile.File) *splicefile.File {
	c := *f
	c.Manifest.Expect = slices.Clone(f.Manifest.Expect)
	return &c
}

// TestSpliceInARealKernel applies a real splice to a real kernel, in every state,
// and feeds it what must be refused.
func TestSpliceInARealKernel(t *testing.T) {
	from, to := lab.NeedPair(t)
	good := splice(t, from, to)
	dir := t.TempDir()

	otherBuild := clone(good)
	otherBuild.Manifest.From.BuildID = strings.Repeat("0", len(good.Manifest.From.BuildID))
	otherMemory := clone(good)
	otherMemory.Manifest.Expect[0].Bytes = slices.Clone(good.Manifest.Expect[0].Bytes)
	otherMemory.Manifest.Expect[0].Bytes[len(otherMemory.Manifest.Expect[0].Bytes)-1] ^= 1

	path := put(t, dir, "good.splice", good)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	flipped := slices.Clone(data)
	flipped[len(flipped)/2] ^= 1
	for name, b := range map[string][]byte{"flipped.splice": flipped, "truncated.splice": data[:len(data)/2], "empty.splice": nil} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	files := map[string]string{
		"/bin/upsplice":            vmtest.BuildStatic(t, "github.com/upsplice/upsplice/hook/upsplice", false),
		"/s/good.splice":           path,
		"/s/other-build.splice":    put(t, dir, "other-build.splice", otherBuild),
		"/s/other-memory.splice":   put(t, dir, "other-memory.splice", otherMemory),
		"/s/flipped.splice":        filepath.Join(dir, "flipped.splice"),
		"/s/truncated.splice":      filepath.Join(dir, "truncated.splice"),
		"/s/empty.splice":          filepath.Join(dir, "empty.splice"),
		"/etc/upsplice/x.toml":     filepath.Join(dir, "empty.splice"),
		"/var/lib/upsplice/marker": filepath.Join(dir, "empty.splice"),
	}
	const script = `
expect() { # CODE COMMAND…
	want=$1; shift
	"$@"; got=$?
	[ $got = $want ] && echo "as expected: $got $*" || echo "UNEXPECTED: $got instead of $want: $*"
}
patches() { n=$(ls /sys/kernel/livepatch | wc -l); [ $n = $1 ] || echo "UNEXPECTED: $n livepatches instead of $1"; }
for bad in other-build other-memory flipped truncated empty; do
	expect 4 upsplice apply /s/$bad.splice
	patches 0
done
expect 3 upsplice undo
expect 0 upsplice apply /s/good.splice; patches 1
expect 0 upsplice apply /s/good.splice; patches 1
expect 4 upsplice apply /s/other-memory.splice; patches 1
expect 0 upsplice boot; patches 1
upsplice status
echo "effective $(upsplice uname -r)"
expect 0 upsplice status --live --quiet
expect 0 upsplice undo; patches 0
echo "then $(upsplice uname -r)"
expect 3 upsplice undo
expect 3 upsplice status --live --quiet
expect 0 upsplice apply /s/good.splice; patches 1
# A reboot, as far as the journal can tell: the record is of another boot.
expect 0 upsplice undo; patches 0
sed -i 's/"state": *"undone"/"state":"live"/; s/"boot_id": *"[^"]*"/"boot_id":"00000000-0000-0000-0000-000000000000"/' /var/lib/upsplice/splices/*.json
expect 0 upsplice boot; patches 1
echo "again $(upsplice uname -r)"
expect 0 upsplice undo; patches 0
[ "$(grep -c ^upsplice_ /proc/modules)" = 0 ] || echo "UNEXPECTED: modules are left"
`
	for _, c := range []struct {
		name   string
		change func(*vmtest.Machine)
	}{
		{"one processor", func(m *vmtest.Machine) { m.CPUs = 1 }},
		{"two processors, no KASLR", func(m *vmtest.Machine) { m.CPUs, m.Append = 2, m.Append+" nokaslr" }},
	} {
		t.Run(c.name, func(t *testing.T) {
			res := vmtest.RunInVM(t, from, script, files, func(m *vmtest.Machine) {
				m.MemoryMB, m.Timeout = 1024, 6*time.Minute
				c.change(m)
			})
			if err := res.Err(); err != nil || strings.Contains(res.Console, "UNEXPECTED") {
				t.Fatalf("%v\n%s", err, res.Console)
			}
			for _, want := range []string{"effective " + to.Release, "then " + from.Release, "again " + to.Release} {
				if !strings.Contains(res.Console, want) {
					t.Errorf("the console does not say %q:\n%s", want, res.Console)
				}
			}
		})
	}
	t.Run("the new kernel refuses it", func(t *testing.T) {
		res := vmtest.RunInVM(t, to, `upsplice apply /s/good.splice; echo "status $?"`, files, func(m *vmtest.Machine) { m.MemoryMB = 1024 })
		if err := res.Err(); err != nil || !strings.Contains(res.Console, "status 4") || !strings.Contains(res.Console, from.Release) {
			t.Errorf("%v\n%s", err, res.Console)
		}
	})
}
