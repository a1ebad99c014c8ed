// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/upsplice/upsplice/plugins/conformance"
	"github.com/upsplice/upsplice/plugins/debian/internal/testarchive"
)

// The program as it is installed, started by the host.
func TestProgramConforms(t *testing.T) {
	a := testarchive.New(t)
	program := filepath.Join(t.TempDir(), "debian")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("building the backend: %v\n%s", err, out)
	}
	conformance.RunProgram(t, program, []string{"APT_CONFIG=" + a.Conf}, a.Fixtures())
}
