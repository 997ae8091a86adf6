"""Kernels built from source boot and do what they are for: minutes with an empty cache, seconds afterwards.

One with the memory management's assertions, and a mutant of it: in the same tree, so of the second only that is
compiled which its patch touches.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from trouble import cowpen

pytestmark = pytest.mark.guest
# The first build in a fresh cache, with the source to fetch and unpack; nothing is asserted about time.
_BUILD_SECONDS = 3000
GOOD, MUTANT = "debug-vm-6.12", "fork-batch-hole-6.12"


@pytest.fixture(scope="module", params=[GOOD, MUTANT])
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of a kernel that `cowpen kernels build` has built for x86_64."""
    name = str(request.param)
    words = ("kernels", "build", name, "--arch", "x86_64")
    ended = cowpen(*words, folder=tmp_path_factory.mktemp("build"), seconds=_BUILD_SECONDS)
    assert ended.code == 0, ended.err
    assert "6.12" in ended.out
    return name


def test_only_the_mutant_shows_its_bug(built: str, tmp_path: Path) -> None:
    """No race: the mutant shows it in every attempt."""
    words = (
        "run",
        "lkml-2023-fork-batch/fork_batch",
        "--kernel",
        built,
        "--arch",
        "x86_64",
        "--attempts",
        "2",
    )
    ended = cowpen(*words, "--json", folder=tmp_path)
    assert ended.code == (1 if built == MUTANT else 0), ended.err
    assert ended.outcomes == [("reproduced" if built == MUTANT else "clean")] * 2
    provenance = ended.verdict["kernel"]["provenance"]
    assert provenance["name"] == built
    assert bool(provenance["patches"]) == (built == MUTANT)
