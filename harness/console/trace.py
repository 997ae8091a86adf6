"""The body of a report: its functions, the guilty one, and where it ends."""

from __future__ import annotations

import dataclasses
import re

from harness.console.display import MAX_LINE
from harness.console.formats import FUNCTION

_ANSI = re.compile(r"\x1b\[[0-9;?]{0,32}[ -/]{0,4}[@-~]")
# printk's level (raw /dev/kmsg and loglevel-in-console kernels), time, and CONFIG_PRINTK_CALLER's thread.
_TIME = re.compile(r"\[ {0,8}\d{1,8}\.\d{6}\]")
_LEVEL = re.compile(r"<\d{1,3}>")
_CALLER = re.compile(r" ?\[ {0,8}[TC]\d{1,10}\]")

MAX_LINES = 500
"""Lines of a report's body that are looked at: lockdep's longest reports have a few hundred."""
MAX_FRAMES = 64
MAX_GAP = 40
"""Lines in a row that look like no part of a report: it has ended without saying so."""

_OFFSET = r"\+0x[0-9a-f]{1,8}/0x[0-9a-f]{1,8}"
_ADDRESS = r"(?:\[<[0-9a-f]{8,16}>\] ?){0,2}"
_FRAME = re.compile(
    rf"\s*{_ADDRESS}(?P<unsure>\? )?(?P<frame>{FUNCTION})(?:{_OFFSET}|\+0x[0-9a-f]{{1,8}}(?=\s|$))", re.ASCII
)
# x86 (0033 is user space), 32-bit x86, arm64.
_COUNTER = re.compile(rf"(?:RIP: 0010:|EIP: |pc : ){_ADDRESS}(?P<frame>{FUNCTION})\+0x", re.ASCII)
_LOCK = re.compile(rf"\S.{{0,200}}, at: {_ADDRESS}(?P<frame>{FUNCTION})\+0x", re.ASCII)
_ACCESS = re.compile(r"(?P<access>Read|Write) of size \d")
# KASAN adds the traces of allocation and release; they are not where it happened.
_OTHER_TRACE = re.compile(
    r"(?:Allocated|Freed) by task|Last potentially related|Uninit was|Memory state around"
)
_END = re.compile(r"---\[ end ")
_BODY = re.compile(
    r"\s*</?\w+>$|Call [Tt]race:|Modules linked in|CPU: |Hardware name|Code: |RIP: |[RE]?[A-Z]{2}\d?: |FS: |CS: "
    r"|R\d\d: |x\d{1,2} ?: |pc : |lr : |sp : |pstate: |Mem abort info|  \S+ = |user pgtable|stack backtrace"
    r"|other info|\d+ locks? held|\s*#\d+: |but task is|Internal error: |Oops: |[ >][0-9a-f]{16}: "
)

_ARCH_MARKS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"RIP: 0010:|RAX: |CR2: "), "x86_64"),
    (re.compile(r"pc : |pstate: |Mem abort info|Internal error: |Call trace:"), "aarch64"),
)

# Functions that report, wait or copy for others: the guilty one is their caller.
_BYSTANDER = re.compile(
    r"(?:dump_stack\w*|dump_backtrace\w*|show_stack\w*|show_regs|__show_regs|show_trace\w*|unwind_backtrace"
    r"|panic|__warn\w*|warn_slowpath\w*|report_bug|handle_bug|bug_handler|die|__die\w*|oops_\w+"
    r"|print_\w+|report_\w+|end_report|kasan_\w+|__kasan_\w+|__asan_\w+|check_memory_region|ubsan_\w+|__ubsan_\w+"
    r"|handle_overflow|__might_\w+|___might_sleep|bad_page|print_bad_pte|lockdep_\w+|__lock_acquire|lock_acquire"
    r"|check_\w*deadlock\w*|validate_chain|_raw_(?:spin|read|write)_\w+|_spin_\w*lock\w*|native_queued_\w+"
    r"|queued_spin_\w+|do_raw_spin_\w+|__schedule\w*|schedule\w*|preempt_schedule\w*|io_schedule\w*"
    r"|context_switch|__switch_to|__mutex_lock\w*|mutex_lock\w*|rwsem_\w+|down_(?:read|write)\w*|wait_for_\w+"
    r"|__wait_\w+|bit_wait\w*|out_of_line_wait_\w+|folio_wait_\w+|__folio_lock|mem(?:cpy|set|move|cmp)\w*|__mem(?:cpy|set|move)\w*"
    r"|str(?:len|cmp|ncmp|cpy|ncpy|nlen)|exc_\w+|asm_\w+|do_error_trap|do_trap\w*|el[01]\w+|call_break_hook"
    r"|brk_handler|do_debug_exception|arm64_\w+_fault|watchdog\w*|sched_show_task|rcu_dump_\w+|rcu_check_\w+"
    r"|rcu_sched_clock_irq|update_process_times|tick_\w+|__hrtimer_\w+|hrtimer_\w+|nmi_\w+|ret_from_\w+)"
)  # fmt: skip


