// SPDX-License-Identifier: Apache-2.0

// Upsplice puts kernel updates live while the package manager installs them.
package main

import (
	"os"

	"github.com/upsplice/upsplice/hook/cli"
)

func main() { os.Exit(cli.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }
