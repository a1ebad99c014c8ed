// SPDX-License-Identifier: Apache-2.0

// Command debian is the backend of upsplice for Debian. upsplice starts it;
// `debian describe` says what it is.
package main

import (
	"runtime/debug"

	"github.com/upsplice/upsplice/plugins/backend"
	"github.com/upsplice/upsplice/plugins/debian/internal/kernels"
)

func main() {
	backend.Serve(kernels.New(kernels.FromEnvironment(version())))
}

func version() string {
	if bi, ok := debug.ReadBuildInfo(); ok && bi.Main.Version != "" {
		return bi.Main.Version
	}
	return "unknown"
}
