"""The measured catalogue: its data file, and the page that is made of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench import rates_page
from bench.cells import Cell, cells, mutants
from bench.rates_page import Line
from harness.bug import list_bugs
from harness.trial.outcome import Outcome
from harness.trial.verdict import judge

ROOT = Path(__file__).resolve().parents[2]
CELL = Cell("rhbz-471613/forkscrew", "debian:6.1", 100)


def record(*outcomes: Outcome, arch: str = "x86_64", **more: Any) -> dict[str, Any]:
    verdict = judge(
        bug="rhbz-471613",
        program="forkscrew",
        kernel={"spec": "debian:6.1", "release": "6.1.0-9", "provenance": {"version": "6.1.192-3"}},
        arch=arch,
        attempts=[(outcome, "a\treason\nof two lines") for outcome in outcomes],
    )
    return verdict.to_json() | {"seconds": 5.0} | more


def test_a_line_survives_its_file(tmp_path: Path) -> None:
    lines = [
        Line.of(CELL, record(Outcome.REPRODUCED, Outcome.CLEAN, as_expected=True)),
        Line.of(CELL, record(Outcome.INFRA, arch="aarch64")),
    ]
    data = tmp_path / "bugs.tsv"
    assert rates_page.read(data) == {}
    rates_page.store({line.key: line for line in lines}, data)
    assert rates_page.read(data) == {line.key: line for line in lines}
    assert [line.key for line in lines] == [Line.key_of(CELL, arch) for arch in ("x86_64", "aarch64")]


@pytest.mark.parametrize(
    ("outcomes", "expected", "shown"),
    [
        ([Outcome.REPRODUCED] * 10, True, "**10 of 10**, 72–100 % ✓"),
        ([Outcome.REPRODUCED, *[Outcome.CLEAN] * 9], None, "**1 of 10**, 2–40 %"),
        ([Outcome.CLEAN] * 10, False, "0 of 10, < 26 % **✗**"),
        ([Outcome.UNSUPPORTED], None, "unsupported"),
        ([Outcome.CLEAN, Outcome.HANG], None, "cannot tell"),
    ],
)
def test_a_cell(outcomes: list[Outcome], expected: bool | None, shown: str) -> None:
    assert Line.of(CELL, record(*outcomes, as_expected=expected)).shown() == shown


def test_the_page_has_a_place_for_everything(tmp_path: Path) -> None:
    page = tmp_path / "bugs.md"
    page.write_text((ROOT / "docs/bugs.md").read_text(encoding="utf-8"), encoding="utf-8")
    mutant = mutants()[0]
    caught = Cell(mutant.caught_by or "", mutant.name, 5)
    lines = [Line.of(CELL, record(Outcome.REPRODUCED)), Line.of(caught, record(Outcome.REPRODUCED))]
    rates_page.write({line.key: line for line in lines}, page)
    text = page.read_text(encoding="utf-8")
    assert "x86_64: **1 of 1**, 21–100 %<br>aarch64: not measured yet" in text
    assert f"| {mutant.name} | x86_64 | `{mutant.caught_by}` **1 of 1**" in text
    for bug in list_bugs():
        assert f"| {bug.id} | " in text


def test_the_page_is_made_of_the_data(tmp_path: Path) -> None:
    """`python -m bench.rates --page`, which measures nothing, would change nothing."""
    page = tmp_path / "bugs.md"
    page.write_text((ROOT / "docs/bugs.md").read_text(encoding="utf-8"), encoding="utf-8")
    rates_page.write(rates_page.read(ROOT / "docs/bugs.tsv"), page)
    assert page.read_text(encoding="utf-8") == (ROOT / "docs/bugs.md").read_text(encoding="utf-8")


def test_every_program_is_to_be_measured_on_every_kernel_of_the_page() -> None:
    planned = {(cell.program, cell.kernel) for cell in cells()}
    for bug in list_bugs():
        for program in bug.programs:
            for kernel in (
                "debian:6.1",
                "debian:6.12",
                "debian:6.12-16k",
                "debug-vm-6.12",
                "async-fork-fixed",
            ):
                assert (f"{bug.id}/{program.name}", kernel) in planned
            for mutant in mutants():
                assert (f"{bug.id}/{program.name}", mutant.name) in planned


def test_clean_means_a_hundred_attempts_of_every_program() -> None:
    for cell in cells():
        if cell.kernel in ("debian:6.12", "async-fork-fixed") and ":" not in cell.program:
            assert cell.attempts >= 100
