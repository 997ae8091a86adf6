/*
 * A kernel module that does what no program in user space can: breaks the kernel it is loaded into, in the way that
 * `what` names. tests/chaos/module.py builds it; loader.c carries it into a guest.
 */
#include <linux/hrtimer.h>
#include <linux/irqflags.h>
#include <linux/module.h>
#include <linux/sched.h>
#include <linux/smp.h>
#include <linux/spinlock.h>
#ifdef CONFIG_X86
#include <asm/desc.h>
#endif

#ifndef WHAT
#define WHAT ""
#endif
static char *what = WHAT;
module_param(what, charp, 0);
MODULE_PARM_DESC(what, "the calamity: see the table below");

static unsigned int cpu;
module_param(cpu, uint, 0);
MODULE_PARM_DESC(cpu, "the CPU that halt_cpu takes away");

static unsigned int delay_us;
module_param(delay_us, uint, 0);
MODULE_PARM_DESC(delay_us, "how long after loading panic_later and oops_later strike");

static void spin(void *unused)
{
	local_irq_disable();
	for (;;)
		cpu_relax();
}

static void stop(void *unused)
{
	local_irq_disable();
	for (;;) {
#ifdef CONFIG_X86
		asm volatile("hlt" ::: "memory");
#else
		asm volatile("wfi" ::: "memory"); /* a pending interrupt ends it, even a masked one: hence the loop */
#endif
	}
}

static void irqs_off(void)
{
	spin(NULL);
}

static void irqs_off_all(void)
{
	on_each_cpu(spin, NULL, 0);
}

static void halt_cpu(void)
{
	smp_call_function_single(cpu, stop, NULL, 0);
}

/* The next exception finds no handler: x86_64 triple faults, arm64 takes the exception of the exception, for ever. */
static void no_vectors(void)
{
	local_irq_disable();
#ifdef CONFIG_X86
	{
		struct desc_ptr none = { 0 };

		load_idt(&none);
		asm volatile("int3");
	}
#else
	asm volatile("msr vbar_el1, xzr\n\tisb\n\tbrk #0" ::: "memory");
#endif
}

static void null_deref(void)
{
	WRITE_ONCE(*(volatile int *)NULL, 1);
}

static void panic_now(void)
{
	panic("calamity: as it was told to");
}

/* With interrupts on, so that only a watchdog or a look from outside tells. */
static void deadlock(void)
{
	static DEFINE_SPINLOCK(lock);

	spin_lock(&lock);
	spin_lock(&lock);
	pr_notice("calamity: no deadlock\n"); /* and no tail call: the stack shows this function */
}

static void sleep_forever(void)
{
	for (;;) {
		set_current_state(TASK_UNINTERRUPTIBLE);
		schedule();
	}
}

static enum hrtimer_restart strike(struct hrtimer *timer)
{
	if (!strcmp(what, "oops_later"))
		null_deref();
	panic_now();
	return HRTIMER_NORESTART;
}

static void later(void)
{
	static struct hrtimer timer;

	hrtimer_init(&timer, CLOCK_MONOTONIC, HRTIMER_MODE_REL);
	timer.function = strike;
	hrtimer_start(&timer, ns_to_ktime((u64)delay_us * 1000), HRTIMER_MODE_REL);
}

static const struct {
	const char *name;
	void (*happen)(void);
} calamities[] = {
	{ "nothing", NULL },
	{ "irqs_off", irqs_off },
	{ "irqs_off_all", irqs_off_all },
	{ "halt_cpu", halt_cpu },
	{ "no_vectors", no_vectors },
	{ "null_deref", null_deref },
	{ "panic_now", panic_now },
	{ "deadlock", deadlock },
	{ "sleep_forever", sleep_forever },
	{ "panic_later", later },
	{ "oops_later", later },
};

static int __init calamity_init(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(calamities); i++) {
		if (strcmp(calamities[i].name, what))
			continue;
		pr_notice("calamity: %s\n", what);
		if (calamities[i].happen)
			calamities[i].happen();
		return 0;
	}
	pr_notice("calamity: there is no '%s'\n", what);
	return -EINVAL;
}

module_init(calamity_init);
MODULE_DESCRIPTION("Breaks the kernel it is loaded into, for cowpen's own tests");
MODULE_LICENSE("GPL");
