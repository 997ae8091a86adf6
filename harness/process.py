"""Child processes that never outlive cowpen.

Every child is ended by its own pid, and the kernel is told to kill it should cowpen be killed first.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from harness.errors import CowpenError, HostError

_TERM_SECONDS = 2.0  # how long a child may take to obey SIGTERM before SIGKILL
_KILL_SECONDS = 30.0  # and how long the kernel may take to carry that out


class StoppingError(CowpenError):
    """cowpen is being interrupted: no new process may start."""


_live: set[Process] = set()
_live_lock = threading.Lock()
_stopping = threading.Event()


def end_everything() -> None:
    """End every child now and let no new one start: what an interrupt calls.

    Threads that wait for a child then notice its end and unwind by themselves.
    """
    _stopping.set()
    with _live_lock:
        children = list(_live)
    for child in children:
        child.kill()


def stopping() -> bool:
    """Whether `end_everything` was called."""
    return _stopping.is_set()


class Process:
    """A child process, ended when the ``with`` block is left.

    The command runs under ``setpriv --pdeathsig``: should cowpen be killed with SIGKILL, the kernel kills
    the child. The death signal is tied to the *thread* that started the child, so start children from
    threads that live at least as long. The child gets its own session, so that Ctrl-C on the terminal
    reaches cowpen alone, which then ends its children in order.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        stdin: int | IO[bytes] = subprocess.DEVNULL,
        stdout: int | IO[bytes] = subprocess.DEVNULL,
        stderr: int | IO[bytes] = subprocess.DEVNULL,
        pass_fds: Sequence[int] = (),
    ) -> None:
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            raise HostError("setpriv not found", mend="apt-get install util-linux")
        self.argv = list(argv)
        # Between fork and setpriv's prctl cowpen may already be dead: then the shell finds another
        # parent and does not start the command at all.
        guard = f'test "$PPID" = {os.getpid()} && exec "$@"'
        with _live_lock:
            if _stopping.is_set():
                raise StoppingError("interrupted")
            self._popen = subprocess.Popen(
                [setpriv, "--pdeathsig", "KILL", "--", "/bin/sh", "-c", guard, "sh", *argv],
                cwd=cwd,
                env=env,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                pass_fds=pass_fds,
                start_new_session=True,
            )
            self.pid = self._popen.pid
            try:
                self.pidfd = os.pidfd_open(self.pid)
            except OSError:  # no descriptor left: nobody could wait for it
                self.kill()
                self._popen.wait(_KILL_SECONDS)
                raise
            _live.add(self)

    def poll(self) -> int | None:
        """The exit status, or None while it runs; negative for a signal."""
        return self._popen.poll()

    def wait(self, seconds: float) -> int:
        """Wait for its end; `subprocess.TimeoutExpired` at the deadline."""
        return self._popen.wait(seconds)

    def communicate(self, timeout: float) -> tuple[bytes, bytes]:
        """Read both pipes to their ends, as `subprocess.Popen.communicate`."""
        stdout, stderr = self._popen.communicate(timeout=timeout)
        return stdout or b"", stderr or b""

    @property
    def stdin(self) -> IO[bytes] | None:
        return self._popen.stdin

    @property
    def stdout(self) -> IO[bytes] | None:
        return self._popen.stdout

    def kill(self) -> None:
        """SIGKILL to the child's session, without waiting."""
        if self._popen.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def end(self) -> int:
        """End it: SIGTERM, then SIGKILL; returns the exit status. Harmless if it ended already."""
        if self._popen.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGTERM)
            try:
                self._popen.wait(_TERM_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
        try:
            status = self._popen.wait(_KILL_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise HostError(
                f"{self.argv[0]} (pid {self.pid}) does not die of SIGKILL",
                mend="it waits in the kernel, for a disk perhaps: see /proc/PID/stack",
            ) from error
        with _live_lock:
            if self in _live:
                _live.discard(self)
                os.close(self.pidfd)
        for pipe in (self._popen.stdin, self._popen.stdout, self._popen.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        return status

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()
