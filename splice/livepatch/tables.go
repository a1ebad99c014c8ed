// SPDX-License-Identifier: Apache-2.0

package livepatch

import "strings"

// table is a section in which the compiler, the assembler or objtool announces
// places in the code to the kernel. A module has its own, with the entries for
// its own code. (arch/x86/kernel/module.c, kernel/module/main.c: which sections
// of a module the kernel processes; the structs: their headers.)
type table struct {
	section string
	// structure is the type of an entry, "" for bare addresses whose width is
	// that of their relocation.
	structure string
	// site lists the names that the member with the address of the place has had.
	site []string
}

// tables lists them in the order in which they are carried over: alternatives come
// first, because others may be about the replacements that they bring along.
var tables = []table{
	{section: ".altinstructions", structure: "alt_instr", site: []string{"instr_offset"}},
	{section: "__mcount_loc"},
	{section: "__bug_table", structure: "bug_entry", site: []string{"bug_addr_disp", "bug_addr"}},
	{section: "__ex_table", structure: "exception_table_entry", site: []string{"insn"}},
	{section: "__jump_table", structure: "jump_entry", site: []string{"code"}},
	{section: ".static_call_sites", structure: "static_call_site", site: []string{"addr"}},
	{section: ".parainstructions", structure: "paravirt_patch_site", site: []string{"instr"}},
	{section: ".smp_locks"},
	{section: ".return_sites"},
	{section: ".retpoline_sites"},
	{section: ".call_sites"},
	{section: "_kprobe_blacklist"},
}

// Sections with names that the writer has to know beside the tables.
const (
	altReplacement = ".altinstr_replacement"
	altAux         = ".altinstr_aux"
	orcSection     = ".orc_unwind"
	orcIPSection   = ".orc_unwind_ip"
	dynamicDebug   = "__dyndbg"
	trampolines    = ".static_call.text"
)

func isTable(section string) bool {
	for _, t := range tables {
		if t.section == section {
			return true
		}
	}
	return section == orcIPSection || section == orcSection
}

// harmless are the starts of the names of allocated sections that may refer to a
// taken function and have nothing to say about its new code, or that are left out
// on purpose:
//   - ordinary data keep their pointers to the running kernel's function, which
//     ftrace redirects; so do the tables of tracepoints and their events, which
//     stay those of the running kernel;
//   - exports, initcalls and boot-time tables have done their work. The kernel
//     looks up keys by their trampolines in vmlinux alone (.static_call_tramp_key);
//   - the list of functions in which errors may be injected goes by the address
//     of the old function, which stays the one that is traced;
//   - an ENDBR that .ibt_endbr_seal would remove does no harm, and a new function
//     may be called through a pointer where the old one was not;
//   - .printk_index is for people who look up the messages of a kernel, not for
//     the kernel;
//   - __patchable_function_entries lists the room in front of functions, which x86
//     fills without it: ftrace has __mcount_loc there;
//   - markers of custom code are for the builder of the splice (.kpatch.).
//
// What new code refers to is carried in any case, so .data..once and
// .data..read_mostly need no entry of their own: the flag of a new WARN_ONCE is a
// datum as any other, and only debugfs's clear_warn_once passes it by; that data
// are mostly read decides about their place in vmlinux alone.
var harmless = []string{
	".data", ".rodata", ".bss", ".ref", "__tracepoint", "__bpf_raw_tp_map",
	"_ftrace_events", "_ftrace_eval_map", ".printk_index", ".static_call_tramp_key",
	"__ksymtab", "___ksymtab", "__kcrctab", "___kcrctab", ".export_symbol",
	".init", ".exit", ".con_initcall", ".discard",
	"_error_injection_whitelist", ".ibt_endbr_seal",
	"__patchable_function_entries", ".kpatch.",
}

func isHarmless(section string) bool {
	for _, h := range harmless {
		if strings.HasPrefix(section, h) {
			return true
		}
	}
	return false
}

// codeReason says why functions of a section cannot be in a livepatch module, ""
// if they can: the kernel knows those sections by their place in vmlinux. added says
// that the running kernel does not have the function.
func codeReason(section string, added bool) string {
	in := func(names ...string) bool {
		for _, n := range names {
			if section == n || strings.HasPrefix(section, n+".") {
				return true
			}
		}
		return false
	}
	switch {
	case in(".init", ".exit", ".meminit", ".memexit", ".head"):
		return "the code runs only while the kernel boots or a driver is removed"
	case in(".noinstr", ".entry", ".cpuidle"):
		return "the code must not be instrumented, which livepatch does"
	case in(".kprobes"):
		return "the kernel knows this code by its address and keeps probes away from it"
	case in(".static_call") && !added:
		return "the running kernel rewrites static call trampolines"
	}
	return ""
}

// dataReason says why data of a section cannot be copied into the module, "" if
// they can.
func dataReason(section string) string {
	switch {
	case strings.HasPrefix(section, ".data..percpu"):
		return "new per-CPU data cannot be added to the running kernel"
	case strings.HasSuffix(section, "..decrypted"):
		return "the kernel shares the pages of this section with its hypervisor, and a copy would not be in them"
	case section == dynamicDebug:
		return "" // its own array: see takeDescriptor
	case strings.HasPrefix(section, "__tracepoint") || strings.HasPrefix(section, "_ftrace_e"):
		// trace_module_has_bad_taint in kernel/tracepoint.c, before Linux 6.4
		return "it is a new tracepoint, and kernels ignore those of modules with the taint of a livepatch; a printk or a kprobe can take its place"
	case strings.HasPrefix(section, ".data") || strings.HasPrefix(section, ".bss") || strings.HasPrefix(section, ".rodata"):
		return ""
	}
	return "the kernel collects this section, and a copy in a module would not be found"
}
