"""lkml-2023-fork-batch: PTEs of a large folio that fork() copies as a batch. No kernel of mainline should show it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from harness.pytest_plugin.result import Trial

pytestmark = pytest.mark.guest


@pytest.mark.bug("lkml-2023-fork-batch", attempts=3)
def test_fork_batch(trial: Trial) -> None:
    assert trial.as_expected, trial.explain()
