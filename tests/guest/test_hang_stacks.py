"""Programs that hang, in real guests: the finding of the hang names the functions in which each of their threads is."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from trouble import Ended, cowpen, program

from harness.arch import get_arch
from harness.cache import Cache
from harness.guest.channel import Ending, Stream
from harness.guest.threads import parse_threads
from harness.program.compile import compile_program

if TYPE_CHECKING:
    from conftest import Prepare

pytestmark = pytest.mark.guest

ARCHES = pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
SPEC = "debian:6.12"


class Hang:
    """The only attempt of a program that hangs, as ``cowpen run --json`` tells of it."""

    def __init__(self, name: str, arch: str, folder: Path, *more: str, seconds: str = "1") -> None:
        self.ended: Ended = cowpen(
            *(
                "run",
                "--program",
                program(name),
                "--arch",
                arch,
                "--attempts",
                "1",
                "--seconds",
                seconds,
                "--json",
            ),
            *("--keep", folder / "keep", *more),
            folder=folder,
        )
        assert self.ended.code == 125, self.ended.err
        (attempt,) = self.ended.records("attempt")
        assert attempt["outcome"] == "hang", attempt
        self.finding: dict[str, Any] = attempt["findings"][attempt["cause"]]
        assert (self.finding["kind"], self.finding["title"]) == ("hang", f"hang in {name}")
        self.threads: list[dict[str, Any]] = self.finding["threads"]
        self.folder = Path(attempt["kept"])

    @property
    def text(self) -> str:
        return (self.folder / "threads.txt").read_text()


def functions(told: dict[str, Any], stack: str = "frames") -> list[str]:
    return [frame["function"] for frame in told[stack]]


@ARCHES
def test_child_that_waits_for_a_lock_nobody_holds(arch: str, tmp_path: Path) -> None:
    """rhbz-471613, comments 16 to 23: fork() in a process with threads, one of which holds a lock."""
    hang = Hang("fork_lock", arch, tmp_path, "--kernel", SPEC)
    main, forker, child = hang.threads
    assert main["pid"] == forker["pid"] == child["parent"] != child["pid"]
    assert any("clockjoin" in name for name in functions(main))
    assert functions(forker)[:3] == ["wait4", "wait_for_child", "forker"]
    waits = functions(child)
    lock = waits.index("pthread_mutex_lock")
    assert lock > 0, "it waits in there"
    assert waits[lock + 1 : lock + 5] == ["child_takes_lock"] * 4
    for thread, root in ((main, "_start"), (forker, "clone3|thread_start"), (child, "clone3|thread_start")):
        assert thread["state"] == "S"
        assert thread["whole"] and re.fullmatch(root, functions(thread)[-1]), "to the outermost function"
        assert not any(frame["unsure"] for frame in thread["frames"])
    # The kernel's side of it, from before it was stopped.
    assert "do_wait" in functions(forker, "kernel") and forker["wchan"] == "do_wait"
    assert any("futex" in name for name in functions(child, "kernel"))

    assert hang.finding["frame"] == "child_takes_lock"
    assert hang.finding["task"] == {"comm": "fork_lock", "pid": child["tid"]}
    assert hang.finding["frames"] == child["frames"]
    source = program("fork_lock").read_text().splitlines()
    place = next(frame["source"] for frame in child["frames"] if frame["function"] == "child_takes_lock")
    assert "pthread_mutex_lock(&lock)" in source[int(place.partition("fork_lock.c:")[2]) - 1]

    # What a person sees: as of an oops, the first frames and where to read on.
    (told,) = re.findall(
        r"(?m)^attempt 1: hang: fork_lock did not end by its deadline\n((?:    .*\n)+)", hang.ended.err
    )
    *trace, path = told.splitlines()
    assert any(re.match(r"    child_takes_lock\+0x\w+/0x\w+ +fork_lock.c:\d+$", line) for line in trace)
    assert path == f"    stacks of 3 threads: {hang.folder / 'threads.txt'}"
    assert f"thread {child['tid']} seems to keep the others waiting" in hang.text
    for name in ("child_takes_lock", "wait_for_child", "main"):
        assert re.search(rf"(?m)^    {name}\+0x", hang.text)


@ARCHES
def test_process_that_spins_out_of_sight(arch: str, tmp_path: Path) -> None:
    """In another session, and no descendant of the program any more."""
    hang = Hang("spin_away", arch, tmp_path, "--kernel", "debian:6.1")
    main, spins = hang.threads
    assert functions(main)[:3] == ["read", "wait_for_the_end", "main"]
    assert spins["parent"] == 1
    assert spins["state"] == "R"
    assert functions(spins)[:2] == ["spin_for_ever", "main"]
    assert hang.finding["frame"] == "spin_for_ever"
    assert functions(hang.finding)[:2] == ["spin_for_ever", "main"]
    assert "    spin_for_ever+0x" in hang.ended.err


# On x86_64 tests/unit/test_threads.py does the same without a guest.
@pytest.mark.parametrize("arch", [pytest.param("x86_64", marks=pytest.mark.long), "aarch64"])
def test_stacks_that_are_hard_to_unwind(arch: str, tmp_path: Path) -> None:
    hang = Hang("stacks", arch, tmp_path, "--kernel", SPEC, seconds="2")

    def named(comm: str) -> list[dict[str, Any]]:
        return [thread for thread in hang.threads if thread["comm"] == comm]

    (signal,) = named("by_signal")
    assert functions(signal)[:2] == ["spin", "in_handler"]
    assert functions(signal)[3:6] == ["interrupted", "by_signal", "main"]
    assert not any(frame["unsure"] for frame in signal["frames"])
    (clock,) = named("clock_spin")
    assert "clock_spin" in functions(clock)
    assert functions(clock)[-1] == "_start"
    if functions(clock)[0] == "vdso":
        assert all(frame["unsure"] for frame in clock["frames"][1:])
        assert "? marks frames that were found by a guess" in hang.text
    first, other = named("headless")
    assert (first["state"], first["frames"]) == ("Z", [])
    assert "stays" in functions(other)
    parent, child = named("by_vfork")
    assert (parent["state"], functions(parent)[0]) == ("D", "vfork"), "it cannot be stopped"
    assert functions(child)[:2] == ["pause", "by_vfork"]
    for thread in named("traced"):
        assert functions(thread)[:3] == ["pause", "traced", "main"]
    (called,) = named("by_qsort")
    assert functions(called)[:2] == ["pause", "compare"] and "by_qsort" in functions(called)
    (sized,) = named("sized")
    assert functions(sized)[:3] == ["pause", "of_any_size", "main"]
    assert all(thread["whole"] for thread in hang.threads if thread["state"] != "Z")


@pytest.mark.long
def test_serial_channel_tells_no_stacks(tmp_path: Path) -> None:
    """It is still the same finding."""
    hang = Hang("fork_lock", "x86_64", tmp_path, "--kernel", SPEC, "--channel", "serial")
    assert (hang.threads, hang.finding["frames"]) == ([], [])
    assert not (hang.folder / "threads.txt").exists()
    assert f"    kept in {hang.folder}" in hang.ended.err


CROWD = """
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>
int main(void)
{
	volatile int *there = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	for (int count = 0; count < 500; count++)
		switch (fork()) {
		case -1:
			return 3;
		case 0:
			setsid();
			for (;;)
				if (count % 100 || !*there)
					sleep(1);
		}
	puts("all there");
	fflush(stdout);
	*there = 1;
	for (;;)
		;
}
"""


@pytest.mark.parametrize("arch", ["x86_64", pytest.param("aarch64", marks=pytest.mark.long)])
def test_a_crowd_is_told_of_in_bounds(arch: str, tmp_path: Path, prepare: Prepare, user_cache: Cache) -> None:
    """Five hundred processes, each in a session of its own, some of which never leave the CPU."""
    binary = compile_program(CROWD, "crowd", get_arch(arch), user_cache).binary.read_bytes()
    data = dict.fromkeys(Stream, b"")

    def keep(stream: Stream, piece: bytes) -> None:
        data[stream] += piece

    with prepare(SPEC, arch).guest(tmp_path) as guest:
        guest.ready()
        guest.channel.push(binary, "/tmp/crowd", seconds=60)
        begun = time.monotonic()
        ended = guest.channel.run(["/tmp/crowd"], seconds=15, on_output=keep)
        took = time.monotonic() - begun
        assert (ended.ending, data[Stream.STDOUT]) == (Ending.DEADLINE, b"all there\n")
        guest.channel.hello(seconds=60)
    told = parse_threads(data[Stream.THREADS])
    print(
        f"{took - 15:.1f} s after the deadline: {told.processes} processes, {len(told.threads)} told of,",
        end=" ",
    )
    print(f"{len(data[Stream.THREADS])} bytes")
    assert told.processes == 501
    assert 64 < len(told.threads) <= 128
    assert took < 15 + 10 * prepare(SPEC, arch).proof.speed().scale
    assert len(data[Stream.THREADS]) < 2 << 20
