// SPDX-License-Identifier: Apache-2.0

package tree

import "strings"

// dropped are the parts of a kernel tree that no object of a kernel is made from.
var dropped = []string{"Documentation/", "LICENSES/", "samples/", "tools/"}

// needed are the exceptions: kernel/bpf compiles sources of libbpf, and the
// kernel's own test modules include one header of the self tests.
var needed = []string{"tools/lib/bpf/", "tools/testing/selftests/kselftest_module.h"}

// keeps says whether compiling for arch can need the file.
func keeps(path, arch string) bool {
	if rest, ok := strings.CutPrefix(path, "arch/"); ok {
		dir, _, inDir := strings.Cut(rest, "/")
		return !inDir || arch == "" || dir == arch
	}
	for _, p := range needed {
		if strings.HasPrefix(path, p) {
			return true
		}
	}
	for _, p := range dropped {
		if strings.HasPrefix(path, p) {
			return false
		}
	}
	return true
}
