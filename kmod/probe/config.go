// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"bufio"
	"compress/gzip"
	"io"
	"io/fs"
	"strings"
)

// maxConfig bounds an unpacked configuration; real ones have 300 kB.
const maxConfig = 16 << 20

// config is the kernel's build configuration, as far as it could be found.
type config struct {
	name string // of the file, "" if none could be read
	set  map[string]bool
}

// readConfig tries the file that distributions install and the one that the
// kernel may carry in itself. The second is the running kernel's for certain, the
// first only if no other build of the same release has been installed.
func readConfig(root fs.FS, release string) config {
	if f, err := root.Open("proc/config.gz"); err == nil {
		defer f.Close()
		if z, err := gzip.NewReader(f); err == nil {
			if set, err := parseConfig(z); err == nil {
				return config{"/proc/config.gz", set}
			}
		}
	}
	if release != "" && !strings.Contains(release, "/") {
		name := "boot/config-" + release
		if f, err := root.Open(name); err == nil {
			defer f.Close()
			if set, err := parseConfig(f); err == nil {
				return config{"/" + name, set}
			}
		}
	}
	return config{}
}

// parseConfig collects the options that are y or m; all others are not set.
func parseConfig(r io.Reader) (map[string]bool, error) {
	set := map[string]bool{}
	sc := bufio.NewScanner(io.LimitReader(r, maxConfig))
	for sc.Scan() {
		name, value, ok := strings.Cut(sc.Text(), "=")
		if ok && strings.HasPrefix(name, "CONFIG_") && (value == "y" || value == "m") {
			set[name] = true
		}
	}
	return set, sc.Err()
}

// isSet says whether an option is y or m, if the configuration is known. A file
// without a single option is not a configuration.
func (c config) isSet(option string) (set, known bool) {
	return c.set[option], len(c.set) > 0
}
