"""One kind of report, as data: how its header reads, and how it is titled."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from typing import Any

# All patterns see one line of at most 4 KiB without its printk prefix. They are anchored, and every
# repetition is followed by something it cannot match itself or is bounded, so a hostile line costs little.
FUNCTION = r"[A-Za-z_$][\w$.]{0,127}"
FRAME = rf"(?P<frame>{FUNCTION})"
AT = r"(?P<file>[\w./+-]{1,255}):(?P<line>\d{1,9})"
COMM = r".{1,32}?"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Format:
    """One kind of report.

    ``pattern`` may name the groups ``frame``, ``file``, ``line``, ``what``, ``other``, ``comm``, ``pid`` and ``cpu``.
    ``title`` is filled with ``{what}``, ``{access}`` (KASAN's Read or Write), ``{other}`` (the second function of a
    race) and ``{place}``, the guilty function or else the file.
    """

    kind: str
    words: tuple[str, ...]
    """Every header of this kind holds one of these; the rest of a log is only searched for them."""
    pattern: re.Pattern[str]
    title: str
    alt: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    """Groups of `harness.console.skip` that are no more to blame than the machinery is."""
    fatal: bool = False
    """The kernel dies of it, or the task: a panic that follows is its consequence."""
    dies: bool = False
    """A second header that begins a register dump follows (``Oops:``, ``Internal error:``)."""
    die: bool = False
    """This header is such a second one, unless it stands alone."""
    ended: bool = False
    """The kernel says where it ends: ``---[ end trace``."""
    closed: bool = False
    """A ruler of ``=`` ends it."""
    at_lock: bool = False
    """The guilty function is the one taking the lock (``at: FN``)."""
    remote: bool = False
    """Its trace may be printed by another task or CPU."""
    traced: bool = False
    """It comes with a trace, though its title does not need it."""
    follows: tuple[str, ...] = ()
    """After a report of one of these kinds it only goes on about that."""
    leads: bool = False
    """What follows at once is its report, and this only belongs to it."""


def row(kind: str, words: str | tuple[str, ...], pattern: str, title: str, **more: Any) -> Format:
    """A `Format`, written shortly."""
    return Format(
        kind=kind,
        words=(words,) if isinstance(words, str) else words,
        pattern=re.compile(pattern, re.ASCII),
        title=title,
        **more,
    )


def any_of(patterns: Iterable[re.Pattern[str]]) -> re.Pattern[str]:
    """One pattern for all, whose ``match(…).lastindex - 1`` is the index of the first that matches.

    Each has an empty group behind it, and there is no other: a capturing group around it would hide from the compiler
    how it begins. One match is many times faster than a hundred, and turns away quickly what matches none.
    """
    each = (re.sub(r"\(\?P<\w+>", "(?:", one.pattern) for one in patterns)
    return re.compile("|".join(f"(?:{one})()" for one in each), re.ASCII)


MAX_TITLE = 200

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
    # Compiler suffixes of functions.
    (re.compile(r"\.(?:isra|constprop|part|cold|llvm)(?:\.\d+)*\b"), ""),
    # The name of the breakpoint exception, int3, is no number.
    (re.compile(r"(?<!\bint)(?<!\d)\d+"), "NUM"),
    (re.compile(r"\s+"), " "),
)


def normalised(text: str) -> str:
    """``text`` without what changes from run to run: addresses, CPUs, pids, lines, numbers."""
    for pattern, replacement in _VARYING:
        text = pattern.sub(replacement, text)
    return text.strip()[:MAX_TITLE]
