"""What kernel reports look like: one row per header line. Titles follow syzkaller's conventions.

Sources: kernel/panic.c, lib/bug.c, mm/kasan/report.c, kernel/locking/lockdep.c, kernel/hung_task.c,
kernel/watchdog.c, kernel/rcu/tree_stall.h, mm/page_alloc.c, mm/memory.c, arch/x86/kernel/dumpstack.c,
arch/x86/mm/fault.c, arch/arm64/mm/fault.c, arch/arm64/kernel/traps.c of Linux 6.1 and 6.12, and for the old
spellings the reports in rhbz#471613.
"""

from __future__ import annotations

import dataclasses
import re

# All patterns see one line of at most 4 KiB without its printk prefix. They are anchored, and every
# repetition is followed by something it cannot match itself or is bounded, so a hostile line costs little.
FUNCTION = r"[A-Za-z_$][\w$.]{0,127}"
_FRAME = rf"(?P<frame>{FUNCTION})"
_AT = r"(?P<file>[\w./+-]{1,255}):\d{1,9}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Format:
    """One kind of report.

    ``pattern`` may name the groups ``frame``, ``file`` and ``what``. ``title`` is filled with ``{what}``,
    ``{access}`` (KASAN's Read or Write) and ``{place}``, the guilty function or else the file.
    """

    kind: str
    pattern: re.Pattern[str]
    title: str
    alt: tuple[str, ...] = ()
    fatal: bool = False
    """The kernel dies of it, or the task: a panic that follows is its consequence."""
    dies: bool = False
    """A second header that begins a register dump follows (``Oops:``, ``Internal error:``)."""
    die: bool = False
    """This header is such a second one, unless it stands alone."""
    at_lock: bool = False
    """The guilty function is the one taking the lock (``at: FN``)."""
    by_title: str | None = None
    """The title without a place, if it is not just ``title`` shortened."""


def _row(kind: str, pattern: str, title: str, **more: bool | tuple[str, ...]) -> Format:
    return Format(kind=kind, pattern=re.compile(pattern, re.ASCII), title=title, **more)  # type: ignore[arg-type]


_BAD_ACCESS = ("bad-access in {place}",)
_NULL = "BUG: unable to handle kernel NULL pointer dereference in {place}"
_PAGING = "BUG: unable to handle kernel paging request in {place}"
_USER_ACCESS = "BUG: unable to handle kernel access to user memory in {place}"

# The first row that matches counts: the specific ones come before the general.
FORMATS: tuple[Format, ...] = (
    _row("BUG", rf"kernel BUG at {_AT}!", "kernel BUG in {place}", fatal=True, dies=True),
    # CONFIG_DEBUG_BUGVERBOSE=n
    _row("BUG", r"kernel BUG at \[verbose debug info unavailable\]", "kernel BUG in {place}",
         fatal=True, dies=True),
    _row("KASAN", rf"BUG: KASAN: (?P<what>[\w -]{{1,64}}?) in {_FRAME}", "KASAN: {what}{access} in {place}",
         alt=_BAD_ACCESS),
    _row("KCSAN", rf"BUG: KCSAN: (?P<what>[\w -]{{1,64}}?) in {_FRAME}", "KCSAN: {what} in {place}"),
    _row("KMSAN", rf"BUG: KMSAN: (?P<what>[\w -]{{1,64}}?) in {_FRAME}", "KMSAN: {what} in {place}"),
    _row("KFENCE", rf"BUG: KFENCE: (?P<what>[\w -]{{1,64}}?) in {_FRAME}", "KFENCE: {what} in {place}",
         alt=_BAD_ACCESS),
    _row("UBSAN", rf"UBSAN: (?P<what>[\w -]{{1,64}}?) in {_AT}", "UBSAN: {what} in {place}"),
    _row("oops", r"BUG: (?:unable to handle )?kernel NULL pointer dereference", _NULL,
         alt=_BAD_ACCESS, fatal=True, dies=True),
    _row("oops", r"BUG: unable to handle (?:kernel paging request|page fault)", _PAGING,
         alt=_BAD_ACCESS, fatal=True, dies=True),
    _row("oops", r"Unable to handle kernel NULL pointer dereference", _NULL,
         alt=_BAD_ACCESS, fatal=True, dies=True),
    _row("oops", r"Unable to handle kernel access to user memory", _USER_ACCESS, fatal=True, dies=True),
    _row("oops", r"Unable to handle kernel", _PAGING, alt=_BAD_ACCESS, fatal=True, dies=True),
    _row("BUG", rf"BUG: sleeping function called from invalid context at {_AT}",
         "BUG: sleeping function called from invalid context in {place}"),
    _row("BUG", r"BUG: scheduling while atomic", "BUG: scheduling while atomic in {place}"),
    _row("BUG", r"BUG: (?P<what>Bad (?:page (?:state|map|cache)|rss-counter state))", "BUG: {what}"),
    _row("BUG", r"BUG: non-zero pgtables_bytes on freeing mm", "BUG: non-zero pgtables_bytes on freeing mm"),
    _row("lockup", r"(?:watchdog: |NMI watchdog: )?BUG: soft lockup", "BUG: soft lockup in {place}"),
    _row("lockup", r"(?:watchdog: |NMI watchdog: )?Watchdog detected hard LOCKUP", "hard lockup in {place}"),
    _row("BUG", r"BUG: spinlock (?P<what>bad magic|lockup suspected|recursion|already unlocked|wrong owner)",
         "BUG: spinlock {what} in {place}"),
    _row("lockup", r"BUG: workqueue lockup", "BUG: workqueue lockup"),
    _row("BUG", r"BUG: (?P<what>\S.{0,511})", "BUG: {what}"),
    # Since 6.11 x86 writes "Oops: " before the name of the trap.
    _row("oops", r"(?:Oops: )?general protection fault", "general protection fault in {place}",
         alt=_BAD_ACCESS, fatal=True, die=True),
    # arm64: what BUG() raises.
    _row("BUG", r"Internal error: Oops - BUG:", "kernel BUG in {place}", fatal=True, die=True),
    _row("oops", r"(?:Oops: )?(?P<what>[a-z][a-z0-9 ,-]{2,63}): [0-9a-f]{4} \[#\d", "{what} in {place}",
         fatal=True, die=True),
    _row("oops", r"Oops(?: - (?P<what>[\w ]{1,64}))?: ", "Oops in {place}", fatal=True, die=True),
    _row("oops", r"Internal error: (?P<what>[A-Za-z][\w -]{1,63}?): [0-9a-f]{1,16} \[#",
         "Internal error: {what} in {place}", fatal=True, die=True),
    _row("WARNING", rf"WARNING: CPU: \d{{1,5}} PID: \d{{1,10}} at {_AT}(?: {_FRAME})?", "WARNING in {place}"),
    # Since 6.18: the place comes first, CPU and task after it.
    _row("WARNING", rf"WARNING: {_AT} at {_FRAME}", "WARNING in {place}"),
    _row("lockdep", r"(?:\[ INFO|WARNING): (?:possible (?:circular locking dependency|recursive locking|"
                    r"irq lock inversion dependency) detected|(?:HARDIRQ|SOFTIRQ|RECLAIM_FS)-safe -> )",
         "possible deadlock in {place}", at_lock=True),
    _row("lockdep", r"(?:\[ INFO: |WARNING: )?inconsistent lock state", "inconsistent lock state in {place}",
         at_lock=True),
    _row("lockdep", r"WARNING: (?P<what>bad unlock balance|suspicious RCU usage|held lock freed|"
                    r"Nested lock was not taken|lock held when returning to user space)",
         "WARNING: {what} in {place}"),
    _row("lockdep", r"INFO: (?P<what>trying to register non-static key)", "INFO: {what} in {place}"),
    _row("hung-task", r"INFO: task \S.{0,63} blocked (?:for more than|in I/O wait for more than)",
         "INFO: task hung in {place}"),
    _row("rcu-stall", r"(?:rcu: )?INFO: rcu\w{0,32} (?:self-)?detected (?:expedited )?stall",
         "INFO: rcu detected stall in {place}"),
    _row("BUG", r"async_fork: (?P<what>mismatched vma|process \d{1,10} copy vma)", "async_fork: {what}"),
    _row("panic", r"Kernel panic - not syncing: stack-protector: Kernel stack is corrupted in: "
                  rf"{_FRAME}", "kernel panic: stack is corrupted in {place}"),
    _row("panic", r"Kernel panic - not syncing(?:: (?P<what>.{0,511}))?", "kernel panic: {what}"),
)  # fmt: skip

