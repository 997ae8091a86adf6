/*
 * A kernel module that makes the kernel report: what LKDTM lacks. Writing the name of a trouble to
 * /sys/kernel/debug/trouble does it, in that system call; provoke.py says which kernel reports what.
 */
#include <linux/debugfs.h>
#include <linux/delay.h>
#include <linux/hrtimer.h>
#include <linux/kthread.h>
#include <linux/console.h>
#include <linux/mm.h>
#include <linux/mman.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/pgtable.h>
#include <linux/rcupdate.h>
#include <linux/reboot.h>
#include <linux/rwsem.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/smp.h>
#include <linux/spinlock.h>
#include <linux/timer.h>
#include <linux/uaccess.h>
#include <linux/version.h>
#include <linux/vmalloc.h>
#include <linux/workqueue.h>
#ifdef CONFIG_PAGE_TABLE_CHECK
#include <linux/page_table_check.h>
#endif

static unsigned int seconds = 12; /* how long what hangs hangs */
module_param(seconds, uint, 0);

static void spin(void)
{
	unsigned long end = jiffies + seconds * HZ;

	while (time_before(jiffies, end))
		cpu_relax();
}

/* ---- how a kernel ends ------------------------------------------------------------------------------------------ */

static noinline void null_read(void)
{
	READ_ONCE(*(volatile int *)8);
}

static noinline void null_write(void)
{
	WRITE_ONCE(*(volatile int *)NULL, 1);
}

static noinline void null_call(void)
{
	void (*volatile nowhere)(void) = NULL;

	nowhere();
}

/* An address that is none: neither the user's nor the kernel's half. */
static noinline void non_canonical(void)
{
	unsigned long address = 0xdead4ead00000100ul;

	OPTIMIZER_HIDE_VAR(address);
	WRITE_ONCE(*(volatile int *)address, 1);
}

static noinline void unmapped(void)
{
	READ_ONCE(*(volatile int *)(PAGE_OFFSET + (1ul << 45)));
}

static noinline void wild_call(void)
{
	void (*volatile data)(void) = (void *)kzalloc(64, GFP_KERNEL);

	data();
}

static noinline void warn_plain(void)
{
	WARN_ON(1);
}

static noinline void warn_words(void)
{
	WARN(1, "trouble: %d words of a warning\n", 5);
}

static noinline void bug(void)
{
	BUG();
}

static noinline void panic_now(void)
{
	panic("trouble: as it was told to");
}

static noinline void undefined(void)
{
#ifdef CONFIG_X86
	asm volatile("ud2"); /* not in the table of BUGs */
#else
	asm volatile(".inst 0x00000000");
#endif
}

static noinline void breakpoint(void)
{
#ifdef CONFIG_X86
	asm volatile("int3");
#else
	asm volatile("brk #0x123");
#endif
}

static noinline void divide(void)
{
#ifdef CONFIG_X86
	asm volatile("xorl %%edx, %%edx; xorl %%ecx, %%ecx; divl %%ecx" ::: "eax", "ecx", "edx");
#else
	undefined();
#endif
}

/* An exclusive load must be aligned on arm64; on x86_64 the stack segment has a fault of its own. */
static noinline void alignment(void)
{
#ifdef CONFIG_X86
	asm volatile("pushq %%rbp; movabsq $0xdead4ead00000100, %%rbp; movq (%%rbp), %%rax; popq %%rbp" ::: "rax",
		     "memory");
#else
	static char bytes[16];
	unsigned long value;

	asm volatile("ldxr %0, [%1]" : "=r"(value) : "r"(bytes + 1) : "memory");
#endif
}

static enum hrtimer_restart (*in_timer)(struct hrtimer *timer);
static struct hrtimer clock;

/* Run it in a hard interrupt, and wait for that. */
static void interrupt(enum hrtimer_restart (*happen)(struct hrtimer *timer))
{
	in_timer = happen;
	hrtimer_init(&clock, CLOCK_MONOTONIC, HRTIMER_MODE_REL_HARD);
	clock.function = in_timer;
	hrtimer_start(&clock, ns_to_ktime(NSEC_PER_MSEC), HRTIMER_MODE_REL_HARD);
	msleep(100);
}

static struct timer_list soft_timer;

static void soft_interrupt(void (*happen)(struct timer_list *timer))
{
	timer_setup(&soft_timer, happen, 0);
	mod_timer(&soft_timer, jiffies + 1);
	msleep(100);
}

