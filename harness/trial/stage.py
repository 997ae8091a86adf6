"""The stage of a trial: all that is made once and every attempt starts from.

There are two: `GuestStage` here, and `harness.trial.running.RunningStage` for a machine that already runs.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from harness.arch import Arch
from harness.cache import Cache
from harness.errors import BootError, ChannelError, DeadlineError, HostError, SnapshotError, Tell
from harness.guest import accelerator, disk, furnish, initramfs, snapshot
from harness.guest.accelerator import Proof
from harness.guest.channel import Channel, Greeting
from harness.guest.guest import Guest, Snapshot, start
from harness.guest.machine import MachineShape
from harness.guest.speed import Speed, share
from harness.kernel.kernel import Kernel
from harness.program.compile import Compiled
from harness.program.init import compile_init
from harness.trial.facts import KernelFacts
from harness.trial.jobs import Jobs, cores
from harness.trial.probe import check_options, check_symbols
from harness.trial.subject import Subject

# How QEMU ends when somebody wants it to: that says nothing about the snapshot.
_KILLED = (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT)


class Machine(Protocol):
    """What an attempt runs in: a guest, or a machine that already runs."""

    @property
    def channel(self) -> Channel: ...
    def ready(self) -> Greeting:
        """Wait until it answers; `BootError` if it does not."""

    def check(self) -> None:
        """Raise `GuestDiedError` if it is gone."""

    def examine(self, why: str) -> bool:
        """Write what it does while it hangs into its console's log, if that can be seen; whether it can go on."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage(abc.ABC):
    """What an attempt needs to begin."""

    subject: Subject
    compiled: Compiled
    speed: Speed
    jobs: int = 1
    """Attempts at once."""
    probed: threading.Event = dataclasses.field(default_factory=threading.Event, compare=False)
    """Set once the running kernel has been found to have what the bug needs: all attempts meet the same kernel."""

    @property
    @abc.abstractmethod
    def kernel(self) -> KernelFacts:
        """The kernel the attempts meet."""

    @abc.abstractmethod
    def machine(self, folder: Path) -> contextlib.AbstractContextManager[Machine]:
        """A machine in the state every attempt begins from; ``folder`` gets its ``console.log``."""

    @abc.abstractmethod
    def setup(self) -> dict[str, Any]:
        """What is particular to the machines of this stage, for the kept results."""

    def primed(self, cache: Cache, keep: Path, tell: Tell) -> Stage:
        """The stage with all done that attempts share, such as a boot; may take as long as one.

        If the kernel does not boot, ``keep`` gets what there is of its console, and `BootError` is raised.
        """
        return self

    def renewed(self, cache: Cache, keep: Path, tell: Tell) -> Stage:
        """The stage after an attempt met a `SnapshotError`: the others begin from something else, and that is said."""
        return self

    @abc.abstractmethod
    def furnish(self, machine: Machine) -> None:
        """Make a ready machine what the program needs; raises as `harness.guest.furnish.furnish`."""

    def probe(self, machine: Machine) -> None:
        """`UnsupportedError` if the running kernel lacks something, as far as no file told so before it ran."""
        if self.probed.is_set():
            return
        scale, record = self.speed.scale, self.subject.record
        check_symbols(machine.channel, self.subject.wanted_symbols, scale=scale)
        if record is not None and self.kernel.config is None:
            check_options(machine.channel, record.needs, self.kernel.release, scale=scale)
        self.probed.set()

    @property
    def program_seconds(self) -> float:
        """How long the program may run: its own figure, scaled by the measured speed of guests here."""
        return self.subject.program.seconds * self.speed.scale


