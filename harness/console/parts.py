"""What belongs to a report, as data: the lines before its header, and those of its body that nothing else is read from.

A line that is not here ends no report by itself; it is only no reason to think that the report still goes on.
"""

from __future__ import annotations

import re


def _any(*rows: str) -> re.Pattern[str]:
    return re.compile("|".join(rows), re.ASCII)


PREAMBLE = _any(
    r"-{6,}\[ cut here|={8,}|\s*$",
    # Of mails, and of kernels that print the header late.
    r"Modules linked in|CPU: \d|Hardware name",
    # dump_page(), with the traces of page_owner, and print_bad_pte().
    r"page:|page |flags: |raw: |head: |anon |memcg:|aops:|index:|page_type: |page_owner|pgalloc|pfn:",
    r"(?:last )?(?:allocated|free) |\s{1,4}[\w.]{1,64}\+0x",
    # What is wrong, before where.
    r"refcount_t: |list_(?:add|del)\w* |usercopy: |detected buffer overflow|\w{1,32}: detected |ODEBUG: |kobject: ",
    r"kernel tried to |unable to execute |DEBUG_LOCKS_WARN|CFI failure|traps: |x86/|virt_to_cache|Trying to ",
    r"cache_from_obj|\w{1,32}: (?:Wrong slab|Wrong cache)|\[[A-Z][\w ]{2,40}\] 0x",
    # dump_vma() and dump_mm().
    r"vma |mm [0-9a-f]{8}|start |next |prot: |pgoff |mmap_base |pgd |hiwater_rss |pinned_vm |start_code |start_brk ",
    r"arg_start |binfmt |ioctx_table|exe_file |notifier_sub|numa_next|tlb_flush|def_flags|private_data|anon_vma",
    r"vm_ops",
)

BODY = _any(
    # Task, machine, registers.
    r"Modules linked in|CPU: |CPU \d|CPU#|Hardware name|Code: |\s*(?:Not t|T)ainted|Tainted: \[|Workqueue: ",
    r"task:|note: ",
    r"RIP: |[RE]?[A-Z]{2}\d?: |R\d\d: |x\d{1,2} ?: |pc : |lr : |sp : |pstate: |PKRU: |Kernel Offset|Disabling lock",
    # Faults: what was accessed, and the page tables.
    r"#PF: |PGD |Mem abort info|Data abort info|  \S+ = |user pgtable|swapper pgtable|\[[0-9a-f]{16}\] |ESR|FAR:",
    r"Internal error: |Oops: |SMP: stopping|Task stack|IRQ stack|Overflow stack",
    # lockdep.
    r"\d+ locks? held|no locks|\s*#\d+: |but (?:task|now)|(?:and|which|to) |stack backtrace|other info",
    r"\s+Possible |\s+CPU0",
    r"\s+-{3,}|\s+lock\(|\s+\*\*\* |\s*<Interrupt>|hardirqs last|softirqs last|irq event|INFO: lockdep is",
    r"-{24,}|={24,}",
    r"Preemption disabled at|caller is|preempt_count|in_atomic|RCU nest",
    # Hung tasks, stalls, lockups.
    '"echo 0|Showing|rcu: |\t|Sending NMI|NMI backtrace',
    # Sanitizers.
    r"The buggy |Memory state|[ >][0-9a-f]{16}: |value changed|Reported by|kfence-|index \d|shift exponent",
    r"(?:read|write|read-write)(?: \(\w+\))? to 0x|(?:left|right) shift|signed integer|load of|member access",
    r"store to",
    # Pages, slabs, leaks.
    r"page:|page |flags: |raw: |head: |anon |pte_|addr:|file:|BUG: Bad|Object |Redzone |Padding |Slab |kobject",
    r"kmemleak: |  comm |  hex dump|    [0-9a-f]{2} ",
    # Shortages.
    r"Mem-Info|\s+(?:active|inactive|isolated|unevictable|slab_|mapped:|kernel_|free:|sec_)|Node ",
    r"lowmem_reserve|\d+ total",
    r"\d+ pages|Swap|Free swap|Total swap|Tasks state|\[ {1,8}pid|\[ *\d+\] |oom-kill:|oom_reaper|Out of memory",
)

# What ends the trace of a task that is told whole: the kernel is entered there.
ROOT = _any(
    r"entry_\w+|ret_from_\w+|syscall_call|system_call\w*|sysenter_\w+|ia32_\w+|do_syscall_64|__kernel_vsyscall",
    r"asm_\w+|error_entry|page_fault|el0t?_\w+|el1h?_\w+|call_on_irq_stack|0x[0-9a-f]+",
    r"secondary_startup\w*|__secondary_switched|__primary_switched|common_startup_64",
    r"(?:secondary_)?start_(?:kernel|secondary)",
    r"x86_64_start_\w+|arch_call_rest_init|rest_init|cpu_startup_entry|call_cpuidle|do_idle|default_idle_call",
    r"kthread|__switch_to|do_exit|rewind_\w+",
)
