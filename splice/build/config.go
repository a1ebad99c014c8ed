// SPDX-License-Identifier: Apache-2.0

package build

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// configChanges lists the options in which the configurations of two headers
// packages differ. Without the new kernel's headers nothing is known.
func configChanges(from, to string) ([]string, error) {
	if to == "" {
		return nil, nil
	}
	var sides [2]map[string]string
	for i, dir := range []string{from, to} {
		f, err := os.Open(filepath.Join(dir, ".config"))
		if err != nil {
			return nil, fmt.Errorf("needing the configuration: %w", err)
		}
		sides[i], err = readConfig(f)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", f.Name(), err)
		}
	}
	var names []string
	for _, pair := range [][2]map[string]string{{sides[0], sides[1]}, {sides[1], sides[0]}} {
		for name, value := range pair[0] {
			// The salt goes into the build id only.
			if pair[1][name] != value && name != "CONFIG_BUILD_SALT" {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// readConfig reads the options that are set.
func readConfig(r io.Reader) (map[string]string, error) {
	options := make(map[string]string)
	s := bufio.NewScanner(io.LimitReader(r, 16<<20))
	for s.Scan() {
		if name, value, ok := strings.Cut(s.Text(), "="); ok && strings.HasPrefix(name, "CONFIG_") {
			options[name] = value
		}
	}
	return options, s.Err()
}
