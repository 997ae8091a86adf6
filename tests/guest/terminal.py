"""A command on a terminal, and a terminal to look at: enough of one for what `harness.cli.live` sends."""

from __future__ import annotations

import os
import re
import signal
import sys

import pexpect

# What may be sent: move up, clear the line; everything else that begins with ESC is an error.
_PIECE = re.compile(r"\x1b\[(\d*)([AK])|\r|\n|([^\r\n\x1b]+)")


def spawn(*words: str, size: tuple[int, int], seconds: float, **env: str) -> pexpect.spawn[str]:
    """Python with these ``words`` on a terminal of ``size`` (rows, columns); ``seconds`` for each expect()."""
    # Only the terminal itself says how large it is.
    outer = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")}
    return pexpect.spawn(
        sys.executable,
        list(words),
        env=outer | {"TERM": "xterm"} | env,
        dimensions=size,
        timeout=seconds,
        encoding="utf-8",
        # A shell that runs pytest in the background makes it ignore SIGINT, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


class Screen:
    """``Screen(width).feed(text).lines``: what stays to be seen. Lines that are too long wrap, as on a real one."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.widest = 0
        self.row = self.column = 0
        self._rows = [""]

    def feed(self, text: str) -> Screen:
        """Take in what was sent; fails on what a terminal should not be sent."""
        position = 0
        for piece in _PIECE.finditer(text):
            assert piece.start() == position, f"unexpected: {text[position : piece.start()]!r}"
            position = piece.end()
            self._take(piece)
        assert position == len(text), f"unexpected: {text[position : position + 40]!r}"
        return self

    def _take(self, piece: re.Match[str]) -> None:
        if piece[2] == "A":
            self.row = max(0, self.row - int(piece[1] or 1))
        elif piece[2] == "K":
            self._rows[self.row] = ""
        elif piece[0] == "\r":
            self.column = 0
        elif piece[0] == "\n":
            self._down()
        else:
            for character in piece[3]:
                if self.column == self.width:
                    self._down()
                    self.column = 0
                row = self._rows[self.row].ljust(self.column)
                self._rows[self.row] = row[: self.column] + character + row[self.column + 1 :]
                self.column += 1
                self.widest = max(self.widest, self.column)

    def _down(self) -> None:
        self.row += 1
        if self.row == len(self._rows):
            self._rows.append("")

    @property
    def lines(self) -> list[str]:
        """What can be seen, without what is empty at the end."""
        rows = [row.rstrip() for row in self._rows]
        while rows and not rows[-1]:
            rows.pop()
        return rows
