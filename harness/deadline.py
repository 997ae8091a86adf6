"""Monotonic deadlines: every wait in cowpen has one."""

from __future__ import annotations

import time

from harness.errors import DeadlineError


class Deadline:
    """A moment on the monotonic clock by which ``what`` must have happened.

    ``Deadline(5, "the agent's greeting")`` starts now. The clock is monotonic because a guest may run
    for minutes while NTP or the user changes the wall clock.
    """

    def __init__(self, seconds: float, what: str) -> None:
        self.seconds = seconds
        self.what = what
        self._start = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds since the deadline was set."""
        return time.monotonic() - self._start

    @property
    def remaining(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self.seconds - self.elapsed)

    @property
    def passed(self) -> bool:
        return self.elapsed >= self.seconds

    def error(self) -> DeadlineError:
        """The error to raise when the wait was in vain."""
        return DeadlineError(f"waited {self.seconds:.1f} s in vain for {self.what}")

    def check(self) -> None:
        """Raise `DeadlineError` if the deadline has passed."""
        if self.passed:
            raise self.error()

    def slice(self, seconds: float) -> float:
        """At most ``seconds``, and no more than what remains: the timeout of one poll."""
        return min(seconds, self.remaining)
