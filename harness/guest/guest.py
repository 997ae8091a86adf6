"""One guest: a QEMU running one kernel, its console, its monitor and the channel into it."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import select
import shlex
import shutil
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.cache import Held
from harness.deadline import Deadline
from harness.errors import BootError, ChannelError, DeadlineError, GuestDiedError
from harness.guest import disk, forensics, qemu
from harness.guest.agent import AgentChannel
from harness.guest.channel import Channel, Greeting
from harness.guest.machine import MachineShape
from harness.guest.qmp import Monitor
from harness.guest.speed import Speed
from harness.kernel.kernel import Kernel
from harness.process import Process

# QEMU answers in 0.1 s, however slow its guest is; a swapping host may need more. Not scaled: a QEMU that is stopped
# must be noticed too.
_MONITOR_SECONDS = 40.0
_PANIC_SECONDS = 10.0  # from the panic's report to QEMU's end: the kernel still prints and resets
_LETTING_GO_SECONDS = 1.0  # from QEMU's letting go of its disks to its own end
_CONSOLE_TAIL = 16384
# A guest that prints as fast as it can fills 1 MB a second or so: more than this is no report of anything.
_CONSOLE_LIMIT = 256 << 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The saved state of a guest that is ready: memory (`qemu.memory_files`), devices, and what its console
    had printed. All are files of ``folder``.
    """

    folder: Path
    held: Held | None = None
    """Keeps the folder in the cache; None while it is not there yet."""

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def console(self) -> Path:
        return self.folder / "console.log"