static enum hrtimer_restart oops_in_timer(struct hrtimer *timer)
{
	null_write();
	return HRTIMER_NORESTART;
}

static void irq_null(void)
{
	interrupt(oops_in_timer);
}

static enum hrtimer_restart warn_in_timer(struct hrtimer *timer)
{
	warn_words();
	return HRTIMER_NORESTART;
}

static void irq_warn(void)
{
	interrupt(warn_in_timer);
}

/* ---- locks ------------------------------------------------------------------------------------------------------ */

static DEFINE_SPINLOCK(first);
static DEFINE_SPINLOCK(second);
static DEFINE_RAW_SPINLOCK(raw); /* what a hard interrupt may take, by PROVE_RAW_LOCK_NESTING */
static DEFINE_RAW_SPINLOCK(inner);
static DEFINE_MUTEX(mutex);
static DECLARE_RWSEM(semaphore);

static void recursion(void)
{
	static spinlock_t locks[2];

	for (int i = 0; i < 2; i++)
		spin_lock_init(&locks[i]); /* one place, hence one class */
	spin_lock(&locks[0]);
	spin_lock(&locks[1]);
	spin_unlock(&locks[1]);
	spin_unlock(&locks[0]);
}

static noinline void first_second(void)
{
	spin_lock(&first);
	spin_lock(&second);
	spin_unlock(&second);
	spin_unlock(&first);
}

static noinline void second_first(void)
{
	spin_lock(&second);
	spin_lock(&first);
	spin_unlock(&first);
	spin_unlock(&second);
}

static void abba(void)
{
	first_second();
	second_first();
}

static void mutex_abba(void)
{
	mutex_lock(&mutex);
	down_read(&semaphore);
	up_read(&semaphore);
	mutex_unlock(&mutex);
	down_write(&semaphore);
	mutex_lock(&mutex);
	mutex_unlock(&mutex);
	up_write(&semaphore);
}

static enum hrtimer_restart lock_in_timer(struct hrtimer *timer)
{
	raw_spin_lock(&raw);
	raw_spin_unlock(&raw);
	return HRTIMER_NORESTART;
}

static noinline void raw_inner(void)
{
	local_irq_disable();
	raw_spin_lock(&raw);
	raw_spin_lock(&inner);
	raw_spin_unlock(&inner);
	raw_spin_unlock(&raw);
	local_irq_enable();
}

static noinline void inner_alone(void)
{
	raw_spin_lock(&inner);
	raw_spin_unlock(&inner);
}

/* `raw` is taken in interrupts; `inner`, which is taken with interrupts on, must not be taken within it. */
static void irq_order(void)
{
	interrupt(lock_in_timer);
	inner_alone();
	raw_inner();
}

/* The same, but the interrupt comes last. */
static void irq_inversion(void)
{
	inner_alone();
	raw_inner();
	interrupt(lock_in_timer);
}

static void inconsistent(void)
{
	raw_spin_lock(&raw);
	raw_spin_unlock(&raw);
	interrupt(lock_in_timer);
}

static void lock_in_soft_timer(struct timer_list *timer)
{
	spin_lock(&first);
	spin_unlock(&first);
}

static void soft_inconsistent(void)
{
	spin_lock(&first);
	spin_unlock(&first);
	soft_interrupt(lock_in_soft_timer);
}

static void held_at_return(void)
{
	mutex_lock(&mutex);
}

static int exits_with_lock(void *unused)
{
	mutex_lock(&mutex);
	return 0;
}

static void held_at_exit(void)
{
	kthread_run(exits_with_lock, NULL, "trouble/holder");
	msleep(100);
}

static void wait_context(void)
{
	raw_spin_lock(&raw);
	spin_lock(&first);
	spin_unlock(&first);
	raw_spin_unlock(&raw);
}

static void unbalanced(void)
{
	mutex_unlock(&mutex);
}

static void unbalanced_read(void)
{
	up_read(&semaphore);
}

static void held_freed(void)
{
	struct mutex *lock = kmalloc(sizeof(*lock), GFP_KERNEL);

	mutex_init(lock);
	mutex_lock(lock);
	kfree(lock);
}

