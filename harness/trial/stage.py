"""The stage of a trial: all that is made once and every attempt starts from."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

from harness.arch import Arch
from harness.cache import Cache
from harness.guest import accelerator, initramfs, snapshot
from harness.guest.accelerator import Proof
from harness.guest.guest import Guest, Snapshot, start
from harness.guest.machine import MachineShape
from harness.guest.speed import Speed
from harness.kernel.kernel import Kernel
from harness.program.compile import Compiled
from harness.program.init import compile_init
from harness.trial.subject import Subject

Tell = Callable[[str], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """What an attempt needs to begin: see `prepare`. ``snapshot`` is None when every attempt boots."""

    subject: Subject
    kernel: Kernel
    compiled: Compiled
    shape: MachineShape
    initramfs: Path
    proof: Proof
    speed: Speed
    snapshot: Snapshot | None = None

    @property
    def program_seconds(self) -> float:
        """How long the program may run: its own figure, scaled by the measured speed of guests here."""
        return self.subject.program.seconds * self.speed.scale

    def guest(self, folder: Path) -> contextlib.AbstractContextManager[Guest]:
        """A guest in the state every attempt begins from; ``folder`` gets its console."""
        return start(
            kernel=self.kernel,
            initramfs=self.initramfs,
            shape=self.shape,
            acceleration=self.proof.acceleration,
            speed=self.speed,
            folder=folder,
            snapshot=self.snapshot,
        )

    def with_snapshot(self, cache: Cache, keep: Path) -> Stage:
        """The same stage with its guests starting from a snapshot, made now if the cache has none.

        If the kernel does not boot, ``keep`` gets what there is of its console, and `BootError` is raised.
        """
        saved = snapshot.obtain(
            kernel=self.kernel,
            initramfs=self.initramfs,
            shape=self.shape,
            acceleration=self.proof.acceleration,
            speed=self.speed,
            cache=cache,
            keep=keep,
        )
        return dataclasses.replace(self, snapshot=saved)


def prepare(
    subject: Subject, kernel: Kernel, *, base: MachineShape, jobs: int, cache: Cache, tell: Tell
) -> Stage:
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
    return Stage(
        subject=subject,
        kernel=kernel,
        compiled=compiled,
        shape=shape,
        initramfs=packed,
        proof=proof,
        speed=proof.speed(load=_load(jobs, shape)),
    )


def _load(jobs: int, shape: MachineShape) -> float:
    """Virtual CPUs per core of the host when ``jobs`` guests run at once; beyond one, deadlines stretch."""
    return max(1.0, jobs * shape.cpus / (os.cpu_count() or 1))
