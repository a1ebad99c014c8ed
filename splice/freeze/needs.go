// SPDX-License-Identifier: Apache-2.0

package freeze

import (
	"regexp"
	"strconv"
	"strings"
)

// NeedKind is what the running kernel does not have, or has in another form.
type NeedKind string

// Kinds of needs.
const (
	Member       NeedKind = "member"       // Name of the member, Detail is the type
	MissingType  NeedKind = "type"         // Name of the type
	Symbol       NeedKind = "symbol"       // function, constant, variable, enum value
	Prototype    NeedKind = "prototype"    // Name of the function or macro if it is known; Detail is the message
	Header       NeedKind = "header"       // Name of a file to include
	Redefinition NeedKind = "redefinition" // both versions of Name are there
	Other        NeedKind = "other"        // Detail is the message
)

// Place is a line of a file, as the compiler names both.
type Place struct {
	File string
	Line int
}

// Need is an error of the compiler in code that is between two trees.
type Need struct {
	Place
	Kind     NeedKind
	Name     string
	Detail   string
	Function string  // that the error is in, "" if the compiler did not say
	Via      []Place // macros that the error came through, from within to where the outermost is called
}

var (
	errorLine  = regexp.MustCompile(`^([^\s:][^:]*):(\d+):(?:\d+:)? (?:fatal )?error: (.*)$`)
	expansion  = regexp.MustCompile(`^([^\s:][^:]*):(\d+):(?:\d+:)? note: in (?:expansion|definition) of macro '`)
	inFunction = regexp.MustCompile(`^[^\s:][^:]*: In function '([^']+)'`)
	atTopLevel = regexp.MustCompile(`^[^\s:][^:]*: At top level:`)
	option     = regexp.MustCompile(` \[-W[^\]]*\]$`)
	also       = regexp.MustCompile(` \{aka '([^']*)'\}`)
)

// form is a message of gcc. Its groups are called name and detail.
type form struct {
	kind NeedKind
	re   *regexp.Regexp
}

func forms(kind NeedKind, list ...string) (all []form) {
	for _, s := range list {
		s = strings.ReplaceAll(s, "NAME", `'(?:struct |union |enum |const |volatile )*(?P<name>[^']*)'`)
		all = append(all, form{kind, regexp.MustCompile("^" + s)})
	}
	return all
}

// messages are those of gcc 9 to 14 for C, in LC_ALL=C.
var messages = concat(
	forms(Member,
		`'(?:const |volatile )*(?P<detail>[^']*)' has no member named NAME`,
		`unknown field NAME specified in initializer`,
		`request for member NAME in something not a structure or union`,
		`NAME is a pointer; did you mean to use '->'`,
	),
	forms(MissingType,
		`unknown type name NAME`,
		`invalid use of (?:undefined|incomplete) type(?:def)? NAME`,
		`dereferencing pointer to incomplete type NAME`,
		`invalid application of '[^']*' to incomplete type NAME`,
		`array type has incomplete element type NAME`,
		`variable '(?P<detail>[^']*)' has initializer but incomplete type`,
		`storage size of '(?P<detail>[^']*)' isn't known`,
		`field '(?P<detail>[^']*)' has incomplete type`,
		`parameter \d+ \('(?P<detail>[^']*)'\) has incomplete type`,
		`type of formal parameter \d+ is incomplete`,
	),
	forms(Symbol,
		`NAME undeclared`,
		`implicit declaration of function NAME`,
		`nested extern declaration of NAME`,
		`label NAME used but not defined`,
	),
	forms(Prototype,
		`too (?:few|many) arguments to function NAME`,
		`conflicting types for NAME`,
		`conflicting type qualifiers for NAME`,
		`passing argument \d+ of NAME`,
		`incompatible type for argument \d+ of NAME`,
		`macro "(?P<name>[^"]*)" (?:passed|requires) \d+ arguments`,
		`(?:static|non-static) declaration of NAME follows`,
		`extern declaration of NAME follows`,
		`number of arguments doesn't match prototype`,
		`called object NAME is not a function`,
		`(?:initialization|assignment|return|returning|comparison)\b.*(?:incompatible|integer from pointer|pointer from integer|makes)`,
		`incompatible types when (?:initializing|assigning|returning)`,
		`void value not ignored`,
		`invalid use of void expression`,
		`invalid initializer`,
	),
	forms(Header, `(?P<name>[^:']+): No such file or directory`),
	forms(Redefinition,
		`redefinition of NAME`,
		`redeclaration of enumerator NAME`,
		`redeclaration of NAME`,
		`nested redefinition of NAME`,
		`"(?P<name>[^"]*)" redefined`,
	),
)

func concat(lists ...[]form) (all []form) {
	for _, l := range lists {
		all = append(all, l...)
	}
	return all
}

// maxNeeds bounds what is read of a compiler's output.
const maxNeeds = 10000

// Needs reads what gcc says about a unit that does not compile. It takes the output
// of compile.Compiler with Frozen, so that lines are those that Made.At takes. The
// first place of a need is where the text stands that is wrong; Via is filled where
// that is within a macro or an argument of one.
func Needs(stderr string) []Need {
	var list []Need
	function := ""
	for len(stderr) > 0 && len(list) < maxNeeds {
		var line string
		line, stderr, _ = strings.Cut(stderr, "\n")
		line = strings.TrimSuffix(line, "\r")
		if m := inFunction.FindStringSubmatch(line); m != nil {
			function = m[1]
			continue
		}
		if atTopLevel.MatchString(line) {
			function = ""
			continue
		}
		if m := expansion.FindStringSubmatch(line); m != nil && len(list) > 0 {
			n, err := strconv.Atoi(m[2])
			if last := &list[len(list)-1]; err == nil && len(last.Via) < 200 {
				last.Via = append(last.Via, Place{m[1], n})
			}
			continue
		}
		m := errorLine.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		n, err := strconv.Atoi(m[2])
		if err != nil {
			continue
		}
		need := Need{Place: Place{m[1], n}, Function: function}
		need.read(m[3])
		list = append(list, need)
	}
	return list
}

func (n *Need) read(message string) {
	message = option.ReplaceAllString(message, "")
	plain := also.ReplaceAllString(message, "")
	for _, f := range messages {
		m := f.re.FindStringSubmatch(plain)
		if m == nil {
			continue
		}
		n.Kind = f.kind
		if i := f.re.SubexpIndex("name"); i > 0 {
			n.Name = m[i]
		}
		if i := f.re.SubexpIndex("detail"); i > 0 {
			n.Detail = m[i]
		}
		if n.Detail == "" && n.Kind != Symbol && n.Kind != MissingType && n.Kind != Header {
			n.Detail = message
		}
		return
	}
	n.Kind, n.Detail = Other, message
}
