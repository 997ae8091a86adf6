"""What cowpen has withstood: attacks on its promises, counted while the tests run, and written as a table.

A test that has held says so with the fixture ``attacked`` (conftest.py); ``pytest --reliability FILE`` writes the
table into FILE, between two comments. A test that fails turns its rows into ``FAILED``: the table cannot lie. Rows of
tests that were not run stay as they are.
"""

from __future__ import annotations

import dataclasses
import os
import platform
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import pytest

ROOT = Path(__file__).resolve().parents[2]
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
FAILED = "**FAILED**"
_COLUMNS = ("promise", "attack", "tested by", "times", "lost")
_CELL = re.compile(r"(?<!\\)\|")

# The promises, in the order of the table; other words come after these.
DEADLINES = "every wait has a deadline, on a monotonic clock"
DEATH_NOTICED = "QEMU's exit is noticed within 1 s"
NEVER_CLEAN = "a panic or a scan that could not run never ends as clean"
CONSOLE_KEPT = "the console is kept whole, per attempt"
NOTHING_LEFT = "nothing is left behind: no process, no lock, no half-written cache entry"
CACHE_SHARED = "caches are whole, and shared safely"
HOSTILE_GUEST = "what a guest prints or sends is hostile, and bounded"
COUNTED = "an infra attempt is counted and shown, never silently retried into a pass"
RESULTS_KEPT = "what was reported is kept"
SAYS_WHAT = "trouble of the host is named, with what mends it"
PROMISES = (
    DEADLINES,
    DEATH_NOTICED,
    NEVER_CLEAN,
    CONSOLE_KEPT,
    NOTHING_LEFT,
    CACHE_SHARED,
    RESULTS_KEPT,
    COUNTED,
    HOSTILE_GUEST,
    SAYS_WHAT,
)

# Attacks that tests outside of this folder make, which do not know of the table.
_HOST, _GUEST = "tests/guest/test_trouble_host.py", "tests/guest/test_trouble_guest.py"
ELSEWHERE = {
    f"{_HOST}::test_tool_missing": (SAYS_WHAT, "QEMU, a compiler, nbdkit not installed"),
    f"{_HOST}::test_no_network_and_a_cold_cache": (SAYS_WHAT, "no network, cold cache"),
    f"{_HOST}::test_disk_full_while_caching": (NOTHING_LEFT, "disk full while compiling, while packing"),
    f"{_HOST}::test_disk_full_while_saving_a_snapshot": (NOTHING_LEFT, "disk full while saving a snapshot"),
    f"{_HOST}::test_disk_full_while_keeping": (SAYS_WHAT, "results disk full from the start"),
    f"{_HOST}::test_interrupted_during_boot": (NOTHING_LEFT, "SIGINT, SIGTERM during a boot"),
    f"{_HOST}::test_interrupted_while_a_snapshot_is_made": (NOTHING_LEFT, "SIGINT while a snapshot is made"),
    f"{_HOST}::test_two_at_once_on_a_cold_cache": (CACHE_SHARED, "two runs at once on a cold cache"),
    f"{_GUEST}::test_program_that_prints_200_mb": (HOSTILE_GUEST, "a program that prints 200 MB"),
    f"{_GUEST}::test_program_that_kills_init": (NEVER_CLEAN, "a program that kills init"),
    f"{_GUEST}::test_program_that_reboots": (NEVER_CLEAN, "a program that reboots the guest"),
    f"{_GUEST}::test_kernel_that_prints_nothing": (DEADLINES, "a kernel that prints nothing"),
}


