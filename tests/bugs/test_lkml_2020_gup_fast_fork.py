"""lkml-2020-gup-fast-fork: pins taken without locks while fork() write-protects. Mainline is right
since 5.11, for those who pin."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from harness.pytest_plugin.result import Trial

pytestmark = pytest.mark.guest


@pytest.mark.bug("lkml-2020-gup-fast-fork", program="gup_fast_fork", attempts=3)
def test_gup_test(trial: Trial) -> None:
    assert trial.as_expected, trial.explain()


@pytest.mark.bug("lkml-2020-gup-fast-fork", program="direct_pin_fork", attempts=10)
def test_direct_reads(trial: Trial) -> None:
    """Before 6.3 direct reads take no pins: there it is rhbz-471613.

    37 of 40 were seen on both architectures together, a rate of at least 80 %: ten misses in a row come once in 9
    million.
    """
    assert trial.as_expected, trial.explain()
