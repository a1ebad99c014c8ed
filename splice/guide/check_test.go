// SPDX-License-Identifier: Apache-2.0

package guide

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/upsplice/upsplice/kmod/lab"
	"github.com/upsplice/upsplice/splice/objdiff"
)

// pitfalls that the guide has to have a section for.
var pitfalls = []string{
	"Callbacks", "Replaced initial data", "Data structure changes", "Semantic changes", "Locks", "Init code", "Headers",
	"Static locals", "Code removal", "Timers and work items", "Once macros", "inline implies notrace",
	"Jump labels and static calls of modules", "Sibling calls", "Versions of exported symbols", "System calls", "Symbol namespaces",
	"What differs and should not",
}

// TestGuide compiles each example of the guide for the newest kernel of each series
// and compares it with its patched forms.
func TestGuide(t *testing.T) {
	guide, err := os.ReadFile("../GUIDE.md")
	if err != nil {
		t.Fatal(err)
	}
	sections := regexp.MustCompile(`(?m)^## (.*)$`).FindAllStringSubmatchIndex(string(guide), -1)
	var titles []string
	for i, s := range sections {
		title := string(guide[s[2]:s[3]])
		end := len(guide)
		if i+1 < len(sections) {
			end = sections[i+1][0]
		}
		if slices.Contains(pitfalls, title) && !strings.Contains(string(guide[s[1]:end]), "\n```diff ") {
			t.Errorf("section %q has no example", title)
		}
		titles = append(titles, title)
	}
	for _, p := range pitfalls {
		if !slices.Contains(titles, p) {
			t.Errorf("the guide has no section %q", p)
		}
	}
	list := examples(t, string(guide))
	for _, k := range kernels(t) {
		t.Run(k.Series, func(t *testing.T) {
			objects := build(t, k, list)
			for _, e := range list {
				if e.of == "" {
					continue
				}
				res, err := objdiff.Compare(objects[e.of], objects[e.name])
				if err != nil {
					t.Errorf("GUIDE.md:%d: comparing: %v", e.line, err)
					continue
				}
				if got := verdict(res); got != e.want {
					t.Errorf("GUIDE.md:%d: the outcome is %s, not %s: functions %v, data %v, refusals %v", e.line, got, e.want, names(res.Functions), names(res.Data), res.Refusals)
				}
				for macro, section := range map[string]string{
					"_PRE_PATCH_CALLBACK(": ".kpatch.callbacks.pre_patch", "_POST_PATCH_CALLBACK(": ".kpatch.callbacks.post_patch",
					"_PRE_UNPATCH_CALLBACK(": ".kpatch.callbacks.pre_unpatch", "_POST_UNPATCH_CALLBACK(": ".kpatch.callbacks.post_unpatch",
					"KPATCH_IGNORE_SECTION(": ".kpatch.ignore.sections", "KPATCH_IGNORE_FUNCTION(": ".kpatch.ignore.functions",
				} {
					s := objects[e.name].Section(section)
					if strings.Contains(e.text, macro) != (s != nil && len(s.Relocs) > 0) {
						t.Errorf("GUIDE.md:%d: %s is used: %v, section %s: %v", e.line, macro, strings.Contains(e.text, macro), section, s)
					}
				}
			}
		})
	}
}

// verdict: an outcome, or "init" where nothing that is running changes.
func verdict(res *objdiff.Result) string {
	blocked := slices.ContainsFunc(res.Refusals, objdiff.Refusal.Blocks)
	if !blocked && len(res.Functions) == 0 && len(res.Boot) > 0 {
		return "init"
	}
	return string(res.Outcome)
}

func names(changes []objdiff.Change) (list []string) {
	for _, c := range changes {
		list = append(list, string(c.Kind)+" "+c.Name)
	}
	return list
}

// kernels returns the newest kernel of each series that has headers.
func kernels(t *testing.T) []lab.Kernel {
	t.Helper()
	all, err := lab.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	newest := map[string]lab.Kernel{}
	for _, k := range all {
		if k.HasHeaders {
			newest[k.Series] = k
		}
	}
	var list []lab.Kernel
	for _, k := range newest {
		if err := lab.Fetch(t.Context(), &k, lab.Headers); err != nil {
			t.Fatal(err)
		}
		list = append(list, k)
	}
	if len(list) == 0 {
		t.Fatal("the archive has no kernel headers")
	}
	slices.SortFunc(list, func(a, b lab.Kernel) int { return strings.Compare(a.Version, b.Version) })
	return list
}

var compilerText = regexp.MustCompile(`(?m)^CONFIG_CC_VERSION_TEXT="(?:x86_64-linux-gnu-)?(gcc-\d+) `)

// compiler returns the command that the kernel was compiled with.
func compiler(t *testing.T, k lab.Kernel) string {
	t.Helper()
	config, err := os.ReadFile(filepath.Join(k.HeadersDir, ".config"))
	if err != nil {
		t.Fatal(err)
	}
	m := compilerText.FindSubmatch(config)
	if m == nil {
		t.Fatalf("%s does not name its compiler", k)
	}
	return string(m[1])
}