static void nest_lock(void)
{
	static struct mutex nested;

	mutex_init(&nested);
	mutex_lock_nest_lock(&nested, &mutex);
	mutex_unlock(&nested);
}

static void no_key(void)
{
	static DEFINE_SPINLOCK(pattern);
	spinlock_t *lock = kmalloc(sizeof(*lock), GFP_KERNEL);

	memcpy(lock, &pattern, sizeof(*lock));
	spin_lock(lock);
	spin_unlock(lock);
	kfree(lock);
}

static void bad_magic(void)
{
#ifdef CONFIG_DEBUG_SPINLOCK
	first.rlock.magic = 0;
	spin_lock(&first);
	spin_unlock(&first);
#endif
}

static void already_unlocked(void)
{
	spin_unlock(&first);
}

static void spin_recursion(void)
{
	spin_lock(&first);
	spin_lock(&first);
	spin_unlock(&first);
}

static void rcu_unprotected(void)
{
	static int __rcu *pointer;

	if (rcu_dereference(pointer))
		pr_notice("trouble: a pointer\n");
}

static void rcu_might_sleep(void)
{
	rcu_read_lock();
	might_sleep();
	rcu_read_unlock();
}

static void rcu_switch(void)
{
	rcu_read_lock();
	schedule_timeout_uninterruptible(1);
	rcu_read_unlock();
}

/* ---- sleeping, preemption --------------------------------------------------------------------------------------- */

static void sleep_locked(void)
{
	spin_lock(&first);
	mutex_lock(&mutex);
	mutex_unlock(&mutex);
	spin_unlock(&first);
}

static void sleep_irqs_off(void)
{
	local_irq_disable();
	might_sleep();
	local_irq_enable();
}

static void schedule_atomic(void)
{
	preempt_disable();
	schedule_timeout_uninterruptible(1);
	preempt_enable();
}

static void which_cpu(void)
{
	pr_notice("trouble: on CPU %u\n", smp_processor_id());
}

static void leak_preempt(struct timer_list *timer)
{
	preempt_disable();
}

static void timer_leak(void)
{
	soft_interrupt(leak_preempt);
}

static void work_leaks(struct work_struct *work)
{
	mutex_lock(&mutex);
}

static void work_leak(void)
{
	static DECLARE_WORK(work, work_leaks);

	schedule_work(&work);
	msleep(100);
}

static void irqs_enabled(void)
{
	unsigned long flags;

	local_irq_save(flags);
	local_irq_enable();
	local_irq_restore(flags);
}

/* ---- what does not move any more -------------------------------------------------------------------------------- */

static void soft_lockup(void)
{
	preempt_disable();
	spin();
	preempt_enable();
}

static void hard_lockup(void)
{
	local_irq_disable();
	for (;;)
		cpu_relax();
}

static int holds(void *unused)
{
	mutex_lock(&mutex);
	for (;;)
		schedule_timeout_interruptible(HZ);
	return 0;
}

static int waits(void *unused)
{
	mutex_lock(&mutex);
	return 0;
}

static void hung(void)
{
	kthread_run(holds, NULL, "trouble/holds");
	msleep(100);
	kthread_run(waits, NULL, "trouble/waits");
}

static void hogs(struct work_struct *work)
{
	soft_lockup(); /* if it could be preempted, Linux would let another worker run beside it, since 6.5 */
}

static void starves(struct work_struct *work)
{
}

static void work_lockup(void)
{
	static DECLARE_WORK(hog, hogs);
	static DECLARE_WORK(starving, starves);

	schedule_work_on(1, &hog);
	schedule_work_on(1, &starving);
}

static void passed(struct rcu_head *head)
{
}

/* Only who waits for a grace period can wait in vain. */
static void want_grace(void)
{
	static struct rcu_head head;

	call_rcu(&head, passed);
}

static void rcu_stall(void)
{
	want_grace();
	soft_lockup();
}

static int reads(void *unused)
{
	rcu_read_lock();
	spin();
	rcu_read_unlock();
	return 0;
}

static int competes(void *unused)
{
	for (int i = 0; i < 1000 * seconds / 2; i++) {
		mdelay(1);
		usleep_range(1000, 1100);
	}
	return 0;
}

static void on_cpu(int (*happen)(void *), void *argument, unsigned int cpu, const char *name)
{
	struct task_struct *task = kthread_create(happen, argument, "%s", name);

	kthread_bind(task, cpu);
	wake_up_process(task);
}

