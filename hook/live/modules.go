// SPDX-License-Identifier: Apache-2.0

package live

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Modules are the names of the modules that are loaded, sorted, without ours. A
// kernel without modules has none.
func (k *Kernel) Modules() ([]string, error) {
	f, err := k.Root.Open("proc/modules")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing modules: %w", err)
	}
	defer f.Close()
	var names []string
	for sc := bufio.NewScanner(f); ; {
		if !sc.Scan() {
			if err := sc.Err(); err != nil {
				return nil, fmt.Errorf("reading /proc/modules: %w", err)
			}
			slices.Sort(names)
			return names, nil
		}
		name, rest, ok := strings.Cut(sc.Text(), " ")
		if !ok || name == "" || rest == "" {
			return nil, fmt.Errorf("reading /proc/modules: the line %q has an unknown form", sc.Text())
		}
		if !strings.HasPrefix(name, ModulePrefix) {
			names = append(names, name)
		}
	}
}

// Uptime is how long the kernel has run; 0 if that is not known.
func (k *Kernel) Uptime() time.Duration {
	b, err := fs.ReadFile(k.Root, "proc/uptime")
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(b), " ")
	seconds, err := strconv.ParseFloat(first, 64)
	if err != nil || seconds < 0 || seconds > 1e9 {
		return 0
	}
	return time.Duration(seconds * float64(time.Second))
}
