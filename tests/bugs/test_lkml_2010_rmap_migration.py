"""lkml-2010-rmap-migration: rmap walks of page migration against VMAs that change; right in all of mainline."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from harness.pytest_plugin.result import Trial

pytestmark = pytest.mark.guest


@pytest.mark.bug("lkml-2010-rmap-migration", attempts=2)
def test_migration(trial: Trial) -> None:
    assert trial.as_expected, trial.explain()
