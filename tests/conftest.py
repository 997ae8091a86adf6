"""Fixtures of all tests."""

from __future__ import annotations

import pytest
from hypothesis import settings

from harness.cache import Cache

# On a busy host an example of a millisecond may take half a second: how long it took is no defect.
settings.register_profile("any-host", deadline=None)
settings.load_profile("any-host")


@pytest.fixture(scope="session")
def user_cache() -> Cache:
    """The user's own cache: stock kernels are fetched into it once, not once a test run."""
    return Cache()
