// SPDX-License-Identifier: Apache-2.0

// Run makes splices of the corpus of real changes, tries each in a booted kernel,
// and prints what became of them. It is the program of the guest too, and has to be
// linked statically.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"regexp"

	"github.com/upsplice/upsplice/hook/corpus"
)

func main() {
	var err error
	if len(os.Args) > 1 && os.Args[1] == "guest" {
		err = corpus.Guest(context.Background())
	} else {
		err = run(context.Background())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "corpus:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	only := flag.String("only", "", "changes whose name matches this `pattern`, for example ^6.12/ or /cloud-amd64/fs-")
	dir := flag.String("cache", "", "`directory` to make the splices in, and to keep for the next time")
	flag.Parse()
	pattern, err := regexp.Compile(*only)
	if err != nil {
		return err
	}
	all, err := corpus.Load()
	if err != nil {
		return err
	}
	var chosen []corpus.Change
	for _, c := range all {
		if pattern.MatchString(c.Series + "/" + c.Flavour + "/" + c.Name) {
			chosen = append(chosen, c)
		}
	}
	if len(chosen) == 0 {
		return fmt.Errorf("no change matches %q", *only)
	}
	if *dir == "" {
		if *dir, err = os.MkdirTemp("/var/tmp", "upsplice-corpus-"); err != nil {
			return err
		}
		defer os.RemoveAll(*dir)
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	var rows []corpus.Row
	say := func(format string, arg ...any) { fmt.Fprintf(os.Stderr, format+"\n", arg...) }
	if err := corpus.Run(ctx, chosen, *dir, program, say, func(r corpus.Row) { rows = append(rows, r) }); err != nil {
		return err
	}
	corpus.Print(os.Stdout, rows)
	for _, r := range rows {
		if r.Fault() != "" {
			return errors.New("not everything was as expected")
		}
	}
	return nil
}
