// SPDX-License-Identifier: GPL-2.0-only
/*
 * A livepatch for the test of package livepatch. It makes /proc/cmdline show
 * TEXT. Other forms of it:
 *
 * STALL  replaces a function that its kernel thread never leaves, so that the
 *        transition cannot finish.
 * SLEEP  the new function sleeps until a signal comes, or something like one.
 * SHADOW the new function counts its calls in a shadow variable, which it frees
 *        when it is undone.
 * PINNED the module has no exit function, and so stays.
 */
#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/sched/task.h>
#include <linux/seq_file.h>
#include <linux/wait.h>

#define SHADOW_ID 0x75707370

#ifdef STALL
static int new_kthreadd(void *unused)
{
	return 0;
}
#else
static int new_cmdline_proc_show(struct seq_file *m, void *v)
{
#if defined(SLEEP)
	static DECLARE_WAIT_QUEUE_HEAD(never);

	return wait_event_interruptible(never, false);
#elif defined(SHADOW)
	int *calls = klp_shadow_get_or_alloc(&init_task, SHADOW_ID, sizeof(*calls),
					     GFP_KERNEL, NULL, NULL);

	if (!calls)
		return -ENOMEM;
	seq_printf(m, "%s %d\n", __stringify(TEXT), ++*calls);
	return 0;
#else
	seq_printf(m, "%s\n", __stringify(TEXT));
	return 0;
#endif
}
#endif

#ifdef SHADOW
static int pre_patch(struct klp_object *obj)
{
	pr_info("callback pre_patch of %s\n", __stringify(TEXT));
	return 0;
}

static void post_unpatch(struct klp_object *obj)
{
	pr_info("callback post_unpatch of %s\n", __stringify(TEXT));
	klp_shadow_free_all(SHADOW_ID, NULL);
}
#endif

static struct klp_func funcs[] = {
#ifdef STALL
	{ .old_name = "kthreadd", .new_func = new_kthreadd },
#else
	{ .old_name = "cmdline_proc_show", .new_func = new_cmdline_proc_show },
#endif
	{ }
};

static struct klp_object objects[] = {
	{
		.funcs = funcs,
#ifdef SHADOW
		.callbacks = { .pre_patch = pre_patch, .post_unpatch = post_unpatch },
#endif
	},
	{ }
};

static struct klp_patch patch = {
	.mod = THIS_MODULE,
	.objs = objects,
	.replace = true,
};

static int __init patch_init(void)
{
	return klp_enable_patch(&patch);
}
module_init(patch_init);

#ifndef PINNED
static void __exit patch_exit(void)
{
}
module_exit(patch_exit);
#endif

MODULE_LICENSE("GPL");
MODULE_INFO(livepatch, "Y");
