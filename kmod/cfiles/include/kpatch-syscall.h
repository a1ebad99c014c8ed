/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * System calls in patches, under the names of kpatch's header. The builder knows
 * the kernel's own SYSCALL_DEFINEn: its tracing records are the same before and
 * after and stay in the kernel. So these are only other names for it.
 */
#ifndef UPSPLICE_KPATCH_SYSCALL_H
#define UPSPLICE_KPATCH_SYSCALL_H

#include <linux/syscalls.h>

#include "kpatch-macros.h"

#define KPATCH_IGNORE_SYSCALL_SECTIONS						\
	KPATCH_IGNORE_SECTION("__syscalls_metadata")				\
	KPATCH_IGNORE_SECTION("_ftrace_events")

#define KPATCH_SYSCALL_DEFINEx(x, sname, ...)	SYSCALL_DEFINEx(x, sname, __VA_ARGS__)

#define KPATCH_SYSCALL_DEFINE1(name, ...)	KPATCH_SYSCALL_DEFINEx(1, _##name, __VA_ARGS__)
#define KPATCH_SYSCALL_DEFINE2(name, ...)	KPATCH_SYSCALL_DEFINEx(2, _##name, __VA_ARGS__)
#define KPATCH_SYSCALL_DEFINE3(name, ...)	KPATCH_SYSCALL_DEFINEx(3, _##name, __VA_ARGS__)
#define KPATCH_SYSCALL_DEFINE4(name, ...)	KPATCH_SYSCALL_DEFINEx(4, _##name, __VA_ARGS__)
#define KPATCH_SYSCALL_DEFINE5(name, ...)	KPATCH_SYSCALL_DEFINEx(5, _##name, __VA_ARGS__)
#define KPATCH_SYSCALL_DEFINE6(name, ...)	KPATCH_SYSCALL_DEFINEx(6, _##name, __VA_ARGS__)

#endif