# All rows in one pattern, to turn away quickly the lines that match none.
ANY_FORMAT = re.compile(
    "|".join(re.sub(r"\(\?P<\w+>", "(?:", row.pattern.pattern) for row in FORMATS), re.ASCII
)

# Every header line holds one of these; the rest of the log is only searched for them.
CANDIDATE = re.compile(
    rb"BUG: |kernel BUG at|WARNING: (?:CPU: |possible |[\w./+-]{1,255}:\d|[HSR]\w{3,9}-safe|bad |susp|held "
    rb"|Nested |lock |inco)"
    rb"|INFO: (?:possible |task |rcu|trying |[HSR]\w{3,9}-safe|inco)|Oops|Internal error: |Unable to handle kernel"
    rb"|general protection fault|Kernel panic - not|UBSAN: |: [0-9a-f]{4} \[#|Watchdog detected hard"
    rb"|inconsistent lock|async_fork: "
)

# A panic with such a text has a cause of its own; after a report it is its consequence. The first group
# follows any report, the second only one that is fatal.
CONSEQUENCE = re.compile(
    r"(?:.{0,32}panic_on_|hung_task: blocked|softlockup: hung|RCU Stall|(?:Hard|NMI: Hard) LOCKUP)"
)
FATAL_CONSEQUENCE = re.compile(r"Fatal exception|Attempted to kill|Oops|Aiee|Unrecoverable")

# A line that quotes what the user wrote: "Kernel command line: ", "Command line: ".
QUOTING = b"ommand line: "

# Part of titles that changes from run to run, and what stands for it.
_VARYING: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\s*exitcode=.*"), ""),
    (re.compile(r"\b0x[0-9a-fA-F]+\b"), "ADDR"),
    (re.compile(r"\b(?=[0-9a-f]*[0-9])[0-9a-f]{8,16}\b"), "ADDR"),
    (re.compile(r"\b(CPU|cpu)[ #]?\d+\b"), "CPU"),
    (re.compile(rf"\b({FUNCTION})\+ADDR(?:/ADDR)?"), r"\1"),
    # Task and process: "process a.out  pfn:1234", "comm/1234".
    (re.compile(r"/\d+\b"), ""),
    (re.compile(r"([\w./+-]+\.[chS]):\d+"), r"\1"),
    # The name of the breakpoint exception, int3, is no number.
    (re.compile(r"(?<!\bint)(?<!\d)\d+"), "NUM"),
    (re.compile(r"\s+"), " "),
)

MAX_TITLE = 200


def normalised(text: str) -> str:
    """``text`` without what changes from run to run: addresses, CPUs, pids, lines, numbers."""
    for pattern, replacement in _VARYING:
        text = pattern.sub(replacement, text)
    return text.strip()[:MAX_TITLE]
