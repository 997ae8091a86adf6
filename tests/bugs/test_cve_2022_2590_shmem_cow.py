"""cve-2022-2590-shmem-cow: the twin of Dirty COW for files in memory, which must stay mended."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from harness.pytest_plugin.result import Trial

pytestmark = pytest.mark.guest


@pytest.mark.bug("cve-2022-2590-shmem-cow", attempts=3)
def test_shmem_cow(trial: Trial) -> None:
    assert trial.as_expected, trial.explain()
