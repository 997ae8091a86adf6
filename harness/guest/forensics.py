"""The state of a guest that hangs, collected from outside before it is ended, and written into its console's log.

Three ways, from the gentlest to the last. QEMU's monitor reads the registers and the stack of every CPU, whatever the
guest does. The kernel's magic SysRq, called by a BREAK on the serial console, prints tasks and locks as long as the CPU
that serves the console takes interrupts. A non-maskable interrupt, where the machine has one, makes a kernel say where
it is even if it does not; it panics of it, so it comes last.
"""

from __future__ import annotations

import contextlib
import enum
import itertools
import os
import re
import select
import termios
import time
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from harness.deadline import Deadline
from harness.errors import ChannelError, DeadlineError
from harness.guest.qmp import Monitor

# Without these the kernel would not hear a BREAK (Debian's allows only some keys), and only complain of an NMI that
# nothing explains. Neither changes anything in a guest that is well.
KERNEL_ARGUMENTS = ("sysrq_always_enabled=1", "unknown_nmi_panic=1")

# For guests of speed 1.0; a guest that is not busy answers in 0.02 s, and tells of all its tasks in 0.3 s. The tasks
# of a fork bomb never end.
_ANSWER_SECONDS = 3.0
_REPORT_SECONDS = 15.0
# Some reports are printed by another CPU, later. Not scaled: the next key says for certain that the guest is ready.
_QUIET_SECONDS = 0.2
_LATE_SECONDS = 2.0
_STACK_WORDS = 64
# An 8250 may lose a BREAK that comes while the kernel prints.
_AGAIN_SECONDS = 1.0
# A BREAK goes into the queue of an arm64 serial line even if that is full, and QEMU 7.2 then writes beyond its end
# (hw/char/pl011.c: 16 entries, of which a BREAK and its key take two): QEMU dies, or makes up keys of what lies there.
_MOST_BREAKS = 6
_TAIL = 1 << 20  # holds an answer of a moment ago, even if another CPU floods the console
_STACK_POINTER = re.compile(r"\bR?SP=([0-9a-f]{16})\b")


class _Request(NamedTuple):
    key: bytes
    what: str


class _Answer(enum.Enum):
    """What a kernel that was asked for its state has said."""

    NONE = enum.auto()
    PART = enum.auto()
    WHOLE = enum.auto()


# Documentation/admin-guide/sysrq.rst. The key 9 lets messages of every level reach the console; that it is heard tells
# whether anything is, and that the report before it is complete. One key must be heard before the next is pressed: an
# 8250 that finds two keys at once takes the last one only.
_HEARD = b"sysrq: "
_PROBE = b"9"
_PROBE_HEARD = b"Loglevel set to 9"
# First the CPUs, while they still do what they hang in.
_REQUESTS = (
    _Request(b"l", "what every CPU does"),
    _Request(b"w", "blocked tasks"),
    _Request(b"d", "locks held"),
    _Request(b"t", "all tasks"),
)


def collect(monitor: Monitor, console: Path, *, line: int | None, scale: float, why: str) -> bool:
    """Append the state of a guest to its console's log; False if it is of no more use afterwards.

    ``line`` is the host's end of the serial line if that is a socket; None: QEMU has a pseudo-terminal there, or
    nothing. ``scale``: how many times slower than the reference guests are here. Raises `ChannelError` if QEMU
    itself does not answer, for then it is not the guest that hangs. Of a guest that dies meanwhile there is what was
    collected so far.
    """
    _note(console, f"the guest hangs ({why}); its state follows")
    try:
        registers = _ask(monitor, "info registers -a")
    except DeadlineError as error:
        _note(console, "QEMU does not answer its monitor")
        raise ChannelError(
            "QEMU does not answer its monitor: it is stopped, or starved by the host"
        ) from error
    alive = True
    with contextlib.suppress(ChannelError, DeadlineError, OSError, termios.error):
        _note(console, "registers of all CPUs", registers)
        for cpu, pointer in enumerate(_STACK_POINTER.findall(registers)):
            _note(console, f"stack of CPU {cpu}", _ask(monitor, f"x /{_STACK_WORDS}gx 0x{pointer}", cpu))
        answer = _tell_itself(monitor, console, line, scale)
        if answer is _Answer.NONE:
            _note(console, "the guest does not answer SysRq")
            alive = not _interrupt(monitor, console, scale)
        else:
            # One that is still telling, of ten thousand tasks perhaps, does so with interrupts off: what the kernel
            # has to say of that next is our doing.
            alive = answer is _Answer.WHOLE
    _note(console, "end of the guest's state")
    return alive


