// SPDX-License-Identifier: Apache-2.0

package apt

import (
	"strings"

	"github.com/upsplice/upsplice/plugins/backend"
)

// Texts by which apt's messages (apt 2.x and 3.x in the C locale) are told apart,
// the first that is found decides. A full disk also makes downloads fail in other
// ways, so it comes first; so does an index that is older than the archive.
var texts = []struct {
	text   string
	kind   backend.Kind
	remedy string
}{
	{"No space left on device", backend.NoSpace, "free some space"},
	{"enough free space", backend.NoSpace, "free some space"},
	{"Disk quota exceeded", backend.NoSpace, "free some space"},
	{"write failed (28:", backend.NoSpace, "free some space"},
	{"Hash Sum mismatch", backend.Corrupt, "run apt-get update and try again"},
	{"File has unexpected size", backend.Corrupt, "run apt-get update and try again"},
	{"Writing more data than expected", backend.Corrupt, "run apt-get update and try again"},
	{"404  Not Found", backend.NotFound, "run apt-get update and try again"},
	{"410  Gone", backend.NotFound, "run apt-get update and try again"},
	{"File not found", backend.NotFound, "run apt-get update and try again"},
	{"was not found", backend.NotFound, ""},
	{"Unable to locate package", backend.NotFound, ""},
	{"No packages found", backend.NotFound, ""},
	{"Can't find a source to download", backend.NotFound, ""},
	{"Can't select", backend.NotFound, ""},
	{"Failed to fetch", backend.Unavailable, "check the network and the mirror"},
	{"Could not connect", backend.Unavailable, "check the network and the mirror"},
	{"Could not resolve", backend.Unavailable, "check the network and the mirror"},
	{"Temporary failure resolving", backend.Unavailable, "check the network and the mirror"},
	{"Connection", backend.Unavailable, "check the network and the mirror"},
}

// classify makes a typed error of apt's messages.
func classify(what string, err error, stderr string) error {
	e := &backend.Error{Kind: backend.Internal, What: what, Detail: messages(stderr)}
	if e.Detail == "" {
		e.Detail = err.Error()
	}
	for _, t := range texts {
		if strings.Contains(stderr, t.text) {
			e.Kind, e.Remedy = t.kind, t.remedy
			break
		}
	}
	return e
}

// messages are the errors that apt printed, or everything if none is marked.
func messages(stderr string) string {
	var errs, all []string
	for line := range strings.Lines(stderr) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		all = append(all, line)
		if m, ok := strings.CutPrefix(line, "E: "); ok {
			errs = append(errs, m)
		}
	}
	if len(errs) == 0 {
		errs = all
	}
	return strings.Join(errs, "; ")
}