static void rcu_stall_task(void)
{
	on_cpu(reads, NULL, 1, "trouble/reads");
	on_cpu(competes, NULL, 1, "trouble/competes");
	msleep(500);
	want_grace();
}

static int hogs_cpu(void *unused)
{
	soft_lockup();
	return 0;
}

static void rcu_expedite(void)
{
	on_cpu(hogs_cpu, NULL, 1, "trouble/hogs");
	msleep(100);
	synchronize_rcu_expedited();
}

/* ---- memory ----------------------------------------------------------------------------------------------------- */

#define UNCACHED_ORDER 4 /* so large a block is looked at at once when it is freed, even without CONFIG_DEBUG_VM */

static void page_mapping_left(void)
{
	struct page *page = alloc_pages(GFP_KERNEL, UNCACHED_ORDER);

	page->mapping = (void *)0x400;
	__free_pages(page, UNCACHED_ORDER);
}

static void page_mapcount_left(void)
{
	struct page *page = alloc_pages(GFP_KERNEL, UNCACHED_ORDER);

	atomic_set(&page->_mapcount, 0);
	__free_pages(page, UNCACHED_ORDER);
}

static void page_uncounted(void)
{
	struct page *page = alloc_page(GFP_KERNEL);

	set_page_count(page, 0);
	put_page(page);
}

static void page_double_free(void)
{
	struct page *page = alloc_page(GFP_KERNEL);

	__free_page(page);
	__free_page(page);
}

static noinline void page_after_free(void)
{
	struct page *page = alloc_page(GFP_KERNEL);
	char *bytes = page_address(page);

	__free_page(page);
	memset(bytes + 256, 0x41, 16);
	for (int i = 0; i < 2048; i++)
		alloc_page(GFP_KERNEL); /* one of them is the one */
}

/* A page of the caller's, touched; its address. */
static unsigned long user_page(void)
{
	unsigned long address =
		vm_mmap(NULL, 0, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, 0);

	if (put_user(1, (int __user *)address))
		pr_notice("trouble: no page\n");
	return address;
}

static pmd_t *user_pmd(unsigned long address)
{
	pgd_t *pgd = pgd_offset(current->mm, address);

	return pmd_offset(pud_offset(p4d_offset(pgd, address), address), address);
}

/* The entry points beyond all memory; the page it pointed to is lost. */
static void page_map(void)
{
	unsigned long address = user_page();
	pte_t *entry = pte_offset_kernel(user_pmd(address), address);

	WRITE_ONCE(*entry, __pte(pte_val(*entry) + (1ul << 40)));
	vm_munmap(address, PAGE_SIZE);
}

static void pmd_bad_entry(void)
{
#ifdef CONFIG_X86
	unsigned long address = user_page();
	pmd_t *entry = user_pmd(address);

	WRITE_ONCE(*entry, __pmd(pmd_val(*entry) & ~_PAGE_RW));
	vm_munmap(address, PAGE_SIZE);
#endif
}

static void rss(void)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 2, 0)
	percpu_counter_add(&current->mm->rss_stat[MM_ANONPAGES], 3);
#else
	atomic_long_add(3, &current->mm->rss_stat.count[MM_ANONPAGES]);
#endif
}

static void pgtables(void)
{
	atomic_long_add(PAGE_SIZE, &current->mm->pgtables_bytes);
}

static void vma_dump(void)
{
#ifdef CONFIG_DEBUG_VM
	unsigned long address = user_page();
	struct vm_area_struct *vma;

	mmap_read_lock(current->mm);
	vma = find_vma(current->mm, address);
	VM_BUG_ON_VMA(vma->vm_start == address, vma);
	mmap_read_unlock(current->mm);
#endif
}

/* A page that the page tables are said to hold is freed. */
static void table_check(void)
{
#ifdef CONFIG_PAGE_TABLE_CHECK
	struct page *page = alloc_page(GFP_KERNEL);
	pte_t entry = mk_pte(page, PAGE_SHARED);

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 6, 0)
	__page_table_check_ptes_set(current->mm, &entry, entry, 1);
#else
	__page_table_check_pte_set(current->mm, 0, &entry, entry);
#endif
	__free_page(page);
#endif
}

static void leak(void)
{
	for (int i = 0; i < 3; i++)
		strcpy(kmalloc(100, GFP_KERNEL), "trouble: lost");
}

