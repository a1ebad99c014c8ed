// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/upsplice/upsplice/hook/rehearse"
	"github.com/upsplice/upsplice/kmod/lab"
	"github.com/upsplice/upsplice/kmod/vmtest"
)

// rounds is ROUNDS of the environment, as `make loop` sets it.
func rounds(t *testing.T) int {
	t.Helper()
	v := os.Getenv("ROUNDS")
	if v == "" {
		return 10
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 2 {
		t.Fatalf("ROUNDS is %q", v)
	}
	return n
}

// TestLoop applies, uses and undoes a real splice under load. No message of the
// kernel, no slab cache and no module may come of it.
func TestLoop(t *testing.T) {
	from, to := lab.NeedPair(t)
	n := rounds(t)
	rep, err := rehearse.Run(t.Context(), rehearse.Options{
		Splice: splice(t, from, to), Image: from.Vmlinuz, Modules: filepath.Join(from.Root, "lib/modules", from.Release),
		Program: vmtest.BuildStatic(t, "github.com/upsplice/upsplice/hook/upsplice", false), Rounds: n,
		Step: func(s rehearse.Step) { t.Logf("%v %5.1f s %s: %s", s.OK, s.Seconds, s.Name, s.Detail) },
	})
	if err != nil {
		t.Fatal(err)
	}
	if !rep.OK || rep.Rounds != n || len(rep.Log) > 0 || len(rep.Slabs) > 0 || rep.Kernel != from.Release {
		t.Fatalf("%+v", rep)
	}
	t.Logf("%d rounds on %s: apply %.2f s, undo %.2f s (medians)", rep.Rounds, rep.Accelerator, rep.Apply, rep.Undo)
}
