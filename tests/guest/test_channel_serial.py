"""The serial channel keeps the contract in real guests, also while the kernel talks on the same line."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from channel_contract import EVERY_BYTE, ChannelContract, Program, Reached

from harness.guest.machine import MachineShape

if TYPE_CHECKING:
    from conftest import Prepare

pytestmark = pytest.mark.guest


class _Serial(ChannelContract):
    big_file = 1 << 16
    beyond_buffers = 1 << 13
    big_output = 1 << 15
    tells_threads = False  # a line of 10 KiB/s has no room for stacks


@pytest.fixture(scope="class")
def reached(request: pytest.FixtureRequest, prepare: Prepare, class_folder: Path) -> Iterator[Reached]:
    spec, arch = request.cls.kernel
    prepared = prepare(spec, arch, MachineShape(channel="serial"), with_helper=True)
    with prepared.guest(class_folder) as guest:
        guest.ready()
        yield Reached(
            channel=guest.channel,
            arch=arch,
            release=prepared.kernel.release,
            helper="/bin/helper",
            guest=guest,
        )


class _WhileTheKernelTalks:
    """Last, in a guest of its own: the messages go on until its end."""

    def test_files_and_runs_are_whole(self, reached: Reached, program: Program) -> None:
        assert reached.guest is not None
        ended, _ = program("spew", "1000")  # a second, or as many as the line can take
        assert ended.code == 0
        before = reached.guest.console.stat().st_size
        content = EVERY_BYTE * 64
        begun = time.monotonic()
        reached.channel.push(content, "/tmp/content", seconds=60)
        assert reached.channel.pull("/tmp/content", seconds=60) == content
        for number in range(3):
            assert program.says("args", str(number)) == f"{number}\0"
        assert time.monotonic() - begun < 60
        console = reached.guest.console.read_bytes()[before:]
        assert console.count(b"helper: spew") > 20


class TestDebian61(_Serial):
    kernel = ("debian:6.1", "x86_64")


class TestDebian61OnArm(_Serial):
    kernel = ("debian:6.1", "aarch64")


class TestDebian61WhileTheKernelTalks(_WhileTheKernelTalks):
    kernel = ("debian:6.1", "x86_64")


class TestDebian61OnArmWhileTheKernelTalks(_WhileTheKernelTalks):
    kernel = ("debian:6.1", "aarch64")