/* Down to the last large block. */
static void allocation_failure(void)
{
	LIST_HEAD(pages);
	struct page *page, *next;

	while ((page = alloc_pages(GFP_KERNEL | __GFP_NORETRY, 9)))
		list_add(&page->lru, &pages);
	list_for_each_entry_safe(page, next, &pages, lru)
		__free_pages(page, 9);
}

static void vmalloc_failure(void)
{
	vfree(vmalloc(64ul << 30));
}

static void order_too_large(void)
{
	unsigned int order = 20;

	OPTIMIZER_HIDE_VAR(order);
	if (alloc_pages(GFP_KERNEL, order))
		pr_notice("trouble: so much memory\n");
}

static void bad_vfree(void)
{
	vfree((void *)(VMALLOC_START + (16ul << 20) * PAGE_SIZE / 4096));
}

static void cache_remains(void)
{
	struct kmem_cache *cache = kmem_cache_create("trouble", 64, 0, 0, NULL);

	if (kmem_cache_alloc(cache, GFP_KERNEL))
		kmem_cache_destroy(cache);
}

static void wrong_cache(void)
{
	struct kmem_cache *cache = kmem_cache_create("trouble", 64, 0, 0, NULL);

	kmem_cache_free(cache, kmalloc(200, GFP_KERNEL));
}

static noinline void slab_overflow(void)
{
	char *bytes = kmalloc(40, GFP_KERNEL);

	OPTIMIZER_HIDE_VAR(bytes);
	memset(bytes + 64, 0x41, 8);
	kfree(bytes);
}

static noinline void slab_after_free(void)
{
	static char *kept[64];
	char *bytes = kmalloc(120, GFP_KERNEL);

	kfree(bytes);
	OPTIMIZER_HIDE_VAR(bytes);
	bytes[60] = 0x41;
	for (int i = 0; i < ARRAY_SIZE(kept); i++)
		kept[i] = kmalloc(120, GFP_KERNEL);
}

static noinline void double_free(void)
{
	char *bytes = kmalloc(72, GFP_KERNEL);

	kfree(bytes);
	OPTIMIZER_HIDE_VAR(bytes);
	kfree(bytes);
}

/* ---- objects ---------------------------------------------------------------------------------------------------- */

static void silent(struct timer_list *timer)
{
}

static void free_active_timer(void)
{
	struct timer_list *timer = kmalloc(sizeof(*timer), GFP_KERNEL);

	timer_setup(timer, silent, 0);
	mod_timer(timer, jiffies + 10 * HZ);
	kfree(timer);
}

static void init_active_timer(void)
{
	timer_setup(&soft_timer, silent, 0);
	mod_timer(&soft_timer, jiffies + 10 * HZ);
	timer_setup(&soft_timer, silent, 0);
}

static void duplicate(void)
{
	for (int i = 0; i < 2; i++)
		if (!kobject_create_and_add("trouble", kernel_kobj))
			pr_notice("trouble: one is enough\n");
}

static void kobject_twice(void)
{
	static const struct kobj_type type;
	static struct kobject object;

	kobject_init(&object, &type);
	kobject_init(&object, &type);
}

/* ---- the log itself --------------------------------------------------------------------------------------------- */

static atomic_t there;

static void meet(void)
{
	atomic_inc(&there);
	while (atomic_read(&there) < 2)
		cpu_relax();
}

static int warns(void *unused)
{
	meet();
	for (int i = 0; i < 3; i++)
		WARN(1, "trouble: one of two\n");
	return 0;
}

static int dumps(void *unused)
{
	meet();
	for (int i = 0; i < 3; i++)
		WARN(1, "trouble: the other of two\n");
	return 0;
}

static void both(void)
{
	on_cpu(warns, NULL, 0, "trouble/one");
	on_cpu(dumps, NULL, 1, "trouble/two");
}

static int oopses(void *unused)
{
	meet();
	null_write();
	return 0;
}

static void both_oops(void)
{
	on_cpu(dumps, NULL, 0, "trouble/one");
	on_cpu(oopses, NULL, 1, "trouble/two");
}

static int resets(void *unused)
{
	meet();
	mdelay(30);
	emergency_restart();
	return 0;
}

static int storms(void *unused)
{
	meet();
	for (;;)
		warn_words();
	return 0;
}

