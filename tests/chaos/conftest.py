"""Fixtures of the attacks, and the table of what was withstood (reliability.py)."""

from __future__ import annotations

from pathlib import Path

import pytest
from reliability import Attacked, Recorder

_RECORDER = pytest.StashKey[Recorder]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--reliability", type=Path, metavar="FILE", help="update the table of withstood attacks in FILE"
    )


def pytest_configure(config: pytest.Config) -> None:
    # None also when pytest came upon this file too late for options (run without naming the folder).
    recorder = Recorder(config.getoption("--reliability", None))
    config.stash[_RECORDER] = recorder
    config.pluginmanager.register(recorder, "reliability-recorder")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.chaos)


@pytest.fixture
def attacked(request: pytest.FixtureRequest) -> Attacked:
    """Says what this test attacked, for the table; see `reliability.Attacked`."""
    recorder = request.config.stash[_RECORDER]

    def say(promise: str, attack: str, *, times: int, lost: str = "nothing") -> None:
        recorder.say(request.node.nodeid, promise, attack, times, lost)

    return say
