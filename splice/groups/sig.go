// SPDX-License-Identifier: Apache-2.0

package groups

import (
	"slices"
	"strconv"
	"strings"

	"github.com/upsplice/upsplice/splice/freeze"
)

// signature is what users of an entity can see of it: the types of a function and
// its parameters, how many parameters a macro has, the type of a variable. What
// changes neither calls nor accesses (storage, const, annotations, names of
// parameters) is left out.
func signature(e *freeze.Entity, s *side) string {
	if s == nil {
		return ""
	}
	toks := plain(s.toks)
	switch e.Kind {
	case freeze.Function, freeze.Declaration:
		return prototype(toks, e.Names)
	case freeze.Macro:
		return macroSignature(s.toks)
	case freeze.Data:
		for i, t := range toks {
			if t.is("=") {
				return spell(bareType(toks[:i]))
			}
		}
		return spell(bareType(toks))
	}
	return ""
}

func macroSignature(toks []token) string {
	name, params, variadic := macroHead(toks)
	if name < 0 || params == nil {
		return "object"
	}
	if variadic {
		return "variadic " + strconv.Itoa(len(params))
	}
	return strconv.Itoa(len(params))
}

// macroHead finds the name of a #define, and its parameters: nil if it has none.
func macroHead(toks []token) (name int, params []string, variadic bool) {
	for i := 0; i+2 < len(toks); i++ {
		if !toks[i].is("#") || toks[i+1].text != "define" && toks[i+1].text != "undef" {
			continue
		}
		name = i + 2
		t := toks[name]
		if toks[i+1].text == "define" && name+1 < len(toks) && toks[name+1].is("(") && toks[name+1].pos == t.end {
			params = []string{}
			for _, a := range arguments(toks, name+1) {
				if len(a) > 0 {
					variadic = variadic || a[len(a)-1].is("...")
					params = append(params, a[0].text)
				}
			}
		}
		return name, params, variadic
	}
	return -1, nil, false
}

// prototype is the return type and those of the parameters.
func prototype(toks []token, names []string) string {
	at := -1
	for i, t := range toks {
		if t.is("{") {
			toks = toks[:i]
			break
		}
		if at < 0 && t.is("(") && i > 0 && slices.Contains(names, toks[i-1].text) {
			at = i
		}
	}
	if at < 0 || at == 1 {
		return spell(toks) // a macro makes it
	}
	var b strings.Builder
	b.WriteString(spell(bareType(toks[:at-1])))
	b.WriteByte('(')
	b.WriteString(parameters(toks, at))
	return b.String()
}

// parameters are the types of what stands in the parentheses at i.
func parameters(toks []token, i int) string {
	var list []string
	for _, a := range arguments(toks, i) {
		list = append(list, paramType(a))
	}
	if len(list) == 1 && list[0] == "void" {
		list = nil
	}
	return strings.Join(list, ",")
}

// paramType is the type of a parameter without its name.
func paramType(toks []token) string {
	toks = bareType(toks)
	for i, t := range toks {
		// A pointer to a function: the name stands behind the star.
		if t.is("(") && i+1 < len(toks) && toks[i+1].is("*") {
			out := slices.Clone(toks[:i+2])
			for k := i + 2; k < len(toks); k++ {
				if k > i+2 || !toks[k].ident() {
					out = append(out, toks[k])
				}
			}
			return spell(out)
		}
	}
	array := false
	for i, t := range toks {
		if t.is("[") {
			toks, array = toks[:i], true
			break
		}
	}
	if n := len(toks); n > 1 && toks[n-1].ident() && !basicTypes[toks[n-1].text] {
		switch toks[n-2].text {
		case "struct", "union", "enum":
		default:
			toks = toks[:n-1]
		}
	}
	if array {
		return spell(toks) + " *"
	}
	return spell(toks)
}

// bareType leaves out of a declaration what does not make another type.
func bareType(toks []token) []token {
	var out []token
	for i := 0; i < len(toks); i++ {
		t := toks[i]
		if t.ident() && decoration(t.text) {
			if i+1 < len(toks) && toks[i+1].is("(") && strings.HasPrefix(t.text, "_") {
				i = after(toks, i+1) - 1
			}
			continue
		}
		if t.is(";") {
			continue
		}
		out = append(out, t)
	}
	return out
}

func decoration(name string) bool {
	switch name {
	case "static", "extern", "inline", "const", "volatile", "register", "restrict", "asmlinkage", "noinline", "notrace",
		"noinstr", "nokprobe_inline", "noinline_for_stack", "randomized_struct_fields_start", "randomized_struct_fields_end":
		return true
	}
	if !strings.HasPrefix(name, "__") || strings.HasSuffix(name, "_t") {
		return false
	}
	for _, prefix := range []string{"__u8", "__u16", "__u32", "__u64", "__s8", "__s16", "__s32", "__s64", "__be", "__le", "__sum16", "__wsum", "__virtio", "__int128", "__kernel", "__builtin", "__typeof"} {
		if strings.HasPrefix(name, prefix) {
			return false
		}
	}
	return true
}