class Attacked(Protocol):
    """``attacked(promise, attack, times=…)``: this test has attacked, and the promise has held.

    ``promise`` is one of the constants above, ``attack`` a few words, ``lost`` what was lost and may be
    lost by the contract. Call it as often as there are promises to speak of; it counts only if the test passes.
    """

    def __call__(self, promise: str, attack: str, *, times: int, lost: str = "nothing") -> None: ...


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table. ``test`` is FILE::FUNCTION from the root of the checkout."""

    promise: str
    attack: str
    test: str
    times: int
    lost: str

    @property
    def place(self) -> tuple[object, ...]:
        """Where the row stands: by promise."""
        known = self.promise in PROMISES
        number = PROMISES.index(self.promise) if known else len(PROMISES)
        return number, self.promise, self.attack, self.test

    def render(self) -> str:
        cells = (self.promise, self.attack, f"`{self.test}`", str(self.times), self.lost)
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    @classmethod
    def parse(cls, line: str) -> Row | None:
        """The row that `render` made; None for a line that is none, such as the table's head."""
        cells = [cell.strip().replace("\\|", "|") for cell in _CELL.split(line.strip().strip("|"))]
        if len(cells) != len(_COLUMNS) or not cells[3].isdigit():
            return None
        return cls(cells[0], cells[1], cells[2].strip("`"), int(cells[3]), cells[4])


class Recorder:
    """The pytest plugin that collects the rows of a session; see this module's own words."""

    def __init__(self, table: Path | None) -> None:
        self._table = table
        self._said: dict[str, list[tuple[str, str, int, str]]] = {}
        self._held: dict[str, bool] = {}
        self._why: dict[str, str] = {}

    def say(self, node: str, promise: str, attack: str, times: int, lost: str) -> None:
        """The test ``node`` made ``attack`` on ``promise`` ``times`` times; it counts if the test passes."""
        self._said.setdefault(_function(node), []).append((promise, attack, times, lost))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        function = _function(report.nodeid)
        if report.passed and report.when == "call":
            self._held.setdefault(function, True)
            if function in ELSEWHERE:
                self.say(report.nodeid, *ELSEWHERE[function], 1, "nothing")
        elif report.failed or hasattr(report, "wasxfail"):
            # A failure that is expected is one: the promise does not hold today.
            self._held[function] = False
            self._why[function] = getattr(report, "wasxfail", "")

    def pytest_sessionfinish(self) -> None:
        if self._table is None:
            return
        text = self._table.read_text(encoding="utf-8")
        self._table.write_text(self.updated(text), encoding="utf-8")

    def updated(self, text: str) -> str:
        """The document with the rows of the tests that were run; `ValueError` if it has no place for a table."""
        before, begin, rest = text.partition(BEGIN)
        old, end, after = rest.partition(END)
        if not begin or not end:
            raise ValueError(f"the document has no lines {BEGIN!r} and {END!r}")
        known = [row for line in old.splitlines() if (row := Row.parse(line)) is not None]
        rows = [row for row in known if row.test not in self._held and _exists(row.test)]
        for function in self._held:
            rows += self._rows(function, known)
        head = f"| {' | '.join(_COLUMNS)} |\n|{'---|' * len(_COLUMNS)}"
        where = f"{platform.machine()}, {os.cpu_count()} cores"
        last = f"Last written on {time.strftime('%Y-%m-%d')} ({where}), after {len(self._held)} tests."
        lines = [begin, "", head, *(row.render() for row in sorted(rows, key=lambda row: row.place)), ""]
        return before + "\n".join([*lines, last, "", end]) + after

    def _rows(self, function: str, known: Iterable[Row]) -> list[Row]:
        """The rows of one test that was run: the same attack on several architectures is one row."""
        total: dict[tuple[str, str, str], int] = {}
        for promise, attack, times, lost in self._said.get(function, []):
            total[promise, attack, lost] = total.get((promise, attack, lost), 0) + times
        rows = [
            Row(promise, attack, function, times, lost) for (promise, attack, lost), times in total.items()
        ]
        if self._held[function]:
            return rows
        # It may have failed before it could say what it attacks: then the document still knows.
        rows = rows or [row for row in known if row.test == function]
        rows = rows or [Row("(it failed before it could say)", function.rpartition("::")[2], function, 0, "")]
        why = self._why.get(function)
        return [dataclasses.replace(row, lost=f"{FAILED} ({why})" if why else FAILED) for row in rows]


def _function(node: str) -> str:
    """FILE::FUNCTION of a node id: without its parameters."""
    return node.partition("[")[0]


def _exists(test: str) -> bool:
    """Whether the checkout still has this test."""
    file, _, name = test.partition("::")
    name = name.rpartition("::")[2]
    path = ROOT / file
    return path.is_file() and f"def {name}(" in path.read_text(encoding="utf-8")
