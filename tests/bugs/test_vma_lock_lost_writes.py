"""vma-lock-lost-writes: page faults under the lock of one VMA in the middle of fork(); Linux 6.4.0 to 6.4.2 only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from harness.pytest_plugin.result import Trial

pytestmark = pytest.mark.guest


@pytest.mark.bug("vma-lock-lost-writes", attempts=3)
def test_lost_writes(trial: Trial) -> None:
    assert trial.as_expected, trial.explain()
