/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * For custom code in patches that upsplice makes live: the names, arguments and
 * sections of kpatch's header of this name, so that sources written for it need
 * no change. See splice/GUIDE.md.
 */
#ifndef UPSPLICE_KPATCH_MACROS_H
#define UPSPLICE_KPATCH_MACROS_H

#include <linux/compiler.h>
#include <linux/jiffies.h>
#include <linux/livepatch.h>
#include <linux/printk.h>
#include <linux/version.h>

/* What callbacks get: the target, whose ->name is NULL for vmlinux. */
typedef struct klp_object patch_object;

/*
 * A callback is registered by an entry in a section of its kind. The builder
 * reads the function from it and drops the section; objname is there for the
 * format's sake.
 */
struct kpatch_pre_patch_callback {
	int (*fn)(patch_object *obj);
	char *objname;
};

struct kpatch_post_patch_callback {
	void (*fn)(patch_object *obj);
	char *objname;
};

struct kpatch_pre_unpatch_callback {
	void (*fn)(patch_object *obj);
	char *objname;
};

struct kpatch_post_unpatch_callback {
	void (*fn)(patch_object *obj);
	char *objname;
};

/* One name per kind and file: the kernel calls one function of a kind per target. */
#define __UPSPLICE_CALLBACK(_kind, _fn)						\
	static struct kpatch_##_kind##_callback kpatch_##_kind##_data		\
	__used __section(".kpatch.callbacks." #_kind) = { .fn = (_fn) };

/*
 * KPATCH_PRE_PATCH_CALLBACK(fn): before the first new function can run. Anything
 * but 0 keeps the splice from being applied, or a module from being loaded.
 * KPATCH_POST_PATCH_CALLBACK(fn): once no task can run an old function any more.
 * KPATCH_PRE_UNPATCH_CALLBACK(fn): at undo, while all run the new functions.
 * KPATCH_POST_UNPATCH_CALLBACK(fn): once no task can run a new function any more.
 */
#define KPATCH_PRE_PATCH_CALLBACK(_fn)		__UPSPLICE_CALLBACK(pre_patch, _fn)
#define KPATCH_POST_PATCH_CALLBACK(_fn)		__UPSPLICE_CALLBACK(post_patch, _fn)
#define KPATCH_PRE_UNPATCH_CALLBACK(_fn)	__UPSPLICE_CALLBACK(pre_unpatch, _fn)
#define KPATCH_POST_UNPATCH_CALLBACK(_fn)	__UPSPLICE_CALLBACK(post_unpatch, _fn)

/*
 * KPATCH_IGNORE_SECTION("name"): what differs in this section is meant to differ
 * and stays as it is in the running kernel.
 */
#define KPATCH_IGNORE_SECTION(_sec)						\
	static const char *__UNIQUE_ID(kpatch_ignore_section_)			\
	__used __section(".kpatch.ignore.sections") = (_sec);

/*
 * KPATCH_IGNORE_FUNCTION(fn): fn's object code differs as a side effect (a line
 * number, say) and need not go live.
 */
#define KPATCH_IGNORE_FUNCTION(_fn)						\
	static void *__kpatch_ignore_func_##_fn					\
	__used __section(".kpatch.ignore.functions") = (_fn);

/*
 * KPATCH_FORCE_UNSAFE(fn) was permission to skip a check that tasks are not in
 * fn. The kernel moves each task over at a safe point by itself: nothing has to be
 * skipped, and nothing is.
 */
#define KPATCH_FORCE_UNSAFE(_fn)						\
	static_assert(sizeof(&(_fn)) == sizeof(void *));

/*
 * KPATCH_PRINTK(fmt, ...): printk is marked cold, and a new call can push the code
 * around it into a part of its own, or keep callees from being inlined. The
 * compiler cannot see that this branch is always taken, so the rest stays put.
 */
#define __UPSPLICE_PRINT(_print, _fmt, ...)					\
({										\
	int __warm = 1;								\
										\
	OPTIMIZER_HIDE_VAR(__warm);						\
	if (__warm)								\
		_print(_fmt, ##__VA_ARGS__);					\
})

#define KPATCH_PRINTK(_fmt, ...)	  __UPSPLICE_PRINT(printk, _fmt, ##__VA_ARGS__)
#define KPATCH_PRINTK_DEFERRED(_fmt, ...) __UPSPLICE_PRINT(printk_deferred, _fmt, ##__VA_ARGS__)

/*
 * KPATCH_STATIC_CALL(name)(args): in the place of static_call(name)(args) where
 * the key belongs to a module. It calls what the key points to at the time; the key
 * must not be NULL.
 */
#define KPATCH_STATIC_CALL(name)						\
	((typeof(&STATIC_CALL_TRAMP(name)))READ_ONCE(STATIC_CALL_KEY(name).func))

#endif
