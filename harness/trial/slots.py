"""Places for guests, shared by all processes of a user on this host: never more guests at once than there are places.

What runs trials side by side in processes that do not know each other (pytest's workers) takes a place for each
guest. A place is some of a row of files, each held by a ``flock``, which ends with its process however that ends. A
file stands for a virtual CPU; a guest takes one for each of its CPUs and two at least. So many guests of one shape fit
as `harness.trial.jobs.sensible` says, and guests of several shapes share fairly.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from harness.deadline import Deadline
from harness.errors import DeadlineError, HostError, Tell
from harness.guest.machine import MachineShape
from harness.trial import jobs

FOLDER = "guests"
"""Of the cache."""

_POLL_SECONDS = 0.2
_SAY_SECONDS = 60.0
# A holder says after each attempt that it lives. One that has not for so long is stopped, or an attempt hangs that no
# deadline ends.
_STANDSTILL_SECONDS = 3600.0
_LEAST_FILES = 2  # of a guest: one with a single CPU is no reason to run more guests than cores

Alive = Callable[[], None]
"""To be called now and then by who holds a place: those who wait see that it still works."""


class Slots:
    """The places of this host. ``guests``: so many instead of as many as its cores suit."""

    def __init__(self, folder: Path, guests: int | None = None) -> None:
        self._folder = folder
        self._guests = guests

    @contextlib.contextmanager
    def place(self, shape: MachineShape, tell: Tell) -> Iterator[Alive]:
        """Hold a place for a guest of ``shape``; waits until there is one, and ``tell`` hears of that.

        Raises `DeadlineError` when nobody who holds one has shown a sign of life for an hour, `HostError` if the
        cache cannot be written.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            held = self._wait(shape, tell)
        except OSError as error:
            raise HostError(
                f"cannot take a guest's place in {self._folder} ({error.strerror or error})",
                mend="make it writable, or point XDG_CACHE_HOME elsewhere",
            ) from error
        try:
            yield lambda: _touch(held)
        finally:
            _release(held)

    def most(self, shape: MachineShape) -> int:
        """How many guests of ``shape`` there are places for, as far as CPUs are concerned."""
        return self._files // self._needed(shape)

    @property
    def _files(self) -> int:
        return jobs.vcpus() if self._guests is None else _LEAST_FILES * self._guests

    def _needed(self, shape: MachineShape) -> int:
        # Who asks for a number of guests wants that number, of whatever shape.
        wanted = _LEAST_FILES if self._guests is not None else max(_LEAST_FILES, shape.cpus)
        return min(wanted, self._files)  # one guest runs on the smallest host

    def _wait(self, shape: MachineShape, tell: Tell) -> list[int]:
        """The locked files of a place, once there are enough."""
        what = f"a place for a guest, of which this host has {self._files // _LEAST_FILES}"
        watch = _Watch(self._folder, what, tell)
        with contextlib.ExitStack() as stack:
            # One at a time collects files: two that each had half of what they need would wait for ever.
            while (gate := _locked(self._folder / "gate")) is None:
                watch.pause()
            stack.callback(os.close, gate)
            while not (held := self._collect(shape)):
                watch.pause()
            return held

    def _collect(self, shape: MachineShape) -> list[int]:
        """The locked files of a place; none if there are too few, or if memory is short."""
        held: dict[str, int] = {}
        for name in (f"{number:04d}" for number in range(self._files)):
            descriptor = _locked(self._folder / name)
            if descriptor is not None:
                held[name] = descriptor
            if len(held) == self._needed(shape):
                break
        if len(held) < self._needed(shape) or not self._fits(shape, held):
            _release(held.values())
            return []
        for descriptor in held.values():
            os.truncate(descriptor, 0)  # of a holder that was killed
            os.pwrite(descriptor, f"{os.getpid()} {jobs.guest_mib(shape) // len(held)}\n".encode(), 0)
        return list(held.values())

    def _fits(self, shape: MachineShape, held: Collection[str]) -> bool:
        """Whether memory suffices beside the guests there are, which may not have used theirs yet."""
        others = [mib for name, (_, mib) in _holders(self._folder).items() if name not in held]
        # The first always runs: it may then swap.
        return not others or jobs.fits(shape, beside_mib=sum(others))


class _Watch:
    """Who waits for a place, and for how long at most."""

    def __init__(self, folder: Path, what: str, tell: Tell) -> None:
        self._folder = folder
        self._what = what
        self._tell = tell
        self._begin = self._said = time.monotonic()
        self._sign = self._signs()
        self._deadline = Deadline(_STANDSTILL_SECONDS, what)

    def pause(self) -> None:
        """Wait a moment; raise when nothing has moved for too long."""
        signs = self._signs()
        if signs != self._sign:
            self._sign, self._deadline = signs, Deadline(_STANDSTILL_SECONDS, self._what)
        pids = ", ".join(sorted({str(pid) for pid, _ in _holders(self._folder).values()})) or "unknown"
        if self._deadline.passed:
            raise DeadlineError(
                f"waited for {self._what}; nothing has moved there for {_STANDSTILL_SECONDS:.0f} s",
                mend=f"end what hangs (pid {pids})",
            )
        now = time.monotonic()
        if self._said == self._begin or now - self._said >= _SAY_SECONDS:
            self._said = max(now, self._begin + 1e-9)
            self._tell(f"waiting for {self._what}, {now - self._begin:.0f} s so far (pid {pids} is there)")
        time.sleep(_POLL_SECONDS)

    def _signs(self) -> list[tuple[str, int]]:
        return sorted((path.name, path.stat().st_mtime_ns) for path in self._folder.iterdir())


def _locked(path: Path) -> int | None:
    """The descriptor of the file, locked; None if somebody else holds it. Files are never removed."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _holders(folder: Path) -> dict[str, tuple[int, int]]:
    """Pid and MiB of every file that is held, as its holder has written them."""
    found = {}
    for path in folder.iterdir():
        # "PID MIB"; one that is free, or just taken, is empty.
        words = path.read_text(encoding="ascii", errors="replace").split() if path.name.isdigit() else []
        if len(words) == 2 and all(word.isdigit() for word in words) and _is_held(path):
            found[path.name] = int(words[0]), int(words[1])
    return found


def _is_held(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            # Shared: that two look at once must not make either see a holder.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _touch(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.utime(descriptor)


def _release(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.truncate(descriptor, 0)
        os.close(descriptor)
