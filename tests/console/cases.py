"""What the golden console logs show: kernels, and what is done to each. Data only; `tests.console.provoke` does it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from harness.arch import ARCHES
from harness.kernel.definition import Definition


def _built(name: str, *fragments: str) -> Definition:
    """A kernel of Debian's source that begins the name, with fragments of ``kernels/fragments``."""
    series = name.partition("-")[0]
    return Definition(
        name, "for its reports", series, tuple(ARCHES), ("base", "lean", "modules", *fragments), ()
    )


# Named as the logs are. A string is the kernel spec of a stock kernel.
KERNELS: dict[str, Definition | str] = {
    "debian-6.1": "debian:6.1",
    "debian-6.12": "debian:6.12",
    # Lines with their task, lockdep, everything but sanitizers.
    "6.12": _built(
        "6.12",
        *("debug-info", "lkdtm", "lockdep", "detectors", "hardlockup", "debug-vm", "printk-caller"),
    ),
    # Lines without it, sanitizers, no lockdep.
    "6.1-kasan": _built("6.1-kasan", "lkdtm", "detectors", "kmemleak", "kasan", "ubsan"),
    "6.12-kcsan": _built("6.12-kcsan", "lkdtm", "detectors", "kcsan"),
}
DEBUG, KASAN, KCSAN = ("6.12",), ("6.1-kasan",), ("6.12-kcsan",)
BUILT = (*DEBUG, *KASAN)
STOCK = ("debian-6.1", "debian-6.12")
BOTH = ("x86_64", "aarch64")

