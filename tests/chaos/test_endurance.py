"""Two hundred attempts in a row: nothing grows."""

from __future__ import annotations

import dataclasses
import os
import statistics
import time
from pathlib import Path

import pytest
from reliability import NOTHING_LEFT, Attacked
from remains import check_kept
from trouble import Command, kernels_alone, leftovers, program

from harness.cache import Cache

# Attempts after which what is made once has been made: caches filled, modules imported, threads started.
WARM = 40
# Python gives freed memory back to the system late and in large pieces: a real leak of one attempt's console
# (20 KiB) would come to 4 MiB in two hundred.
RSS_TOLERANCE = 0.03
EVERY_SECONDS = 0.5

# Runs within cowpen's own process, which alone can see how many tasks wait in the loop that serves the monitors.
SPY = """
import os, threading, time

def look():
    import asyncio
    from harness.guest import qmp
    while True:
        time.sleep(0.5)
        if qmp._make_loop.cache_info().currsize:
            tasks = len(asyncio.all_tasks(qmp._make_loop()))
            with open(os.environ["SPY"], "a") as out:
                out.write(f"{tasks}\\n")

if "SPY" in os.environ:
    threading.Thread(target=look, daemon=True, name="spy").start()
"""


@dataclasses.dataclass(frozen=True)
class Sample:
    """What one process and its children use at a moment."""

    attempts: int
    rss_kib: int
    descriptors: int
    threads: int
    processes: int
    locks: int


def sample(command: Command, cache: Path) -> Sample:
    proc = Path("/proc") / str(command.process.pid)
    status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
    return Sample(
        attempts=len(command.records("attempt")),
        rss_kib=int(status["VmRSS"].split()[0]),
        descriptors=sum(1 for _ in (proc / "fd").iterdir()),
        threads=int(status["Threads"]),
        processes=len(command.living()),
        locks=len(leftovers(cache)),
    )


@pytest.mark.long
def test_two_hundred_attempts(tmp_path: Path, user_cache: Cache, attacked: Attacked) -> None:
    spy = tmp_path / "spy"
    spy.mkdir()
    (spy / "sitecustomize.py").write_text(SPY)
    tasks_file = tmp_path / "tasks"
    env = {"PYTHONPATH": f"{spy}{os.pathsep}{os.environ.get('PYTHONPATH', '')}", "SPY": str(tasks_file)}
    samples: list[Sample] = []
    env |= kernels_alone(tmp_path / "cache", user_cache, ("debian:6.12", "x86_64"))
    words = (
        "run",
        "--program",
        program("ok"),
        "--arch",
        "x86_64",
        "--attempts",
        "200",
        "--jobs",
        "2",
        "--json",
    )
    with Command(*words, "--keep", tmp_path / "keep", folder=tmp_path, env=env) as command:
        end = time.monotonic() + 600
        while command.process.poll() is None:
            assert time.monotonic() < end, "two hundred attempts took ten minutes"
            try:
                samples.append(sample(command, tmp_path / "cache"))
            except (FileNotFoundError, ProcessLookupError, KeyError):
                break  # it ended while we looked
            time.sleep(EVERY_SECONDS)
        ended = command.end(seconds=20)
    assert ended.code == 0, ended.err
    assert check_kept(ended.records("attempt")) == 200
    assert ended.outcomes == ["clean"] * 200

    tasks = [int(line) for line in tasks_file.read_text().split()]
    steady = [one for one in samples if WARM <= one.attempts < 200]
    assert len(steady) >= 20, "too few samples to tell"
    quarter = len(steady) // 4
    first, last = steady[:quarter], steady[-quarter:]
    for what in ("rss_kib", "descriptors", "threads", "processes", "locks"):
        before, after = (statistics.median(getattr(one, what) for one in part) for part in (first, last))
        slack = before * RSS_TOLERANCE if what == "rss_kib" else 0 if what == "locks" else 1
        print(
            f"{what}: {before} in the first quarter, {after} in the last, peak {max(getattr(s, what) for s in steady)}"
        )
        assert after <= before + slack, f"{what} grows: {before} to {after}"
    # A guest has its reader, and a few exchanges under way; of two hundred guests nothing stays.
    print(f"tasks of the monitors' loop: median {statistics.median(tasks)}, most {max(tasks)}")
    quarter = len(tasks) // 4
    assert statistics.median(tasks[-quarter:]) <= statistics.median(tasks[quarter : 2 * quarter]) + 2
    attacked(NOTHING_LEFT, "200 attempts in a row: memory, descriptors, threads, processes, tasks", times=200)
