"""What a trial needs to know of its kernel, whether cowpen booted it or found it running."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from harness.arch import Arch


class KernelFacts(Protocol):
    """A `harness.kernel.kernel.Kernel`, or the kernel of a machine that already runs."""

    @property
    def spec(self) -> str: ...
    @property
    def arch(self) -> Arch: ...
    @property
    def release(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def provenance(self) -> dict[str, Any]: ...
    @property
    def config(self) -> Path | None: ...
    @property
    def display(self) -> str: ...
    def config_value(self, name: str) -> str | None: ...