class Guest:
    """A running guest; make one with `start`. It is the `Watch` over its own channel."""

    def __init__(
        self,
        *,
        process: Process,
        monitor: Monitor,
        console: Path,
        log: Path,
        speed: Speed,
        line: socket.socket | None,
        servers: Sequence[Process] = (),
    ) -> None:
        self.process = process
        self.monitor = monitor
        self.console = console
        self.channel: Channel
        self.connection: socket.socket
        self._line = line
        self._servers = servers
        self._log = log
        self._speed = speed

    # -- life and death ----------------------------------------------------------------------------

    def fds(self) -> list[int]:
        """Readable when QEMU or the server of a disk ends, and when QEMU reports an event."""
        return [self.process.pidfd, self.monitor.wake_fd, *(server.pidfd for server in self._servers)]

    def check(self) -> None:
        """Raise `GuestDiedError` if the guest is gone or going; a panic is given time to print itself.

        Raises `ChannelError` if it has printed more than anybody would read.
        """
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.monitor.wake_fd)
        if self._console_size() > _CONSOLE_LIMIT:
            raise ChannelError(f"the guest floods its console: {_CONSOLE_LIMIT >> 20} MiB and no end")
        self._check_disks()
        if self.process.poll() is None:
            if self.monitor.has_event("GUEST_PANICKED"):
                self._await_end(_PANIC_SECONDS * self._speed.scale)
            elif self.monitor.last_event("STOP", "RESUME") == "STOP":
                self._check_stopped()
                return
            else:
                return
        raise GuestDiedError(self._cause_of_death())

    def _check_disks(self) -> None:
        # A guest whose disk fails reads errors, or nothing at all: whatever its program says then is not about the
        # kernel. QEMU lets go of its disks when it ends, and then their servers end too.
        for server in self._servers:
            status = server.poll()
            if status is None:
                continue
            self._await_end(_LETTING_GO_SECONDS)
            if self.process.poll() is None:
                how = _describe_status(status)
                raise GuestDiedError(f"the guest's disk is gone: nbdkit {how}{self._qemu_said()}")

    def _check_stopped(self) -> None:
        # A vCPU that cannot go on stops the machine; QEMU stays. "KVM internal error" ends here.
        with contextlib.suppress(ChannelError, DeadlineError):
            status = self.monitor.execute("query-status")["status"]
            if status in {"internal-error", "io-error", "guest-panicked"}:
                raise GuestDiedError(f"QEMU stopped the guest ({status}){self._qemu_said()}")

    def _await_end(self, seconds: float) -> None:
        poll = select.poll()
        poll.register(self.process.pidfd, select.POLLIN)
        poll.poll(seconds * 1000)

    def _cause_of_death(self) -> str:
        # QEMU writes its last events before it ends, but another thread reads them.
        pause = Deadline(0.5, "QEMU's last events")
        while not pause.passed and not self.monitor.has_event("SHUTDOWN") and self.process.poll() == 0:
            time.sleep(0.01)
        if self.monitor.has_event("GUEST_PANICKED"):
            return "the kernel panicked"
        for event in self.monitor.events:
            if event["event"] == "SHUTDOWN":
                reason = event.get("data", {}).get("reason", "unknown")
                return {
                    "guest-reset": "the guest reset itself, as it does after a panic",
                    "guest-shutdown": "the guest switched itself off",
                }.get(reason, f"QEMU shut the guest down ({reason})")
        status = self.process.poll()
        how = "still runs" if status is None else _describe_status(status)
        return f"QEMU {how}{self._qemu_said()}"

    def _qemu_said(self) -> str:
        words = _last_words(self._log)
        return f", saying: {words}" if words else ""

    # -- hanging -----------------------------------------------------------------------------------

    def examine(self, why: str) -> bool:
        """Write what a guest that hangs is doing into its console's log; False if it is of no more use then.

        Raises `ChannelError` if QEMU does not answer either: then it is the host's trouble.
        """
        return forensics.collect(
            self.monitor,
            self.console,
            line=self._line.fileno() if self._line else None,
            scale=self._speed.scale,
            why=why,
        )

    # -- boot --------------------------------------------------------------------------------------

    def ready(self) -> Greeting:
        """Wait until the guest's init answers; `BootError` says how far it came.

        A guest that prints nothing at all is given up after half the time: it never started.
        """
        deadline = Deadline(self._speed.boot_deadline, "the guest to become ready")
        silence = Deadline(self._speed.boot_deadline / 2, "the guest to print anything")
        try:
            while True:
                # A serial channel waits for its greeting in the console itself.
                part = silence if not silence.passed else deadline
                try:
                    return self.channel.hello(seconds=min(part.remaining, deadline.remaining))
                except DeadlineError:
                    if deadline.passed or (silence.passed and not self._console_size()):
                        raise
        except DeadlineError as error:
            raise self._not_ready(deadline.elapsed) from error
        except (GuestDiedError, ChannelError) as error:
            raise BootError(
                f"the guest did not boot: {error}; its last line: {self._last_line()}",
                detail=self.console_tail(),
                died=isinstance(error, GuestDiedError),
            ) from error

    def _not_ready(self, seconds: float) -> BootError:
        printed, last, tail = self._console_size(), self._last_line(), self.console_tail()
        if self._speed.boot_limit is None:  # else it is a race against a clock: too slow is not hung
            try:
                self.examine(f"not ready after {seconds:.0f} s")
            except ChannelError as error:
                return BootError(f"the guest was not ready after {seconds:.0f} s ({error})", detail=tail)
        if not printed:
            return BootError(
                f"the guest printed nothing at all in {seconds:.0f} s",
                mend="its CPU model may lack what the kernel needs (page size), or the image is not for it",
            )
        return BootError(
            f"the guest was not ready after {seconds:.0f} s; its last line: {last}",
            detail=tail,
        )

    def _console_size(self) -> int:
        with contextlib.suppress(FileNotFoundError):
            return self.console.stat().st_size
        return 0

    def console_tail(self) -> str:
        """The last of what the console printed, as text that may hold anything: escape it for display."""
        with contextlib.suppress(FileNotFoundError), self.console.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _CONSOLE_TAIL))
            return file.read().decode(errors="replace")
        return ""

    def _last_line(self) -> str:
        lines = [line.strip() for line in self.console_tail().splitlines() if line.strip()]
        return "".join(c if c.isprintable() else "?" for c in lines[-1])[:200] if lines else "(none)"

    # -- end ---------------------------------------------------------------------------------------

    def quit(self) -> None:
        """End QEMU in order, so that the console is written to its end."""
        if self.process.poll() is None:
            with contextlib.suppress(ChannelError, DeadlineError):
                self.monitor.execute("quit", seconds=2.0)
                self._await_end(2.0)


def _last_words(log: Path) -> str:
    """What QEMU said last. nbdkit writes there, too, and complains when QEMU ends; it counts if nobody else spoke."""
    lines = log.read_bytes()[-2000:].decode(errors="replace").strip().splitlines()
    # Not what it says of the console's terminal, either.
    lines = [line for line in lines if not line.startswith("char device redirected")]
    return next((line for line in reversed(lines) if not line.startswith("nbdkit:")), "".join(lines[-1:]))


def _describe_status(status: int) -> str:
    return f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"


