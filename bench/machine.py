"""On what was measured: without it no figure means anything."""

from __future__ import annotations

import dataclasses
import platform
import time
from pathlib import Path
from typing import Any

from bench.report import Options
from harness import tools
from harness.guest import accelerator
from harness.trial.jobs import cores


@dataclasses.dataclass(frozen=True, kw_only=True)
class Machine:
    """The host of a run of benchmarks."""

    date: str
    cpu: str
    cores: int
    memory_gib: float
    kernel: str
    qemu: dict[str, str]
    """Version by architecture of the guest."""
    accelerator: dict[str, str]
    """``tcg`` or ``kvm`` by architecture of the guest, where it has been proved."""

    @classmethod
    def here(cls, options: Options) -> Machine:
        """This host; ask when guests have been run, for they prove the accelerator."""
        proofs = {arch.name: accelerator.remembered(arch, options.cache) for arch in options.arches}
        return cls(
            date=time.strftime("%Y-%m-%d"),
            cpu=_first("/proc/cpuinfo", "model name", "CPU part"),
            cores=cores(),
            memory_gib=round(int(_first("/proc/meminfo", "MemTotal").split()[0]) / (1 << 20), 1),
            kernel=platform.release(),
            qemu={arch.name: _version(arch.qemu) for arch in options.arches},
            accelerator={name: proof.accelerator for name, proof in proofs.items() if proof},
        )

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def text(self) -> str:
        """One line for the reader of a table."""
        emulators = " and ".join(sorted(set(self.qemu.values())))
        parts = [f"{self.cpu}, {self.cores} cores, {self.memory_gib:.0f} GiB", f"QEMU {emulators}"]
        parts += [f"{arch} by {name.upper()}" for arch, name in self.accelerator.items()]
        return f"Measured on {self.date}: {'; '.join(parts)}."


def _first(file: str, *keys: str) -> str:
    """The value of the first line of ``file`` that begins with one of ``keys``."""
    for line in Path(file).read_text(encoding="utf-8", errors="replace").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in keys:
            return value.strip()
    return "unknown"


def _version(qemu: str) -> str:
    # "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)"
    return tools.run([qemu, "--version"], seconds=30).stdout.split()[3]
