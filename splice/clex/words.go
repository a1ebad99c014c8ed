// SPDX-License-Identifier: Apache-2.0

package clex

import "strings"

// OpensBody says whether a brace after these tokens is that of a function. An
// aggregate ends at the semicolon after its brace, a function at the brace.
func OpensBody(toks []Token) bool {
	compound, called := false, false
	for i, depth := 0, 0; i < len(toks); i++ {
		t := toks[i]
		switch {
		case t.Is("("):
			if depth == 0 && i > 0 && !Attribute(toks[i-1].Text) {
				called, compound = true, false
			}
			depth++
		case t.Is(")"):
			depth--
		case depth > 0:
		case t.Is("="):
			return false
		case t.Is("*"):
			compound = false
		case t.Text == "struct" || t.Text == "union" || t.Text == "enum":
			compound = !called
		}
	}
	return called && !compound
}

// Attribute says whether a name that is followed by parentheses belongs to a
// declaration without being what is declared.
func Attribute(name string) bool {
	switch name {
	case "__attribute__", "__attribute", "__aligned", "__section", "__printf", "__scanf", "__acquires", "__releases",
		"__must_hold", "__cond_acquires", "__alloc_size", "__malloc", "__alias", "__assume_aligned", "__asm__", "asm", "__asm",
		"__typeof__", "typeof", "__typeof", "__alignas", "_Alignas", "__counted_by", "__no_sanitize_or_inline", "__mode",
		"__realloc_size", "__copy", "__cleanup", "__designated_init", "__diagnose_as", "__compiletime_error",
		"__compiletime_warning", "__nonnull", "__nocfi", "__error", "__warning", "__no_context_analysis", "__guarded_by",
		"__declspec", "__exidx", "__cold_on", "____cacheline_aligned_in_smp", "sizeof", "_Static_assert", "static_assert":
		return true
	}
	return strings.HasPrefix(name, "__attribute")
}

// Aggregate finds the braces of a struct, union or enum that is defined here.
func Aggregate(toks []Token) (from, to int) {
	for i, t := range toks {
		if t.Is("{") {
			if OpensBody(toks[:i]) {
				return 0, 0
			}
			head := false
			for j := range toks[:i] {
				if toks[j].Is("=") {
					return 0, 0
				}
				head = head || toks[j].Text == "struct" || toks[j].Text == "union" || toks[j].Text == "enum"
			}
			if !head {
				return 0, 0
			}
			return i, Closing(toks, i)
		}
	}
	return 0, 0
}

// Closing is the index of the brace that closes the one at i, or the last index.
func Closing(toks []Token, i int) int {
	depth := 0
	for j := i; j < len(toks); j++ {
		if toks[j].Is("{") {
			depth++
		} else if toks[j].Is("}") {
			if depth--; depth == 0 {
				return j
			}
		}
	}
	return len(toks) - 1
}

// Starred says whether the tokens end in an open parenthesis and stars.
func Starred(toks []Token) bool {
	for i := len(toks) - 1; i >= 0; i-- {
		switch {
		case toks[i].Is("("):
			return i < len(toks)-1
		case !toks[i].Is("*") && !Qualifier(toks[i].Text):
			return false
		}
	}
	return false
}

// Qualifier says whether a name qualifies what is pointed to.
func Qualifier(name string) bool {
	switch name {
	case "const", "volatile", "restrict", "__restrict", "__user", "__rcu", "__iomem", "__percpu", "__force", "__kernel":
		return true
	}
	return false
}

// Keyword says whether a name is one of the language or of the preprocessor.
func Keyword(name string) bool {
	switch name {
	case "auto", "break", "case", "char", "const", "continue", "default", "do", "double", "else", "enum", "extern", "float",
		"for", "goto", "if", "inline", "int", "long", "register", "return", "short", "signed", "sizeof", "static", "struct",
		"switch", "typedef", "union", "unsigned", "void", "volatile", "while", "asm", "typeof", "defined", "elif", "endif",
		"ifdef", "ifndef", "__attribute__", "__VA_ARGS__", "__inline", "__inline__", "__extension__", "_Bool":
		return true
	}
	return false
}

// Storage says whether a name is a storage class or the like.
func Storage(name string) bool {
	switch name {
	case "static", "extern", "inline", "__inline", "__inline__", "const", "register", "auto":
		return true
	}
	return false
}

// Basic names types that a declaration never defines itself but in the few
// headers that define nothing else.
func Basic(name string) bool {
	switch name {
	case "u8", "u16", "u32", "u64", "s8", "s16", "s32", "s64", "__u8", "__u16", "__u32", "__u64", "__s8", "__s16", "__s32",
		"__s64", "bool", "__init", "__exit", "__initdata", "__read_mostly", "__ro_after_init", "__always_inline",
		"noinline", "__weak", "__pure", "__must_check", "__percpu", "__user", "__rcu", "__iomem", "__maybe_unused",
		"__packed", "asmlinkage", "__visible", "__cold", "__noreturn", "__attribute_const__", "__refdata", "__bitwise",
		"__initconst", "__deprecated", "__used", "__latent_entropy", "noinstr", "__kprobes", "__sched", "____cacheline_aligned",
		"____cacheline_aligned_in_smp", "____cacheline_internodealigned_in_smp", "__cacheline_aligned", "__cacheline_aligned_in_smp",
		"__randomize_layout", "__no_randomize_layout", "__designated_init":
		return true
	}
	return false
}
