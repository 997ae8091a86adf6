"""The agent channel keeps the contract in real guests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from channel_contract import ChannelContract, Reached

if TYPE_CHECKING:
    from conftest import Prepare

pytestmark = pytest.mark.guest


@pytest.fixture(scope="class")
def reached(request: pytest.FixtureRequest, prepare: Prepare, class_folder: Path) -> Iterator[Reached]:
    spec, arch = request.cls.kernel
    prepared = prepare(spec, arch)
    with prepared.guest(class_folder) as guest:
        guest.ready()
        yield Reached(channel=guest.channel, arch=arch, release=prepared.kernel.release)


class TestDebian61(ChannelContract):
    kernel = ("debian:6.1", "x86_64")


class TestDebian61OnArm(ChannelContract):
    kernel = ("debian:6.1", "aarch64")


class TestDebian612(ChannelContract):
    kernel = ("debian:6.12", "x86_64")
