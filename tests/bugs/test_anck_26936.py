"""anck-26936: asynchronous fork. Stock kernels have none, so most of this is skipped there, with the reason; for
`--kernel async-fork` and the like tests/guest/test_async_fork.py says how sure each program is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from harness.pytest_plugin.result import Trial

pytestmark = pytest.mark.guest


@pytest.mark.bug("anck-26936", program="cow_writers", attempts=7)
def test_cow_writers(trial: Trial) -> None:
    """In 90 % and more of the attempts with the flaw: seven misses in a row come once in 10 million."""
    assert trial.as_expected, trial.explain()


@pytest.mark.bug("anck-26936", program="threads_fork", attempts=3)
def test_threads_fork(trial: Trial) -> None:
    """No race: CONFIG_DEBUG_VM looks at each fork()."""
    assert trial.as_expected, trial.explain()


@pytest.mark.bug("anck-26936", program="pin_async_fork", attempts=14)
def test_pin_async_fork(trial: Trial) -> None:
    """17 of 20 were seen with the flaw, a rate of at least 64 %: 14 misses in a row come once in 1.6 million."""
    assert trial.as_expected, trial.explain()


@pytest.mark.bug("anck-26936", program="async_fork_stress", attempts=1)
def test_async_fork_stress(trial: Trial) -> None:
    assert trial.as_expected, trial.explain()
