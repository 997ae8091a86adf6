"""Trials on a machine that already runs, over SSH.

cowpen neither boots nor resets it, so the attempts of such a trial are *not* independent: what one attempt did to
the machine the next one finds. That is said when the trial begins.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.arch import Arch, get_arch
from harness.cache import Cache
from harness.errors import BootError, GuestError, HostError, Tell, UserError
from harness.guest import ssh
from harness.guest.channel import Channel, Ending, Greeting, Stream
from harness.guest.speed import REFERENCE_BOOT_SECONDS, Speed
from harness.program.init import compile_init
from harness.trial.facts import KernelFacts
from harness.trial.stage import Machine, Stage
from harness.trial.subject import Subject

_HELLO_SECONDS = 30.0
_DMESG_SECONDS = 30.0
_LOG_LIMIT = 32 << 20
_VERSION = re.compile(r"\d+\.\d+(?:\.\d+)?")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunningKernel:
    """The kernel of a machine that already runs: what ``uname`` says, and no files."""

    spec: str
    arch: Arch
    release: str
    config: None = None
    vmlinux: None = None
    modules: None = None
    system_map: None = None

    @property
    def version(self) -> str:
        """The upstream version the release begins with; distributions may mean a later one by it."""
        found = _VERSION.match(self.release)
        return found.group() if found else "unknown"

    @property
    def provenance(self) -> dict[str, Any]:
        return {"kind": "running", "machine": self.spec, "release": self.release}

    @property
    def display(self) -> str:
        return f"{self.spec}  ({self.release})"

    def config_value(self, name: str) -> str | None:
        return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reach:
    """How the machine is reached, and with whose keys."""

    address: ssh.Address
    identity: Path | None
    known_hosts: Path | None
    cache: Cache

    def connect(self) -> ssh.SshChannel:
        """A new channel; raises as `ssh.connect`."""
        return ssh.connect(
            self.address,
            lambda machine: compile_init(get_arch(machine), self.cache),
            identity=self.identity,
            known_hosts=self.known_hosts,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunningTarget:
    """A `Target` that already runs; make one with `reach`."""

    via: Reach
    greeting: Greeting

    @property
    def spec(self) -> str:
        return str(self.via.address)

    @property
    def arch(self) -> Arch:
        return get_arch(self.greeting.machine)

    def kernel(self, cache: Cache, tell: Tell) -> RunningKernel:
        return RunningKernel(spec=self.spec, arch=self.arch, release=self.greeting.release)

    def stage(self, subject: Subject, kernel: RunningKernel, cache: Cache, tell: Tell) -> RunningStage:
        if "device" in subject.program.parameters and "device" not in subject.settings:
            raise UserError(
                f"{subject.name} may overwrite the disk it uses, and {self.spec} is not a throw-away guest",
                mend="name a disk or file there that may be lost: --set device=PATH",
            )
        tell(f"{self.spec} is not reset between attempts: they are not independent")
        return RunningStage(
            subject=subject,
            compiled=subject.compile(self.arch, cache),
            # Nothing measured: a real machine is taken to be as fast as the reference guest, at least.
            speed=Speed(boot_seconds=REFERENCE_BOOT_SECONDS),
            found=kernel,
            via=self.via,
        )


def reach(
    address: ssh.Address, *, identity: Path | None, known_hosts: Path | None, cache: Cache
) -> RunningTarget:
    """Connect once to learn what machine that is; raises `HostError` if it cannot be reached or trusted."""
    via = Reach(address=address, identity=identity, known_hosts=known_hosts, cache=cache)
    with via.connect() as channel:
        return RunningTarget(via=via, greeting=channel.hello(seconds=_HELLO_SECONDS))


class Running:
    """A `Machine` that already runs, for one attempt."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel

    def ready(self) -> Greeting:
        return self.channel.hello(seconds=_HELLO_SECONDS)

    def check(self) -> None:
        """Nothing: a machine that goes away is noticed by the next use of its channel."""

    def examine(self, why: str) -> bool:
        """Nothing: it cannot be seen from outside, and others may use it."""
        return True


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunningStage(Stage):
    """Attempts on a machine that already runs, each in an SSH session of its own."""

    found: RunningKernel
    via: Reach

    @property
    def kernel(self) -> KernelFacts:
        return self.found

    def setup(self) -> dict[str, Any]:
        return {"machine": self.found.spec}

    def furnish(self, machine: Machine) -> None:
        """Nothing: it is as its owner made it."""

    @contextlib.contextmanager
    def machine(self, folder: Path) -> Iterator[Running]:
        """The machine; its kernel's log from the attempt's begin to its end becomes ``console.log``."""
        try:
            channel = self.via.connect()
        except (HostError, GuestError) as error:
            (folder / "console.log").touch()
            raise BootError(str(error)) from error
        with channel:
            console = folder / "console.log"
            marker = f"cowpen: attempt {secrets.token_hex(8)} begins"
            _mark(channel, marker)
            try:
                yield Running(channel)
            except (GuestError, HostError):
                # That trouble is what the attempt came to; the log is only what may explain it.
                console.touch()
                with contextlib.suppress(GuestError, HostError):
                    console.write_bytes(_since(marker, _kernel_log(channel)))
                raise
            # A log that cannot be read now is trouble: without it nobody knows that the kernel stayed silent.
            console.write_bytes(_since(marker, _kernel_log(channel)))


def _mark(channel: Channel, marker: str) -> None:
    """Write a line into the kernel's log: the buffer is a ring, so no count of bytes says where an attempt began."""
    ended = channel.run(["/bin/sh", "-c", f'echo "{marker}" > /dev/kmsg'], seconds=_DMESG_SECONDS)
    if ended.ending is not Ending.EXITED or ended.code != 0:
        raise HostError("cannot write to the machine's kernel log", mend="log in as root there")


def _since(marker: str, log: bytes) -> bytes:
    """What the kernel printed after ``marker``; `HostError` if the ring has lost it, for then it lost more."""
    _, found, after = log.rpartition(marker.encode())
    if not found:
        raise HostError(
            "the machine's kernel log does not reach back to the attempt's begin",
            mend="give it a larger one: log_buf_len=16M on its kernel command line",
        )
    return after.partition(b"\n")[2]


def _kernel_log(channel: Channel) -> bytes:
    """The kernel's log buffer; `HostError` if the user there may not read it, for then nobody sees an oops."""
    printed: dict[Stream, bytearray] = {stream: bytearray() for stream in Stream}

    def keep(stream: Stream, data: bytes) -> None:
        if len(printed[stream]) < _LOG_LIMIT:
            printed[stream].extend(data)

    # -r: the level of each line tells what a process wrote to /dev/kmsg from the kernel's own words.
    ended = channel.run(["/bin/sh", "-c", "dmesg -r"], seconds=_DMESG_SECONDS, on_output=keep)
    if ended.ending is not Ending.EXITED or ended.code != 0:
        raise HostError(
            f"cannot read the machine's kernel log ({printed[Stream.STDERR].decode(errors='replace').strip()})",
            mend="log in as root, or allow dmesg there: sysctl kernel.dmesg_restrict=0",
        )
    return bytes(printed[Stream.STDOUT])