@dataclasses.dataclass(frozen=True, kw_only=True)
class GuestStage(Stage):
    """The stage of trials in guests: see `prepare`. ``snapshot`` is None when every attempt boots.

    ``cold``: every attempt is to boot. ``images`` are what the disks hold. ``was_renewed``: a snapshot has failed.
    """

    booted: Kernel
    shape: MachineShape
    initramfs: Path
    proof: Proof
    images: tuple[Path | None, ...] = ()
    cold: bool = False
    snapshot: Snapshot | None = None
    was_renewed: bool = False

    @property
    def kernel(self) -> Kernel:
        return self.booted

    def setup(self) -> dict[str, Any]:
        return {
            "accelerator": {"name": self.proof.accelerator, "reason": self.proof.reason},
            "snapshot": self.snapshot is not None,
            "shape": dataclasses.asdict(self.shape),
        }

    @contextlib.contextmanager
    def machine(self, folder: Path) -> Iterator[Guest]:
        """A guest in the state every attempt begins from; ``folder`` gets its console.

        Raises `SnapshotError` if it does not come up from its snapshot.
        """
        if self.snapshot is not None:
            trouble = snapshot.damage(self.snapshot, self.shape)
            if trouble:
                raise SnapshotError(f"the snapshot is no good: {trouble}")
        killed = False
        try:
            with start(
                kernel=self.booted,
                initramfs=self.initramfs,
                shape=self.shape,
                acceleration=self.proof.acceleration,
                speed=self.speed,
                folder=folder,
                snapshot=self.snapshot,
                images=self.images,
            ) as guest:
                try:
                    yield guest
                except BootError:
                    killed = guest.process.poll() in _KILLED
                    raise
        except BootError as error:
            if self.snapshot is None or killed:
                raise
            raise SnapshotError(
                f"the guest did not come up from its snapshot: {error.message}", detail=error.detail
            ) from error

    def primed(self, cache: Cache, keep: Path, tell: Tell) -> GuestStage:
        """With a snapshot, made now if the cache has none; where the host cannot make one that is said."""
        if self.cold or self.shape.channel != "agent":
            return self
        try:
            saved = snapshot.obtain(
                kernel=self.booted,
                initramfs=self.initramfs,
                shape=self.shape,
                acceleration=self.proof.acceleration,
                speed=self.speed,
                cache=cache,
                images=self.images,
                keep=keep,
                tell=tell,
            )
        except BootError:
            raise
        except (ChannelError, DeadlineError, HostError) as error:
            tell(f"no snapshot ({error}): every attempt boots")
            return self
        return dataclasses.replace(self, snapshot=saved)

    def renewed(self, cache: Cache, keep: Path, tell: Tell) -> GuestStage:
        """With another snapshot once, without any from then on."""
        assert self.snapshot is not None and self.snapshot.held is not None
        cache.drop(self.snapshot.held)
        bare = dataclasses.replace(self, snapshot=None, was_renewed=True)
        if self.was_renewed:
            tell("dropped a second snapshot that does not start: every further attempt boots")
            return dataclasses.replace(bare, cold=True)
        tell("dropped a snapshot that does not start, to make another")
        try:
            return bare.primed(cache, keep, tell)
        except BootError as error:
            tell(f"no snapshot ({error}): every further attempt boots")
            return dataclasses.replace(bare, cold=True)

    def furnish(self, machine: Machine) -> None:
        """File systems mounted, and the shape seen to be there."""
        furnish.furnish(machine.channel, self.shape, scale=self.speed.scale)


def prepare(
    subject: Subject, kernel: Kernel, *, base: MachineShape, cold: bool, jobs: Jobs, cache: Cache, tell: Tell
) -> GuestStage:
    """Compile, pack and prove what the attempts of a trial need; no guest of the trial runs yet.

    Raises `BuildError`, `HostError`, `UserError` for what can go wrong with that.
    """
    arch: Arch = kernel.arch
    compiled = subject.compile(arch, cache)
    if compiled.warnings:
        tell(f"{subject.name}: the compiler warns:\n{compiled.warnings.rstrip()}")
    init = compile_init(arch, cache)
    shape = subject.shape(base)
    shape.check(kernel.page_size)
    packed = initramfs.obtain(kernel, shape, init, cache)
    proof = accelerator.prove(kernel, init, cache, tell=tell)
    at_once = jobs.of(shape, tell)
    return GuestStage(
        subject=subject,
        booted=kernel,
        compiled=compiled,
        shape=shape,
        initramfs=packed,
        proof=proof,
        images=disk.images(shape, cache),
        cold=cold,
        speed=proof.speed(load=share(at_once * shape.cpus / cores())),
        jobs=at_once,
    )
