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
from collections.abc import Iterator
from pathlib import Path

from harness.deadline import Deadline
from harness.errors import BootError, ChannelError, DeadlineError, GuestDiedError
from harness.guest import disk, qemu
from harness.guest.agent import AgentChannel
from harness.guest.channel import Channel, Greeting
from harness.guest.machine import MachineShape
from harness.guest.qmp import Monitor
from harness.guest.speed import Speed
from harness.kernel.kernel import Kernel
from harness.process import Process

_MONITOR_SECONDS = 20.0  # QEMU answers in 0.1 s; a swapping host may need more
_PANIC_SECONDS = 10.0  # from the panic's report to QEMU's end: the kernel still prints and resets
_CONSOLE_TAIL = 16384


@dataclasses.dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The saved state of a guest that is ready: memory, device state, and what its console had printed."""

    ram: Path
    state: Path
    console: Path


class Guest:
    """A running guest; make one with `start`. It is the `Watch` over its own channel."""

    def __init__(self, *, process: Process, monitor: Monitor, console: Path, log: Path, speed: Speed) -> None:
        self.process = process
        self.monitor = monitor
        self.console = console
        self.channel: Channel
        self.connection: socket.socket
        self._log = log
        self._speed = speed

    # -- life and death ----------------------------------------------------------------------------

    def fds(self) -> list[int]:
        """Readable when QEMU ends or reports an event."""
        return [self.process.pidfd, self.monitor.wake_fd]

    def check(self) -> None:
        """Raise `GuestDiedError` if the guest is gone or going; a panic is given time to print itself."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.monitor.wake_fd)
        if self.process.poll() is None:
            if self.monitor.has_event("GUEST_PANICKED"):
                self._await_end(_PANIC_SECONDS * self._speed.scale)
            elif self.monitor.last_event("STOP", "RESUME") == "STOP":
                self._check_stopped()
                return
            else:
                return
        raise GuestDiedError(self._cause_of_death())

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
        words = self._log.read_bytes()[-2000:].decode(errors="replace").strip().splitlines()
        return f", saying: {words[-1]}" if words else ""

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
                    if deadline.passed or (silence.passed and not self.console_tail()):
                        raise
        except DeadlineError as error:
            if not self.console_tail():
                raise BootError(
                    f"the guest printed nothing at all in {deadline.elapsed:.0f} s",
                    mend="its CPU model may lack what the kernel needs (page size), or the image is not for it",
                ) from error
            raise BootError(
                f"the guest was not ready after {deadline.elapsed:.0f} s; its last line: {self._last_line()}",
                detail=self.console_tail(),
            ) from error
        except (GuestDiedError, ChannelError) as error:
            raise BootError(
                f"the guest did not boot: {error}; its last line: {self._last_line()}",
                detail=self.console_tail(),
                died=isinstance(error, GuestDiedError),
            ) from error

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
) -> Iterator[Guest]:
    """Start a guest, cold or from ``snapshot``; everything it needs ends when the block is left.

    ``folder`` receives ``console.log`` (all the console printed), ``qemu.log`` (what QEMU and nbdkit said) and
    ``qemu.command``. ``ram`` names a memory file to fill for a snapshot. Call `Guest.ready` before anything else.
    Raises `ToolMissingError` without QEMU, `BootError` if QEMU does not even start.
    """
    console, log = folder / "console.log", folder / "qemu.log"
    with contextlib.ExitStack() as stack:
        disks = [disk.serve(one, stack, log) for one in shape.disks]
        ours_monitor, theirs_monitor = socket.socketpair()
        ours_channel, theirs_channel = socket.socketpair()
        # QEMU's ends are closed here once it has them, so that its death is the end of the stream.
        theirs = stack.enter_context(contextlib.ExitStack())
        for end in (theirs_monitor, theirs_channel):
            theirs.enter_context(end)
        stack.enter_context(ours_monitor)
        stack.enter_context(ours_channel)
        if snapshot is not None:
            shutil.copyfile(snapshot.console, console)  # the console's log is whole: boot and attempt
            ram = snapshot.ram
        descriptors = qemu.Descriptors(
            monitor=theirs_monitor.fileno(),
            channel=theirs_channel.fileno(),
            disks=tuple(one.fileno() for one in disks),
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
        for one in disks:
            one.close()
        try:
            monitor = Monitor(ours_monitor, seconds=_MONITOR_SECONDS * speed.scale)
        except (ChannelError, DeadlineError) as error:
            status = process.end()
            said = log.read_bytes()[-2000:].decode(errors="replace").strip().splitlines()
            raise BootError(
                f"QEMU did not start ({_describe_status(status)}): {said[-1] if said else error}",
                detail=shlex.join(command),
            ) from error
        stack.callback(monitor.close)
        guest = Guest(process=process, monitor=monitor, console=console, log=log, speed=speed)
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
    except (ChannelError, DeadlineError) as error:
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
