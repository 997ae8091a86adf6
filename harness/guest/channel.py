"""What every way into a guest can do: run a program, push and pull files.

The contract suite in tests/guest/channel_contract.py holds for every implementation.
"""

from __future__ import annotations

import abc
import dataclasses
import enum
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from harness import cheader
from harness.errors import ChannelError
from harness.folders import data_folder
from harness.process import StoppingError, stopping

PROTOCOL_HEADER = data_folder("guest-programs") / "init" / "protocol.h"

# Where a program finds its record stream (guest-programs/init/job.h, RECORD_FD).
RECORD_FD = 3
_DEFAULT_ENVIRONMENT = {"PATH": "/bin:/sbin:/usr/bin:/usr/sbin:/tmp", "HOME": "/tmp"}  # noqa: S108


def protocol() -> Any:  # a cffi FFI
    """The structures of guest-programs/init/protocol.h."""
    return cheader.load(PROTOCOL_HEADER)


class Stream(enum.IntEnum):
    """The output streams of a run; the numbers are those of protocol.h."""

    STDOUT = 1
    STDERR = 2
    RECORDS = 3
    THREADS = 4
    """Not the program's: what the agent tells of its threads when it is overdue (`harness.guest.threads`)."""


class Ending(enum.IntEnum):
    """How a run ended; the numbers are those of protocol.h."""

    EXITED = 0
    SIGNALLED = 1
    DEADLINE = 2


@dataclasses.dataclass(frozen=True)
class Exit:
    """The end of a run. ``code`` is the exit status or the signal's number."""

    ending: Ending
    code: int
    seconds: float
    max_rss_kib: int = 0

    def describe(self) -> str:
        """``exited with 1``, ``was killed by signal 11``, ``ran past its deadline (5.0 s)``."""
        if self.ending is Ending.EXITED:
            return f"exited with {self.code}"
        if self.ending is Ending.SIGNALLED:
            return f"was killed by signal {self.code}"
        return f"ran past its deadline ({self.seconds:.1f} s)"


@dataclasses.dataclass(frozen=True)
class Greeting:
    """Who answers on the channel: ``uname``'s release and machine."""

    release: str
    machine: str


class Watch(Protocol):
    """What else can end a wait on a channel: the death of the guest behind it."""

    def fds(self) -> list[int]:
        """File descriptors that become readable when `check` has something to say."""

    def check(self) -> None:
        """Raise `GuestDiedError` if the guest is gone."""


class Nobody:
    """The `Watch` over a machine that is not ours to watch: only an interrupt of cowpen ends a wait for it."""

    def fds(self) -> list[int]:
        return []

    def check(self) -> None:
        if stopping():
            raise StoppingError("interrupted")


PROGRAM_STREAMS = (Stream.STDOUT, Stream.STDERR, Stream.RECORDS)

OnOutput = Callable[[Stream, bytes], None]

# A program is killed on the host's word, when the host has looked at it. How much longer (for a guest of speed 1.0) the
# guest waits for that word before it acts by itself: a host that is gone, or stopped, never sends it.
WORD_SECONDS = 120.0


def nothing() -> None:
    """An ``on_overdue`` for a program that may be killed unseen."""


def discard(stream: Stream, data: bytes) -> None:
    """An `OnOutput` for output nobody wants."""


def environment(extra: Mapping[str, str] | None) -> dict[str, str]:
    """The whole environment of a program in the guest."""
    return _DEFAULT_ENVIRONMENT | {"COWPEN_RECORD_FD": str(RECORD_FD)} | dict(extra or {})


def strings(words: Iterable[str]) -> bytes:
    """Arguments or a path as the guest takes them: each ended by a NUL; `ChannelError` if one holds a NUL."""
    encoded = [word.encode("utf-8", "surrogateescape") for word in words]
    for word in encoded:
        if b"\0" in word:
            raise ChannelError(f"{word[:80]!r} holds a NUL byte, which no argument or path can")
    return b"".join(word + b"\0" for word in encoded)


def wall_clock_and_seed() -> tuple[int, bytes]:
    """What a hello carries: the host's clock in ns and 32 random bytes (protocol.h, cowpen_hello)."""
    return time.time_ns(), secrets.token_bytes(32)


class Channel(abc.ABC):
    """A way into one guest. Not thread-safe: one attempt drives one channel.

    Every method raises `ChannelError` when the other side refuses or breaks the protocol,
    `DeadlineError` when ``seconds`` have passed, and `GuestDiedError` as soon as the guest is gone.
    Seconds are wall-clock seconds of the host.
    """

    pace: float = 1e6
    """Bytes of a file that even a slow host moves in a second: what the deadlines of large files follow."""

    @abc.abstractmethod
    def hello(self, *, seconds: float) -> Greeting:
        """Wait for the other side to answer; also sets its clock and seeds its random pool."""

    @abc.abstractmethod
    def run(
        self,
        argv: Sequence[str],
        *,
        seconds: float,
        env: Mapping[str, str] | None = None,
        on_output: OnOutput = discard,
        on_overdue: Callable[[], None] = nothing,
    ) -> Exit:
        """Run a program to its end, passing on what it prints as it comes.

        ``argv[0]`` is an absolute path. A program that runs longer than ``seconds`` is killed with all it
        started, and its `Exit` says so: that is a result, not an error. ``on_overdue`` is called before, once, while it
        still runs: the moment to see what it is doing. What its threads were doing then comes as `Stream.THREADS` from
        a channel that can tell.
        """

    @abc.abstractmethod
    def push(self, data: bytes, path: str, *, seconds: float, mode: int = 0o755) -> None:
        """Write a file in the guest; it appears under ``path`` only when it is whole."""

    @abc.abstractmethod
    def pull(self, path: str, *, seconds: float, limit: int = 64 << 20) -> bytes:
        """Read a file in the guest; more than ``limit`` bytes is a `ChannelError`."""

    @abc.abstractmethod
    def close(self) -> None:
        """Let go of the guest, which goes on by itself."""

    def push_file(self, source: Path, path: str, *, seconds: float, mode: int = 0o755) -> None:
        """`push` the content of a host file."""
        self.push(source.read_bytes(), path, seconds=seconds, mode=mode)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
