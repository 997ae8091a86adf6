"""The stage of a trial: all that is made once and every attempt starts from.

There are two: `GuestStage` here, and `harness.trial.running.RunningStage` for a machine that already runs.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from harness.arch import Arch
from harness.cache import Cache
from harness.errors import BootError, ChannelError, DeadlineError, HostError
from harness.guest import accelerator, initramfs, snapshot
from harness.guest.accelerator import Proof
from harness.guest.channel import Channel, Greeting
from harness.guest.guest import Guest, Snapshot, start
from harness.guest.machine import MachineShape
from harness.guest.speed import Speed
from harness.kernel.kernel import Kernel
from harness.program.compile import Compiled
from harness.program.init import compile_init
from harness.trial.facts import KernelFacts
from harness.trial.jobs import cores
from harness.trial.subject import Subject

Tell = Callable[[str], None]


class Machine(Protocol):
    """What an attempt runs in: a guest, or a machine that already runs."""

    @property
    def channel(self) -> Channel: ...
    def ready(self) -> Greeting:
        """Wait until it answers; `BootError` if it does not."""

    def check(self) -> None:
        """Raise `GuestDiedError` if it is gone."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage(abc.ABC):
    """What an attempt needs to begin."""

    subject: Subject
    compiled: Compiled
    speed: Speed

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

    @property
    def program_seconds(self) -> float:
        """How long the program may run: its own figure, scaled by the measured speed of guests here."""
        return self.subject.program.seconds * self.speed.scale


@dataclasses.dataclass(frozen=True, kw_only=True)
class GuestStage(Stage):
    """The stage of trials in guests: see `prepare`. ``snapshot`` is None when every attempt boots.

    ``cold``: every attempt is to boot.
    """

    booted: Kernel
    shape: MachineShape
    initramfs: Path
    proof: Proof
    cold: bool = False
    snapshot: Snapshot | None = None

    @property
    def kernel(self) -> Kernel:
        return self.booted

    def setup(self) -> dict[str, Any]:
        return {
            "accelerator": {"name": self.proof.accelerator, "reason": self.proof.reason},
            "snapshot": self.snapshot is not None,
            "shape": dataclasses.asdict(self.shape),
        }

    def machine(self, folder: Path) -> contextlib.AbstractContextManager[Guest]:
        """A guest in the state every attempt begins from; ``folder`` gets its console."""
        return start(
            kernel=self.booted,
            initramfs=self.initramfs,
            shape=self.shape,
            acceleration=self.proof.acceleration,
            speed=self.speed,
            folder=folder,
            snapshot=self.snapshot,
        )

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
                keep=keep,
            )
        except BootError:
            raise
        except (ChannelError, DeadlineError, HostError) as error:
            tell(f"no snapshot ({error}): every attempt boots")
            return self
        return dataclasses.replace(self, snapshot=saved)


def prepare(
    subject: Subject, kernel: Kernel, *, base: MachineShape, cold: bool, jobs: int, cache: Cache, tell: Tell
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
    packed = initramfs.obtain(kernel, shape, init, cache)
    proof = accelerator.prove(kernel, init, cache, tell=tell)
    return GuestStage(
        subject=subject,
        booted=kernel,
        compiled=compiled,
        shape=shape,
        initramfs=packed,
        proof=proof,
        cold=cold,
        speed=proof.speed(load=_load(jobs, shape)),
    )


def _load(jobs: int, shape: MachineShape) -> float:
    """Virtual CPUs per core of the host when ``jobs`` guests run at once; beyond one, deadlines stretch."""
    return max(1.0, jobs * shape.cpus / cores())
