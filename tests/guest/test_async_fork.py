"""Asynchronous fork of our own: the flaw of anck-26936 is found, and the right one stands what it is held to.

Each kernel is built for each architecture when a cache does not have it, which takes minutes.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from trouble import cowpen

from harness import tools

pytestmark = [pytest.mark.guest, pytest.mark.long]
_BUILD_SECONDS = 4000
_COW_SECONDS = 3600.0
RIGHT, LOCKDEP = "async-fork-fixed", "async-fork-lockdep"
FLAWED, SILENT = "async-fork", "async-fork-silent"


@pytest.fixture(scope="module", params=["x86_64", "aarch64"])
def arch(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An architecture, with the kernels built for it."""
    name = str(request.param)
    ended = cowpen(
        *("kernels", "build", RIGHT, LOCKDEP, FLAWED, SILENT, "--arch", name),
        folder=tmp_path_factory.mktemp("build"),
        seconds=4 * _BUILD_SECONDS,
    )
    assert ended.code == 0, ended.err
    return name


def found_only_with(
    flaw: str, program: str, arch: str, misses: int, clean: int, folder: Path
) -> dict[str, Any]:
    """What an attempt finds on the kernel with the flaw, before so many miss it; on the right one all are clean."""
    words = ("run", f"anck-26936/{program}", "--arch", arch, "--json")
    flawed = (*words, "--kernel", flaw, "--attempts", str(misses), "--stop-on-first")
    ended = cowpen(*flawed, folder=folder, seconds=_BUILD_SECONDS)
    assert ended.code == 1, ended.err
    (shown,) = [attempt for attempt in ended.records("attempt") if attempt["outcome"] == "reproduced"]
    ended = cowpen(*words, "--kernel", RIGHT, "--attempts", str(clean), folder=folder, seconds=_BUILD_SECONDS)
    assert (ended.code, ended.outcomes) == (0, ["clean"] * clean), ended.err
    finding: dict[str, Any] = shown["findings"][shown["cause"]]
    return finding


def test_overlapping_copiers_meet_the_assertion(arch: str, tmp_path: Path) -> None:
    """In nine attempts of ten and more, so that 7 misses have a chance of 1 in 10 million."""
    finding = found_only_with(FLAWED, "cow_writers", arch, misses=7, clean=5, folder=tmp_path)
    assert finding["title"] == "kernel BUG in copy_pte_range"
    assert finding["file"] == "include/linux/mm.h"
    assert "async_fork_fixup_pmd" in {frame["function"] for frame in finding["frames"]}


def test_a_pin_beside_them_is_lost_only_with_the_flaw(arch: str, tmp_path: Path) -> None:
    """17 of 20 were seen on aarch64, 64 % or more (95 % interval): 14 misses have a chance of 1 in 1.6 million."""
    finding = found_only_with(SILENT, "pin_async_fork", arch, misses=14, clean=3, folder=tmp_path)
    assert finding["kind"] == "corruption"


def test_the_right_one_stands_stress(arch: str, tmp_path: Path) -> None:
    words = ("run", "anck-26936/async_fork_stress", "--arch", arch, "--kernel", LOCKDEP, "--json")
    ended = cowpen(*words, folder=tmp_path, seconds=_BUILD_SECONDS)
    assert (ended.code, ended.outcomes) == (0, ["clean"]), ended.err


def test_the_kernels_own_selftest_passes(arch: str) -> None:
    command = [sys.executable, "-m", "bench.cow", "--kernel", LOCKDEP, "--arch", arch]
    done = tools.run(command, seconds=_COW_SECONDS, check=None)
    assert done.status == 0, done.stdout
