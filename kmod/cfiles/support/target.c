// SPDX-License-Identifier: GPL-2.0-only
/*
 * Callbacks of the livepatch core for a module that is patched: whether it is the
 * build that the new code was made for, and that it can be loaded again.
 */
#define pr_fmt(fmt) "upsplice: " fmt

#include <linux/errno.h>
#include <linux/kernel.h>
#include <linux/livepatch.h>
#include <linux/memory.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/printk.h>
#include <linux/string.h>
#include <asm/text-patching.h>

#include "target.h"

int upsplice_pre_patch(struct klp_object *obj);
void upsplice_post_unpatch(struct klp_object *obj);

static const struct upsplice_target *upsplice_find(const struct klp_object *obj)
{
	const struct upsplice_target *t;

	for (t = upsplice_targets; t->name; t++)
		if (!strcmp(t->name, obj->name))
			return t;
	return NULL;
}

/* FNV-1a, 64 bits, of what is not in a hole; holes are in order. */
static u64 upsplice_sum(const u8 *code, const struct upsplice_check *check)
{
	u64 sum = 0xcbf29ce484222325ULL, at, hole = 0;

	for (at = 0; at < check->size; at++) {
		while (hole < check->nr_holes &&
		       at >= check->holes[hole].start + check->holes[hole].size)
			hole++;
		if (hole < check->nr_holes && at >= check->holes[hole].start)
			continue;
		sum = (sum ^ code[at]) * 0x100000001b3ULL;
	}
	return sum;
}

/* The module loader refuses to fill fields that are not zero. */
static void upsplice_zero_fields(const struct upsplice_target *t)
{
	static const u64 zero;
	u64 i;

	mutex_lock(&text_mutex);
	for (i = 0; i < t->nr_fields; i++)
		text_poke(t->fields[i].at, &zero, t->fields[i].size);
	mutex_unlock(&text_mutex);
}

static int upsplice_check_build(const struct klp_object *obj,
				const struct upsplice_target *t)
{
	const struct upsplice_check *check = t->checks;
	const struct klp_func *func;

	for (func = obj->funcs; func->old_name; func++, check++) {
		if (check->size <= func->old_size &&
		    check->sum == upsplice_sum(func->old_func, check))
			continue;
		pr_err("module of another build: %s: the function %s is not the one that the splice replaces\n",
		       obj->name, func->old_name);
		return -EINVAL;
	}
	return 0;
}

int upsplice_pre_patch(struct klp_object *obj)
{
	const struct upsplice_target *t = upsplice_find(obj);
	int err;

	if (!t)
		return -EINVAL;
	err = upsplice_check_build(obj, t);
	if (!err && t->pre_patch)
		err = t->pre_patch(obj);
	/*
	 * After an error nobody calls post_unpatch or clears the fields, and no
	 * module of this name, be it the right one, could be loaded any more. None
	 * has run the code with the fields: it was never reached.
	 */
	if (err)
		upsplice_zero_fields(t);
	return err;
}

void upsplice_post_unpatch(struct klp_object *obj)
{
	const struct upsplice_target *t = upsplice_find(obj);

	if (!t)
		return;
	if (t->post_unpatch)
		t->post_unpatch(obj);
	/*
	 * Only if the module goes away: after a forced transition some task may still
	 * run the new code, and a patch that was undone is never enabled again.
	 */
	if (!t->keep_fields && obj->mod && obj->mod->state != MODULE_STATE_LIVE)
		upsplice_zero_fields(t);
}
