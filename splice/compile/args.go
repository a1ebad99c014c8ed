// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"

	"github.com/upsplice/upsplice/splice/kbuild"
	"github.com/upsplice/upsplice/splice/lines"
)

const depOption = "-Wp,-MMD,"

// command turns kbuild's compile line into ours: every function and datum in a
// section of its own, debug information for the comparison of layouts if it is
// wanted, and the results in places of our choice.
func command(u kbuild.Unit, object, dep string, wantDebug bool) ([]string, error) {
	args := slices.Clone(u.Args)
	n := len(args)
	if n < 5 || args[n-4] != "-c" || args[n-3] != "-o" {
		return nil, errors.New("the compile line does not end in -c -o OBJECT SOURCE")
	}
	args[n-2] = object
	hasDep, debug := false, false
	for i, a := range args {
		if strings.HasPrefix(a, depOption) {
			args[i] = depOption + dep
			hasDep = true
		}
		if strings.HasPrefix(a, "-g") {
			debug = true
		}
	}
	if !hasDep {
		return nil, errors.New("the compile line does not ask for dependencies")
	}
	if !assembler(u) {
		more := []string{"-ffunction-sections", "-fdata-sections"}
		switch {
		case !wantDebug:
			more = append(more, "-g0") // the last one counts
		case !debug:
			more = append(more, "-g")
		}
		args = slices.Insert(args, n-4, more...)
	}
	return args, nil
}

// strict are options for code and types that were not written for each other: values
// that are pointers on the one side only, or that do not fit.
var strict = []string{"-Werror=int-conversion", "-Werror=overflow", "-Werror=shift-count-overflow"}

// verbose are options for a run that is only about the errors.
var verbose = []string{"-fmax-errors=0", "-fno-diagnostics-show-caret", "-fdiagnostics-color=never", "-D" + lines.Physical}

// allTypes keeps types in the debug information of which only the size or the offset
// of a member is used. The code stays the same.
const allTypes = "-fno-eliminate-unused-debug-types"

// assembler sources may take in files with .incbin, which no list of dependencies
// mentions.
func assembler(u kbuild.Unit) bool { return filepath.Ext(u.Source) == ".S" }

// normalised are the arguments without the paths that differ from one tree to the
// next: two trees with the same contents compile to the same object.
func normalised(u kbuild.Unit, source string) []string {
	args := make([]string, len(u.Args))
	for i, a := range u.Args {
		args[i] = strings.ReplaceAll(a, source, "$SOURCE")
	}
	return args
}

// dependencies reads the dependency file that the compiler wrote: rules of make,
// with a backslash before the end of a line and before spaces. Paths become
// relative to the source tree or, with the prefix "O:", to the output directory;
// what is in neither stays absolute.
func dependencies(text, source string) []string {
	text = strings.ReplaceAll(text, "\\\r\n", " ")
	text = strings.ReplaceAll(text, "\\\n", " ")
	_, text, ok := strings.Cut(text, ": ")
	if !ok {
		return nil
	}
	text, _, _ = strings.Cut(text, "\n") // rules without prerequisites may follow
	var deps []string
	for _, word := range strings.Fields(strings.ReplaceAll(text, "\\ ", "\x00")) {
		word = strings.ReplaceAll(strings.ReplaceAll(word, "\x00", " "), "$$", "$")
		if rel, ok := strings.CutPrefix(word, source+"/"); ok {
			word = filepath.Clean(rel)
		} else if filepath.IsAbs(word) {
			word = filepath.Clean(word)
		} else {
			word = "O:" + filepath.Clean(word)
		}
		deps = append(deps, word)
	}
	slices.Sort(deps)
	return slices.Compact(deps)
}

// locate is the reverse of what dependencies does to a path.
func locate(dep string, o *kbuild.Output) string {
	if rel, ok := strings.CutPrefix(dep, "O:"); ok {
		return filepath.Join(o.Dir, rel)
	}
	if filepath.IsAbs(dep) {
		return dep
	}
	return filepath.Join(o.Source, dep)
}
