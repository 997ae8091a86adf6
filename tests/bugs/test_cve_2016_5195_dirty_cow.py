"""cve-2016-5195-dirty-cow, which must stay mended."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from harness.pytest_plugin.result import Trial

pytestmark = pytest.mark.guest


@pytest.mark.bug("cve-2016-5195-dirty-cow", attempts=3)
def test_dirty_cow(trial: Trial) -> None:
    assert trial.as_expected, trial.explain()
