"""One line of a console log: what was printed, and what printk put before it."""

from __future__ import annotations

import re
from typing import NamedTuple

from harness.console.display import MAX_LINE

_ANSI = re.compile(r"\x1b\[[0-9;?]{0,32}[ -/]{0,4}[@-~]")
# CONFIG_PRINTK_TIME.
_TIME = r"\[ {0,8}\d{1,8}\.\d{6}\]"
_HUMAN = r"\[[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4}\]"  # dmesg -T
# journalctl and syslog, in the old form of the date and in ISO's.
_LOGGED = r"(?:[A-Z][a-z]{2} [ \d]\d|\d{4}-\d\d-\d\dT)[ \d:.,+Z-]{8,24} [\w.-]{1,64} kernel:"
_MARKED = re.compile(
    # Mails quote with "> ".
    r"(?:> ?){0,8}"
    # Level and facility: raw records of /dev/kmsg and earlier kernels' logs; `dmesg -x`.
    r"(?:<(?P<level>\d{1,3})>|(?P<facility>[a-z][a-z0-9]{2,7}) {0,6}:[a-z]{3,6} {0,6}: ?)?"
    rf"(?P<stamp>(?:{_LOGGED} ?)?{_TIME}|{_HUMAN}|{_LOGGED})?"
    # CONFIG_PRINTK_CALLER: the task that prints, or the CPU if it is not in one.
    r"(?: ?\[ {0,8}(?P<caller>[TC]\d{1,10})\])?",
    re.ASCII,
)
_STAMP = re.compile(_TIME, re.ASCII)
_CALLER = re.compile(r" ?\[ {0,8}([TC]\d{1,10})\]", re.ASCII)
STAMPED = re.compile(rf"^(?:> ?|<\d{{1,3}}>|\x1b\[[0-9;]{{0,16}}m){{0,8}}{_TIME}".encode(), re.MULTILINE)
"""Found in a log whose kernel stamps its lines."""


class Line(NamedTuple):
    """A line without what stood before the kernel's words."""

    text: str
    stamped: bool = False
    """printk's time or caller stood before it: a program that writes to the console has neither."""
    caller: str | None = None
    """``T123`` or ``C0``: who printed it."""
    user: bool = False
    """A process wrote it to /dev/kmsg: its facility is not the kernel's."""
    merged: bool = False
    """Another line of the kernel stood before it on the same line and was never ended."""


def clean(raw: bytes) -> Line:
    """One raw line as the kernel wrote it: no colours, carriage returns, level, time stamp or thread.

    What a program wrote before the kernel's time stamp on the same line goes as well.
    """
    text = raw[:MAX_LINE].decode("utf-8", "replace").rstrip("\r")
    if "\x1b" in text:
        text = _ANSI.sub("", text)
    if "\0" in text:
        text = text.replace("\0", "")
    mark = _MARKED.match(text)
    assert mark is not None  # everything in it is optional
    stamped = mark["stamp"] is not None
    caller, begin = mark["caller"], mark.end()
    merged = False
    if again := list(_STAMP.finditer(text, begin)):  # the last one counts
        merged, stamped, begin = stamped, True, again[-1].end()
        by = _CALLER.match(text, begin)
        caller, begin = (by[1], by.end()) if by else (None, begin)
    user = mark["facility"] not in (None, "kern") or (mark["level"] is not None and int(mark["level"]) > 7)
    # printk puts exactly one space after the prefix; more belong to the message.
    if (stamped or caller) and text[begin : begin + 1] == " ":
        begin += 1
    text = text[begin:]
    if "\r" in text:  # a program's progress, overwritten in place
        text = text.replace("\r", "") if stamped else text.rsplit("\r", 1)[1]
    return Line(text, stamped or caller is not None, caller, user, merged)
