"""cve-2020-29374-vmsplice: clean but for hugetlb, which still leaks: a living proof that the program notices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from harness.pytest_plugin.result import Trial

pytestmark = pytest.mark.guest


@pytest.mark.bug("cve-2020-29374-vmsplice", variant="all", attempts=20)
def test_vmsplice(trial: Trial) -> None:
    """No race: with hugetlb each attempt shows it."""
    assert trial.as_expected, trial.explain()
