"""On what a trial runs: a kernel to boot, or a machine that already runs."""

from __future__ import annotations

import dataclasses
from typing import Protocol, TypeVar

from harness.arch import Arch
from harness.cache import Cache
from harness.errors import Tell
from harness.guest.machine import MachineShape
from harness.kernel.kernel import Kernel, resolve
from harness.trial.facts import KernelFacts
from harness.trial.jobs import Jobs
from harness.trial.stage import GuestStage, Stage, prepare
from harness.trial.subject import Subject

K = TypeVar("K", bound=KernelFacts)


class Target(Protocol[K]):
    """``spec`` names it for the user; both methods raise what can go wrong with setting up a trial."""

    @property
    def spec(self) -> str: ...
    @property
    def arch(self) -> Arch: ...

    def kernel(self, cache: Cache, tell: Tell) -> K:
        """Find, and if need be fetch, the kernel."""

    def stage(self, subject: Subject, kernel: K, cache: Cache, tell: Tell) -> Stage:
        """Prepare what the attempts begin from."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class GuestTarget:
    """Guests that boot the kernel of ``spec``. ``base`` is what the user wants of the machine at least."""

    spec: str
    arch: Arch
    base: MachineShape
    jobs: Jobs = dataclasses.field(default_factory=Jobs)
    cold: bool = False
    """Boot for every attempt instead of starting from a snapshot."""

    def kernel(self, cache: Cache, tell: Tell) -> Kernel:
        return resolve(self.spec, self.arch, cache, tell=tell)

    def stage(self, subject: Subject, kernel: Kernel, cache: Cache, tell: Tell) -> GuestStage:
        return prepare(
            subject, kernel, base=self.base, cold=self.cold, jobs=self.jobs, cache=cache, tell=tell
        )
