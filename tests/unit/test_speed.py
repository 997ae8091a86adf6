"""Deadlines stretch with what else the host runs."""

from pathlib import Path

import pytest

from harness.guest import speed
from harness.guest.speed import Speed, share


@pytest.mark.parametrize(
    ("loadavg", "own", "load"),
    [
        ("0.00 0.50 9.00 1/160 4711", 1.0, 1.0),
        ("0.00 0.00 0.00 1/160 4711", 0.5, 1.0),  # never below what one guest alone gets
        ("4.00 0.00 0.00 1/160 4711", 1.0, 2.0),  # others, for a minute
        ("0.00 0.00 0.00 9/160 4711", 1.0, 3.0),  # others, since a moment ago
        ("4.00 0.00 0.00 3/160 4711", 2.0, 3.0),
        ("4000.00 0.00 0.00 1/160 4711", 2.0, 10.0),  # a hang must still be noticed some time
    ],
)
def test_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loadavg: str, own: float, load: float
) -> None:
    (tmp_path / "loadavg").write_text(loadavg + "\n")
    monkeypatch.setattr(speed, "_LOADAVG", tmp_path / "loadavg")
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    assert share(own) == load
    assert Speed(boot_seconds=4.0, load=share(own)).scale == 2 * load


def test_this_host_has_a_load() -> None:
    assert 0 <= speed.others_per_core() <= 8
