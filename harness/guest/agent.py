"""The agent channel: frames to the agent in the guest, over any stream of bytes.

The format is guest-programs/init/protocol.h. The guest is hostile: frames are bounded, what does not fit the
protocol is a `ChannelError`, and output of a run the host has given up on is dropped.
"""

from __future__ import annotations

import secrets
import select
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from harness import cheader
from harness.deadline import Deadline
from harness.errors import ChannelError, DeadlineError, GuestDiedError
from harness.guest.channel import (
    PROTOCOL_HEADER,
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
    protocol,
    strings,
    wall_clock_and_seed,
)

_STREAMS = frozenset(int(stream) for stream in Stream)
_ENDINGS = frozenset(int(ending) for ending in Ending)
_PIECE = 32768  # bytes of a file per frame: virtio-serial passes them on in one go
_HELLO_EVERY = 0.5  # seconds; a hello sent before the guest listens is lost, so it is sent again
# What may pile up unread while we send: the rest of a file the host gave up on, and no more.
_INBOX_LIMIT = 4 << 20
# An overdue program that is to be killed is dead and reported in this time, or the host gives up on it.
_AGENT_GRACE = 5.0
# What the agent may tell of its threads before, and how long that may take.
_TELL_BYTES = 1 << 20
_TELL_SECONDS = 2.0


class ByteStream(Protocol):
    """A connected, non-blocking stream: a socket, or an SSH session."""

    def fileno(self) -> int: ...
    def recv(self, size: int, /) -> bytes: ...
    def send(self, data: bytes, /) -> int: ...
    def close(self) -> None: ...


