// SPDX-License-Identifier: GPL-2.0-only
/*
 * New code that arms work items with the addresses of a function that it replaces
 * and of a new one, to be run after the splice has been undone.
 */
#include <linux/kernel.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/workqueue.h>

static void do_sync_work(struct work_struct *work);

/* fs/sync.c: syncs, says so, and frees the work item */
static void __used do_sync_work(struct work_struct *work)
{
	pr_warn("upsplice: the new do_sync_work ran\n");
	kfree(work);
}

#ifdef WITH_NEW_FUNCTION
static void upsplice_new_work(struct work_struct *work)
{
	pr_warn("upsplice: the new function ran\n");
	kfree(work);
}
#endif

static void upsplice_arm(work_func_t func, unsigned long delay)
{
	/* kfree of the work is kfree of the whole: it comes first */
	struct delayed_work *d = kmalloc(sizeof(*d), GFP_KERNEL);

	if (!d)
		return;
	INIT_DELAYED_WORK(d, func);
	schedule_delayed_work(d, delay);
}

static int cmdline_proc_show(struct seq_file *m, void *v);
static int __used cmdline_proc_show(struct seq_file *m, void *v)
{
	upsplice_arm(do_sync_work, 0);
	upsplice_arm(do_sync_work, 15 * HZ);
#ifdef WITH_NEW_FUNCTION
	upsplice_arm(upsplice_new_work, 15 * HZ);
#endif
	seq_puts(m, "armed\n");
	return 0;
}
