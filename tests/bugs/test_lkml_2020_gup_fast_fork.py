"""lkml-2020-gup-fast-fork: pins taken without locks while fork() write-protects. No kernel of mainline
since 5.11 should show it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from harness.pytest_plugin.result import Trial

pytestmark = pytest.mark.guest


@pytest.mark.bug("lkml-2020-gup-fast-fork", attempts=3)
def test_gup_fast(trial: Trial) -> None:
    assert trial.as_expected, trial.explain()
