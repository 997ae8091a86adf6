"""Programs that find nothing on any kernel of today, shown what they look for: they must see it."""

from __future__ import annotations

from pathlib import Path

import pytest
from trouble import cowpen

pytestmark = pytest.mark.guest


@pytest.mark.parametrize("way", ["mem", "poke"])
@pytest.mark.parametrize("bug", ["cve-2016-5195-dirty-cow", "cve-2022-2590-shmem-cow"])
def test_a_forced_write_that_reaches_the_file_is_noticed(bug: str, way: str, tmp_path: Path) -> None:
    ended = cowpen(
        *(
            "run",
            f"{bug}/dirty_cow",
            "--kernel",
            "debian:6.12",
            "--arch",
            "x86_64",
            "--attempts",
            "1",
            "--json",
        ),
        *("--set", "prove=true", "--set", f"ways={way}"),
        folder=tmp_path,
    )
    assert (ended.code, ended.outcomes) == (1, ["reproduced"]), ended.err
    assert "bytes in read-only file" in ended.verdict["reason"]


@pytest.mark.parametrize("kind", ["write", "direct"])
def test_memory_that_parent_and_child_share_is_noticed(kind: str, tmp_path: Path) -> None:
    ended = cowpen(
        *("run", "ksm-fork-write/ksm_fork", "--kernel", "debian:6.12", "--arch", "x86_64", "--json"),
        *("--attempts", "1", "--set", "prove=true", "--set", f"kinds={kind}"),
        folder=tmp_path,
    )
    assert (ended.code, ended.outcomes) == (1, ["reproduced"]), ended.err
    assert "bytes in pages merged by KSM" in ended.verdict["reason"]
