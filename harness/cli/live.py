"""The lines that follow a trial on a terminal: its bar, and what every guest under way is doing."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, TextIO

from harness.console.display import escape
from harness.trial.attempt import Phase
from harness.trial.outcome import Outcome

if TYPE_CHECKING:
    from rich.text import Text

_BAR = 20
_REFRESHES = 4  # a second


def suits_terminal(stream: TextIO) -> bool:
    """Whether ``stream`` is a terminal that can take lines back; TERM=dumb says that it cannot."""
    return stream.isatty() and os.environ.get("TERM", "dumb") not in ("", "dumb", "unknown")


class Live:
    """The lines of one trial on standard error, shown from now until `stop`.

    ``title`` and what `say` gets may be anything. A thread of its own draws them; the other methods are called from
    one thread. The cursor is never hidden, so that it is there whatever ends cowpen.
    """

    def __init__(self, title: str, wanted: int) -> None:
        from rich.console import Console  # noqa: PLC0415  (0.1 s)
        from rich.live import Live as RichLive  # noqa: PLC0415

        class Visible(Console):
            def show_cursor(self, show: bool = True) -> bool:
                return False

        self._trial = Standing(title, wanted)
        # Whether this is a terminal is not asked again, with other rules. Nothing is parsed out of what is shown: no
        # markup, no emoji, no colours for what looks like a number.
        self._console = Visible(
            stderr=True,
            force_terminal=True,
            force_interactive=True,
            markup=False,
            emoji=False,
            highlight=False,
            color_system=None,
        )
        self._live = RichLive(
            get_renderable=self._text,
            console=self._console,
            refresh_per_second=_REFRESHES,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start()

    def phase(self, number: int, phase: Phase) -> None:
        """The attempt of this number is in another phase."""
        self._trial.phase(number, phase)
        self._live.refresh()  # a phase may be over before the next refresh is due

    def ended(self, number: int, outcome: Outcome) -> None:
        """The attempt of this number came to this."""
        self._trial.ended(number, outcome)
        self._live.refresh()

    def say(self, line: str) -> None:
        """Print a line above, which stays; it must be escaped."""
        from rich.text import Text  # noqa: PLC0415

        self._console.print(Text(line), soft_wrap=True)

    def stop(self) -> None:
        """Take the lines back."""
        self._live.stop()

    def _text(self) -> Text:
        from rich.text import Text  # noqa: PLC0415

        # What does not fit could not be taken back: a line that wraps, or one that scrolls away. The size is asked for
        # anew each time; a terminal that is made narrower is in disorder until the next.
        width, height = max(1, self._console.width - 1), max(1, self._console.height - 1)
        shown = self._trial.lines()
        if len(shown) > height:
            shown[height - 1 :] = [f"  … {len(shown) - height + 1} more"]
        lines = [Text(escape(" ".join(line.splitlines()))) for line in shown]
        for line in lines:
            line.truncate(width, overflow="ellipsis")
        return Text("\n", no_wrap=True, overflow="crop").join(lines)


class Standing:
    """How a trial stands: attempts wanted, ended and under way. Safe to be read by another thread."""

    def __init__(self, title: str, wanted: int) -> None:
        self._title = title
        self._wanted = wanted
        self._counts: Counter[Outcome] = Counter()
        self._under_way: dict[int, tuple[Phase, float]] = {}
        """By number: the phase, and when the attempt began."""
        self._begin: float | None = None
        self._lock = threading.Lock()

    def phase(self, number: int, phase: Phase) -> None:
        """The attempt of this number is in another phase."""
        now = time.monotonic()
        with self._lock:
            self._begin = now if self._begin is None else self._begin
            _, begin = self._under_way.get(number, (phase, now))
            self._under_way[number] = phase, begin

    def ended(self, number: int, outcome: Outcome) -> None:
        """The attempt of this number came to this; it need not have been under way."""
        with self._lock:
            self._under_way.pop(number, None)
            self._counts[outcome] += 1

    def lines(self) -> list[str]:
        """The title, the bar, and a line per guest under way."""
        now = time.monotonic()
        with self._lock:
            guests = [
                f"  attempt {number:<4} {phase:<8} {now - begin:6.1f} s"
                for number, (phase, begin) in sorted(self._under_way.items())
            ]
            return [self._title, self._bar(now), *guests]

    def _bar(self, now: float) -> str:
        done = sum(self._counts.values())
        filled = min(_BAR, _BAR * done // max(1, self._wanted))
        parts = [f"[{'#' * filled}{'.' * (_BAR - filled)}] {done}/{self._wanted}"]
        if self._begin is None:
            parts.append("preparing")
        elif 0 < done < self._wanted:
            left = (now - self._begin) / done * (self._wanted - done)
            parts.append(f"{_clock(left)} left")
        decided = sum(count for outcome, count in self._counts.items() if outcome.decided)
        if decided:
            parts.append(f"rate {100 * self._counts[Outcome.REPRODUCED] / decided:.0f} %")
        parts += [f"{count} {outcome}" for outcome, count in sorted(self._counts.items())]
        return "  ".join(parts)


def _clock(seconds: float) -> str:
    """``0:42``, ``12:05``, ``1:02:03``."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
