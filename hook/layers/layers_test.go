// SPDX-License-Identifier: Apache-2.0

// Package layers holds the table of which room may import which.
package layers

import (
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/upsplice/upsplice/"

// may lists, for each room, the other rooms that its programs may depend on.
var may = map[string][]string{
	"hook":    {"plugins", "distro", "splice", "kmod"},
	"plugins": {"distro"},
	"distro":  {},
	"splice":  {},
	"kmod":    {},
}

func TestRoomsImportOnlyWhatTheyMay(t *testing.T) {
	seen := map[string]bool{}
	for room, allowed := range may {
		out, err := exec.Command("go", "list", "-deps", "-f", "{{.ImportPath}}", module+room+"/...").CombinedOutput()
		if err != nil {
			t.Fatalf("listing the packages of %s: %v\n%s", room, err, out)
		}
		for _, pkg := range strings.Fields(string(out)) {
			rest, ours := strings.CutPrefix(pkg, module)
			if !ours {
				continue
			}
			other, _, _ := strings.Cut(rest, "/")
			seen[other] = true
			if other != room && !contains(allowed, other) {
				t.Errorf("%s depends on %s", room, pkg)
			}
		}
	}
	for room := range may {
		if !seen[room] {
			t.Errorf("no package of %s was seen: the test looks in the wrong place", room)
		}
	}
}

// The engine and the knowledge of distributions are libraries: no networking and
// nothing of the plugin machinery may creep into them.
func TestEngineIsPlain(t *testing.T) {
	for _, room := range []string{"splice", "distro", "kmod"} {
		out, err := exec.Command("go", "list", "-deps", "-f", "{{.ImportPath}}", module+room+"/...").Output()
		if err != nil {
			t.Fatal(err)
		}
		for _, pkg := range strings.Fields(string(out)) {
			if pkg == "net/http" || strings.HasPrefix(pkg, "google.golang.org/grpc") {
				t.Errorf("%s depends on %s", room, pkg)
			}
		}
	}
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}
