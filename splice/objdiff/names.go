// SPDX-License-Identifier: Apache-2.0

package objdiff

import (
	"debug/elf"
	"regexp"
	"strings"

	"github.com/upsplice/upsplice/splice/object"
)

var (
	numberSuffix = regexp.MustCompile(`\.[0-9]+`)
	digits       = regexp.MustCompile(`[0-9]+`)
	lastDigits   = regexp.MustCompile(`[0-9]+(?:\.[0-9]+)*$`)
	// clang makes static names global for link time optimisation
	llvmSuffix = regexp.MustCompile(`\.llvm\.[0-9]+$`)
	// variables of the sanitizers have no symbol, only a section of their own
	unnamedData = regexp.MustCompile(`^(\.(?:data|rodata)\.\.L[^0-9]*)[0-9]+$`)
	coldSuffix  = regexp.MustCompile(`^(.+)\.cold(?:\.[0-9]+)?$`)
	partSuffix  = regexp.MustCompile(`^(.+)\.part\.[0-9]+(?:\..*)?$`)
	cloneSuffix = regexp.MustCompile(`\.(?:cold|part|isra|constprop|lto_priv)(?:\.|$).*`)

	// FORTIFY and the like put the place into the message
	fileLine = regexp.MustCompile(`(\.[chS]):[0-9]+`)
)

// numbered says that the compiler or the preprocessor numbered the name, so that
// it means something within one object only: "_rs.26", "foo.constprop.0",
// "__UNIQUE_ID_license312".
func numbered(name string) bool {
	name = plain(name)
	return counted(name) || numberSuffix.MatchString(name)
}

// plain is the name in the source.
func plain(name string) string { return llvmSuffix.ReplaceAllString(name, "") }

func counted(name string) bool {
	return strings.HasPrefix(name, "__UNIQUE_ID_") || strings.HasPrefix(name, "__initcall_") ||
		strings.HasPrefix(name, "__exitcall_")
}

// stem is the name without the numbers: "_rs", "foo.constprop".
func stem(name string) string {
	name = plain(name)
	switch {
	case strings.HasPrefix(name, "__UNIQUE_ID_"):
		return strings.TrimSuffix(lastDigits.ReplaceAllString(name, ""), "_")
	case counted(name):
		return digits.ReplaceAllString(name, "")
	}
	return numberSuffix.ReplaceAllString(name, "")
}

// family names the function that a function was split off or cloned from.
func family(name string) string { return cloneSuffix.ReplaceAllString(plain(name), "") }

// parentName returns the function that a .cold or .part function was split off
// from, "" for others.
func parentName(name string) string {
	name = plain(name)
	if m := coldSuffix.FindStringSubmatch(name); m != nil {
		return m[1]
	}
	if m := partSuffix.FindStringSubmatch(name); m != nil {
		return m[1]
	}
	return ""
}

func isCold(name string) bool { return coldSuffix.MatchString(name) }

// prefixed returns the function that a symbol is the prefix of: padding that the
// kernel may fill with code, or the type that CFI checks in front of the function.
func prefixed(name string) (string, bool) {
	for _, p := range []string{"__pfx_", "__cfi_"} {
		if f, ok := strings.CutPrefix(name, p); ok {
			return f, true
		}
	}
	return "", false
}

// perSite are the stems of the static variables that macros of the kernel make
// at each place of use, and whose loss does no harm: a message may be printed
// once more, a rate limit starts anew.
var perSite = map[string]bool{
	"_rs": true, "__key": true, "__warned": true, "__already_done": true, "__print_once": true,
	"__warn_once": true, "descriptor": true, "_entry": true, "_entry_ptr": true,
	"___tp_str": true,
}

func isPerSite(name string) bool {
	s := stem(name)
	if i := strings.LastIndexByte(s, '.'); i >= 0 {
		s = s[i+1:] // clang puts the function's name in front
	}
	return numbered(name) && (perSite[s] || strings.HasPrefix(s, "__UNIQUE_ID_ddebug"))
}

// byContent are the stems of constants whose address has no meaning.
var byContent = map[string]bool{
	"__func__": true, "__FUNCTION__": true, "__PRETTY_FUNCTION__": true, "CSWTCH": true, "C": true,
}

// isContent says that a symbol is one of the compiler's constants: contents
// count, not which copy of them is referred to.
func isContent(s *object.Symbol) bool {
	return s.Section != nil && s.Section.Flags&elf.SHF_WRITE == 0 && s.Section.Data != nil &&
		numbered(s.Name) && byContent[stem(s.Name)]
}

// isKeeper says that a datum only keeps the compiler from dropping the function
// that it points to (__ADDRESSABLE, include/linux/compiler.h): nothing reads it, and
// its name ends in a count of the unit's macros.
func isKeeper(s *object.Symbol) bool {
	return strings.HasPrefix(s.Name, "__UNIQUE_ID___addressable_")
}

// sectionClass says how the contents of a section are compared.
type sectionClass int

const (
	classIgnored sectionClass = iota // never in memory, or without effect on running code
	classSpecial                     // a table about code, see special.go
	classCode
	classLiteral // mergeable strings and constants
	classData
)

// ignored are prefixes of sections that have no effect on a running kernel: what
// the linker or modpost consumes, exports (they serve modules that are yet to be
// loaded, which belong to the other kernel), unwind tables, which follow the
// code, and __patchable_function_entries, which the linker script throws away
// where ftrace uses -mfentry, as on x86. .BTF_ids have a comparison of their own.
var ignored = []string{
	".discard.", customPrefix, ".modinfo", ".note", ".comment", ".debug_", ".orc_", ".BTF",
	"___ksymtab", "___kcrctab", "__ksymtab", "__kcrctab", "__versions", ".export_symbol",
	".gnu.linkonce.this_module", ".eh_frame", ".sframe", ".llvm", ".static_call_tramp_key",
	"__patchable_function_entries",
}

// maxLiteral is the size of the largest constants that compilers merge, and of
// far more than the widest character.
const maxLiteral = 64

func classify(s *object.Section) sectionClass {
	if s.Flags&elf.SHF_ALLOC == 0 {
		return classIgnored
	}
	for _, p := range ignored {
		if strings.HasPrefix(s.Name, p) {
			return classIgnored
		}
	}
	_, table := specialOf(s.Name)
	switch {
	case table:
		return classSpecial
	case s.Flags&elf.SHF_EXECINSTR != 0:
		return classCode
	case s.Flags&elf.SHF_MERGE != 0 && s.EntSize > 0 && s.EntSize <= maxLiteral && s.Data != nil:
		return classLiteral
	}
	return classData
}

// isBoot says that a section is gone after boot, or serves only unloading.
func isBoot(name string) bool {
	return strings.HasPrefix(name, ".init.") || strings.HasPrefix(name, ".exit.") ||
		strings.Contains(name, "initcall") || name == ".exitcall.exit" || name == ".head.text"
}

// place is the part of a section's name that is not the symbol's: ".text.foo"
// and ".text.unlikely.foo" are both ".text", ".sched.text" stays.
func place(s *object.Symbol) string {
	n := s.Section.Name
	if m := unnamedData.FindStringSubmatch(n); m != nil {
		return m[1]
	}
	for _, p := range []string{".text", ".data..percpu", ".data.rel.ro", ".data.rel", ".data", ".bss", ".rodata"} {
		if n == p {
			return p
		}
		if rest, ok := strings.CutPrefix(n, p+"."); ok && !strings.HasPrefix(rest, ".") {
			return p
		}
	}
	return n
}
