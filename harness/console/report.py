"""The body of a report: its traces, task, registers, and where it ends."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator
from typing import ClassVar

from harness.console.display import escape
from harness.console.finding import Frame, Task
from harness.console.format import COMM, FUNCTION, Format, any_of
from harness.console.line import Line, clean
from harness.console.parts import BODY, ROOT
from harness.console.skip import skipped

MAX_LINES = 1200
"""Lines of a report's body that are looked at: those of SLUB, with hex dumps, have many hundreds."""
MAX_FRAMES = 64
MAX_GAP = 40
"""Lines in a row that look like no part of a report: it has ended without saying so."""
_MAX_TRACES = 16

_ADDRESS = r"(?:\[<(?P<address>[0-9a-f]{8,16})>\] ?){0,2}"
_SYMBOL = (
    rf"(?P<symbol>{FUNCTION})\+0x(?P<offset>[0-9a-f]{{1,8}})(?:/0x(?P<size>[0-9a-f]{{1,8}}))?(?=[\s,]|$)"
    r"(?: \[(?P<module>[\w-]{1,64})[^\]]{0,64}\])?"
)
# The last forms are those of decode_stacktrace.sh and of syzkaller's reports: "FN (mm/x.c:1)", "FN mm/x.c:1 [inline]".
_FRAME = re.compile(
    rf"\s*(?:kmemleak: {{1,8}})?{_ADDRESS}(?P<unsure>\? )?(?:{_SYMBOL}(?: (?P<at>[\w./+-]{{1,200}}:\d{{1,9}}))?"
    rf"|(?P<decoded>{FUNCTION}) \(?(?P<source>[\w./+-]{{1,200}}\.[chS]:\d{{1,9}})[ )\w:./+-]{{0,400}}"
    r"(?P<inline>\[inline\])?)",
    re.ASCII,
)
_BARE = re.compile(r"\s*(?:\? )?\[?<?(?:0x)?(?P<address>[0-9a-f]{16})>?\]?$", re.ASCII)
_NO_FUNCTION = re.compile(r"(?:RIP: 0010:|pc : )\[?<?(?:0x)?(?P<address>[0-9a-f]{1,16})\b")
_LINK = re.compile(rf"lr : {_ADDRESS}{_SYMBOL}", re.ASCII)
# x86 (0033 is user space), 32-bit x86, arm64.
_COUNTER = re.compile(rf"(?:RIP: 0010:|EIP: |pc : ){_ADDRESS}{_SYMBOL}", re.ASCII)
_LOCK = re.compile(rf"\s*\S.{{0,200}}?, at: {_ADDRESS}(?P<symbol>{FUNCTION})\+0x", re.ASCII)
_ACCESS = re.compile(
    rf"(?P<access>Read|Write) of size \d(?:.{{1,80}} by task (?P<comm>{COMM})/(?P<pid>\d{{1,10}})$)?"
)
_WORK = re.compile(rf"\s+(?:last function: |.{{1,100}} workfn=)(?P<symbol>{FUNCTION})", re.ASCII)
_SUSPICIOUS = re.compile(r"(?P<file>[\w./+-]{1,255}):(?P<line>\d{1,9}) (?:suspicious |[Ii]llegal |RCU-list )")
_CPU = re.compile(
    rf"CPU: (?P<cpu>\d{{1,5}}) (?:UID: \d{{1,10}} )?PID: (?P<pid>\d{{1,10}}) Comm: (?P<comm>{COMM}) "
    # Two CPUs that report at once may swap the forms of it.
    r"(?P<taint>Not tainted|Tainted: (?:[A-Z ]{0,64}[A-Z]|\[\S{1,64}))(?= |$)"
)
_REGISTERS = re.compile(
    r"(?:[RE]?(?:[ABCD]X|[SD]I|[BS]P)|R\d\d|FS|CS|CR2|DR\d|x\d{1,2}|sp|pstate|pc|lr|EAX|ESI|E?FLAGS) ?: "
    r"|(?:RIP|EIP): 0010"
)
_REGISTER = re.compile(
    r"\b(?P<name>[A-Z][A-Z_0-9]{1,7}|knlGS|x\d{1,2}|sp|pstate|pc|lr) ?: {1,2}"
    r"(?P<value>(?:[0-9a-f]{4}:)?(?:[0-9a-f]{4,16}\b(?:\([0-9a-f]{1,8}\))?|[A-Za-z_$][\w.$]{0,127}\+0x[0-9a-f]+"
    r"/0x[0-9a-f]+))"
)
_CODE = re.compile(r"Code: (?P<code>.{1,512})")
_TASK = re.compile(r"task:(?P<comm>\S.{0,31}?) {1,16}state:\w .{1,60}? pid:(?P<pid>\d{1,10})")
_TRACE = re.compile(
    r"(?:Call Trace|[Cc]all trace|Backtrace)(?: ?\(.{0,40}\))?:|\s*(?:kmemleak: {1,8})?backtrace(?: \(.{0,40}\))?:"
)
_STACK_BACKTRACE = re.compile(r"stack backtrace:")
# What the traces that follow these are about is not where it happened. A swallowed one has a "Call Trace:" of its own.
_OTHER = re.compile(
    r"(?i:(?:allocated|freed) by task|(?:second to )?last potentially|uninit was |local variable "
    r"|page (?:last )?(?:allocated|free)|(?:allocated|freed) in \w|page_owner )|-> #\d|the existing dependency chain"
    r"|.{0,64}-(?:un)?safe lock|.{0,40} stack trace:$|\{[\w-]{1,32}\} state was registered at"
    r"|.{0,64}to a .{1,32}-irq-unsafe lock"
)
_SWALLOWED = re.compile(r"(?:rcu: )?RCU grace-period kthread stack dump")
_INNER = re.compile(r"\s*(?:</?(?:TASK|IRQ|SOFTIRQ|NMI|#\w{1,4}|ENTRY_TRAMPOLINE)>\s*)+$")
_USER = re.compile(r"RIP: 00(?:33|23):")
_END = re.compile(r"---\[ end (?P<what>trace|Kernel panic)?")
_RULER = re.compile(r"={24,}$")
_LOST = b" printk messages dropped"
_DROPPED = re.compile(r"\*\* \d{1,20} printk messages dropped")
_ARCH_MARKS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"RIP: 0010:|RAX: |CR2: "), "x86_64"),
    (re.compile(r"pc : |pstate: |Mem abort info|Internal error: |Call trace:"), "aarch64"),
)


