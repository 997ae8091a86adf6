"""What kernel reports look like, continued: locks, contexts, lockups, stalls.

Sources: kernel/locking/lockdep.c, kernel/locking/spinlock_debug.c, kernel/sched/core.c, kernel/rcu/tree_stall.h,
kernel/watchdog.c, kernel/hung_task.c, kernel/workqueue.c, lib/smp_processor_id.c, kernel/softirq.c.
"""

from __future__ import annotations

from harness.console.format import AT, COMM, FRAME, FUNCTION, Format, row

_DEADLOCK = "possible deadlock in {place}"
_WARNS = ("BUG: ", "WARNING: ", "INFO: ")
_WATCHDOG = r"(?:NMI )?(?:watchdog: )?"
_WAIT = ("wait",)
_INTERRUPT = ("interrupt",)

ROWS: tuple[Format, ...] = (
    # -- lockdep; "[ INFO: … ]" and "[ BUG: … ]" until 4.x --
    row("lockdep", _WARNS,
        r"(?:\[ INFO|WARNING): possible (?:circular locking|recursive locking|irq lock inversion)", _DEADLOCK,
        at_lock=True),
    row("lockdep", _WARNS, r"(?:\[ INFO|WARNING): \w{4,16}-safe -> ", _DEADLOCK, at_lock=True),
    row("lockdep", _WARNS, r"(?:\[ INFO|WARNING): inconsistent lock state", "inconsistent lock state in {place}",
        at_lock=True),
    row("lockdep", "BUG: ", r"\[ BUG: Invalid wait context \]", "[ BUG: Invalid wait context ]",
        alt=("[ BUG: Invalid wait context ] in {place}",), at_lock=True, traced=True),
    row("lockdep", _WARNS,
        r"(?:\[ BUG|WARNING): (?P<what>lock held (?:when returning to user space|at task exit time))",
        "WARNING: {what} in {place}", at_lock=True),
    row("lockdep", _WARNS, r"(?:\[ BUG|WARNING): (?P<what>bad (?:unlock balance|contention)) detected",
        "WARNING: {what} in {place}", at_lock=True),
    row("lockdep", _WARNS, r"(?:\[ BUG|WARNING): held lock freed", "WARNING: held lock freed in {place}",
        at_lock=True, skip=("free",)),
    row("lockdep", _WARNS, rf"(?:\[? ?BUG|WARNING): (?P<comm>{COMM})/(?P<pid>\d+) still has locks held",
        "WARNING: still has locks held in {place}", at_lock=True, skip=("exit",)),
    row("lockdep", _WARNS, r"WARNING: Nested lock was not taken", "WARNING: nested lock was not taken in {place}"),
    row("lockdep", _WARNS, r"(?:\[ INFO|WARNING): suspicious RCU usage",
        "WARNING: suspicious RCU usage in {place}", skip=("rcu",)),
    row("lockdep", _WARNS, r"INFO: trying to register non-static key",
        "INFO: trying to register non-static key in {place}"),
    row("lockdep", _WARNS, r"BUG: (?P<what>MAX_\w{1,64} too low)", "BUG: {what}!"),
    # DEBUG_LOCKS_WARN_ON().
    row("lockdep", _WARNS,
        r"WARNING: (?:CPU: (?P<cpu>\d+) PID: (?P<pid>\d+) at )?"
        r"(?P<file>[\w./-]*kernel/locking/lockdep\.c):(?P<line>\d+)",
        "WARNING: locking bug in {place}", alt=("WARNING in {place}",), ended=True),
    row("BUG", _WARNS,
        r"BUG: (?P<what>(?:spinlock|rwlock)[ -](?:bad magic|lockup suspected|lockup|(?:cpu )?recursion"
        r"|already unlocked|wrong owner|wrong CPU))", "BUG: {what} in {place}"),
    # -- context --
    row("BUG", _WARNS, rf"BUG: sleeping function called from invalid context at {AT}",
        "BUG: sleeping function called from invalid context in {place}", skip=("alloc", "free")),
    row("BUG", _WARNS, rf"BUG: scheduling while atomic: (?P<comm>{COMM})/(?P<pid>\d+)/",
        "BUG: scheduling while atomic in {place}"),
    row("BUG", _WARNS, r"BUG: using (?P<what>\w{1,64}\(\)) in preemptible",
        "BUG: using {what} in preemptible code in {place}"),
    row("BUG", _WARNS, r"BUG: workqueue leaked (?:lock or atomic|atomic, lock or RCU)",
        "BUG: workqueue leaked lock or atomic in {place}"),
    row("BUG", ", entered softirq ", r"huh, entered softirq \d{1,2} (?P<what>\w{1,32}) .{0,200}preempt_count",
        "preempt_count leaked in softirq {what}"),
    # -- nothing moves any more --
    row("lockup", _WARNS,
        rf"{_WATCHDOG}BUG: soft lockup - CPU#(?P<cpu>\d+) stuck for \d+s! \[(?P<comm>{COMM}):(?P<pid>\d+)\]",
        "BUG: soft lockup in {place}", remote=True, skip=_INTERRUPT),
    row("lockup", _WARNS, rf"{_WATCHDOG}BUG: soft lockup", "BUG: soft lockup in {place}", remote=True,
        skip=_INTERRUPT),
    row("lockup", "Watchdog detected hard",
        rf"{_WATCHDOG}(?:CPU\d+: )?Watchdog detected hard LOCKUP(?: on cpu (?P<cpu>\d+))?",
        "hard lockup in {place}", remote=True, skip=_INTERRUPT),
    row("lockup", _WARNS, r"BUG: workqueue lockup", "BUG: workqueue lockup", remote=True, skip=_INTERRUPT),
    row("hung-task", _WARNS, rf"INFO: task (?P<comm>{COMM}):(?P<pid>\d+) blocked (?:in I/O wait )?for more than",
        "INFO: task hung in {place}", remote=True, skip=_WAIT),
    row("rcu-stall", _WARNS, r"(?:rcu: )?INFO: s?rcu\w{0,32} (?:self-)?detected (?:expedited )?stall",
        "INFO: rcu detected stall in {place}", remote=True, skip=("rcu", "interrupt")),
    # The last of a race is the second function.
    row("KCSAN", _WARNS, rf"BUG: KCSAN: (?P<what>[\w: -]{{1,64}}?) in {FRAME}(?: / (?P<other>{FUNCTION}))?",
        "KCSAN: {what} in {place}{other}", alt=("KCSAN: {what} in {place}",), closed=True),
)  # fmt: skip
