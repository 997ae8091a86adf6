"""The serial channel: lines on the console, for kernels without virtio-serial.

The protocol is described in guest-programs/init/serial.h. Kernel messages share the line, so answers are found by
their number and checksum, and a request whose answer does not come whole is sent again: every request may be.
"""

from __future__ import annotations

import base64
import os
import re
import socket
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harness.deadline import Deadline
from harness.errors import ChannelError
from harness.guest.channel import (
    PROGRAM_STREAMS,
    WORD_SECONDS,
    Channel,
    Ending,
    Exit,
    Greeting,
    Nobody,
    OnOutput,
    Stream,
    Watch,
    discard,
    environment,
    nothing,
    strings,
    wall_clock_and_seed,
)

# An emulated UART passes about 10 KiB/s each way on a slow host: pieces are small enough that a line lost to
# a kernel message costs little to send again. SERIAL_PIECE of serial.h bounds what one answer holds.
_PIECE = 3072
_ANSWER_SECONDS = 3.0
_HELLO_EVERY = 0.5
_READY = b"@0 ready"
_QUIET_SECONDS = (
    5.0  # of a booting guest's console, after which we ask although it has not said that it is ready
)
_POLL_SECONDS = 0.05  # how often a running program is asked after
_AGENT_GRACE = 10.0
_LONG_LINE = 16384  # longer than any answer: whatever it is, it is not for us

# pexpect takes the earliest match, and of two at one place the first: so lines are consumed one by one, and a
# flood without newlines in pieces; the buffer never grows.
_LINE = rb"[^\n]{0,%d}\n" % _LONG_LINE
_FLOOD = rb"[^\n]{%d}" % _LONG_LINE


