"""A trial whose guests do not come up from their snapshot, or lack what the shape promises."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path
from typing import Any

import pytest
from test_trial import CLEAN, FakeStage, Part, play

from harness.errors import SnapshotError, UnsupportedError
from harness.trial.subject import Subject, own_subject

STALE = Part(boot=SnapshotError("the snapshot is no good"))


@pytest.fixture
def own(tmp_path: Path) -> Subject:
    file = tmp_path / "mine.c"
    file.write_text("int main(void) { return 0; }\n")
    return own_subject(file, {})


@pytest.fixture
def renewals(monkeypatch: pytest.MonkeyPatch) -> list[FakeStage]:
    """The stages that were given up for another, which needs no meeting."""
    seen: list[FakeStage] = []

    def renewed(stage: FakeStage, *_: Any) -> FakeStage:
        seen.append(stage)
        return dataclasses.replace(stage, meeting=None)

    monkeypatch.setattr(FakeStage, "renewed", renewed)
    return seen


def test_snapshots_that_fail_do_not_end_a_trial(
    tmp_path: Path, own: Subject, renewals: list[FakeStage]
) -> None:
    listener = play(tmp_path, own, [STALE, STALE, *[CLEAN] * 4], attempts=4)
    assert listener.outcomes == ["infra", "infra", *["clean"] * 4]
    assert len(renewals) == 2
    assert renewals[0] is not renewals[1]
    assert listener.verdicts[0].verdict == "clean"
    assert not any("giving up" in line for line in listener.told)


def test_one_bad_snapshot_is_renewed_once(tmp_path: Path, own: Subject, renewals: list[FakeStage]) -> None:
    """Though two attempts began from it at once; the second may end after one that began from the new one."""
    parts = [STALE, STALE, *[CLEAN] * 4]
    listener = play(tmp_path, own, parts, attempts=4, jobs=2, meeting=threading.Barrier(2))
    assert sorted(listener.outcomes) == [*["clean"] * 4, "infra", "infra"]
    assert len(renewals) == 1


def test_what_the_guest_lacks_is_unsupported(
    tmp_path: Path, own: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise UnsupportedError("the kernel has no xfs")

    monkeypatch.setattr(FakeStage, "furnish", refuse)
    listener = play(tmp_path, own, [CLEAN] * 4)
    assert listener.outcomes == ["unsupported"]
    assert listener.verdicts[0].verdict == "unsupported"
    assert "the kernel has no xfs" in listener.verdicts[0].reason
