"""Guests to look into while they run: as `harness.trial.attempt` starts them for forkscrew on a stock kernel."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.report import Options
from bench.runs import BUG, KERNEL
from harness.arch import Arch
from harness.guest.guest import Guest
from harness.guest.machine import MachineShape
from harness.trial.stage import GuestStage
from harness.trial.subject import bug_subjects
from harness.trial.target import GuestTarget

PUSH_SECONDS = 60.0


def stage(arch: Arch, options: Options, *, cold: bool = False) -> GuestStage:
    """What the attempts of a trial begin from; ready to start guests."""
    (subject,) = bug_subjects(BUG, {})
    target = GuestTarget(spec=KERNEL, arch=arch, base=MachineShape(), cold=cold)
    kernel = target.kernel(options.cache, options.tell)
    prepared = target.stage(subject, kernel, options.cache, options.tell)
    with tempfile.TemporaryDirectory(prefix="cowpen-bench-") as folder:
        return prepared.primed(options.cache, Path(folder), options.tell)


@contextmanager
def guests(prepared: GuestStage, count: int) -> Iterator[list[Guest]]:
    """So many guests side by side, none of which has been greeted yet."""
    with ExitStack() as stack:
        started = []
        for _ in range(count):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cowpen-bench-")))
            started.append(stack.enter_context(prepared.machine(folder)))
        yield started


def push_program(prepared: GuestStage, guest: Guest) -> str:
    """Push the bug's program; its path in the guest."""
    path = f"/tmp/{prepared.subject.program.name}"
    guest.channel.push_file(prepared.compiled.binary, path, seconds=PUSH_SECONDS * prepared.speed.scale)
    return path