def _note(console: Path, words: str, text: str = "") -> None:
    """Append lines of our own; QEMU appends to the same file."""
    with console.open("ab") as log:
        log.write(f"\ncowpen: {words}\n{text}".replace("\r", "").encode())


def _ask(monitor: Monitor, command: str, cpu: int = 0) -> str:
    """What QEMU's human monitor answers; it has no other command for registers and memory."""
    return str(monitor.execute("human-monitor-command", {"command-line": command, "cpu-index": cpu}))


@contextlib.contextmanager
def _terminal(monitor: Monitor) -> Iterator[int | None]:
    """The host's end of the console's pseudo-terminal; None if it has none."""
    named = {device["label"]: device["filename"] for device in monitor.execute("query-chardev")}
    kind, _, path = named.get("console", "").partition(":")
    if kind != "pty":
        yield None
        return
    terminal = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        tty.setraw(terminal)  # else our own reading would be echoed to the guest
        yield terminal
    finally:
        os.close(terminal)


def _tell_itself(monitor: Monitor, console: Path, line: int | None, scale: float) -> _Answer:
    """Let the guest's kernel print its state; what came of it."""
    with contextlib.ExitStack() as stack:
        if line is None:
            line = stack.enter_context(_terminal(monitor))
        if line is None:
            return _Answer.NONE
        if not _press(monitor, console, line, _PROBE, _ANSWER_SECONDS * scale):
            return _Answer.NONE
        for request in _REQUESTS:
            _note(console, f"SysRq {request.key.decode()}: {request.what}")
            whole = _press(monitor, console, line, request.key, _ANSWER_SECONDS * scale) and _press(
                monitor, console, line, _PROBE, _REPORT_SECONDS * scale
            )
            if not whole:
                _note(console, "no end of it came in time")
                return _Answer.PART
    return _Answer.WHOLE


def _press(monitor: Monitor, console: Path, line: int, key: bytes, seconds: float) -> bool:
    """Press a key of SysRq, a BREAK and then the key, and wait until it is heard; False if it is not in time."""
    heard = _PROBE_HEARD if key == _PROBE else _HEARD
    before = console.stat().st_size
    end = Deadline(seconds, "the guest to hear SysRq")
    for number in itertools.count():
        if number < _MOST_BREAKS:
            monitor.execute("chardev-send-break", {"id": "console"})
            os.write(line, key)
        again = Deadline(end.slice(_AGAIN_SECONDS * 2**number), "the guest to hear SysRq")
        while not again.passed:
            if heard in _tail(console, before):
                _await_quiet(line)
                return True
            _drain(line, 0.05)
        if end.passed:
            break
    return False


def _await_quiet(line: int) -> None:
    """Let the guest print the rest of its answer, unless something else in it prints without end."""
    late = Deadline(_LATE_SECONDS, "the guest to be quiet")
    while not late.passed and _drain(line, _QUIET_SECONDS):
        pass


def _tail(console: Path, since: int) -> bytes:
    """The last of what the guest printed ``since`` that many bytes."""
    with console.open("rb") as log:
        log.seek(max(since, log.seek(0, os.SEEK_END) - _TAIL))
        return log.read(_TAIL)


def _drain(line: int, seconds: float) -> bool:
    """Read what the guest prints, which its log has already, so that it can go on printing; False if nothing came."""
    readable, _, _ = select.select([line], [], [], seconds)
    return bool(readable) and bool(os.read(line, 1 << 16))


def _interrupt(monitor: Monitor, console: Path, scale: float) -> bool:
    """Interrupt the guest where nothing can prevent it, and give it time to panic; False if that is impossible."""
    try:
        monitor.execute("inject-nmi")
    except ChannelError:
        _note(console, "this machine has no non-maskable interrupt")
        return False
    _note(console, "non-maskable interrupt")
    # Silence tells nothing: a kernel that panics first stops its other CPUs, and only seconds later prints why.
    end = Deadline(_REPORT_SECONDS * scale, "the end of the panic")
    while not end.passed and not monitor.has_event("SHUTDOWN"):
        time.sleep(_QUIET_SECONDS)
    return True
