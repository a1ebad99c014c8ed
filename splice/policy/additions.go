// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"regexp"
	"strings"

	"github.com/upsplice/upsplice/splice/freeze"
	"github.com/upsplice/upsplice/splice/splicefile"
)

var (
	exportCall = regexp.MustCompile(`\bEXPORT(?:_[A-Z]+)*_SYMBOL\w*\s*\(\s*(\w+)`)
	paramCall  = regexp.MustCompile(`\bmodule_param\w*\s*\(\s*(\w+)`)
	idTable    = regexp.MustCompile(`\bstruct\s+(?:\w+_device_id|dmi_system_id)\s+\w+\s*\[`)
)

// Addition finds what a group brings that the kernel has not got yet: a file, an
// exported symbol, a module parameter, a device id. A group without is a change of
// existing code, which is what fixes are made of. No changelog is asked: its lines
// do not say which code is theirs, and CVE ids are given to fixes weeks later.
// The entities are those of the whole group, so that what only moves is no addition.
func Addition(entities []freeze.Entity) (reason splicefile.Reason, ok bool) {
	had := map[string]bool{}
	for _, e := range entities {
		for _, re := range []*regexp.Regexp{exportCall, paramCall} {
			for _, m := range re.FindAllStringSubmatch(e.Pre, -1) {
				had[m[1]] = true
			}
		}
	}
	for _, e := range entities {
		if e.Kind == freeze.Whole && e.Pre == "" {
			return adds(e.File, "the file is new"), true
		}
		if e.Kind == freeze.Invocation || e.Kind == freeze.Whole {
			if m := exportCall.FindStringSubmatch(e.Post); m != nil && !had[m[1]] {
				return adds(m[1], "it is a new exported symbol"), true
			}
			if m := paramCall.FindStringSubmatch(e.Post); m != nil && !had[m[1]] {
				return adds(m[1], "it is a new module parameter"), true
			}
		}
		if e.Kind == freeze.Data && idTable.MatchString(e.Post) && newLine(e.Pre, e.Post) {
			return adds(name(e), "it has new device ids"), true
		}
	}
	return splicefile.Reason{}, false
}

func adds(what, detail string) splicefile.Reason {
	return splicefile.Reason{Code: Code, What: what, Detail: detail + `, and the configuration wants fixes only`}
}

func name(e freeze.Entity) string {
	if len(e.Names) > 0 {
		return e.Names[0]
	}
	return e.File
}

// newLine tells whether post has a line that is not in pre.
func newLine(pre, post string) bool {
	lines := map[string]bool{}
	for l := range strings.Lines(pre) {
		lines[strings.TrimSpace(l)] = true
	}
	for l := range strings.Lines(post) {
		if l = strings.TrimSpace(l); l != "" && !lines[l] {
			return true
		}
	}
	return false
}