class SerialChannel(Channel):
    """Speaks to guest-programs/init/serial.h over ``connection``, the socket of the guest's console.

    ``booting`` says that the guest has not yet said that it is ready: until then nothing is sent.
    """

    pace = 4e3  # 64 KB take 7 to 10 s

    def __init__(
        self,
        connection: socket.socket,
        *,
        watch: Watch | None = None,
        scale: float = 1.0,
        booting: bool = False,
    ) -> None:
        from pexpect import socket_pexpect  # noqa: PLC0415

        self._socket = connection
        self._expect = socket_pexpect.SocketSpawn(connection, timeout=None)
        self._watch = watch or Nobody()
        self._scale = scale
        self._booting = booting
        self._begun = b""  # of a line of ours that a kernel message has cut
        # Where one channel ends another may begin on the same guest: numbers and ids must not meet.
        self._number = int(time.time()) % 100000 * 1000
        self._id = self._number

    # -- requests ----------------------------------------------------------------------------------

    def _ask(
        self,
        verb: str,
        *words: str,
        deadline: Deadline,
        what: str = "",
        patience: float = _ANSWER_SECONDS,
    ) -> list[str]:
        """Send one request until its answer comes whole; the words of the answer.

        ``what`` is what the request is for, in errors; ``patience``: seconds until it is sent again, for a guest of
        speed 1.0.
        """
        self._number += 1
        number = f"@{self._number}"
        line = " ".join([number, verb, *words]).encode()
        request = b"%s %08x\n" % (line, zlib.crc32(line))
        while True:
            self._watch.check()
            deadline.check()
            self._send(request)
            wait = Deadline(deadline.slice(patience * self._scale), f"an answer to {verb}")
            while not wait.passed:
                answer = self._line(wait)
                if answer is not None and answer[0] == number:
                    return self._words(what or verb, answer[1:])

    def _words(self, what: str, answer: list[str]) -> list[str]:
        if answer[0] == "ok":
            return answer[1:]
        code = int(answer[1]) if len(answer) > 1 and re.fullmatch("[0-9]{1,4}", answer[1]) else 0
        raise ChannelError(f"{what}: the guest says {os.strerror(code)!r}")

    def _send(self, data: bytes) -> None:
        try:
            self._expect.send(b"\n" + data)  # a newline first ends whatever half a line arrived before
        except OSError as error:
            self._watch.check()
            raise ChannelError(f"the console is closed ({error})") from error

    def _line(self, patience: Deadline) -> list[str] | None:
        """The next console line if it is an answer with a right checksum, as words without the checksum."""
        raw = self._console_line(patience)
        line = self._without_message(raw) if raw else None
        start = -1 if line is None else line.rfind(b"@")  # whatever stands before it is not ours
        if line is None or start < 0:
            return None
        body, _, crc = line[start:].rpartition(b" ")
        if crc != b"%08x" % zlib.crc32(body):
            return None
        words = [word for word in body.decode("ascii", errors="replace").split(" ") if word]
        # Until init has made the line raw, the kernel echoes our requests: they are no answers.
        return words if len(words) > 1 and words[1] in {"ok", "err"} else None

    def _console_line(self, patience: Deadline) -> bytes | None:
        """The next line of the console, or a piece of one that has no end; None when nothing comes."""
        import pexpect  # noqa: PLC0415

        try:
            self._expect.expect([_LINE, _FLOOD], timeout=patience.slice(0.25))
        except pexpect.TIMEOUT:
            self._watch.check()
            return None
        except (pexpect.EOF, OSError) as error:
            self._closed()
            raise ChannelError("the console is closed") from error
        found: Any = self._expect.match  # pexpect's types allow for text and for no match
        return bytes(found.group())

    def _await_ready(self, deadline: Deadline) -> None:
        """Wait until the guest's init listens.

        What is sent earlier does harm: Linux's PL011 driver finds a full FIFO when it starts, whose interrupt has
        passed already, and never hears anything again.
        """
        quiet: Deadline | None = None
        while quiet is None or not quiet.passed:
            raw = self._console_line(deadline)
            if raw is None:
                deadline.check()
                continue
            quiet = Deadline(_QUIET_SECONDS * self._scale, "the guest to say more")
            line = self._without_message(raw)
            if line is not None and _READY in line:
                break
        self._booting = False

    def _without_message(self, raw: bytes) -> bytes | None:
        """The whole line of ours that ends with ``raw``; None if it goes on.

        The kernel prints in the midst of our line: ``@7 ok QUJ[   12.345678] message\r\nDRA== 01234567``. Nothing of
        ours holds a "[", so from there to the newline it is the kernel's.
        """
        ours, message, _ = raw.partition(b"[")
        self._begun += ours if message else ours.rstrip(b"\r\n")
        if message and len(self._begun) <= _LONG_LINE:
            return None
        line, self._begun = self._begun, b""
        return line

    def _closed(self) -> None:
        """The console ended: let the guest's death, if it is that, speak first."""
        pause = Deadline(2.0, "the end of the guest")
        while self._watch.fds() and not pause.passed:
            self._watch.check()
            time.sleep(0.02)

    # -- the channel -------------------------------------------------------------------------------

    def hello(self, *, seconds: float) -> Greeting:
        clock, seed = wall_clock_and_seed()
        deadline = Deadline(seconds, "the guest's init to answer on the console")
        if self._booting:
            self._await_ready(deadline)
        answer = self._ask("hello", str(clock), _b64(seed), deadline=deadline, patience=_HELLO_EVERY)
        if len(answer) != 3:  # version, release, machine
            raise ChannelError("the guest's greeting is incomplete")
        return Greeting(release=answer[1], machine=answer[2])

    def run(
        self,
        argv: Sequence[str],
        *,
        seconds: float,
        env: Mapping[str, str] | None = None,
        on_output: OnOutput = discard,
        on_overdue: Callable[[], None] = nothing,
    ) -> Exit:
        variables = [f"{name}={value}" for name, value in environment(env).items()]
        data = strings([*argv, *variables])
        if len(data) > _PIECE:
            raise ChannelError(f"arguments and environment are longer than {_PIECE} bytes")
        patience = Deadline(seconds, f"{argv[0]} to end")
        # One request may find the program's time over just as it begins.
        grace = _AGENT_GRACE * self._scale
        deadline = Deadline(seconds + grace, f"the guest to tell of {argv[0]}")
        self._id += 1
        ident = str(self._id)
        init_ms = int((seconds + WORD_SECONDS * self._scale) * 1000)
        self._ask("run", ident, str(init_ms), str(len(argv)), _b64(data), deadline=deadline)
        given = dict.fromkeys(PROGRAM_STREAMS, 0)
        overdue = False
        while True:
            if patience.passed and not overdue:
                overdue = True
                on_overdue()
                deadline = Deadline(grace, f"the guest's init to end {argv[0]}")
                self._ask("kill", ident, deadline=deadline)
            status = self._ask("status", ident, deadline=deadline)
            for stream in PROGRAM_STREAMS:
                given[stream] += self._pass_on(ident, stream, given[stream], on_output, deadline)
            if status != ["running"]:
                break
            time.sleep(_POLL_SECONDS)
        self._ask("forget", ident, deadline=deadline)
        try:
            ending, code, wall_ms, rss = (int(word) for word in status)
            return Exit(Ending(ending), code, wall_ms / 1000, rss)
        except ValueError as error:
            raise ChannelError(f"the guest's exit report is wrong: {' '.join(status)!r}") from error

    def _pass_on(
        self, ident: str, stream: Stream, offset: int, on_output: OnOutput, deadline: Deadline
    ) -> int:
        """Pass on what a stream's file holds beyond ``offset``; returns how much."""
        passed = 0
        while True:
            piece = self._read(f"/tmp/.cowpen-{ident}.{stream.value}", offset + passed, deadline)  # noqa: S108
            if piece:
                on_output(stream, piece)
            passed += len(piece)
            if len(piece) < _PIECE:
                return passed

    def _read(self, path: str, offset: int, deadline: Deadline) -> bytes:
        words = _b64(_path(path)), str(offset), str(_PIECE)
        answer = self._ask("read", *words, deadline=deadline, what=f"reading {path}")
        try:
            piece = base64.b64decode(answer[0], validate=True) if answer else b""
        except ValueError as error:
            raise ChannelError(f"reading {path}: the guest's answer is not base64") from error
        if len(piece) > _PIECE:
            raise ChannelError(f"reading {path}: the guest gives more than it was asked for")
        return piece

    def push(self, data: bytes, path: str, *, seconds: float, mode: int = 0o755) -> None:
        deadline = Deadline(seconds, f"the guest to take {path}")
        part, what = _b64(_path(path + ".part")), f"pushing {path}"
        for start in range(0, max(1, len(data)), _PIECE):
            piece = _b64(data[start : start + _PIECE])
            self._ask("write", part, str(start), str(mode), piece or "=", deadline=deadline, what=what)
        self._ask("move", part, _b64(_path(path)), deadline=deadline, what=what)

    def pull(self, path: str, *, seconds: float, limit: int = 64 << 20) -> bytes:
        deadline = Deadline(seconds, f"the guest to give {path}")
        content = bytearray()
        while True:
            piece = self._read(path, len(content), deadline)
            content += piece
            if len(content) > limit:
                raise ChannelError(f"{path} in the guest is larger than {limit} bytes")
            if len(piece) < _PIECE:
                return bytes(content)

    def close(self) -> None:
        self._socket.close()


def _path(path: str) -> bytes:
    return strings([path])[:-1]


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
