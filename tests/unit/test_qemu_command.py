"""QEMU's command line, a pure function."""

from __future__ import annotations

import dataclasses
import platform
import re
from pathlib import Path
from typing import Any, cast

import pytest

from harness import tools
from harness.arch import AARCH64, ARCHES, X86_64, Arch
from harness.guest import qemu
from harness.guest.machine import Disk, MachineShape
from harness.guest.ticks import host_khz
from harness.kernel.kernel import Kernel

TCG = qemu.Acceleration(name="tcg")
KVM = qemu.Acceleration(name="kvm")


@dataclasses.dataclass
class FakeKernel:
    arch: Arch
    image: Path = Path("/boot/image")


@pytest.fixture(autouse=True)
def _tools_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "find", lambda name: f"/usr/bin/{name}")


def command(arch: Arch = X86_64, shape: MachineShape | None = None, **more: Any) -> list[str]:
    shape = shape or MachineShape()
    given: dict[str, Any] = {
        "kernel": cast(Kernel, FakeKernel(arch)),
        "initramfs": Path("/cache/initramfs"),
        "shape": shape,
        "acceleration": TCG,
        "console": Path("/run/console.log"),
        "descriptors": qemu.Descriptors(monitor=5, channel=6, disks=tuple(range(7, 7 + len(shape.disks)))),
    }
    return qemu.command(**(given | more))


def values(line: list[str], option: str) -> list[str]:
    """The arguments of every ``option`` on the line."""
    return [line[i + 1] for i, word in enumerate(line) if word == option]


@pytest.mark.parametrize("arch", ARCHES.values(), ids=ARCHES)
def test_the_guest_reaches_nothing(arch: Arch) -> None:
    line = command(arch, MachineShape(disks=(Disk(), Disk())))
    assert {"-nodefaults", "-no-user-config"} <= set(line)
    assert not {"-net", "-netdev", "-nic", "-virtfs", "-fsdev", "-monitor", "-qmp"} & set(line)
    assert not re.search(r"virtio-net|e1000|hostfwd|server=on|socket,[^ ]*(path|host)=", " ".join(line))


def test_a_guest_that_gets_the_hosts_counter_is_told_its_rate() -> None:
    def told(arch: Arch, name: str, khz: int | None) -> list[str]:
        line = command(arch, acceleration=qemu.Acceleration(name=name, host_khz=khz))
        return [word for word in values(line, "-append")[0].split() if "khz" in word]

    assert told(X86_64, "tcg", 2445436) == ["tsc_early_khz=2445436"]
    assert told(X86_64, "tcg", None) == told(X86_64, "kvm", 2445436) == told(AARCH64, "tcg", 2445436) == []


@pytest.mark.skipif(platform.machine() != "x86_64", reason="no such counter")
def test_the_hosts_counter_has_a_steady_rate() -> None:
    first, second = host_khz(), host_khz()
    assert first
    assert second
    assert abs(first - second) < first / 1000
    assert 100_000 < first < 20_000_000


@pytest.mark.parametrize("arch", ARCHES.values(), ids=ARCHES)
def test_architecture_comes_from_its_record(arch: Arch) -> None:
    line = command(arch)
    assert line[0].endswith(arch.qemu)
    assert values(line, "-cpu") == [arch.cpu]
    assert values(line, "-machine") == [f"{arch.machine},memory-backend=ram0"]
    (words,) = values(line, "-append")
    assert words.split()[0] == f"console={arch.console}"
    assert set(arch.kernel_arguments) <= set(words.split())


def test_a_panic_ends_qemu_and_is_reported() -> None:
    line = command()
    assert {"panic=-1", "oops=panic"} <= set(values(line, "-append")[0].split())
    assert values(line, "-action") == ["reboot=shutdown,panic=none"]
    assert "pvpanic-pci" in values(line, "-device")


def test_shape_is_obeyed() -> None:
    shape = MachineShape(cpus=3, memory_mib=768, cpu="qemu64", kernel_arguments=("slub_debug=F", "x=1"))
    line = command(shape=shape)
    assert values(line, "-smp") == ["3"]
    assert values(line, "-m") == ["768M"]
    assert values(line, "-cpu") == ["qemu64"]
    assert values(line, "-append")[0].endswith("cowpen.channel=agent slub_debug=F x=1")
    assert values(line, "-object") == ["memory-backend-ram,id=ram0,size=768M"]


def test_kvm_runs_the_hosts_processor() -> None:
    line = command(acceleration=KVM)
    assert values(line, "-accel") == ["kvm"]
    assert values(line, "-cpu") == [X86_64.kvm_cpu]


def test_numa_nodes_share_cpus_and_memory() -> None:
    shape = MachineShape(cpus=5, memory_mib=513, numa_nodes=2)
    line = command(shape=shape)
    assert values(line, "-object") == [
        "memory-backend-ram,id=ram0,size=257M",
        "memory-backend-ram,id=ram1,size=256M",
    ]
    assert values(line, "-numa") == [
        "node,nodeid=0,cpus=0-2,memdev=ram0",
        "node,nodeid=1,cpus=3-4,memdev=ram1",
    ]
    assert values(line, "-machine") == [X86_64.machine]  # or the machine would have more memory besides
    assert values(line, "-m") == ["513M"]
    saving = command(shape=shape, ram=Path("/cache"))
    assert [word.partition("mem-path=")[2] for word in values(saving, "-object")] == [
        f"/cache/{name},share=on" for name in qemu.memory_files(shape)
    ]


def test_one_node_is_no_numa() -> None:
    assert values(command(), "-numa") == []
    assert values(command(), "-smp") == ["2"]


def test_huge_pages_are_asked_for_at_boot() -> None:
    assert "hugepages=7" in values(command(shape=MachineShape(hugepages=7)), "-append")[0].split()
    assert "hugepages" not in values(command(), "-append")[0]


def test_memory_file_is_shared_to_save_and_private_to_restore() -> None:
    saving = command(ram=Path("/cache/a,b"))
    assert values(saving, "-object") == [
        "memory-backend-file,id=ram0,size=512M,mem-path=/cache/a,,b/ram0,share=on"
    ]
    assert "-incoming" not in saving
    restoring = command(ram=Path("/cache"), restoring=True)
    assert values(restoring, "-object")[0].endswith("share=off")
    assert values(restoring, "-incoming") == ["defer"]


def test_each_disk_has_its_own_connection() -> None:
    line = command(shape=MachineShape(disks=(Disk(), Disk(read_delay_ms=20))))
    assert values(line, "-blockdev") == [
        "driver=nbd,node-name=disk0,server.type=fd,server.str=7",
        "driver=nbd,node-name=disk1,server.type=fd,server.str=8",
    ]
    assert [word for word in values(line, "-device") if "blk" in word] == [
        "virtio-blk-pci,drive=disk0",
        "virtio-blk-pci,drive=disk1",
    ]


@pytest.mark.parametrize("channel", ["agent", "serial", "shell"])
def test_console_is_logged_whole_whatever_the_channel(channel: str) -> None:
    line = command(AARCH64, MachineShape(channel=channel), console=Path("/run/a,b/console.log"))
    (log,) = [word for word in values(line, "-chardev") if "/run/a,,b/console.log" in word]
    assert "append=on" in log
    assert ("fd=6" in log) == (channel != "agent")
    assert values(line, "-serial") == ["chardev:console"]
    assert f"cowpen.channel={channel}" in values(line, "-append")[0].split()
    assert any(qemu.PORT_NAME in word for word in values(line, "-device")) == (channel == "agent")
