"""The life and death of real guests: every end is noticed, said and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from channel_contract import SECONDS, Program, Reached

from harness.errors import BootError, ChannelError, DeadlineError, GuestDiedError
from harness.guest import guest as guests
from harness.guest.guest import Guest, Snapshot
from harness.guest.machine import Disk, MachineShape

if TYPE_CHECKING:
    from conftest import Prepare, Prepared

pytestmark = pytest.mark.guest

ARCH = "x86_64"
SHAPE = MachineShape(disks=(Disk(size_mib=16),))


@pytest.fixture(scope="module")
def prepared(prepare: Prepare) -> Prepared:
    return prepare("debian:6.1", ARCH, SHAPE, with_helper=True)


@pytest.fixture(scope="module")
def saved(prepared: Prepared) -> Snapshot:
    return prepared.snapshot()


@pytest.fixture
def guest(prepared: Prepared, saved: Snapshot, tmp_path: Path) -> Iterator[Guest]:
    with prepared.guest(tmp_path, saved) as guest:
        guest.ready()
        yield guest


def helper_of(guest: Guest) -> Program:
    return Program(Reached(channel=guest.channel, arch=ARCH, release="", helper="/bin/helper"), b"")


def later(seconds: float, action: Callable[[], object]) -> threading.Timer:
    timer = threading.Timer(seconds, action)
    timer.start()
    return timer


def children() -> set[int]:
    """The processes this one has started and that have not been waited for."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        found |= {int(word) for word in (task / "children").read_text().split()}
    return found


def test_end_of_qemu_is_noticed_within_a_second(guest: Guest) -> None:
    killed = []

    def kill() -> None:
        killed.append(time.monotonic())
        os.kill(guest.process.pid, signal.SIGKILL)

    later(0.5, kill)
    with pytest.raises(GuestDiedError, match="killed by signal 9"):
        helper_of(guest)("forever", seconds=SECONDS)
    assert time.monotonic() - killed[0] < 1


def test_panic_in_the_midst_of_a_run(guest: Guest) -> None:
    program = helper_of(guest)
    program.says("write", "/proc/sys/kernel/sysrq", "1")
    begun = time.monotonic()
    with pytest.raises(GuestDiedError, match="the kernel panicked"):
        program("write", "/proc/sysrq-trigger", "c")
    assert time.monotonic() - begun < 20
    console = guest.console.read_bytes()
    assert b"sysrq: Trigger a crash" in console
    assert b"Kernel panic - not syncing" in console
    # To its very end: QEMU was given time to write what the kernel printed last.
    assert b"---[ end Kernel panic" in console or b"Rebooting in" in console or b"Kernel Offset" in console


@pytest.mark.parametrize(
    ("what", "words"), [("power-off", "switched itself off"), ("reboot", "reset itself")]
)
def test_guest_that_leaves_by_itself(guest: Guest, what: str, words: str) -> None:
    begun = time.monotonic()
    with pytest.raises(GuestDiedError, match=words):
        helper_of(guest)(what)
    assert time.monotonic() - begun < 20


def test_deadline_holds_over_a_stopped_qemu(prepared: Prepared, saved: Snapshot, tmp_path: Path) -> None:
    with prepared.guest(tmp_path, saved) as guest:
        guest.ready()
        pid = guest.process.pid
        os.kill(pid, signal.SIGSTOP)
        begun = time.monotonic()
        with pytest.raises(DeadlineError, match="/proc/version"):
            guest.channel.pull("/proc/version", seconds=1)
        assert time.monotonic() - begun < 2
        begun = time.monotonic()
    assert time.monotonic() - begun < 12
    assert not Path(f"/proc/{pid}").exists()


def test_kernel_that_never_becomes_ready(prepare: Prepare, tmp_path: Path) -> None:
    """It panics for want of an init: the error says so, and the console has it all."""
    prepared = prepare(
        "debian:6.1", ARCH, MachineShape(kernel_arguments=("rdinit=/nowhere", "init=/nowhere"))
    )
    with (
        prepared.guest(tmp_path) as guest,
        pytest.raises(BootError, match=r"panic.*; its last line: ") as caught,
    ):
        guest.ready()
    assert "Kernel panic" in caught.value.detail
    assert b"Kernel panic" in (tmp_path / "console.log").read_bytes()


def test_nothing_is_left_behind(prepared: Prepared, saved: Snapshot, tmp_path: Path) -> None:
    before = children()
    with prepared.guest(tmp_path / "one", saved) as guest:
        guest.ready()
        started = children() - before
        assert len(started) == 2  # QEMU and nbdkit
    assert children() == before
    assert not any(Path(f"/proc/{pid}").exists() for pid in started)
    # Neither when the block is left by an error, at any moment.
    with pytest.raises(ZeroDivisionError), prepared.guest(tmp_path / "two", saved):
        raise ZeroDivisionError
    assert children() == before


def test_console_is_whole(guest: Guest, saved: Snapshot) -> None:
    program = helper_of(guest)
    program.says("write", "/dev/kmsg", "the first word\n")
    program.says("write", "/dev/kmsg", "the last word\n")
    guest.quit()
    console = guest.console.read_bytes()
    booted = saved.console.read_bytes()
    assert console.startswith(booted)
    assert b"Linux version" in booted
    assert console.index(b"the first word") < console.index(b"the last word")
    assert console.endswith(b"\n")


def test_descriptors_do_not_leak(prepared: Prepared, saved: Snapshot, tmp_path: Path) -> None:
    def count() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    counts = []
    for number in range(20):
        with prepared.guest(tmp_path / str(number), saved) as guest:
            guest.ready()
        counts.append(count())
    assert counts[-1] <= counts[1], counts
    assert threading.active_count() < 10


def test_console_without_end(
    prepared: Prepared, saved: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than anybody would read: the guest is given up, and what it printed is all there."""
    monkeypatch.setattr(guests, "_CONSOLE_LIMIT", 200_000)
    with prepared.guest(tmp_path / "flood", saved) as guest:
        guest.ready()
        with pytest.raises(ChannelError, match="floods its console"):
            helper_of(guest)("flood", "/dev/kmsg")
    assert guest.console.stat().st_size > 200_000
