"""What can go wrong, told apart by who has to act.

A *user mistake* ends the command with exit code 2, *host trouble* and a *guest that failed* become
the outcome ``infra`` (exit code 125, which ``git bisect run`` skips); anything else that escapes is a
defect in cowpen and shows its traceback.

Every message names the thing, the place and, through ``mend``, what to do about it.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable

Tell = Callable[[str], None]
"""Told, in one line each, what takes time and what is out of the ordinary but no error."""


class CowpenError(Exception):
    """Base of all expected errors: one sentence, and how to mend it.

    ``str(error)`` is ``message: mend`` on one line (details such as compiler output are in ``detail``).
    """

    def __init__(self, message: str, *, mend: str | None = None, detail: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.mend = mend
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.message}: {self.mend}" if self.mend else self.message


class UserError(CowpenError):
    """The command line or a file the user wrote is wrong: exit code 2."""


class HostError(CowpenError):
    """The host cannot do what was asked: a missing tool, no network, a full disk."""


class ToolMissingError(HostError):
    """A program that cowpen runs is not installed."""


class BuildError(CowpenError):
    """A C program or a kernel did not build; ``detail`` holds the compiler's own words."""


class GuestError(CowpenError):
    """The guest failed outside of what an attempt measures (boot, transport)."""


class BootError(GuestError):
    """The guest never became ready: it panicked, printed nothing, or its QEMU ended.

    ``died`` tells a guest that went down by itself, which another boot may not do, from one that stayed silent.
    """

    def __init__(
        self, message: str, *, mend: str | None = None, detail: str = "", died: bool = False
    ) -> None:
        super().__init__(message, mend=mend, detail=detail)
        self.died = died


class SnapshotError(GuestError):
    """A guest did not come up from its snapshot, which is no good then; from another, or by a boot, it may."""


class UnsupportedError(GuestError):
    """The guest's kernel cannot give what the shape of its machine promises, such as a file system."""


class GuestDiedError(GuestError):
    """QEMU ended, or the guest panicked or reset, while something was still expected of it."""


class ChannelError(GuestError):
    """The other end of a channel broke the protocol, refused, or went away."""


class DeadlineError(GuestError):
    """A wait reached its deadline; the message says what was waited for and how long."""


def nearest(word: str, known: Iterable[str], *, limit: int = 3) -> str:
    """Say what ``word`` may have been meant to be: ``"did you mean a, b?"``, or the known words."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=limit, cutoff=0.5)
    if close:
        return f"did you mean {', '.join(close)}?"
    return f"known: {', '.join(names)}" if names else "none are known"
