"""``cowpen measure fork-cost`` with real kernels."""

from __future__ import annotations

from pathlib import Path

import pytest
from trouble import cowpen

pytestmark = pytest.mark.guest


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_two_kernels_in_turn(arch: str, tmp_path: Path) -> None:
    """What is measured is fork(): a hundred times the memory takes longer, on each kernel.

    By a factor of ten or more when nothing disturbs; here only that it is longer, the mean of two rounds each.
    """
    ended = cowpen(
        *("measure", "fork-cost", "--kernel", "debian:6.1", "--kernel", "debian:6.12", "--arch", arch),
        *("--sizes", "1M,100M", "--rounds", "2", "--json"),
        folder=tmp_path,
    )
    assert ended.code == 0, ended.err
    small, large = ended.records("fork-cost")
    assert (small["mib"], large["mib"]) == (1, 100)
    for one, other in zip(small["kernels"], large["kernels"], strict=True):
        assert 0 < one["milliseconds"] < other["milliseconds"]
    for record in (small, large):
        first, second = record["kernels"]
        assert (first["spec"], second["spec"]) == ("debian:6.1", "debian:6.12")
        assert first["ratio"] == 1
        low, high = second["ratio_interval"]
        assert low <= second["ratio"] <= high
