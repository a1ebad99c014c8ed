/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The names of later kernels' <linux/livepatch_helpers.h>, for kernels that do not
 * have that file. What they make is what kpatch-macros.h makes: one format to read.
 */
#ifndef _LINUX_LIVEPATCH_HELPERS_H
#define _LINUX_LIVEPATCH_HELPERS_H

#include "../kpatch-syscall.h"

/* These are declarations without a semicolon at the end: the caller writes it. */
#define __UPSPLICE_KLP_CALLBACK(_kind, _fn)					\
	static struct kpatch_##_kind##_callback klp_##_kind##_data		\
	__used __section(".kpatch.callbacks." #_kind) = { .fn = (_fn) }

#define KLP_PRE_PATCH_CALLBACK(func)	__UPSPLICE_KLP_CALLBACK(pre_patch, func)
#define KLP_POST_PATCH_CALLBACK(func)	__UPSPLICE_KLP_CALLBACK(post_patch, func)
#define KLP_PRE_UNPATCH_CALLBACK(func)	__UPSPLICE_KLP_CALLBACK(pre_unpatch, func)
#define KLP_POST_UNPATCH_CALLBACK(func)	__UPSPLICE_KLP_CALLBACK(post_unpatch, func)

#define KLP_STATIC_CALL(name)		KPATCH_STATIC_CALL(name)

#define KLP_SYSCALL_DEFINEx(x, sname, ...)	SYSCALL_DEFINEx(x, sname, __VA_ARGS__)

#define KLP_SYSCALL_DEFINE1(name, ...)	KLP_SYSCALL_DEFINEx(1, _##name, __VA_ARGS__)
#define KLP_SYSCALL_DEFINE2(name, ...)	KLP_SYSCALL_DEFINEx(2, _##name, __VA_ARGS__)
#define KLP_SYSCALL_DEFINE3(name, ...)	KLP_SYSCALL_DEFINEx(3, _##name, __VA_ARGS__)
#define KLP_SYSCALL_DEFINE4(name, ...)	KLP_SYSCALL_DEFINEx(4, _##name, __VA_ARGS__)
#define KLP_SYSCALL_DEFINE5(name, ...)	KLP_SYSCALL_DEFINEx(5, _##name, __VA_ARGS__)
#define KLP_SYSCALL_DEFINE6(name, ...)	KLP_SYSCALL_DEFINEx(6, _##name, __VA_ARGS__)

#endif