def bare(function: str) -> str:
    """``function`` without the compiler's suffixes: ``.isra.0``, ``.constprop.1``, ``.part.2``, ``.cold``."""
    return function[:1] + function[1:].split(".", 1)[0]


def _hex(digits: str | None) -> int | None:
    return int(digits, 16) if digits else None


def _known(frame: Frame) -> bool:
    """Whether a frame names its function: not one without a name, and not one whose call was the last instruction of
    the function before (which does not return), since that has the name of the next."""
    return not frame.function.startswith("0x") and (frame.counter or frame.offset != 0)


@dataclasses.dataclass
class Trace:
    """One call trace of a report."""

    own: bool = True
    """Where it happened; False: where memory was allocated, a lock taken before, …"""
    frames: list[Frame] = dataclasses.field(default_factory=list)
    unsure: list[str] = dataclasses.field(default_factory=list)
    calls: int = 0
    """Frames that are no program counters."""
    inner: int = 0
    """``<TASK>`` and the like that are still open."""

    def guilty(self, groups: tuple[str, ...]) -> str | None:
        """The function to blame: the innermost that is not machinery."""
        return next(
            (
                frame.function
                for frame in self.frames
                if _known(frame) and not skipped(frame.function, groups)
            ),
            None,
        )


@dataclasses.dataclass
class Report:
    """What the body of one report holds."""

    traces: list[Trace] = dataclasses.field(default_factory=lambda: [Trace()])
    lock: str | None = None
    work: str | None = None
    access: str | None = None
    file: str | None = None
    line: int | None = None
    task: Task | None = None
    cpu: int | None = None
    taint: str | None = None
    registers: dict[str, str] = dataclasses.field(default_factory=dict)
    code: str | None = None
    arch: str | None = None
    length: int = 0
    """Bytes from the header's first to the last that belongs to the report."""
    ended: bool = False
    """It said so itself."""
    broken: bool = False
    """Lines are lost, cut, or another report's."""

    @property
    def main(self) -> Trace:
        """The trace that tells where it happened."""
        return next((trace for trace in self.traces if trace.own and trace.frames), self.traces[0])

    def guilty(self, row: Format) -> str | None:
        """The function to blame, in a report of the format ``row``."""
        if row.at_lock and self.lock and not skipped(self.lock, row.skip):
            return self.lock
        if self.work:
            return self.work
        own = [trace for trace in self.traces if trace.own]
        named = (trace.guilty(row.skip) for trace in (own if row.remote else own and [self.main]))
        return next(filter(None, named), None)

    def guess(self, row: Format) -> str | None:
        """The function to blame if all the unwinder had were words on the stack."""
        words = (word for trace in self.traces if trace.own for word in trace.unsure)
        return next((word for word in words if not skipped(word, row.skip)), None)


