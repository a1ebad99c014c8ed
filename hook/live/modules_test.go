// SPDX-License-Identifier: Apache-2.0

package live

import (
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

func TestModules(t *testing.T) {
	of := func(text string) *Kernel {
		return &Kernel{Root: fstest.MapFS{"proc/modules": {Data: []byte(text)}}}
	}
	got, err := of("xfs 1 0 - Live 0x0\nupsplice_3f9c2a 1 1 - Live 0x0 (OK)\next4 1 1 - Live 0x0\n").Modules()
	if diff := cmp.Diff([]string{"ext4", "xfs"}, got); diff != "" || err != nil {
		t.Errorf("Modules() = %v (-want +got):\n%s", err, diff)
	}
	if got, err := (&Kernel{Root: fstest.MapFS{}}).Modules(); got != nil || err != nil {
		t.Errorf("without modules: %v, %v", got, err)
	}
	if _, err := of("ext4\n").Modules(); err == nil {
		t.Error("a line without fields is accepted")
	}
}
