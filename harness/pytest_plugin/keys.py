"""What the parts of the plugin keep in pytest's own objects."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from harness.pytest_plugin.result import Trial

MARKER = "bug"
PROPERTY = "cowpen"
"""Of the properties of a test's report: the line about its trial in the summary. Also the key of what controller and
workers of xdist tell each other."""


class Left(enum.Enum):
    """Why a test was left in its setup."""

    UNSUPPORTED = enum.auto()
    TROUBLE = enum.auto()


run_name = pytest.StashKey[str]()
"""Of the config: the name of the folder with all results."""
trial: pytest.StashKey[Trial] = pytest.StashKey()
"""Of an item: what was run for it."""
left = pytest.StashKey[Left]()
"""Of an item."""