def clean(line: bytes) -> str:
    """One raw line as the kernel wrote it: no colours, carriage returns, level, time stamp or thread.

    What a program wrote before the kernel's time stamp on the same line goes as well.
    """
    text = line[:MAX_LINE].decode("utf-8", "replace").replace("\r", "")
    if "\x1b" in text:
        text = _ANSI.sub("", text)
    begin = 0
    for stamp in _TIME.finditer(text):
        begin = stamp.end()
    if not begin and (level := _LEVEL.match(text)):
        begin = level.end()
    if caller := _CALLER.match(text, begin):
        begin = caller.end()
    # printk puts exactly one space after the prefix; more belong to the message.
    return text[begin + 1 :] if begin and text[begin : begin + 1] == " " else text[begin:]


def bare(function: str) -> str:
    """``function`` without the compiler's suffixes: ``.isra.0``, ``.constprop.1``, ``.part.2``, ``.cold``."""
    return function[:1] + function[1:].split(".", 1)[0]


def bystander(function: str) -> bool:
    """Whether ``function`` only reports, waits or copies on behalf of its caller."""
    return _BYSTANDER.fullmatch(function) is not None


@dataclasses.dataclass
class Trace:
    """What the body of one report holds."""

    counter: str | None = None
    """Function of the program counter, if it was in the kernel."""
    calls: list[str] = dataclasses.field(default_factory=list)
    lock: str | None = None
    access: str | None = None
    arch: str | None = None
    length: int = 0
    """Bytes from the header's first to the last that belongs to the report."""

    @property
    def frames(self) -> tuple[str, ...]:
        """All functions, innermost first."""
        first = [self.counter] if self.counter and self.calls[:1] != [self.counter] else []
        return tuple(first + self.calls)[:MAX_FRAMES]

    def guilty(self, *, at_lock: bool) -> str | None:
        """The function to blame: the innermost that is no bystander."""
        if at_lock and self.lock:
            return self.lock
        return next((frame for frame in self.frames if not bystander(frame)), None)


def read_trace(body: bytes) -> Trace:
    """Read a report that starts with its header line; ``body`` must be bounded by the caller."""
    trace = Trace()
    offset = 0
    last = 0
    own = True  # False inside the traces of allocation and release
    for number, raw in enumerate(body.split(b"\n", MAX_LINES)[:MAX_LINES]):
        offset += len(raw) + 1
        line = clean(raw)
        if number == 0:
            trace.length = len(raw)
            continue
        belongs = _read_line(trace, line, own=own)
        own = own and not _OTHER_TRACE.match(line)
        if _END.match(line):
            trace.length = offset - 1
            break
        if belongs:
            trace.length = min(offset - 1, len(body))
            last = number
        elif number - last > MAX_GAP:
            break
    return trace


def _read_line(trace: Trace, line: str, *, own: bool) -> bool:
    """Take in one line; whether it looks like part of a report."""
    if trace.arch is None:
        trace.arch = next((arch for mark, arch in _ARCH_MARKS if mark.match(line)), None)
    if counter := _COUNTER.match(line):
        trace.counter = trace.counter or bare(counter["frame"])
        return True
    if call := _FRAME.match(line):
        if own and not call["unsure"] and len(trace.calls) < MAX_FRAMES:
            trace.calls.append(bare(call["frame"]))
        return True
    if lock := _LOCK.match(line.strip()):
        trace.lock = trace.lock or bare(lock["frame"])
        return True
    if access := _ACCESS.match(line):
        trace.access = trace.access or access["access"]
        return True
    return _BODY.match(line) is not None
