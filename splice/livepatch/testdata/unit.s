# SPDX-License-Identifier: Apache-2.0
# A unit with one of everything that a livepatch module carries, as gcc, the
# kernel's macros and objtool leave it. "changed" and "helper" are taken,
# "bystander" is not: none of its entries may be in the module.

	.macro fentry
661:	call __fentry__
	.pushsection __mcount_loc, "a", @progbits
	.quad 661b
	.popsection
	.endm

	.macro return
662:	jmp __x86_return_thunk
	.pushsection .return_sites, "a", @progbits
	.long 662b - .
	.popsection
	.endm

	.macro bug line
663:	ud2
	.pushsection __bug_table, "aw", @progbits
	.long 663b - ., .Lfile - .
	.word \line, 0
	.popsection
	.endm

	.macro alternative feature
664:	nop
	nop
	nop
	nop
	nop
	.pushsection .altinstructions, "a", @progbits
	.long 664b - ., 665f - .
	.word \feature
	.byte 5, 666f - 665f
	.popsection
	.pushsection .altinstr_replacement, "ax", @progbits
665:	call alt_\feature
666:
	.popsection
	.pushsection .retpoline_sites, "a", @progbits
	.long 665b - .
	.popsection
	.endm

	.macro empty_alternative
664:	.byte 0x0f, 0x1f, 0x00
	.pushsection .altinstructions, "a", @progbits
	.long 664b - ., 665f - .
	.word 99
	.byte 3, 0
	.popsection
	.pushsection .altinstr_replacement, "ax", @progbits
665:
	.popsection
	.endm

	.macro static_cpu_has bit
667:	jmp 668f
	.pushsection .altinstr_aux, "ax", @progbits
668:	testb $\bit, boot_cpu_data(%rip)
	jnz 667b
	jmp 667b
	.popsection
	.endm

	.macro static_branch key
669:	.byte 0x0f, 0x1f, 0x44, 0x00, 0x00
	.pushsection __jump_table, "aw", @progbits
	.balign 8
	.long 669b - ., 669b - .
	.quad \key + 1 - .
	.popsection
	.endm

	.macro static_call name
670:	call __SCT__\name
	.pushsection .static_call_sites, "aw", @progbits
	.long 670b - .
	.long __SCK__\name - .
	.popsection
	.endm

	.macro user_access
671:	mov (%rdi), %eax
672:
	.pushsection __ex_table, "a", @progbits
	.balign 4
	.long 671b - ., 672b - ., 3
	.popsection
	.endm

	.macro paravirt
673:	call *pv_ops+8(%rip)
	.pushsection .parainstructions, "a", @progbits
	.balign 8
	.quad 673b
	.byte 1, 6
	.balign 8
	.popsection
	.endm

	.macro retpoline
674:	call __x86_indirect_thunk_rax
	.pushsection .retpoline_sites, "a", @progbits
	.long 674b - .
	.popsection
	.endm

	.macro lock_prefix
	.pushsection .smp_locks, "a", @progbits
	.balign 4
	.long 675f - .
	.popsection
675:	lock incl (%rdi)
	.endm

	.macro orc n
676:
	.pushsection .orc_unwind_ip, "a", @progbits
	.long 676b - .
	.popsection
	.pushsection .orc_unwind, "a", @progbits
	.byte \n, \n, \n
	.popsection
	.endm

	.macro all n
	fentry
	bug \n
	alternative \n
	static_cpu_has \n
	static_branch running_key
	static_branch pair_b
	static_call running
	user_access
	paravirt
	retpoline
	lock_prefix
	return
	.endm

	.section .text.bystander, "ax", @progbits
	.type bystander, @function
bystander:
	orc 1
	all 1
	orc 0
	.size bystander, . - bystander

	.section .text.changed, "ax", @progbits
	.balign 16
	.globl changed
	.type changed, @function
changed:
	orc 2
	all 2
	empty_alternative
	call helper
	call changed
	call bystander
	call exported_function
	mov $changed, %rdi
	lea helper(%rip), %rsi
	lea static_changed(%rip), %rdx
	call static_changed
	movb $1, once_b(%rip)
	cmpl $5, word_b(%rip)
	mov $.Lstring, %rdi
	mov $__func__.1, %rsi
	mov $running_ops, %rdx
	mov running_array+16(%rip), %rax
	lea new_data+8(%rip), %rdx
	mov $.Lanonymous, %rcx
	jne changed.cold
	return
	orc 0
	.size changed, . - changed

# .text.shared has several functions, as .sched.text has: cut by symbol
	.section .text.shared, "ax", @progbits
	.balign 16
	.type other, @function
other:	orc 3
	nop
	return
	.size other, . - other
	.balign 16
	.type helper, @function
helper:	# no entry of its own: the one of "other" holds on
	nop
	orc 4
	all 3
	.size helper, . - helper
	.balign 16
	.type after, @function
after:	orc 5
	nop
	.size after, . - after
	orc 0

	.section .text.static_changed, "ax", @progbits
	.type static_changed, @function
static_changed:
	orc 6
	fentry
	return
	orc 0
	.size static_changed, . - static_changed

	.section .text.unlikely.changed, "ax", @progbits
	.type changed.cold, @function
changed.cold:
	orc 7
	bug 100
	call __stack_chk_fail
	jmp changed
	orc 0
	.size changed.cold, . - changed.cold

# two in a section: which of them is meant takes decoding the instruction
	.section .data.once, "aw", @progbits
	.type once_a, @object
once_a:	.byte 0
	.size once_a, 1
	.type once_b, @object
once_b:	.byte 0
	.size once_b, 1

	.section .data.words, "aw", @progbits
	.balign 4
	.type word_a, @object
word_a:	.long 1
	.size word_a, 4
	.type word_b, @object
word_b:	.long 2
	.size word_b, 4

	.section .data..read_mostly, "aw", @progbits
	.balign 16
	.type pair_a, @object
pair_a:	.quad 0, 0
	.size pair_a, 16
	.type pair_b, @object
pair_b:	.quad 0, 0
	.size pair_b, 16

	.section .rodata.str1.1, "aMS", @progbits, 1
.Lstring: .string "a string"
.Lfile:	.string "unit.c"

	.section .rodata.__func__.1, "a", @progbits
	.type __func__.1, @object
__func__.1: .string "changed"
	.size __func__.1, . - __func__.1

	.section .rodata.running_ops, "a", @progbits
	.balign 8
	.type running_ops, @object
running_ops: .quad changed, bystander
	.size running_ops, 16

	.section .bss.running_array, "aw", @nobits
	.type running_array, @object
running_array: .skip 16
	.size running_array, 16

	.section .data.new_data, "aw", @progbits
	.balign 8
	.type new_data, @object
new_data: .quad changed, helper, running_ops, new_bss
	.size new_data, . - new_data

	.section .bss.new_bss, "aw", @nobits
	.balign 32
	.type new_bss, @object
new_bss: .skip 24
	.size new_bss, 24

	.section .rodata.unnamed, "a", @progbits
	.balign 8
.Lanonymous: .quad 42

	.section .init.text, "ax", @progbits
	.type boot_only, @function
boot_only: orc 8
	nop
	orc 0
	.size boot_only, 1

# these refer to what is taken and have nothing to say about the new code
	.section "___ksymtab_gpl+changed", "a", @progbits
	.long changed - .
	.section .ibt_endbr_seal, "a", @progbits
	.long changed - .
	.section .ref.data, "aw", @progbits
	.quad .text.static_changed
	.section __bpf_raw_tp_map, "aw", @progbits
	.quad .text.static_changed
	.section .debug_something, "", @progbits
	.quad changed
