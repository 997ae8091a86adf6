"""What a snapshot depends on: each of it makes another key."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from test_qemu_command import TCG, FakeKernel

from harness import tools
from harness.arch import X86_64
from harness.guest import snapshot
from harness.guest.machine import Disk, MachineShape
from harness.guest.qemu import Acceleration
from harness.kernel.kernel import Kernel


class Booted(FakeKernel):
    content = "0123"


@pytest.fixture(autouse=True)
def _tools_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "find", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(tools, "identity", lambda name: f"{name} 1")


def key(tmp_path: Path, **more: Any) -> str:
    initramfs = tmp_path / "initramfs"
    initramfs.write_bytes(more.pop("packed", b"packed"))
    given: dict[str, Any] = {
        "kernel": cast(Kernel, Booted(X86_64)),
        "initramfs": initramfs,
        "shape": MachineShape(cpus=4, disks=(Disk(),)),
        "acceleration": TCG,
        "images": (Path("/cache/images/abc/image"),),
    }
    return snapshot.key(**(given | more))


@pytest.mark.parametrize(
    "other",
    [
        {"shape": MachineShape(cpus=3, disks=(Disk(),))},
        {"shape": MachineShape(cpus=4, memory_mib=513, disks=(Disk(),))},
        {"shape": MachineShape(cpus=4, numa_nodes=2, disks=(Disk(),))},
        {"shape": MachineShape(cpus=4, hugepages=1, disks=(Disk(),))},
        {"shape": MachineShape(cpus=4, cpu="qemu64", disks=(Disk(),))},
        {"shape": MachineShape(cpus=4, kernel_arguments=("x",), disks=(Disk(),))},
        {"shape": MachineShape(cpus=4, disks=(Disk(size_mib=65),))},
        {"shape": MachineShape(cpus=4, disks=(Disk(filesystem="ext4"),))},
        {"shape": MachineShape(cpus=4, disks=(Disk(), Disk()))},
        {"images": (Path("/cache/images/abd/image"),)},  # another mkfs made it
        {"acceleration": Acceleration(name="kvm")},
        {"packed": b"other"},
    ],
    ids=str,
)
def test_all_of_it_counts(tmp_path: Path, other: dict[str, Any]) -> None:
    assert key(tmp_path) == key(tmp_path)
    assert key(tmp_path, **other) != key(tmp_path)


def test_another_qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = key(tmp_path)
    monkeypatch.setattr(tools, "identity", lambda name: f"{name} 2")
    assert key(tmp_path) != before
