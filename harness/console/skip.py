"""Functions that are not to blame: they report, wait, lock, copy or allocate on behalf of their caller.

The guilty function of a report is the innermost that is not in this table. Patterns match whole names without
compiler suffixes. A row with a group counts only for the formats that name the group.
"""

from __future__ import annotations

import functools
import re
from typing import NamedTuple

MACHINERY = ""


class Skip(NamedTuple):
    """One row: names, and why they are never the guilty ones."""

    pattern: str
    reason: str
    group: str = MACHINERY


SKIP: tuple[Skip, ...] = (
    # -- what prints reports --
    Skip(r"_?dump_stack\w*|dump_backtrace\w*|_?_?show_stack\w*|_?_?show_regs\w*|show_trace\w*|unwind_backtrace"
        r"|arch_stack_walk\w*|stack_trace_save\w*|save_stack\w*|walk_stackframe", "prints or walks the stack"),
    Skip(r"v?panic|nmi_panic\w*|die|__die\w*|die_\w+|oops_\w+|page_fault_oops|kernelmode_fixup_or_oops"
        r"|crash_kexec|no_context|bug_at|__stack_chk_fail|machine_kexec", "where a kernel goes to die"),
    Skip(r"__warn(?:_printk|_thunk)?|__WARN\w*|warn_slowpath\w*|report_bug|__report_bug|handle_bug|bug_handler"
        r"|fixup_bug|brk_handler|call_break_hook|__handle_bug|bug_brk_handler|warn_bogus\w*",
        "what WARN() and BUG() call"),
    Skip(r"print_\w+|report_\w+|end_report|start_report|dump_page\w*|dump_vma|dump_mm|_?printk\w*|vprintk\w*"
        r"|_dev_(?:info|warn|err|crit|emerg|notice|alert|printk)|console_\w+", "prints"),
    Skip(r"kasan_(?:report\w*|check_\w+|save_\w+|set_track\w*|object_err|poison\w*|unpoison\w*|slab_\w+"
        r"|kfree\w*|kmalloc\w*|krealloc\w*|quarantine_\w+|release_\w+|populate_\w+|addr_to_slab"
        r"|complete_mode_\w+)|__kasan_\w+|____kasan_\w+|__asan_\w+|__hwasan_\w+|check_memory_region\w*"
        r"|check_region_inline|memory_is_\w+|kmsan_\w+|__msan_\w+|__kmsan_\w+|kcsan_\w+|__kcsan_\w+"
        r"|__tsan_\w+|kfence_\w+|__kfence_\w+|instrument_\w+|read_word_at_a_time|find_watchpoint|check_access"
        r"|should_watch", "a sanitizer's check"),
    Skip(r"ubsan_\w+|__ubsan_\w+|handle_overflow|val_to_string", "the handlers of UBSAN"),
    Skip(r"fortify_panic|__fortify_panic|__fortify_report", "FORTIFY_SOURCE's handlers"),
    Skip(r"usercopy_\w+|__check_object_size\w*|__check_heap_object|check_(?:heap|stack|page|kernel_text"
        r"|bogus)_?\w*|check_object_size", "HARDENED_USERCOPY's checks"),
    Skip(r"__?list_(?:add|del)_\w*(?:valid|entry)\w*|list_(?:add|del|move|splice|replace|cut)\w*|__list_\w+"
        r"|hlist_(?:add|del)\w*|plist_\w+|llist_\w+", "primitives of lists: who uses the list is asked for"),
    Skip(r"refcount_\w+|__refcount_\w+|kref_\w+|percpu_ref_\w+", "primitives of reference counting"),
    Skip(r"(?:__)?page_table_check_\w+", "PAGE_TABLE_CHECK's checks"),
    Skip(r"__might_\w+|___might_sleep|might_\w+|__cant_\w+|check_preemption_disabled|debug_smp_processor_id"
        r"|__this_cpu_preempt_check|__schedule_bug|preempt_count_(?:add|sub)|get_preempt_disable_ip",
        "checks of the context"),
    Skip(r"bad_page\w*|free_page_is_bad\w*|check_new_page\w*|check_free_page\w*|free_pages?_(?:prepare"
        r"|check)\w*|free_tail_page_prepare|bad_range|page_expected_state|__?free_pages_(?:ok|core)"
        r"|free_unref_\w+|free_pcppages_bulk|free_frozen_pages|__free_frozen_pages|check_new_pages"
        r"|check_pcp_refill|check_pages_enabled|get_page_from_freelist|__rmqueue\w*|rmqueue\w*|prep_new_page"
        r"|post_alloc_hook|kernel_poison_pages|__kernel_unpoison_pages", "the page allocator's own checks"),
    # -- locks --
    Skip(r"lockdep_\w+|__lockdep_\w+|__lock_acquire|lock_acquire\w*|lock_release\w*|__lock_release"
        r"|lock_is_held\w*|check_\w*deadlock\w*|check_prev_add|check_prevs_add|check_noncircular"
        r"|check_irq_usage|check_wait_context|check_flags|validate_chain|mark_lock\w*|mark_usage"
        r"|mark_held_locks|register_lock_class|assign_lock_key|look_up_lock_class|debug_check_no_locks_\w+"
        r"|reacquire_held_locks|lock_(?:set|pin|unpin|downgrade)\w*|trace_hardirqs_\w+|rcu_lock_\w+"
        r"|rcu_read_(?:un)?lock\w*|debug_rt_\w+|debug_mutex_\w+|debug_(?:read|write|spin)_\w+|spin_bug"
        r"|spin_dump|rwlock_bug|rwsem_\w+_owner", "lockdep and lock debugging"),
    Skip(r"_raw_(?:spin|read|write)_\w+|__raw_(?:spin|read|write)_\w+|_spin_\w*lock\w*|_(?:read"
        r"|write)_(?:un)?lock\w*|(?:native_|pv_|__pv_)?queued_\w+|do_raw_\w+|spin_(?:un|try)?lock\w*|osq_\w+"
        r"|arch_spin_\w+|rt_spin_\w+|rt_read_\w+|rt_write_\w+|rtlock_\w+|rt_mutex_\w+|__rt_mutex_\w+"
        r"|(?:__)?(?:ww_)?mutex_\w*lock\w*|_mutex_lock\w*|mutex_spin\w*|rwsem_\w+|__rwsem_\w+"
        r"|(?:__)?down(?:_\w+)?|(?:__)?up(?:_(?:read|write)\w*)?|percpu_(?:down|up)_\w+|__percpu_(?:down"
        r"|up)_\w+|downgrade_write|bit_spin_\w+|queued_(?:read|write)_\w+|kvm_wait|virt_spin_lock",
        "primitives of locking"),
    # -- waiting --
    Skip(r"__schedule(?:_loop)?|schedule(?:_timeout\w*|_hrtimeout\w*|_preempt_disabled|_idle|_rtlock|_tail)?"
        r"|preempt_schedule\w*|io_schedule\w*|context_switch|__switch_to\w*|__cond_resched\w*|_cond_resched"
        r"|yield|do_sched_yield|finish_task_switch\w*", "the scheduler"),
    Skip(r"(?:pv_)?native_safe_halt|default_idle(?:_call)?|do_idle|arch_cpu_idle|cpu_do_idle|cpu_idle_poll"
        r"|mwait_idle\w*|cpuidle_\w+|acpi_(?:idle|safe_halt)\w*|intel_idle\w*|cpu_startup_entry",
        "the idle loop, interrupted by what matters"),
    Skip(r"(?:do_|__)?wait_(?:for|on)_\w+|__wait_\w+|wait_woken|bit_wait\w*|out_of_line_wait_\w+"
        r"|folio_wait_\w+|folio_lock\w*|__folio_lock\w*|__lock_page\w*|wait_on_page\w*|msleep\w*|usleep_\w+"
        r"|nanosleep|do_wait_\w*completion\w*|wait_rcu_gp\w*|__wait_rcu_gp|(?:prepare_to|finish)_wait\w*"
        r"|swait_\w+|rcuwait_\w+|kthread_stop|kthread_park|flush_work\w*|__flush_\w*work\w*|(?:drain"
        r"|destroy)_workqueue|cancel_\w*work\w*|__cancel_work\w*", "waiting: who waits is asked for"),
    # -- entry, interrupts, timers --
    Skip(r"exc_\w+|asm_\w+|sysvec_\w+|__sysvec_\w+|do_error_trap|do_trap\w*|do_int\w+|do_invalid_op"
        r"|invalid_op\w*|handle_invalid_op|do_general_protection|general_protection|do_undefinstr|do_el1_\w+"
        r"|page_fault|async_page_fault|error_entry|irqentry_\w+|divide_error|early_\w*idt_handler\w*"
        r"|early_fixup_exception|do_early_exception|trap_\w+|math_error", "x86: exception entry"),
    Skip(r"el[01][th]?_\w+|__el1_\w+|__el0_\w+|do_mem_abort|do_translation_fault|do_bad_area|do_sea"
        r"|do_sp_pc_abort|do_debug_exception|arm64_\w+|__do_kernel_fault|do_alignment_fault"
        r"|do_tag_check_fault|call_on_irq_stack|do_interrupt_handler|aarch64_\w+|handle_bad_stack"
        r"|panic_bad_stack|bad_el\w+|do_serror|gic_handle_irq|__gic_\w+|early_brk64|reg_bug",
        "arm64: exception entry"),
    Skip(r"watchdog_\w+|softlockup_\w+|(?:__)?perf_event_(?:overflow|nmi_handler)|armpmu_\w+|arch_trigger_\w+"
        r"|nmi_\w+|default_do_nmi|do_nmi|end_repeat_nmi|sched_show_task|rcu_dump_\w+|rcu_check_\w+"
        r"|rcu_sched_clock_irq|rcu_pending|check_cpu_stall|print_cpu_stall\w*|dump_cpu_task"
        r"|trigger_\w+_backtrace|show_state_filter|debug_show_all_locks|ipi_handler\w*",
        "detectors of lockups and stalls"),
    Skip(r"update_process_times|tick_\w+|__hrtimer_\w+|hrtimer_(?:interrupt|run_queues)"
        r"|handle_percpu_devid_\w+|handle_irq_\w+|generic_handle_\w+|__handle_\w*irq\w*|handle_domain_irq"
        r"|arch_timer_\w+|(?:smp_|local_)?apic_timer_interrupt|ret_from_\w+|generic_smp_call_function_\w+"
        r"|flush_smp_call_function_\w+|__flush_smp_call_function_\w+|smp_call_function_\w+|on_each_cpu\w*"
        r"|csd_lock_wait|native_smp_call_\w+", "timers and calls across CPUs"),
    Skip(r"common_interrupt|__common_interrupt|do_IRQ|handle_(?:edge|level|fasteoi)_irq", "interrupt entry"),
    # -- copying --
    Skip(r"(?:__)?(?:pi_)?mem(?:cpy|set|move|cmp|chr|scan)\w*|__mem(?:cpy|set|move|cmp)\w*|clear_page\w*"
        r"|copy_page|copy_highpage|copy_user_\w+|copy_mc_\w+|rep_(?:movs|stos)\w*|clear_user\w*|__clear_user"
        r"|kernel_memcpy", "copies for its caller"),
    Skip(r"str(?:len|cmp|ncmp|cpy|ncpy|nlen|lcpy|lcat|chr|rchr|nstr|str|scpy|cat|ncat|sep|spn|casecmp)"
        r"|sized_str\w+|string|string_nocheck|pointer|number|v?s[cn]*printf|k?v?asprintf|kstrdup\w*"
        r"|kmemdup\w*|bcmp", "strings for its caller"),
    Skip(r"_?_?(?:arch_)?(?:raw_)?copy_(?:to|from|in)_user\w*|_inline_copy_\w+|__(?:put|get)_user\w*|(?:put"
        r"|get)_user\w*|strncpy_from_user|strnlen_user|copy_(?:to|from)_kernel_nofault\w*|_copy_(?:to"
        r"|from)_iter\w*|copy_\w*to_iter|copy_\w*from_iter|__get_user_nocheck_\w+|fault_in_\w+",
        "copies to and from user space"),
    Skip(r"(?:native_|__native_|xen_|paravirt_|__)?(?:set_p(?:te|md|ud)|p(?:te|md|ud)p_(?:get_and_clear"
        r"|clear_flush|huge_clear_flush|modify_prot_\w+|set_wrprotect)|p[tm][ed]_offset_\w+)(?:_\w+)?"
        r"|contpte_\w+", "helpers of page tables"),
    Skip(r"(?:raw_|arch_)?atomic(?:64|_long)?_\w+|arch_atomic\w+|(?:__)?(?:test|set|clear|change)_\w*bit\w*"
        r"|xchg\w*|cmpxchg\w*|_find_(?:first|next)_\w*bit\w*", "atomic operations"),
    Skip(r"rb_(?:erase|insert|next|prev|first|replace)\w*|__rb_\w+", "the red-black tree's primitives"),
    Skip(r"__x86_indirect_\w+|__x86_return_thunk|\w*_indirect_thunk_\w+|srso_\w+|retbleed_\w+|ftrace_\w+"
        r"|__fentry__|bpf_dispatcher_\w+", "thunks and trampolines"),
    # -- only for some formats --
    Skip(r"(?:__)?(?:k|kv|v|kz)free(?:_\w+)?|kmem_cache_free\w*|__kmem_cache_\w+|kmem_cache_destroy"
        r"|(?:__)?slab_(?:free\w*|pad_check|err|fix)|do_slab_free|___cache_free|__vunmap|vunmap"
        r"|remove_vm_area|find_vm_area|free_large_kmalloc|free_to_partial_list|cache_from_obj|mempool_free\w*"
        r"|object_err|slab_err|(?:__)?free_(?:pages?|slab|debug_processing|consistency_checks)"
        r"|(?:__)?folio_put|(?:__)?put_page|free_nonslab_page|virt_to_cache|set_freepointer|__(?:page_"
        r"|folio_)?put\w*|discard_slab|rcu_free_slab|free_percpu|check_slab|on_freelist|check_object"
        r"|check_bytes_and_report|verify_(?:slab|subpage)|mm_free\w*|memcg_slab_free_hook|kfree_sensitive"
        r"|ksize", "frees for its caller", "free"),
    Skip(r"(?:__)?k[vmzc]*alloc(?:_\w+)?|__do_kmalloc\w*|__?kmem_cache_alloc\w*|kmem_cache_\w*alloc\w*"
        r"|(?:__)?alloc_(?:pages?|frozen_pages|contig_pages|slab)\w*|__alloc_\w+|__get_free_page\w*"
        r"|get_zeroed_page\w*|(?:__)?v[mz]?alloc\w*|__vmalloc\w*|vmap|__get_vm_area\w*|new_slab|___slab_alloc"
        r"|alloc_debug_processing|allocate_slab|init_object|krealloc\w*|kvrealloc\w*|warn_alloc\w*"
        r"|folio_alloc\w*|vma_alloc_\w+|alloc_\w+_mpol\w*|policy_\w+|mempool_alloc\w*|pcpu_\w+|idr_get\w*"
        r"|idr_alloc\w*|create_object|kmemleak_\w+|slab_post_alloc_hook|__?slab_alloc\w*|___kmalloc\w*"
        r"|kmalloc_\w+|get_partial\w*|__kmalloc\w*|dma_alloc_\w+|devm_k\w+|bpf_map_\w*alloc|list_lru_init"
        r"|obj_cgroup_\w+|memcg_\w+|__memcg_\w+", "allocates for its caller", "alloc"),
    Skip(r"debug_\w+|__debug_\w+|rcu\w*|call_rcu\w*|hrtimer_\w+|timer_\w+|work_\w+|init_timer_\w+|(?:del|mod"
        r"|add)_timer\w*|percpu_\w+|kobject_(?:init|add|set_name|create|register|put|get|del|cleanup|uevent"
        r"|move|rename)\w*|do_init_timer", "users of debugging of objects: who owns the object is asked for",
        "objects"),
    Skip(r"kobject_(?:init|add|set_name|create|register|put|get|del|cleanup|uevent|move|rename)\w*|kset_\w+"
        r"|device_(?:add|del|register|create)\w*|sysfs_\w+|internal_create_\w+|create_dir|__kobject_(?:init"
        r"|add|set_name|create|register|put|get|del|cleanup|uevent|move|rename)\w*|kernfs_\w+",
        "the object model: who hands in the object is asked for", "kobject"),
    Skip(r"__?rcu\w*|___?rcu\w*|synchronize_\w*rcu\w*|srcu\w*|__srcu\w*|list_\w+_rcu|find_get_\w+",
        "RCU's own helpers", "rcu"),
    Skip(r"kthread|worker_thread|process_\w+work\w*|process_scheduled_works|do_syscall\w*|x64_sys_call"
        r"|invoke_syscall\w*|entry_\w+|synchronize_\w+|\w*_slowlock\w*|\w*_slowpath\w*|wait_\w+|\w+_wait"
        r"|\w+_wait_\w*event\w*|\w+_down_\w+", "waiting, where the report is about waiting", "wait"),
    Skip(r"wq_watchdog_\w+|call_timer_fn|expire_timers|_{0,2}run_timer\w*|handle_softirqs|_{0,4}do_softirq\w*"
        r"|invoke_softirq|_{0,2}irq_exit\w*|default_idle\w*", "on top of what was interrupted", "interrupt"),
    Skip(r"dump_header|oom_\w+|out_of_memory|mem_cgroup_\w*oom\w*|__alloc_pages_may_oom|pagefault_out_of_memory",
        "the OOM killer", "oom"),
    Skip(r"do_exit|make_task_dead|rewind_stack_\w+|do_task_dead|do_group_exit|exit_to_user_\w+|syscall_exit_\w+",
        "ways out", "exit"),
)  # fmt: skip


@functools.cache
def _pattern(group: str) -> re.Pattern[str]:
    return re.compile("|".join(row.pattern for row in SKIP if row.group == group), re.ASCII)


@functools.lru_cache(maxsize=4096)
def skipped(function: str, groups: tuple[str, ...] = ()) -> bool:
    """Whether ``function`` only acts on behalf of its caller, in a report of a format with these ``groups``."""
    return any(_pattern(group).fullmatch(function) for group in (MACHINERY, *groups))
