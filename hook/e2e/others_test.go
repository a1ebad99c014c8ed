// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/upsplice/upsplice/kmod/lab"
	"github.com/upsplice/upsplice/kmod/vmtest"
)

// expect begins scripts of guests.
const expect = `
expect() { # CODE TEXT COMMAND…
	want=$1 text=$2; shift 2
	"$@" >/tmp/out 2>&1; got=$?
	cat /tmp/out
	[ $got = $want ] && grep -q "$text" /tmp/out && echo "as expected: $got $*" || echo "UNEXPECTED: $got instead of $want, or not the text $text: $*"
}
patches() { n=$(ls /sys/kernel/livepatch | wc -l); [ $n = $1 ] || echo "UNEXPECTED: $n livepatches instead of $1"; }
`

// TestLivepatchOfOthers: somebody else's livepatch is seen, named and left alone.
func TestLivepatchOfOthers(t *testing.T) {
	from, to := lab.NeedPair(t)
	files := map[string]string{
		"/bin/upsplice":        vmtest.BuildStatic(t, "github.com/upsplice/upsplice/hook/upsplice", false),
		"/s/good.splice":       put(t, t.TempDir(), "good.splice", splice(t, from, to)),
		"/s/kpatch_other.ko":   vmtest.BuildModule(t, from, "../../kmod/livepatch/testdata/cmdline.c", "kpatch_other", "TEXT=theirs"),
		"/s/upsplice_other.ko": vmtest.BuildModule(t, from, "../../kmod/livepatch/testdata/cmdline.c", "upsplice_other", "TEXT=ours"),
	}
	const script = expect + `
expect 0 '"other_livepatches": null' upsplice status --json
insmod /s/kpatch_other.ko
for i in $(seq 100); do [ $(cat /sys/kernel/livepatch/kpatch_other/transition) = 0 ] && break; sleep 0.2; done
expect 0 "kpatch_other.*in force, not of upsplice: 1 function" upsplice status
expect 0 '"name": "kpatch_other"' upsplice status --json
expect 4 "kpatch_other, which is not ours" upsplice apply /s/good.splice
grep theirs /proc/cmdline || echo "UNEXPECTED: it was replaced"
patches 1
echo 0 >/sys/kernel/livepatch/kpatch_other/enabled
for i in $(seq 100); do [ -e /sys/kernel/livepatch/kpatch_other ] || break; sleep 0.2; done
patches 0
# One of ours of which the journal knows nothing is taken over from.
insmod /s/upsplice_other.ko
for i in $(seq 100); do [ $(cat /sys/kernel/livepatch/upsplice_other/transition) = 0 ] && break; sleep 0.2; done
grep ours /proc/cmdline || echo "UNEXPECTED: the livepatch is not in force"
expect 0 "is live" upsplice apply /s/good.splice
grep ours /proc/cmdline && echo "UNEXPECTED: it was not replaced"
patches 1
grep upsplice_other /proc/modules && echo "UNEXPECTED: the replaced module is still loaded"
expect 0 "is undone" upsplice undo
patches 0
`
	res := vmtest.RunInVM(t, from, script, files, func(m *vmtest.Machine) { m.MemoryMB, m.Timeout = 1024, 6*time.Minute })
	if err := res.Err(); err != nil || strings.Contains(res.Console, "UNEXPECTED") {
		t.Fatalf("%v\n%s", err, res.Console)
	}
}