static void cut_off(void)
{
	on_cpu(storms, NULL, 1, "trouble/storms");
	on_cpu(resets, NULL, 0, "trouble/resets");
}

/* More than the log's buffer holds, while nobody prints it; and what it holds is too unimportant to be printed. */
static void dropped(void)
{
	warn_words();
	console_lock();
	irq_warn();
	for (int i = 0; i < 60000; i++)
		printk(KERN_DEBUG "trouble: line %d of too many, with some words to make it long enough\n", i);
	warn_plain();
	console_unlock();
}

/* Plain accesses of two CPUs to one variable, which KCSAN notices sooner or later. */
static int counter;

static noinline void count_up(void)
{
	counter++;
	barrier();
}

static noinline int look_at(void)
{
	barrier();
	return counter;
}

static int counts(void *unused)
{
	meet();
	for (unsigned long end = jiffies + seconds * HZ; time_before(jiffies, end); cond_resched())
		count_up();
	return 0;
}

static int looks(void *unused)
{
	int last = 0;

	meet();
	for (unsigned long end = jiffies + seconds * HZ; time_before(jiffies, end); cond_resched())
		last += look_at();
	return last & 1;
}

static void race(void)
{
	on_cpu(counts, NULL, 0, "trouble/counts");
	on_cpu(looks, NULL, 1, "trouble/looks");
}

/* What a console prints besides reports. */
static void noise(void)
{
	printk(KERN_INFO "trouble: BUG is not a report here, nor is WARNING or Oops in the midst of a line\n");
	printk(KERN_INFO "trouble: \033[31mred\033[0m and a \r carriage return, and \xff\xfe bytes\n");
	dump_stack();
}

static const struct {
	const char *name;
	void (*happen)(void);
} troubles[] = {
#define T(name) { #name, name }
	T(null_read), T(null_write), T(null_call), T(non_canonical), T(unmapped), T(wild_call), T(warn_plain),
	T(warn_words), T(bug), T(panic_now), T(undefined), T(breakpoint), T(divide), T(alignment), T(irq_null),
	T(irq_warn), T(recursion), T(abba), T(mutex_abba), T(irq_order), T(irq_inversion), T(inconsistent),
	T(soft_inconsistent), T(held_at_return), T(held_at_exit), T(wait_context), T(unbalanced), T(unbalanced_read),
	T(held_freed), T(nest_lock), T(no_key), T(bad_magic), T(already_unlocked), T(spin_recursion),
	T(rcu_unprotected), T(rcu_might_sleep), T(rcu_switch), T(sleep_locked), T(sleep_irqs_off),
	T(schedule_atomic), T(which_cpu), T(timer_leak), T(work_leak), T(irqs_enabled), T(soft_lockup),
	T(hard_lockup), T(hung), T(work_lockup), T(rcu_stall), T(rcu_stall_task), T(rcu_expedite),
	T(page_mapping_left), T(page_mapcount_left), T(page_uncounted), T(page_double_free), T(page_after_free),
	T(page_map), T(pmd_bad_entry), T(rss), T(pgtables), T(vma_dump), T(table_check), T(leak),
	T(allocation_failure), T(vmalloc_failure), T(order_too_large), T(bad_vfree), T(cache_remains),
	T(wrong_cache), T(slab_overflow), T(slab_after_free), T(double_free), T(free_active_timer),
	T(init_active_timer), T(duplicate), T(kobject_twice), T(both), T(both_oops), T(cut_off), T(dropped),
	T(race), T(noise),
};

static ssize_t trouble_write(struct file *file, const char __user *from, size_t count, loff_t *position)
{
	char name[32] = "";

	if (count >= sizeof(name) || copy_from_user(name, from, count))
		return -EINVAL;
	for (size_t i = 0; i < ARRAY_SIZE(troubles); i++) {
		if (!strcmp(troubles[i].name, name)) {
			troubles[i].happen();
			return count;
		}
	}
	return -ENOENT;
}

static const struct file_operations operations = {
	.owner = THIS_MODULE,
	.write = trouble_write,
};

static int __init trouble_init(void)
{
	debugfs_create_file("trouble", 0200, NULL, NULL, &operations);
	return 0;
}

module_init(trouble_init);
MODULE_DESCRIPTION("Makes a kernel report, for cowpen's own tests");
MODULE_LICENSE("GPL");