class AgentChannel(Channel):
    """Speaks to guest-programs/init/agent.h.

    ``scale`` stretches the grace given to a slow guest (see `harness.guest.accelerator`).
    """

    def __init__(self, stream: ByteStream, *, watch: Watch | None = None, scale: float = 1.0) -> None:
        self._stream = stream
        self._watch = watch or Nobody()
        self._scale = scale
        self._inbox = bytearray()
        # Not from 1 on: the agent of a snapshot may still have answers to give to those who made it.
        self._id = secrets.randbelow(1 << 31)
        self._ffi: Any = protocol()
        self._c: Any = cheader.constants(PROTOCOL_HEADER)
        self._header = self._ffi.sizeof("struct cowpen_frame")

    # -- frames ------------------------------------------------------------------------------------

    def _send(self, kind: int, ident: int, payload: bytes, deadline: Deadline) -> None:
        frame = self._ffi.new(
            "struct cowpen_frame *", [self._c.COWPEN_FRAME_MAGIC, kind, 0, ident, len(payload)]
        )
        left = memoryview(bytes(self._ffi.buffer(frame)) + payload)
        while left:
            try:
                sent = self._stream.send(bytes(left))
            except (BlockingIOError, TimeoutError):
                sent = 0
            except OSError as error:
                raise self._gone(error) from error
            left = left[sent:]
            if left and not sent:
                deadline.check()
                if not self._take_in(deadline.slice(0.05), writing=True):
                    self._watch.check()
                self._drop_stale(ident)

    def _take_in(self, seconds: float, *, writing: bool = False) -> bool:
        """Wait for what the guest sends (when ``writing``: or for room to send) and put it into the inbox.

        Returns whether something came. A guest that waits for us to read never reads itself: so we read, too,
        while we wait to write.
        """
        poll = select.poll()
        poll.register(self._stream.fileno(), select.POLLIN | (select.POLLOUT if writing else 0))
        for fd in self._watch.fds():
            poll.register(fd, select.POLLIN)
        poll.poll(seconds * 1000)
        try:
            data = self._stream.recv(1 << 20)
        except (BlockingIOError, TimeoutError):
            return False
        except OSError as error:
            raise self._gone(error) from error
        if not data:
            raise self._gone(None)
        self._inbox += data
        return True

    def _drop_stale(self, ident: int) -> None:
        """Drop what answers earlier requests than ``ident``."""
        while len(self._inbox) >= self._header:
            frame = self._peek()
            if frame.id == ident or len(self._inbox) < self._header + frame.length:
                break
            del self._inbox[: self._header + frame.length]
        if len(self._inbox) > _INBOX_LIMIT:
            raise ChannelError("the agent sends without end while it is sent to")

    def _receive(self, deadline: Deadline) -> tuple[int, int, int, bytes] | None:
        """The next frame as (type, stream, id, payload), or None when a slice of time has passed."""
        frame = self._next_frame()
        if frame is not None:
            return frame
        deadline.check()
        if not self._take_in(deadline.slice(0.5)):
            # Only when the stream has nothing more to give do we ask whether the guest is alive: what it
            # said last is never lost.
            self._watch.check()
            return None
        return self._next_frame()

    def _gone(self, error: OSError | None) -> Exception:
        """The stream ended: say it as the guest's death if that is what it was."""
        pause = Deadline(2.0, "the end of the guest")
        while not pause.passed:
            try:
                self._watch.check()
            except GuestDiedError as death:
                return death
            if not self._watch.fds():
                break
            time.sleep(0.02)
        return ChannelError(
            f"the agent closed the channel ({error})" if error else "the agent closed the channel"
        )

    def _next_frame(self) -> tuple[int, int, int, bytes] | None:
        if len(self._inbox) < self._header:
            return None
        frame = self._peek()
        end = self._header + frame.length
        if len(self._inbox) < end:
            return None
        payload = bytes(self._inbox[self._header : end])
        del self._inbox[:end]
        return frame.type, frame.stream, frame.id, payload

    def _peek(self) -> Any:  # a struct cowpen_frame
        """The header of the frame at the head of the inbox; `ChannelError` if it is none."""
        frame = self._ffi.new("struct cowpen_frame *")
        self._ffi.memmove(frame, self._inbox[: self._header], self._header)
        if frame.magic != self._c.COWPEN_FRAME_MAGIC or frame.length > self._c.COWPEN_FRAME_PAYLOAD:
            raise ChannelError(
                f"the agent sent garbage (magic {frame.magic:#x}, length {frame.length}): something in the guest"
                " wrote to the agent's port"
            )
        return frame

    def _number(self, value: int) -> bytes:
        return bytes(self._ffi.buffer(self._ffi.new("struct cowpen_number *", [value])))

    def _answer(self, ident: int, wanted: int, deadline: Deadline, *, what: str, since: int = 0) -> bytes:
        """Wait for the one answer to request ``ident``; frames of earlier requests are dropped.

        An answer to any request from ``since`` on, if given, is as good.
        """
        while True:
            frame = self._receive(deadline)
            if frame is None or not (since or ident) <= frame[2] <= ident:
                continue
            kind, _, _, payload = frame
            if kind == wanted:
                return payload
            if kind == self._c.COWPEN_FAILED:
                raise self._refused(what, payload)
            if kind != self._c.COWPEN_OUTPUT:
                raise ChannelError(f"the agent answered {what} with a frame of type {kind}")

    def _refused(self, what: str, payload: bytes) -> ChannelError:
        words = payload[4:].decode(errors="replace")
        return ChannelError(f"{what}: the guest says {words!r}")

    def _next_id(self) -> int:
        self._id += 1
        return self._id

    # -- the channel -------------------------------------------------------------------------------

    def hello(self, *, seconds: float) -> Greeting:
        deadline = Deadline(seconds, "the agent's greeting")
        first = self._id + 1
        while True:
            ident = self._next_id()
            clock, seed = wall_clock_and_seed()
            hello = self._ffi.new("struct cowpen_hello *", [clock, list(seed)])
            self._send(self._c.COWPEN_HELLO, ident, bytes(self._ffi.buffer(hello)), deadline)
            try:
                wait = Deadline(deadline.slice(_HELLO_EVERY), "the agent's greeting")
                payload = self._answer(ident, self._c.COWPEN_READY, wait, what="hello", since=first)
                break
            except DeadlineError:
                deadline.check()
        version = int.from_bytes(payload[:4], "little")
        if version != self._c.COWPEN_PROTOCOL_VERSION:
            raise ChannelError(f"the agent speaks protocol {version}, not {self._c.COWPEN_PROTOCOL_VERSION}")
        words = payload[4:].decode(errors="replace").split("\0")
        if len(words) < 2:
            raise ChannelError("the agent's greeting is incomplete")
        return Greeting(release=words[0], machine=words[1])

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
        agent_ms = int((seconds + WORD_SECONDS * self._scale) * 1000)
        head = self._ffi.new("struct cowpen_run *", [agent_ms, len(argv), len(variables)])
        payload = bytes(self._ffi.buffer(head)) + strings([*argv, *variables])
        if len(payload) > self._c.COWPEN_FRAME_PAYLOAD:
            raise ChannelError("arguments and environment are longer than a frame")
        ident = self._next_id()
        grace = _AGENT_GRACE * self._scale
        told = _TELL_SECONDS * self._scale
        self._send(self._c.COWPEN_RUN, ident, payload, Deadline(grace, f"the agent to start {argv[0]}"))
        deadline = Deadline(seconds, f"{argv[0]} to end")
        overdue = False
        while True:
            try:
                deadline.check()  # also while there is always a frame to be read
                frame = self._receive(deadline)
            except DeadlineError:
                if overdue:
                    raise
                overdue = True
                on_overdue()
                deadline = Deadline(told + grace, f"the agent to end {argv[0]}")
                wanted = self._ffi.new("struct cowpen_kill *", [_TELL_BYTES, int(told * 1000)])
                self._send(self._c.COWPEN_KILL, ident, bytes(self._ffi.buffer(wanted)), deadline)
                continue
            if frame is None or frame[2] != ident:
                continue
            kind, stream, _, payload = frame
            if kind == self._c.COWPEN_OUTPUT:
                if stream in _STREAMS:
                    on_output(Stream(stream), payload)
            elif kind == self._c.COWPEN_EXIT:
                return self._exit(payload)
            elif kind == self._c.COWPEN_FAILED:
                raise self._refused(f"running {argv[0]}", payload)
            else:
                raise ChannelError(f"the agent answered a run with a frame of type {kind}")

    def _exit(self, payload: bytes) -> Exit:
        ended = self._ffi.new("struct cowpen_exit *")
        if len(payload) != self._ffi.sizeof(ended[0]):
            raise ChannelError("the agent's exit report has the wrong size")
        self._ffi.memmove(ended, payload, len(payload))
        if ended.kind not in _ENDINGS:
            raise ChannelError(f"the agent reports an unknown way to end ({ended.kind})")
        return Exit(Ending(ended.kind), ended.code, ended.wall_ms / 1000, ended.max_rss_kib)

    def push(self, data: bytes, path: str, *, seconds: float, mode: int = 0o755) -> None:
        deadline = Deadline(seconds, f"the guest to take {path}")
        ident = self._next_id()
        self._send(self._c.COWPEN_PUSH, ident, self._number(mode) + strings([path])[:-1], deadline)
        for start in range(0, len(data), _PIECE):
            self._send(self._c.COWPEN_DATA, ident, data[start : start + _PIECE], deadline)
        self._send(self._c.COWPEN_DATA, ident, b"", deadline)
        self._answer(ident, self._c.COWPEN_DONE, deadline, what=f"pushing {path}")

    def pull(self, path: str, *, seconds: float, limit: int = 64 << 20) -> bytes:
        deadline = Deadline(seconds, f"the guest to give {path}")
        ident = self._next_id()
        # One byte more than wanted tells a file that fits from one that does not.
        most = self._number(min(limit + 1, 0xFFFFFFFF))
        self._send(self._c.COWPEN_PULL, ident, most + strings([path])[:-1], deadline)
        content = bytearray()
        while True:
            piece = self._answer(ident, self._c.COWPEN_DATA, deadline, what=f"pulling {path}")
            if not piece:
                return bytes(content)
            content += piece
            if len(content) > limit:
                # What is still under way is dropped: it answers an earlier request by then.
                raise ChannelError(f"{path} in the guest is larger than {limit} bytes")

    def poweroff(self) -> None:
        """Ask the guest to switch itself off, without waiting for it."""
        self._send(self._c.COWPEN_POWEROFF, self._next_id(), b"", Deadline(2.0, "the agent to listen"))

    def close(self) -> None:
        self._stream.close()
