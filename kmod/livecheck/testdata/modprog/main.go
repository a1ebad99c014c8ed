// SPDX-License-Identifier: Apache-2.0

// Modprog compares loaded modules with the expectations in a file, and prints each
// function that does not match. It runs in a guest.
package main

import (
	"encoding/gob"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/upsplice/upsplice/kmod/kallsyms"
	"github.com/upsplice/upsplice/kmod/kcore"
	"github.com/upsplice/upsplice/kmod/livecheck"
)

func must(err error) {
	if err != nil {
		fmt.Println("modprog:", err)
		os.Exit(1)
	}
}

func main() {
	root := os.DirFS("/")
	f, err := os.Open(os.Args[1])
	must(err)
	var mods []livecheck.Module
	must(gob.NewDecoder(f).Decode(&mods))
	// what kallsyms has of each module, in the order of the file
	var order map[string][]string
	must(gob.NewDecoder(f).Decode(&order))
	syms, err := kallsyms.Open(root)
	must(err)
	core, err := kcore.Open(root)
	must(err)
	k, err := livecheck.NewKernel(syms, core, nil)
	must(err)

	check := func(m livecheck.Module, e ...livecheck.Expectation) ([]string, error) {
		m.Expect = e
		return livecheck.CheckModules(k, root, []livecheck.Module{m})
	}
	functions, wrong, blind, rewritten, disorder := 0, 0, 0, 0, 0
	var skipped []string
	for _, m := range mods {
		s, err := check(m, m.Expect...)
		if len(s) > 0 {
			skipped = append(skipped, s...)
			continue
		}
		var have []string
		for _, s := range syms.Module(m.Name) {
			have = append(have, s.Name)
		}
		if strings.Join(have, " ") != strings.Join(order[m.Name], " ") {
			fmt.Printf("DISORDER %s: %d symbols, %d expected\n", m.Name, len(have), len(order[m.Name]))
			disorder++
		}
		var build *livecheck.BuildError
		if _, err := check(livecheck.Module{Name: m.Name, BuildID: strings.Repeat("0", 40)}, m.Expect...); !errors.As(err, &build) {
			fmt.Println("BLIND for another build of", m.Name, err)
			blind++
		}
		for _, e := range m.Expect {
			functions++
			if err != nil {
				if _, err := check(m, e); err != nil {
					if wrong++; wrong <= 40 {
						fmt.Println("MISMATCH", err)
					}
					continue
				}
			}
			// The check must be able to fail: outside of all fields, any other byte is wrong.
			bare := e
			bare.Fields = nil
			if _, err := check(m, bare); err != nil {
				rewritten++
			}
			if at := free(e); at >= 0 {
				e.Bytes[at] ^= 1
				if _, err := check(m, e); err == nil {
					blind++
					fmt.Println("BLIND", m.Name, e.Name, at)
				}
				e.Bytes[at] ^= 1
			}
		}
	}
	fmt.Printf("\nchecked %d functions of %d modules, skipped %v, %d wrong, %d blind, %d in disorder, rewritten %v\n",
		functions, len(mods), skipped, wrong, blind, disorder, rewritten > functions/2)
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
