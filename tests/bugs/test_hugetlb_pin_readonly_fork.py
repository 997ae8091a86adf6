"""hugetlb-pin-readonly-fork, which stock kernels still have: a living proof that all of the machinery finds what is
there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from harness.pytest_plugin.result import Trial

pytestmark = pytest.mark.guest


@pytest.mark.bug("hugetlb-pin-readonly-fork", variant="all", attempts=20)
def test_readonly_pinned(trial: Trial) -> None:
    """No race: with hugetlb each attempt shows it."""
    assert trial.as_expected, trial.explain()