_DEBUGFS = "/sys/kernel/debug"
_KERNEL = "/proc/sys/kernel"
# What begins a report. A row that is to show something that begins otherwise, or only one thing, says what.
REPORT = (
    r"BUG: |WARNING: |kernel BUG at|Internal error|Kernel panic|[Uu]nable to handle|general protection fault|Oops: "
    r"|UBSAN: |BUG [\w-]+ \(|Insufficient stack space"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """One row: what is done to a kernel, and by what one sees on the console that it was done."""

    name: str
    kernels: tuple[str, ...]
    arches: tuple[str, ...] = BOTH
    acts: tuple[tuple[str, ...], ...] = ()
    """Arguments of act.c's program, one run after another."""
    module: str = ""
    """The kernel module that is loaded before."""
    loads: str = ""
    """The kernel module that the act loads, from ``/tmp/NAME.ko``."""
    settings: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Files of the guest and what is written to them before."""
    arguments: tuple[str, ...] = ()
    """More of the kernel's command line."""
    boot: tuple[str, ...] = ()
    """The end of the kernel's command line with which it must fail to boot. Nothing else is done then."""
    disk: bool = False
    suite: tuple[str, ...] = ()
    """Of a suite of tests: patterns of what its reports are about, a log for each."""
    shows: str = REPORT
    """A regular expression."""
    seconds: float = 20.0
    """How long it may take on a guest of speed 1.0."""


LIVES = {f"{_KERNEL}/panic_on_oops": "0"}
WATCHDOG = {f"{_KERNEL}/watchdog_thresh": "2"}
HUNG = {f"{_KERNEL}/hung_task_timeout_secs": "3"}
STALL = {"/sys/module/rcupdate/parameters/rcu_cpu_stall_timeout": "4"}
WORK = {"/sys/module/workqueue/parameters/watchdog_thresh": "4"}
SLUB = ("slub_debug=FZPU",)
LATE = ("kunit.enable=1", "kfence.sample_interval=0")
# An idle CPU keeps the address space of the task it ran last, which is looked at when it is gone: other tasks take its
# place.
NEXT = (("sleep", "1"), *(("exit", "0"),) * 8)
# A CPU that masks interrupts can then still be made to show its stack; x86_64 does not know the word.
NMI = ("irqchip.gicv3_pseudo_nmi=1",)


def lkdtm(name: str, *, kernels: tuple[str, ...] = DEBUG, suffix: str = "", **more: object) -> Case:
    """A crash point of the kernel's own crash test."""
    act = ("-b", "write", f"{_DEBUGFS}/provoke-crash/DIRECT", name)
    return Case(name=f"lkdtm-{name}{suffix}", kernels=kernels, acts=(act,), **more)  # type: ignore[arg-type]


def own(
    name: str,
    *,
    kernels: tuple[str, ...] = DEBUG,
    suffix: str = "",
    after: tuple[tuple[str, ...], ...] = (),
    **more: object,
) -> Case:
    """A trouble of trouble.c, and what is done after it."""
    act = ("-b", "write", f"{_DEBUGFS}/trouble", name)
    acts = (act, *after)
    return Case(name=f"{name}{suffix}", kernels=kernels, module="trouble", acts=acts, **more)  # type: ignore[arg-type]


def _lkdtm(names: str, **more: object) -> Iterable[Case]:
    return (lkdtm(name, **more) for name in names.split())  # type: ignore[arg-type]


def _own(names: str, **more: object) -> Iterable[Case]:
    return (own(name, **more) for name in names.split())  # type: ignore[arg-type]


CASES: tuple[Case, ...] = (
    # -- LKDTM --
    *_lkdtm(
        """BUG WARNING EXCEPTION EXHAUST_STACK CORRUPT_STACK CORRUPT_LIST_ADD FORTIFY_MEM_OBJECT EXEC_DATA
        EXEC_USERSPACE WRITE_RO ACCESS_USERSPACE USERCOPY_SLAB_SIZE_TO SLAB_FREE_DOUBLE""",
        kernels=BUILT,
    ),
    *_lkdtm(
        """PANIC WARNING_MESSAGE CORRUPT_STACK_STRONG CORRUPT_LIST_DEL STACK_GUARD_PAGE_LEADING
        STACK_GUARD_PAGE_TRAILING FORTIFY_STR_MEMBER FORTIFY_MEM_MEMBER FORTIFY_STRSCPY SLAB_FREE_CROSS SLAB_FREE_PAGE
        WRITE_RO_AFTER_INIT WRITE_KERN EXEC_STACK EXEC_KMALLOC EXEC_VMALLOC EXEC_RODATA EXEC_NULL ACCESS_NULL
        USERCOPY_SLAB_SIZE_FROM USERCOPY_STACK_FRAME_TO USERCOPY_STACK_FRAME_FROM USERCOPY_STACK_BEYOND USERCOPY_KERNEL
        USERCOPY_FOLIO USERCOPY_SLAB_WHITELIST_TO"""
    ),
    *_lkdtm(
        """REFCOUNT_INC_OVERFLOW REFCOUNT_DEC_ZERO REFCOUNT_DEC_NEGATIVE REFCOUNT_INC_ZERO REFCOUNT_ADD_ZERO
        REFCOUNT_SUB_AND_TEST_NEGATIVE REFCOUNT_INC_SATURATED REFCOUNT_DEC_SATURATED""",
        kernels=DEBUG,
        shows="refcount_t: ",
    ),
    *_lkdtm("WRITE_AFTER_FREE READ_AFTER_FREE VMALLOC_LINEAR_OVERFLOW SLAB_LINEAR_OVERFLOW", kernels=KASAN),
    *_lkdtm("WRITE_AFTER_FREE SLAB_LINEAR_OVERFLOW", kernels=DEBUG, suffix="-slub", arguments=SLUB),
    lkdtm("WRITE_BUDDY_AFTER_FREE", kernels=DEBUG, suffix="-pagealloc", arguments=("debug_pagealloc=on",)),
    lkdtm("UNSET_SMEP", kernels=DEBUG, arches=("x86_64",)),
    lkdtm("SOFTLOCKUP", settings=WATCHDOG, shows="soft lockup", seconds=15),
    lkdtm("HARDLOCKUP", kernels=DEBUG, settings=WATCHDOG, arguments=NMI, shows="hard LOCKUP", seconds=60),
    lkdtm("SPINLOCKUP"),
    lkdtm("SMP_CALL_LOCKUP", kernels=DEBUG, settings=WATCHDOG, shows="soft lockup|hard LOCKUP", seconds=60),
    lkdtm("HUNG_TASK", settings=HUNG, shows="blocked for more than", seconds=40),
    lkdtm("EXCEPTION", kernels=BUILT, suffix="-lives", settings=LIVES),
    lkdtm("BUG", kernels=DEBUG, suffix="-lives", settings=LIVES),
    lkdtm("WARNING", kernels=DEBUG, suffix="-panic", settings={f"{_KERNEL}/panic_on_warn": "1"}),
    # -- our own module: how a kernel ends, on stock kernels too --
    *_own(
        """null_write null_call wild_call warn_words bug panic_now undefined divide irq_null warn_plain breakpoint
        alignment irq_warn""",
        kernels=(*STOCK, *DEBUG),
    ),
    *_own("null_read non_canonical unmapped", kernels=(*STOCK, *BUILT)),
    own("null_write", kernels=(*STOCK, *DEBUG), suffix="-lives", settings=LIVES),
    own("irq_null", kernels=DEBUG, suffix="-lives", settings=LIVES),
    own("warn_words", kernels=DEBUG, suffix="-panic", settings={f"{_KERNEL}/panic_on_warn": "1"}),
    # -- locks --
    *_own(
        """recursion abba mutex_abba irq_order irq_inversion inconsistent soft_inconsistent held_at_return held_at_exit
        wait_context unbalanced unbalanced_read held_freed nest_lock bad_magic already_unlocked
        rcu_might_sleep sleep_locked sleep_irqs_off schedule_atomic which_cpu work_leak
        irqs_enabled"""
    ),
    own("no_key", shows="trying to register non-static key"),
    own("rcu_unprotected", shows="suspicious RCU usage"),
    own("rcu_switch", shows="Voluntary context switch|WARNING: "),
    own("timer_leak", shows="preempt leak|huh, entered"),
    # Where preemption is counted: Debian's arm64 kernels have no PREEMPT_DYNAMIC.
    own("schedule_atomic", kernels=STOCK, arches=("x86_64",)),
    own("spin_recursion", settings=WATCHDOG, shows="soft lockup|lockup suspected", seconds=60),
    # -- nothing moves any more --
    *_own("soft_lockup", kernels=(*STOCK, *BUILT), settings=WATCHDOG, shows="soft lockup", seconds=40),
    own(
        "soft_lockup",
        kernels=DEBUG,
        suffix="-panic",
        settings=WATCHDOG | {f"{_KERNEL}/softlockup_panic": "1"},
        seconds=40,
        shows="Kernel panic",
    ),
    own("hard_lockup", settings=WATCHDOG, arguments=NMI, shows="hard LOCKUP", seconds=60),
    own("hung", kernels=(*STOCK, *BUILT), settings=HUNG, shows="blocked for more than", seconds=40),
    own(
        "hung",
        suffix="-panic",
        settings=HUNG | {f"{_KERNEL}/hung_task_panic": "1"},
        shows="Kernel panic",
        seconds=40,
    ),
    own("work_lockup", kernels=BUILT, settings=WORK, shows="workqueue lockup", seconds=60),
    own(
        "rcu_stall",
        kernels=(*STOCK, *BUILT),
        settings=STALL,
        shows="self-detected stall|detected stalls",
        seconds=60,
    ),
    own("rcu_stall_task", kernels=DEBUG, settings=STALL, shows="detected stalls|self-detected", seconds=60),
    own("rcu_expedite", settings=STALL, shows="expedited stalls", seconds=60),
    # -- memory --
    *_own("page_mapping_left page_mapcount_left", kernels=(*STOCK, *DEBUG), shows="Bad page state"),
    *_own("page_uncounted page_double_free vma_dump table_check"),
    own("page_double_free", suffix="-owner", arguments=("page_owner=on",)),
    own("page_mapping_left", suffix="-owner", arguments=("page_owner=on",), shows="Bad page state"),
    own("page_after_free", arguments=("page_poison=1",), shows="pagealloc: |Bad page|poison"),
    *_own("page_map", kernels=(*STOCK, *BUILT), shows="Bad page map"),
    own("pmd_bad_entry", arches=("x86_64",), kernels=(*STOCK, *BUILT), shows="bad pmd"),
    own("rss", kernels=(*STOCK, *BUILT), after=NEXT, shows="Bad rss-counter"),
    own("pgtables", kernels=BUILT, after=NEXT, shows="non-zero pgtables_bytes"),
    *_own(
        "allocation_failure vmalloc_failure",
        kernels=(*STOCK, *DEBUG),
        shows="allocation failure|vmalloc error",
    ),
    *_own("order_too_large bad_vfree wrong_cache cache_remains", kernels=BUILT),
    *_own("slab_overflow slab_after_free double_free", arguments=SLUB),
    *_own("slab_overflow slab_after_free double_free", kernels=KASAN),
    own("double_free", suffix="-hardened"),
    Case(
        name="leak",
        kernels=KASAN,
        module="trouble",
        settings={"/sys/module/kmemleak/parameters/verbose": "1"},
        acts=(
            ("write", f"{_DEBUGFS}/kmemleak", "scan"),
            ("write", f"{_DEBUGFS}/trouble", "leak"),
            ("sleep", "6"),
            ("write", f"{_DEBUGFS}/kmemleak", "scan"),
            ("write", f"{_DEBUGFS}/kmemleak", "scan"),
            ("copy", f"{_DEBUGFS}/kmemleak", "/dev/console"),
        ),
        shows="unreferenced object",
        seconds=40,
    ),
    Case(
        name="oom",
        kernels=(*STOCK, *BUILT),
        acts=(("-b", "eat"),),
        shows="Out of memory: Killed process",
        seconds=60,
    ),
    Case(
        name="oom-panic",
        kernels=DEBUG,
        acts=(("-b", "eat"),),
        settings={"/proc/sys/vm/panic_on_oom": "1"},
        shows="Kernel panic",
        seconds=60,
    ),
    # -- objects --
    *_own("free_active_timer init_active_timer", shows="ODEBUG"),
    own("duplicate", kernels=(*STOCK, *DEBUG), shows="cannot create duplicate filename"),
    own("kobject_twice", kernels=BUILT, shows="tried to init an initialized object"),
    # -- the log itself --
    own("both", kernels=BUILT, shows="one of two"),
    own("both_oops", kernels=BUILT),
    own("cut_off", kernels=BUILT),
    own("dropped", kernels=BUILT, shows="messages dropped", seconds=60),
    own(
        "race",
        kernels=KCSAN,
        arches=("x86_64",),
        settings={f"{_DEBUGFS}/kcsan": "on"},
        shows="KCSAN: data-race",
        seconds=40,
    ),
    # Nothing that is a report: kinds of traces that are asked for, a program's own crash.
    own("noise", kernels=DEBUG, shows="carriage"),
    Case(
        name="segv",
        kernels=(*STOCK, *DEBUG),
        settings={"/proc/sys/kernel/print-fatal-signals": "1"},
        acts=(("-b", "segv"),),
        shows="segfault|fatal signal",
    ),
    *(
        Case(name=f"sysrq-{key}", kernels=DEBUG, acts=(("write", "/proc/sysrq-trigger", key),), shows=shows)
        for key, shows in (
            ("l", "NMI backtrace|Call [Tt]race"),
            ("w", "Show Blocked State"),
            ("t", "Show State"),
            ("m", "Mem-Info"),
        )
    ),
    Case(name="sysrq-c", kernels=(*STOCK, *BUILT), acts=(("-b", "write", "/proc/sysrq-trigger", "c"),)),
    # -- suites --
    Case(
        name="kasan",
        kernels=KASAN,
        loads="kasan_test",
        acts=(("-b", "insmod", "/tmp/kasan_test.ko", ""),),
        suite=(
            *(
                "kasan_*",
                "kmalloc_oob_left",
                "kmalloc_oob_right",
                "kmalloc_oob_in_memset",
                "kmalloc_large_oob_right",
            ),
            *(
                "kmalloc_memmove_negative_size",
                "kmalloc_pagealloc_*",
                "kmalloc_uaf",
                "kmem_cache_*",
                "krealloc_*",
            ),
            *(
                "ksize_uaf",
                "memchr",
                "strlen",
                "vmalloc_oob",
                "pagealloc_uaf",
                "kfree_sensitive",
                "__kmem_cache_free",
            ),
        ),
        # Without KFENCE, which would take some of the allocations, and the reports.
        arguments=LATE,
        shows=r"ok 1 (- )?kasan\s",
        seconds=240,
    ),
    Case(
        name="kfence",
        kernels=KASAN,
        loads="kfence_test",
        acts=(("-b", "insmod", "/tmp/kfence_test.ko", ""),),
        suite=("*",),
        # Turned on late: else what the boot allocates fills all of its pool.
        arguments=LATE,
        settings={"/sys/module/kfence/parameters/sample_interval": "10"},
        shows=r"ok 1 (- )?kfence\s",
        seconds=400,
    ),
    Case(
        name="ubsan",
        kernels=KASAN,
        loads="test_ubsan",
        acts=(("-b", "insmod", "/tmp/test_ubsan.ko", ""),),
        suite=("*",),
        shows="UBSAN: ",
        seconds=30,
    ),
    # -- boots that fail --
    *(
        Case(name=name, kernels=kernels, boot=boot, disk=disk, shows=shows)
        for name, kernels, boot, disk, shows in (
            (
                "boot-no-root",
                (*STOCK, *DEBUG),
                ("rdinit=/nothing", "root=/dev/nonsense"),
                False,
                "Kernel panic",
            ),
            (
                "boot-no-init",
                DEBUG,
                ("rdinit=/nothing", "root=/dev/vda", "rootfstype=ext4"),
                True,
                "Kernel panic",
            ),
            (
                "boot-init-fails",
                DEBUG,
                ("rdinit=/nothing", "root=/dev/vda", "rootfstype=ext4", "init=/nothing"),
                True,
                "Kernel panic",
            ),
            (
                "boot-init-exits",
                (*STOCK, *DEBUG),
                ("rdinit=/bin/act", "--", "exit", "3"),
                False,
                "Kernel panic",
            ),
            ("boot-init-segv", DEBUG, ("rdinit=/bin/act", "--", "segv"), False, "Kernel panic"),
        )
    ),
)
