"""The table of withstood attacks cannot lie."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from reliability import BEGIN, END, FAILED, ROOT, Attacked, Recorder, Row

TEST = "tests/chaos/test_reliability.py::test_a_passing_test_is_counted"
ROW = Row("a promise", "an attack | with a bar", TEST, 5, "nothing")
OTHER = Row("another", "attack", "tests/chaos/test_reliability.py::test_what_was_not_run_stays", 1, "nothing")


def document(*rows: Row) -> str:
    return "\n".join(["before", BEGIN, *(row.render() for row in rows), END, "after\n"])


def report(node: str, outcome: str, when: str = "call") -> pytest.TestReport:
    return pytest.TestReport(node, ("", 0, ""), {}, outcome, None, when)  # type: ignore[arg-type]


def rows(text: str) -> list[Row]:
    return [row for line in text.splitlines() if (row := Row.parse(line))]


def test_a_passing_test_is_counted() -> None:
    recorder = Recorder(None)
    for arch in ("x86_64", "aarch64"):
        recorder.say(f"{TEST}[{arch}]", "a promise", "an attack | with a bar", 2, "nothing")
        recorder.pytest_runtest_logreport(report(f"{TEST}[{arch}]", "passed"))
    text = recorder.updated(document(ROW))
    assert rows(text) == [Row("a promise", "an attack | with a bar", TEST, 4, "nothing")]
    assert text.startswith("before\n") and text.endswith("after\n")
    assert rows(recorder.updated(text)) == rows(text)


@pytest.mark.parametrize("when", ["setup", "call", "teardown"])
def test_a_failing_test_is_said_to_have_failed(when: str) -> None:
    recorder = Recorder(None)
    recorder.say(TEST, "a promise", "an attack | with a bar", 2, "nothing")
    recorder.pytest_runtest_logreport(report(f"{TEST}[x86_64]", "failed", when))
    recorder.pytest_runtest_logreport(report(f"{TEST}[aarch64]", "passed"))
    assert [row.lost for row in rows(recorder.updated(document()))] == [FAILED]


@pytest.mark.parametrize("known", [[ROW], []])
def test_one_that_failed_before_it_said_anything(known: list[Row]) -> None:
    recorder = Recorder(None)
    recorder.pytest_runtest_logreport(report(TEST, "failed"))
    (row,) = rows(recorder.updated(document(*known)))
    assert row.lost == FAILED
    assert row.attack == (ROW.attack if known else "test_a_passing_test_is_counted")


def test_what_was_not_run_stays() -> None:
    gone = Row("a promise", "attack", "tests/chaos/test_reliability.py::test_gone", 1, "nothing")
    recorder = Recorder(None)
    recorder.pytest_runtest_logreport(report(TEST, "skipped"))
    assert rows(recorder.updated(document(OTHER, ROW, gone))) == [ROW, OTHER]


def test_the_option_writes_the_document(tmp_path: Path) -> None:
    table = tmp_path / "table.md"
    table.write_text(document())
    command = [sys.executable, "-m", "pytest", "-q", "tests/chaos", "--reliability", table]
    only = "test_fixture_says_so"
    subprocess.run([*command, "-k", only], cwd=ROOT, check=True, timeout=60, stdout=subprocess.DEVNULL)
    (row,) = rows(table.read_text())
    assert (row.promise, row.times, row.lost) == ("a promise of this test", 1, "nothing")
    assert row.test == f"tests/chaos/test_reliability.py::{only}"


def test_fixture_says_so(attacked: Attacked, request: pytest.FixtureRequest) -> None:
    if request.config.getoption("-k") == "test_fixture_says_so":  # the real table is not for this
        attacked("a promise of this test", "an attack", times=1)
