// SPDX-License-Identifier: GPL-2.0-only
/*
 * A livepatch for the test of package livepatch. It makes /proc/cmdline show
 * TEXT, or, with STALL, replaces a function that its kernel thread never leaves,
 * so that the transition cannot finish.
 */
#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/seq_file.h>

#ifdef STALL
static int new_kthreadd(void *unused)
{
	return 0;
}
#else
static int new_cmdline_proc_show(struct seq_file *m, void *v)
{
	seq_printf(m, "%s\n", __stringify(TEXT));
	return 0;
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
	{ .funcs = funcs },
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

static void __exit patch_exit(void)
{
}

module_init(patch_init);
module_exit(patch_exit);
MODULE_LICENSE("GPL");
MODULE_INFO(livepatch, "Y");
