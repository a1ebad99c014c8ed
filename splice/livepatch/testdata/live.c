// SPDX-License-Identifier: GPL-2.0-only
/*
 * The new code of a function of the real kernel, for the test that loads it: it
 * uses each kind of special section, and says in /proc/cmdline whether each did
 * what it should.
 */
#include <linux/jump_label.h>
#include <linux/kernel.h>
#include <linux/sched.h>
#include <linux/seq_file.h>
#include <linux/uaccess.h>
#include <linux/version.h>
#include <asm/cpufeature.h>

/* of the running kernel, none of them exported */
extern char *saved_command_line;
extern struct static_key_false sched_schedstats;
extern int core_kernel_text(unsigned long addr);

/* new: data with a value, data without, a function, a pointer to data */
static int upsplice_start = 40;
static atomic_t upsplice_calls;

static noinline int upsplice_increment(int x)
{
	return x + 1;
}

static int *volatile upsplice_pointer = &upsplice_start;

/* reads where nothing is mapped: __ex_table */
static noinline int upsplice_fault(void)
{
	int value;

	pagefault_disable();
	__get_kernel_nofault(&value, (void *)-4096L, int, fault);
	pagefault_enable();
	return 0;
fault:
	pagefault_enable();
	return 1;
}

#ifdef UPSPLICE_RUNTIME_CONST
/* what code of vmlinux does with a constant of the boot, and modules never do */
static noinline unsigned long upsplice_constant(void)
{
	unsigned long value;

	asm("movq %1,%0\n1:\n"
	    ".pushsection runtime_ptr_USER_PTR_MAX,\"a\"\n\t"
	    ".long 1b - 8 - .\n\t"
	    ".popsection"
	    : "=r" (value) : "i" (0x0123456789abcdefUL));
	return value;
}
#else
static noinline unsigned long upsplice_constant(void)
{
	return TASK_SIZE_MAX;
}
#endif

static int cmdline_proc_show(struct seq_file *m, void *v);
static void *volatile upsplice_self = cmdline_proc_show;

static int __used cmdline_proc_show(struct seq_file *m, void *v)
{
	unsigned long flags;
	int stats = 0;

	might_sleep();				/* .static_call_sites */
	local_irq_save(flags);			/* .parainstructions */
	atomic_inc(&upsplice_calls);		/* .smp_locks */
	local_irq_restore(flags);
	if (static_branch_unlikely(&sched_schedstats))	/* __jump_table */
		stats = 1;
	WARN_ONCE(stats, "upsplice test warning in %s", __func__);	/* __bug_table */
	seq_printf(m, "upsplice cpu=%d fault=%d sum=%d original=%d stats=%d calls=%d constant=%d\n",
		   static_cpu_has(X86_FEATURE_XMM4_1),	/* .altinstructions */
		   upsplice_fault(),
		   upsplice_increment(*upsplice_pointer) + upsplice_increment(0),
		   core_kernel_text((unsigned long)upsplice_self),
		   stats, atomic_read(&upsplice_calls),
		   upsplice_constant() == TASK_SIZE_MAX);	/* runtime_ptr_* */
	seq_puts(m, saved_command_line);
	seq_putc(m, '\n');
	return 0;
}
