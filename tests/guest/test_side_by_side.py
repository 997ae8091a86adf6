"""Guests side by side: all make progress, they run at once, and what happens to one is no matter to the others."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from trouble import Command, Ended, cowpen, program

from harness.arch import get_arch
from harness.guest.channel import Ending, Stream
from harness.guest.guest import Guest
from harness.program.compile import compile_program
from harness.trial.jobs import cores

if TYPE_CHECKING:
    from conftest import Prepare

pytestmark = pytest.mark.guest

_AHEAD = 2.0  # seconds in which both programs have begun to wait for the moment they are to count from
_WINDOW = 3.0


@dataclasses.dataclass(frozen=True)
class Spun:
    """What programs/spin.c printed: nanoseconds of the host's wall clock, which guests are given, and two counts."""

    begin: int
    end: int
    counts: tuple[int, int]

    @classmethod
    def parse(cls, printed: bytes) -> Spun:
        begin, end, one, other = map(int, printed.split())
        return cls(begin, end, (one, other))


def spin(guest: Guest, begin: int, end: int) -> Spun:
    printed = bytearray()

    def keep(stream: Stream, data: bytes) -> None:
        if stream is Stream.STDOUT:
            printed.extend(data)

    exited = guest.channel.run(["/tmp/spin", str(begin), str(end)], seconds=60, on_output=keep)
    assert (exited.ending, exited.code) == (Ending.EXITED, 0)
    return Spun.parse(bytes(printed))


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_two_guests_both_make_progress(prepare: Prepare, tmp_path: Path, arch: str) -> None:
    """Four emulated CPUs, all busy, on however few cores: all four get on, and no guest leaves the other behind."""
    prepared = prepare("debian:6.1", arch)
    binary = compile_program(program("spin").read_text(), "spin", get_arch(arch), prepared.cache).binary
    saved = prepared.snapshot()
    with contextlib.ExitStack() as stack:
        guests = [stack.enter_context(prepared.guest(tmp_path / name, saved)) for name in ("one", "other")]
        for guest in guests:
            guest.ready()
            guest.channel.push_file(binary, "/tmp/spin", seconds=60)
        begin = time.time_ns() + int(_AHEAD * 1e9)
        end = begin + int(_WINDOW * 1e9)
        with concurrent.futures.ThreadPoolExecutor() as pool:
            both = list(pool.map(lambda guest: spin(guest, begin, end), guests))
    counts = [spun.counts for spun in both]
    assert all(count > 0 for pair in counts for count in pair), counts
    totals = [sum(pair) for pair in counts]
    assert min(totals) > max(totals) / 4, counts


def intervals(ended: Ended) -> Iterator[Spun]:
    """When the program of each attempt ran."""
    for record in ended.records("attempt"):
        yield Spun.parse((Path(record["kept"]) / "stdout").read_bytes())


def most_at_once(ended: Ended) -> int:
    """How many attempts' programs ran at the same time, at most."""
    changes = sorted(change for one in intervals(ended) for change in ((one.begin, 1), (one.end, -1)))
    running = most = 0
    for _, change in changes:
        running += change
        most = max(most, running)
    return most


# On a busy host the fourth of four may only be there when the first has gone.
@pytest.mark.parametrize(
    ("jobs", "attempts", "at_once"), [(1, 2, {1}), (2, 4, {2}), (4, 8, {3, 4} if cores() > 1 else {2})]
)
def test_attempts_overlap(tmp_path: Path, jobs: int, attempts: int, at_once: set[int]) -> None:
    words = ("run", "--program", program("spin"), "--attempts", str(attempts), "--jobs", str(jobs), "--json")
    ended = cowpen(*words, folder=tmp_path)
    assert ended.code == 0, ended.err
    assert ended.outcomes == ["clean"] * attempts, ended.err
    assert sorted(record["attempt"] for record in ended.records("attempt")) == list(range(1, attempts + 1))
    assert most_at_once(ended) in at_once
    assert all(min(spun.counts) > 0 for spun in intervals(ended))


def test_no_more_at_once_than_make_sense(tmp_path: Path) -> None:
    """The ceiling is that of the machine the bug asks for, and it is said."""
    words = (
        "run",
        "--program",
        program("ok"),
        "--attempts",
        "2",
        "--jobs",
        "64",
        "--memory",
        "1024",
        "--json",
    )
    ended = cowpen(*words, folder=tmp_path)
    assert ended.outcomes == ["clean"] * 2
    assert ended.err.count("guests at once instead of 64: ") == 1


def test_guest_that_is_killed_takes_no_other_with_it(tmp_path: Path) -> None:
    words = ("run", "--program", program("spin"), "--attempts", "2", "--jobs", "2", "--json")
    with Command(*words, folder=tmp_path) as command:
        command.wait_for("two guests", lambda: len(command.pids("qemu-system")) == 2)
        time.sleep(
            1
        )  # into the two seconds of the programs; a busy host may not have come so far, which is fine
        killed = command.pids("qemu-system")[0]
        os.kill(killed, signal.SIGKILL)
        ended = command.end()
    records = {record["outcome"]: record for record in ended.records("attempt")}
    assert ended.code == 125, ended.err
    # If the program had not been started yet, the attempt is made up for by another clean one.
    assert sorted(ended.outcomes) in (["clean", "infra"], ["clean", "clean", "infra"]), ended.err
    assert "killed by signal 9" in records["infra"]["reason"]
    clean = Path(records["clean"]["kept"])
    assert min(Spun.parse((clean / "stdout").read_bytes()).counts) > 0
    assert "signal" not in (clean / "qemu.log").read_text()
