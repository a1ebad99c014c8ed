// SPDX-License-Identifier: Apache-2.0

// Probeprog prints what the probes find, for the test that runs it in a guest.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/upsplice/upsplice/kmod/probe"
)

func main() {
	text, err := json.Marshal(probe.Run(os.DirFS("/")))
	if err != nil {
		panic(err)
	}
	fmt.Printf("\nPROBE %s\n", text)
}
