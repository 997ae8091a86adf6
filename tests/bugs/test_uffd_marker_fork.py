"""uffd-marker-fork: fork() and the markers of userfaultfd's write protection; no kernel of mainline should show it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from harness.pytest_plugin.result import Trial

pytestmark = pytest.mark.guest


@pytest.mark.bug("uffd-marker-fork", attempts=3)
def test_markers(trial: Trial) -> None:
    assert trial.as_expected, trial.explain()
