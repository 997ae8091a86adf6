"""ksm-fork-write: pages that KSM merged, fork() and writes. No kernel should show it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from harness.pytest_plugin.result import Trial

pytestmark = pytest.mark.guest


@pytest.mark.bug("ksm-fork-write", attempts=3)
def test_ksm(trial: Trial) -> None:
    assert trial.as_expected, trial.explain()