class Reader:
    """Reads the lines of one report, its header's first."""

    def __init__(self, row: Format, header: Line) -> None:
        self.row = row
        self.header = header
        self.report = Report()
        self._swallow = False
        self._backtrace = False
        self._user = False
        self._after_at = False
        self._last_frame: str | None = None
        self._cpus: set[tuple[str, str]] = set()

    def read(self, body: bytes, *, tail: int | None, whole: bool) -> Report:
        """The report in ``body``; ``tail``: where in it the panic begins that it ends in.

        ``whole``: the log goes on after ``body``, and not with another report.
        """
        report = self.report
        last = 0
        over = False
        caller = None if self.row.remote else self.header.caller
        mark = caller.encode() + b"]" if caller else None
        for number, (start, end, raw) in enumerate(_lines(body)):
            if number == 0:
                report.length = end - start
                continue
            if tail is not None and start >= tail and any(trace.calls for trace in report.traces):
                over = True
                break
            if mark is not None and mark not in raw and _LOST not in raw:
                continue  # of another task or CPU
            line = clean(raw)
            if _DROPPED.match(line.text):
                report.broken = True
                continue
            if self._foreign(line):
                continue
            if line.merged:
                report.broken = True
            belongs = self._take(line.text)
            if _END.match(line.text):
                report.ended = over = True
                report.length = end
                break
            if belongs:
                report.length = end
                last = number
                if self.row.closed and number > 2 and _RULER.match(line.text):
                    report.ended = over = True
                    break
            elif number - last > MAX_GAP:
                over = True
                break
        self._judge(over=over or whole or tail is not None)
        return report

    def read_before(self, lines: bytes) -> None:
        """Take the task from the lines before the header: some kernels and mails have the header in their midst."""
        for _, _, raw in _lines(lines):
            if by := _CPU.match(clean(raw).text):
                self._on_cpu(by)

    def _foreign(self, line: Line) -> bool:
        """Whether a line is somebody else's: a program's, or another task's or CPU's if the kernel says whose."""
        head = self.header
        if (head.stamped and not line.stamped) or line.user != head.user:
            return True
        return not self.row.remote and head.caller is not None and line.caller != head.caller

    def _judge(self, *, over: bool) -> None:
        """Whether the report came whole; only what comes from a console can be judged so strictly."""
        report, trace = self.report, self.report.main
        if not self.header.stamped:
            return
        if not over and not report.ended:
            # It stops where the log does, or another report begins.
            open_end = self._last_frame is not None and ROOT.fullmatch(self._last_frame) is None
            report.broken |= self.row.ended or trace.inner > 0 or open_end
        if len(self._cpus) > 1 and not self.row.remote and not self.header.caller:
            report.broken = True

    def _take(self, text: str) -> bool:
        """Take in one line; whether it looks like part of a report."""
        if self.report.arch is None:
            self.report.arch = next((arch for mark, arch in _ARCH_MARKS if mark.match(text)), None)
        if text.strip():
            self._last_frame = None
        if (text[:1] != " " or ":" in text) and self._section(text):
            return True
        if (known := _ANY_PART.match(text)) and known.lastindex:
            pattern, take = self._TAKES[known.lastindex - 1]
            if match := pattern.match(text):
                take(self, match)
                self._after_at = False
                return True
        self._after_at = text.endswith(" at:")
        return BODY.match(text) is not None

    def _section(self, text: str) -> bool:
        """A line that begins a trace, or says what the next ones are about."""
        traces = self.report.traces
        if _SWALLOWED.match(text):
            self._swallow = True
        elif _STACK_BACKTRACE.match(text) and not self._backtrace:
            # Of lockdep: what came before were the traces of other places.
            self._backtrace = True
            for trace in traces:
                trace.own = False
            self._begin(own=True)
        elif _TRACE.match(text):
            own, self._swallow = not self._swallow, False
            if traces[-1].calls or not traces[-1].own or not own:
                self._begin(own=own)
        elif _OTHER.match(text):
            self._begin(own=False)
        else:
            return False
        self._user = False
        return True

    def _begin(self, *, own: bool) -> None:
        traces = self.report.traces
        if len(traces) == _MAX_TRACES:
            traces.pop()
        traces.append(Trace(own))

    def _frame(self, match: re.Match[str], *, counter: bool) -> Frame:
        named = match.groupdict()
        symbol = named["symbol"] or named["decoded"]
        return Frame(
            function=bare(symbol),
            symbol="" if named.get("inline") else symbol,
            offset=_hex(named["offset"]),
            size=_hex(named["size"]),
            module=named["module"],
            address=_hex(named["address"]),
            counter=counter,
            inlined=bool(named.get("inline")),
            source=named.get("at") or named.get("source"),
        )

    def _counter(self, match: re.Match[str]) -> None:
        """The program counter: in a trace that has begun, that of an interrupt in its midst."""
        if not self.report.traces[-1].own:
            self._begin(own=True)
        trace = self.report.traces[-1]
        self._user = False
        if not any(frame.counter for frame in trace.frames[-1:]):
            self._add(trace, self._frame(match, counter=True))
        self._registers(match)

    def _no_function(self, match: re.Match[str]) -> None:
        """A program counter that is in no function, or the kernel knows no names."""
        self._registers(match)
        address = int(match["address"], 16)
        self._add(self.report.traces[-1], Frame(function=f"{address:#x}", address=address, counter=True))

    def _link(self, match: re.Match[str]) -> None:
        """arm64's link register: the caller of what has no frame of its own, a leaf or no function at all."""
        self._registers(match)
        trace = self.report.traces[-1]
        head = trace.frames[-1] if trace.frames else None
        if head and head.counter and (not _known(head) or skipped(head.function)):
            self._add(trace, self._frame(match, counter=False))

    def _call(self, match: re.Match[str]) -> None:
        if self._after_at:  # "… is trying to release lock (…) at:", "Preemption disabled at:"
            if match["symbol"]:
                self._lock(match)
            return
        trace = self.report.traces[-1]
        named = match.groupdict()
        if named["unsure"]:
            if len(trace.unsure) < MAX_FRAMES:
                trace.unsure.append(bare(named["symbol"] or named["decoded"]))
            return
        frame = self._frame(match, counter=False)
        self._last_frame = frame.function
        # arm64 repeats the program counter as the first of the trace, and often the link register as the second.
        again = not trace.calls and any(
            (known.symbol, known.offset) == (frame.symbol, frame.offset) for known in trace.frames
        )
        trace.calls += not again
        if not again:
            self._add(trace, frame)

    def _address(self, match: re.Match[str]) -> None:
        """A place in a trace that the kernel has no name for."""
        trace = self.report.traces[-1]
        address = int(match["address"], 16)
        again = not trace.calls and any(known.address == address for known in trace.frames)
        trace.calls += not again
        if not again:
            self._add(trace, Frame(function=f"{address:#x}", address=address))

    def _inner(self, match: re.Match[str]) -> None:
        trace = self.report.traces[-1]
        trace.inner += -1 if "</" in match.group() else 1
        self.report.broken |= trace.inner < 0  # where it began is lost

    @staticmethod
    def _add(trace: Trace, frame: Frame) -> None:
        if len(trace.frames) < MAX_FRAMES:
            trace.frames.append(frame)

    def _enter_user(self, match: re.Match[str]) -> None:
        """What follows are a program's registers."""
        self._user = True

    def _lock(self, match: re.Match[str]) -> None:
        self.report.lock = self.report.lock or bare(match["symbol"])

    def _work(self, match: re.Match[str]) -> None:
        self.report.work = self.report.work or bare(match["symbol"])

    def _on_cpu(self, match: re.Match[str]) -> None:
        self._cpus.add((match["cpu"], match["pid"]))
        report = self.report
        if report.taint is None:
            report.taint = escape(match["taint"])
            report.cpu = int(match["cpu"])
            report.task = None
        self._task(match)

    def _task(self, match: re.Match[str]) -> None:
        if self.report.task is None:
            self.report.task = Task(comm=escape(match["comm"]), pid=int(match["pid"]))

    def _access(self, match: re.Match[str]) -> None:
        self.report.access = self.report.access or match["access"]
        if match["comm"]:
            self._task(match)

    def _suspicious(self, match: re.Match[str]) -> None:
        if self.report.file is None:
            self.report.file, self.report.line = match["file"], int(match["line"])

    def _code(self, match: re.Match[str]) -> None:
        if not self._user and self.report.code is None:
            self.report.code = escape(match["code"].strip())

    def _registers(self, match: re.Match[str]) -> None:
        if not self._user:
            for register in _REGISTER.finditer(match.string):
                self.report.registers.setdefault(register["name"], register["value"])

    # The first that matches takes the line.
    _TAKES: ClassVar[tuple[tuple[re.Pattern[str], Callable[[Reader, re.Match[str]], None]], ...]] = (
        (_COUNTER, _counter),
        (_NO_FUNCTION, _no_function),
        (_LINK, _link),
        (_FRAME, _call),
        (_BARE, _address),
        (_INNER, _inner),
        (_USER, _enter_user),
        (_LOCK, _lock),
        (_CPU, _on_cpu),
        (_REGISTERS, _registers),
        (_CODE, _code),
        (_ACCESS, _access),
        (_TASK, _task),
        (_WORK, _work),
        (_SUSPICIOUS, _suspicious),
    )


_ANY_PART = any_of(pattern for pattern, _ in Reader._TAKES)


def _lines(body: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Begin, end and bytes of the first lines."""
    start = 0
    for _ in range(MAX_LINES):
        newline = body.find(b"\n", start)
        end = newline if newline >= 0 else len(body)
        yield start, end, body[start:end]
        start = end + 1
        if start > len(body):
            return
