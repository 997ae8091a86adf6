"""Guest text made safe for a person's terminal: no escape sequence gets through."""

from __future__ import annotations

import mmap
import re

MAX_LINE = 4096
"""Bytes of a line that are looked at. printk's longest record is 1 KiB; the rest is not the kernel's."""

_DOUBTFUL = re.compile(r"[^\t\n -~]")


def _escaped(match: re.Match[str]) -> str:
    # Unicode's own word: neither controls, nor marks that reorder, hide or break text (Trojan Source), nor lone
    # surrogates, nor what this Python does not know yet.
    if match.group().isprintable():
        return match.group()
    code = ord(match.group())
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def escape(text: str | bytes) -> str:
    """``text`` with everything that could steer a terminal spelt out (``\\x1b``); newline and tab stay.

    A serial console ends lines with CR LF: that CR goes. Bytes that are not UTF-8 become ``\\xNN``.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "backslashreplace")
    return _DOUBTFUL.sub(_escaped, text.replace("\r\n", "\n"))


def last_lines(data: bytes | mmap.mmap, count: int) -> list[str]:
    """The last ``count`` lines that hold anything, escaped; what a boot or a death had to say last.

    Looks at no more than ``count`` times `MAX_LINE` bytes; a longer line ends with ``…``.
    """
    if count <= 0:
        return []
    end = len(data)
    tail = bytes(data[max(0, end - count * MAX_LINE) : end])
    lines = [line for line in tail.replace(b"\r", b"").split(b"\n") if line.strip(b" \t\0")]
    return [escape(line[:MAX_LINE]) + ("…" if len(line) > MAX_LINE else "") for line in lines[-count:]]
