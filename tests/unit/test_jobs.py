"""How many guests at once."""

from pathlib import Path

import pytest

from harness.guest.machine import MachineShape
from harness.trial import jobs


@pytest.mark.parametrize(
    ("wanted", "cores", "memory", "given", "because"),
    [
        (1, 2, 24000, 1, ""),
        (4, 2, 24000, 4, ""),
        (40, 2, 24000, 4, "this host has 2 cores"),
        (4, 2, 3000, 2, "fit in 3000 MiB"),
        (1, 2, 100, 1, ""),  # one guest is always tried
    ],
)
def test_bounds(
    monkeypatch: pytest.MonkeyPatch, wanted: int, cores: int, memory: int, given: int, because: str
) -> None:
    monkeypatch.setattr(jobs, "cores", lambda: cores)
    monkeypatch.setattr(jobs, "available_mib", lambda: memory)
    count, why = jobs.guests_at_once(wanted, MachineShape(memory_mib=512))
    assert count == given
    assert because in why
    assert bool(why) == (count < wanted)


def test_the_cgroup_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("1073741824\n")
    (tmp_path / "memory.current").write_text("536870912\n")
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    monkeypatch.setattr(jobs, "_CGROUP", tmp_path)
    assert jobs.available_mib() <= 512
    assert jobs.cores() == 1


def test_this_host_can_be_measured() -> None:
    assert jobs.cores() >= 1
    assert jobs.available_mib() > 0
