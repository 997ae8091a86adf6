"""rhbz-471613: O_DIRECT into unaligned buffers, and fork(). What cannot show on a kernel cannot fail there; for what
shows, each test says how often it fails though nothing is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from harness.pytest_plugin.result import Trial

pytestmark = pytest.mark.guest


@pytest.mark.bug("rhbz-471613", program="forkscrew", attempts=60, confidence=0.999999)
def test_forkscrew(trial: Trial) -> None:
    """At a rate of 90 % or more before 6.3. 100 of 100 were seen, which is 96 % at least: at that rate neither twelve
    misses in 60, nor the six near the beginning that decide against it, come once in a million."""
    assert trial.as_expected, trial.explain()


@pytest.mark.bug("rhbz-471613", program="dma_thread", attempts=10)
def test_dma_thread(trial: Trial) -> None:
    """20 of 20 were seen, a rate of at least 84 %: ten misses in a row come once in 90 million."""
    assert trial.as_expected, trial.explain()


@pytest.mark.bug("rhbz-471613", program="pthread_read_and_fork", attempts=10)
def test_pthread_read_and_fork(trial: Trial) -> None:
    """32 of 33 were seen on both architectures together, a rate of at least 84 %: ten misses in a row come once in
    90 million."""
    assert trial.as_expected, trial.explain()


@pytest.mark.bug("rhbz-471613", program="direct_write_fork", attempts=3)
def test_direct_write_fork(trial: Trial) -> None:
    assert trial.as_expected, trial.explain()


@pytest.mark.bug("rhbz-471613", program="pinned_fork", attempts=3)
def test_pinned_fork(trial: Trial) -> None:
    assert trial.as_expected, trial.explain()


@pytest.mark.bug("rhbz-471613", program="fork_tlb", attempts=3)
def test_fork_tlb(trial: Trial) -> None:
    assert trial.as_expected, trial.explain()


@pytest.mark.bug("rhbz-471613", program="fork_stale_pte", attempts=3)
def test_fork_stale_pte(trial: Trial) -> None:
    assert trial.as_expected, trial.explain()


@pytest.mark.long
@pytest.mark.bug("rhbz-471613", variant="all", attempts=30, confidence=0.999999)
def test_variants(trial: Trial) -> None:
    """File systems, hugetlb, alignments, workers, load; and what must stay clean."""
    assert trial.as_expected, trial.explain()
