"""One thing seen in an attempt: a kernel report, corrupt data, a hang."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

# What a finding can be. Words in capitals are the ones the kernel itself prints in capitals.
KINDS: dict[str, str] = {
    "BUG": "an assertion of the kernel failed, or a `BUG:` report that is none of the following",
    "WARNING": "a WARN() of the kernel",
    "KASAN": "KASAN: access to memory that is freed or out of bounds",
    "KCSAN": "KCSAN: data race",
    "KFENCE": "KFENCE: access to memory that is freed or out of bounds",
    "KMSAN": "KMSAN: use of uninitialised memory",
    "UBSAN": "UBSAN: undefined behaviour",
    "oops": "a fault in kernel mode",
    "lockdep": "lockdep: locks taken in a wrong order or context",
    "lockup": "soft or hard lockup: a CPU that no longer schedules",
    "hung-task": "a task blocked for minutes",
    "rcu-stall": "RCU waits in vain for a CPU or task",
    "panic": "a kernel panic with no other report before it",
    "leak": "kmemleak: memory that nobody points to any more",
    "memory": "out of memory, or an allocation that failed: a shortage, which by itself is no defect",
    "corruption": "a program read data that nobody wrote there",
    "hang": "a program did not end by its deadline",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Frame:
    """One line of a call trace, or one function inlined into it."""

    function: str
    """Without compiler suffixes: ``copy_pte_range``, never ``copy_pte_range.isra.0``."""
    symbol: str = ""
    """As the kernel printed it; empty for an inlined function."""
    offset: int | None = None
    """Bytes from the symbol's beginning. In a trace it is where the call returns to, in the program counter's own
    frame the faulting instruction."""
    size: int | None = None
    """Bytes of the symbol."""
    module: str | None = None
    address: int | None = None
    """As printed, so with the offset of KASLR, on kernels that print addresses."""
    counter: bool = False
    """It is the program counter's (``RIP:``, ``pc :``), not a return address."""
    inlined: bool = False
    source: str | None = None
    """``mm/memory.c:1097``, known only after symbolising."""
    unsure: bool = False
    """A guess led here; only of a program's frames, for of a report's no such frame is kept."""

    @property
    def label(self) -> str:
        """``copy_pte_range+0x10/0x20 [module]``, as the kernel would print it."""
        if self.inlined:
            return f"{self.function} (inlined)"
        offset = "" if self.offset is None else f"+{self.offset:#x}"
        size = "" if self.size is None else f"/{self.size:#x}"
        module = f" [{self.module}]" if self.module else ""
        return f"{'? ' if self.unsure else ''}{self.symbol or self.function}{offset}{size}{module}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """The task a report speaks of."""

    comm: str
    pid: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Thread:
    """A thread of a program that hangs, as it was before it was killed."""

    pid: int
    tid: int
    parent: int
    """Pid of the parent process."""
    comm: str
    state: str
    """As ``/proc/PID/stat`` gives it: ``R``, ``S``, ``D`` …; empty if it ended meanwhile."""
    executable: str
    wchan: str = ""
    """The kernel's function in which it blocks."""
    system_call: int | None = None
    """The number of the system call in which it blocks."""
    frames: tuple[Frame, ...] = ()
    """Its stack in user space, innermost first."""
    whole: bool = False
    """``frames`` reaches to the outermost function."""
    kernel: tuple[Frame, ...] = ()
    """Its stack in the kernel, of kernels with CONFIG_STACKTRACE."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """A finding; ``title`` is stable across runs, addresses, CPUs and architectures.

    Everything here is safe to show: control characters are escaped already (`harness.console.display`).
    What it says may still be a lie of the guest, and ``[`` may still be markup to rich.
    """

    kind: str
    """A key of `KINDS`."""
    title: str
    header: str = ""
    """The line that made it a finding, without what printk put before it."""
    alt_titles: tuple[str, ...] = ()
    """Titles under which other reports of the same defect may go."""
    frame: str | None = None
    """The guilty function, without compiler suffixes."""
    frames: tuple[Frame, ...] = ()
    """The call trace, innermost first, without what the unwinder was not sure of."""
    file: str | None = None
    """Source file named in the report; never with its line."""
    line: int | None = None
    """Line in ``file``: for people, never for signatures."""
    arch: str | None = None
    task: Task | None = None
    cpu: int | None = None
    taint: str | None = None
    """``Not tainted`` or ``Tainted: G        W``, as printed."""
    registers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Name as printed (``RAX``, ``x0``, ``pc``) to value as printed."""
    code: str | None = None
    """What follows ``Code:``, as printed."""
    kernel_offset: int | None = None
    """How far KASLR moved the kernel, if the log says it (``Kernel Offset:``)."""
    corrupted: bool = False
    """The report is cut or mangled: its title is a guess."""
    user_written: bool = False
    """A process wrote it to /dev/kmsg, as far as the log shows that: not the kernel's words."""
    start: int = 0
    """Offset of the report's first byte in the console log; 0 for a finding that is not from the console."""
    end: int = 0
    """Offset one past its last byte."""
    text: str = ""
    threads: tuple[Thread, ...] = ()
    """Of a hang: all threads of the program; ``frames`` are those of the one that seems to keep the others waiting."""

    @property
    def functions(self) -> frozenset[str]:
        """All functions it names."""
        frames = [
            *self.frames,
            *(frame for thread in self.threads for frame in (*thread.frames, *thread.kernel)),
        ]
        return frozenset([self.frame] if self.frame else []) | {frame.function for frame in frames}

    def to_json(self) -> dict[str, Any]:
        """The record of ``--json``, all but ``text``, which the offsets give."""
        record = dataclasses.asdict(self)
        del record["text"]
        return {key: list(value) if isinstance(value, tuple) else value for key, value in record.items()}


def corruption_finding(title: str, *, arch: str | None = None, text: str = "") -> Finding:
    """The finding of a program's corruption record (titles: `harness.program.record`)."""
    return Finding(kind="corruption", title=title, arch=arch, text=text)


def hang_finding(program: str, *, arch: str | None = None, **more: Any) -> Finding:
    """The finding of a program that missed its deadline; ``more`` of its fields if its threads were seen."""
    return Finding(kind="hang", title=f"hang in {program}", arch=arch, **more)
