"""One thing seen in an attempt: a kernel report, corrupt data, a hang."""

from __future__ import annotations

import dataclasses
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
    "corruption": "a program read data that nobody wrote there",
    "hang": "a program did not end by its deadline",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """A finding; ``title`` is stable across runs, addresses, CPUs and architectures.

    Everything here is safe to show: control characters are escaped already (`harness.console.display`).
    What it says may still be a lie of the guest, and ``[`` may still be markup to rich.
    """

    kind: str
    """A key of `KINDS`."""
    title: str
    alt_titles: tuple[str, ...] = ()
    """Titles under which other reports of the same defect may go."""
    frame: str | None = None
    """The guilty function, without compiler suffixes."""
    frames: tuple[str, ...] = ()
    """Functions of the call trace, innermost first."""
    file: str | None = None
    """Source file named in the report; never with its line."""
    arch: str | None = None
    corrupted: bool = False
    """The report is incomplete or mangled: its title is a guess."""
    start: int = 0
    """Offset of the report's first byte in the console log; 0 for a finding that is not from the console."""
    end: int = 0
    """Offset one past its last byte."""
    text: str = ""

    def to_json(self) -> dict[str, Any]:
        """The record of ``--json``, all but ``text``, which the offsets give."""
        record = dataclasses.asdict(self)
        del record["text"]
        return {key: list(value) if isinstance(value, tuple) else value for key, value in record.items()}


def corruption_finding(title: str, *, arch: str | None = None, text: str = "") -> Finding:
    """The finding of a program's corruption record (titles: `harness.program.record`)."""
    return Finding(kind="corruption", title=title, arch=arch, text=text)


def hang_finding(program: str, *, arch: str | None = None, text: str = "") -> Finding:
    """The finding of a program that missed its deadline."""
    return Finding(kind="hang", title=f"hang in {program}", arch=arch, text=text)
