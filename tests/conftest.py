"""Fixtures of all tests."""

from __future__ import annotations

import pytest

from harness.cache import Cache


@pytest.fixture(scope="session")
def user_cache() -> Cache:
    """The user's own cache: stock kernels are fetched into it once, not once a test run."""
    return Cache()
