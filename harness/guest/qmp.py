"""QEMU's monitor, through the qemu.qmp library, for callers that do not speak asyncio.

One event loop in one thread serves every guest of the process.
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import threading
from collections.abc import Coroutine, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from harness.errors import ChannelError, DeadlineError

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")


_loop_lock = threading.Lock()


def _loop() -> asyncio.AbstractEventLoop:
    # `functools.cache` alone lets two threads that come first together make a loop each: a client that connected
    # in one and is then asked in the other never hears an answer.
    with _loop_lock:
        return _make_loop()


@functools.cache
def _make_loop() -> asyncio.AbstractEventLoop:
    import asyncio  # noqa: PLC0415  (0.05 s, paid while the guest boots)

    class Loop(asyncio.SelectorEventLoop):
        """One that cannot be made, for want of descriptors, is gone without a word.

        Python's own (3.11) is closed when it is collected, misses what it never got, and prints a traceback.
        """

        whole = False

        def __init__(self) -> None:
            super().__init__()
            self.whole = True

        def is_closed(self) -> bool:
            return not self.whole or super().is_closed()

    loop = Loop()
    threading.Thread(target=loop.run_forever, name="qmp", daemon=True).start()
    return loop


class Monitor:
    """The monitor of one QEMU, over a connected socket.

    ``seconds`` bounds every exchange unless it says otherwise: scale it by the speed of guests here.
    ``events`` are all events so far, oldest first; ``wake_fd`` becomes readable with each new one.
    """

    def __init__(self, connection: socket.socket, *, seconds: float) -> None:
        import logging  # noqa: PLC0415

        from qemu.qmp import EventListener, QMPClient  # noqa: PLC0415  (brings asyncio: 0.1 s)

        # The library logs a traceback when QEMU ends, which is how a guest's life usually closes.
        logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL + 1)
        self._seconds = seconds
        self.events: list[dict[str, Any]] = []
        self.wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._client = QMPClient("cowpen")
        self._listener = EventListener()
        self._client.register_listener(self._listener)
        try:
            self._wait(self._client.connect(connection), seconds, "QEMU's monitor to answer")
        except BaseException:
            os.close(self.wake_fd)
            raise
        import asyncio  # noqa: PLC0415

        self._reader = asyncio.run_coroutine_threadsafe(self._read_events(), _loop())

    def _wait(self, work: Coroutine[Any, Any, T], seconds: float, what: str) -> T:
        import asyncio  # noqa: PLC0415

        future = asyncio.run_coroutine_threadsafe(asyncio.wait_for(work, seconds), _loop())
        try:
            return future.result(seconds + 5)
        except TimeoutError as error:
            future.cancel()
            raise DeadlineError(f"waited {seconds:.1f} s in vain for {what}") from error
        except Exception as error:
            if type(error).__module__.startswith("qemu.qmp") or isinstance(error, OSError | EOFError):
                raise ChannelError(f"QEMU's monitor: {what}: {error}") from error
            raise

    async def _read_events(self) -> None:
        async for event in self._listener:
            self.events.append(dict(event))
            with contextlib.suppress(BlockingIOError):
                os.eventfd_write(self.wake_fd, 1)

    def execute(
        self, command: str, arguments: Mapping[str, object] | None = None, *, seconds: float | None = None
    ) -> Any:  # whatever the command returns, as JSON
        """Run one monitor command, by default within what the connection was given; `ChannelError` if refused."""
        return self._wait(self._client.execute(command, arguments), seconds or self._seconds, command)

    def send_fd(self, descriptor: int, name: str) -> None:
        """Give QEMU a file descriptor under ``name`` (``getfd``)."""

        async def give() -> None:
            self._client.send_fd_scm(descriptor)
            await self._client.execute("getfd", {"fdname": name})

        self._wait(give(), self._seconds, "getfd")

    def has_event(self, name: str) -> bool:
        """Whether QEMU has reported ``name`` so far."""
        return any(event["event"] == name for event in list(self.events))

    def last_event(self, *names: str) -> str | None:
        """Which of ``names`` QEMU has reported last, None if none yet."""
        return next(
            (event["event"] for event in reversed(list(self.events)) if event["event"] in names), None
        )

    def close(self) -> None:
        """Close the connection; QEMU goes on."""
        self._reader.cancel()
        with contextlib.suppress(ChannelError, DeadlineError, Exception):
            self._wait(self._client.disconnect(), 2.0, "the monitor to close")
        os.close(self.wake_fd)