@contextlib.contextmanager
def start(
    *,
    kernel: Kernel,
    initramfs: Path,
    shape: MachineShape,
    acceleration: qemu.Acceleration,
    speed: Speed,
    folder: Path,
    snapshot: Snapshot | None = None,
    ram: Path | None = None,
    images: Sequence[Path | None] = (),
) -> Iterator[Guest]:
    """Start a guest, cold or from ``snapshot``; everything it needs ends when the block is left.

    ``folder`` receives ``console.log`` (all the console printed), ``qemu.log`` (what QEMU and nbdkit said) and
    ``qemu.command``. ``ram`` is a folder for the memory's files, of which a snapshot is made. ``images`` are what the
    disks hold (`disk.images`); none: zeros. Call `Guest.ready` before anything else.
    Raises `ToolMissingError` without QEMU, `BootError` if QEMU does not even start.
    """
    console, log = folder / "console.log", folder / "qemu.log"
    with contextlib.ExitStack() as stack:
        contents = images or [None] * len(shape.disks)
        disks = [disk.serve(*one, stack, log) for one in zip(shape.disks, contents, strict=True)]
        ours_monitor, theirs_monitor = socket.socketpair()
        ours_channel, theirs_channel = socket.socketpair()
        # QEMU's ends are closed here once it has them, so that its death is the end of the stream.
        theirs = stack.enter_context(contextlib.ExitStack())
        for end in (theirs_monitor, theirs_channel):
            theirs.enter_context(end)
        stack.enter_context(ours_monitor)
        stack.enter_context(ours_channel)
        if snapshot is not None:
            try:
                shutil.copyfile(snapshot.console, console)  # the console's log is whole: boot and attempt
            except FileNotFoundError as error:
                raise BootError(f"the snapshot is gone ({error})") from error
            ram = snapshot.folder
        descriptors = qemu.Descriptors(
            monitor=theirs_monitor.fileno(),
            channel=theirs_channel.fileno(),
            disks=tuple(one.fileno() for one, _ in disks),
        )
        command = qemu.command(
            kernel=kernel,
            initramfs=initramfs,
            shape=shape,
            acceleration=acceleration,
            console=console,
            descriptors=descriptors,
            ram=ram,
            restoring=snapshot is not None,
        )
        (folder / "qemu.command").write_text(shlex.join(command) + "\n", encoding="utf-8")
        inherited = [descriptors.monitor, descriptors.channel, *descriptors.disks]
        with log.open("ab") as messages:
            process = Process(
                command,
                stdout=messages,
                stderr=messages,
                pass_fds=inherited,
            )
        stack.enter_context(process)
        theirs.close()
        for one, _ in disks:
            one.close()
        try:
            monitor = Monitor(ours_monitor, seconds=_MONITOR_SECONDS)
        except (ChannelError, DeadlineError) as error:
            status = process.end()
            raise BootError(
                f"QEMU did not start ({_describe_status(status)}): {_last_words(log) or error}",
                detail=shlex.join(command),
            ) from error
        stack.callback(monitor.close)
        guest = Guest(
            process=process,
            monitor=monitor,
            console=console,
            log=log,
            speed=speed,
            line=None if shape.channel == "agent" else ours_channel,
            servers=[server for _, server in disks],
        )
        guest.connection = ours_channel
        if shape.channel != "shell":  # then the connection is a person's
            guest.channel = _channel(shape, ours_channel, guest, speed, booting=snapshot is None)
            stack.callback(guest.channel.close)
        stack.callback(guest.quit)
        if snapshot is not None:
            _restore(guest, snapshot)
        yield guest


def _restore(guest: Guest, snapshot: Snapshot) -> None:
    """Let QEMU take in the saved state; the guest then runs on from where it was saved."""
    try:
        leave_memory_to_its_file(guest.monitor)
        descriptor = os.open(snapshot.state, os.O_RDONLY | os.O_CLOEXEC)
        try:
            guest.monitor.send_fd(descriptor, "state")
        finally:
            os.close(descriptor)
        guest.monitor.execute("migrate-incoming", {"uri": "fd:state"})
    except (ChannelError, DeadlineError, FileNotFoundError) as error:
        raise BootError(f"QEMU cannot restore the snapshot ({error})") from error


def leave_memory_to_its_file(monitor: Monitor) -> None:
    """The memory file *is* the memory part of a snapshot: leave it out of the saved state."""
    monitor.execute(
        "migrate-set-capabilities", {"capabilities": [{"capability": "x-ignore-shared", "state": True}]}
    )


def _channel(
    shape: MachineShape, connection: socket.socket, guest: Guest, speed: Speed, *, booting: bool
) -> Channel:
    connection.setblocking(False)
    if shape.channel == "serial":
        from harness.guest.serial import SerialChannel  # noqa: PLC0415  (brings pexpect)

        return SerialChannel(connection, watch=guest, scale=speed.scale, booting=booting)
    return AgentChannel(connection, watch=guest, scale=speed.scale)
