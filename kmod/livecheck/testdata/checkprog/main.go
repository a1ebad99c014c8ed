// SPDX-License-Identifier: Apache-2.0

// Checkprog compares the running kernel with the expectations in a file, and
// prints each function that does not match. It runs in a guest.
package main

import (
	"encoding/gob"
	"fmt"
	"os"

	"github.com/upsplice/upsplice/kmod/kallsyms"
	"github.com/upsplice/upsplice/kmod/kcore"
	"github.com/upsplice/upsplice/kmod/livecheck"
)

func must(err error) {
	if err != nil {
		fmt.Println("checkprog:", err)
		os.Exit(1)
	}
}

func main() {
	f, err := os.Open(os.Args[1])
	must(err)
	var exp []livecheck.Expectation
	must(gob.NewDecoder(f).Decode(&exp))
	syms, err := kallsyms.Open(os.DirFS("/"))
	must(err)
	core, err := kcore.Open(os.DirFS("/"))
	must(err)
	k, err := livecheck.NewKernel(syms, core, exp)
	must(err)
	wrong, blind := 0, 0
	for _, e := range exp {
		if err := livecheck.Check(k, []livecheck.Expectation{e}); err != nil {
			wrong++
			if wrong <= 40 {
				fmt.Println("MISMATCH", err)
			}
			continue
		}
		// The check must be able to fail: outside of all fields, any other byte is wrong.
		at := free(e)
		if at < 0 {
			continue
		}
		e.Bytes[at] ^= 1
		if livecheck.Check(k, []livecheck.Expectation{e}) == nil {
			blind++
			fmt.Println("BLIND", e.Name, at)
		}
	}
	fmt.Printf("\nchecked %d functions, slide %v, %d wrong, %d blind\n", len(exp), k.Slide != 0, wrong, blind)
}

// free returns the last offset that no field covers, -1 if there is none.
func free(e livecheck.Expectation) int {
	covered := make([]bool, len(e.Bytes))
	for _, f := range e.Fields {
		for i := f.Off; i < f.Off+f.Len; i++ {
			covered[i] = true
		}
	}
	for i := len(covered) - 1; i >= 0; i-- {
		if !covered[i] {
			return i
		}
	}
	return -1
}
