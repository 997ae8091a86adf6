"""The benchmarks' own machinery: pairs, tables, goals, documents."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench import __main__ as command
from bench import cow, mutants, report
from bench.report import Benchmark, Column, Measured, Options, Spread
from bench.runs import in_turn, timed
from harness.errors import HostError

ROOT = Path(__file__).resolve().parents[2]


def test_a_spread_is_median_and_range() -> None:
    assert Spread.of([3, 1, 2]) == Spread(2, 1, 3)
    assert Spread.of([3, 1, 2]).text(1) == "2.0 (1.0 to 3.0)"


def test_ratios_are_taken_pair_by_pair() -> None:
    # A host that is ten times slower during the second pair changes no ratio.
    assert report.ratios([2, 20], [1, 10]) == Spread(2, 2, 2)
    with pytest.raises(ValueError, match="shorter"):
        report.ratios([1, 2], [1])


def test_what_is_compared_takes_turns_and_changes_places() -> None:
    order: list[str] = []

    def step(name: str) -> Callable[[], float]:
        return lambda: float(order.append(name) or len(order))

    figures = in_turn({"a": step("a"), "b": step("b")}, 3)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert figures == {"a": [1, 4, 5], "b": [2, 3, 6]}


def test_a_process_that_fails_is_no_measurement() -> None:
    seconds, output = timed([sys.executable, "-c", "print('hello')"])
    assert seconds > 0
    assert output.stdout == "hello\n"
    with pytest.raises(HostError, match=r"(?s)ended with status 3.*what went wrong"):
        timed([sys.executable, "-c", "import sys; sys.exit(print('what went wrong', file=sys.stderr) or 3)"])


# -- the command --------------------------------------------------------------------------------------


def benchmark(ratio: float, trouble: str = "") -> Benchmark:
    def measure(options: Options) -> Iterator[report.Row]:
        for arch in options.arches:
            yield {"arch": arch.name, "ratio": Spread(ratio, ratio, ratio)}
        if trouble:
            raise HostError(trouble)

    return Benchmark(
        title="one thing against another",
        columns=(Column.word("arch", "arch"), Column.spread("ratio", "ratio", 1)),
        measure=measure,
        goal="at least 5",
        missed=lambda row: row["ratio"].median < 5,
    )


def run_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, what: Benchmark, *words: str
) -> tuple[int, dict[str, Any]]:
    """Exit code and JSON of ``python -m bench attempts`` were ``what`` the benchmark of that name."""
    monkeypatch.setattr(importlib.import_module("bench.attempts"), "BENCHMARK", what)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    figures = tmp_path / "bench.json"
    monkeypatch.setattr(
        sys, "argv", ["bench", "attempts", "--arch", "x86_64", "--json", str(figures), *words]
    )
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert isinstance(ended.value.code, int)
    return ended.value.code, json.loads(figures.read_text(encoding="utf-8"))


def test_a_goal_that_is_reached(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, figures = run_command(monkeypatch, tmp_path, benchmark(8.0))
    assert code == 0
    one = figures["benchmarks"]["attempts"]
    assert one["rows"] == [{"arch": "x86_64", "ratio": {"median": 8.0, "low": 8.0, "high": 8.0}}]
    assert not one["missed"]
    assert figures["machine"].keys() >= {
        "cpu",
        "cores",
        "memory_gib",
        "qemu",
        "accelerator",
        "date",
        "kernel",
    }
    assert "| x86_64 | 8.0 (8.0 to 8.0) |" in capsys.readouterr().out


def test_a_goal_that_is_missed_fails_loudly(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, figures = run_command(monkeypatch, tmp_path, benchmark(4.9))
    assert code == 1
    assert figures["benchmarks"]["attempts"]["missed"] == ["| x86_64 | 4.9 (4.9 to 4.9) |"]
    assert "attempts: goal missed: | x86_64 | 4.9" in capsys.readouterr().err


def test_a_benchmark_that_breaks_off_fails_loudly_and_leaves_the_document(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = tmp_path / "document.md"
    document.write_text("<!-- bench:attempts -->\nthe last figures\n<!-- end of attempts -->\n")
    code, figures = run_command(monkeypatch, tmp_path, benchmark(8.0, "no network"), "--write", str(document))
    assert code == 1
    assert figures["benchmarks"]["attempts"]["trouble"] == "no network"
    said = capsys.readouterr()
    assert "attempts: could not run: no network" in said.err
    assert "reached" not in said.out
    assert "the last figures" in document.read_text()


def test_a_document_gets_the_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    document = tmp_path / "document.md"
    document.write_text("# Words\n\n<!-- bench:attempts -->\nold\n<!-- end of attempts -->\n\nmore words\n")
    code, _ = run_command(monkeypatch, tmp_path, benchmark(4.0), "--write", str(document))
    text = document.read_text()
    assert code == 1
    assert text.startswith("# Words\n\n<!-- bench:attempts -->\n\nMeasured on ")
    assert "| arch | ratio |\n|---|---|\n| x86_64 | 4.0 (4.0 to 4.0) |\n" in text
    assert "Goal: at least 5: missed in 1 of 1 rows.\n\n<!-- end of attempts -->\n\nmore words\n" in text
    assert "old" not in text


def test_a_document_without_a_place_is_refused_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = tmp_path / "document.md"
    document.write_text("# Words\n")
    monkeypatch.setattr(sys, "argv", ["bench", "attempts", "--write", str(document)])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 2
    assert f"{document}: 0 places between <!-- bench:attempts -->" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "<!-- bench:a -->\n", "<!-- end of a -->\n<!-- bench:a -->\n"])
def test_a_document_without_its_place(text: str) -> None:
    with pytest.raises(ValueError, match="0 places"):
        report.insert(text, "a", "table")


def test_what_is_inserted_stands_between() -> None:
    text = report.insert("# Words\n<!-- bench:a -->\nold\n<!-- end of a -->\nmore\n", "a", "table")
    assert text == "# Words\n<!-- bench:a -->\n\ntable\n\n<!-- end of a -->\nmore\n"


def test_lines_that_were_not_measured_again_are_kept(tmp_path: Path) -> None:
    table = Measured("t", ("what", "arch", "verdict", "measured"), keys=2)
    document = tmp_path / "t.md"
    document.write_text("# T\n<!-- bench:t -->\n<!-- end of t -->\nmore\n", encoding="utf-8")
    for cells in (
        ["b", "x86_64", "clean"],
        ["b", "aarch64", "clean"],
        ["b", "x86_64", "hang"],
        ["a", "x86_64", "-"],
    ):
        table.tell(table.line(cells), document)
    lines = document.read_text(encoding="utf-8").splitlines()
    assert lines[:2] + lines[-2:] == ["# T", "<!-- bench:t -->", "<!-- end of t -->", "more"]
    assert [line for line in lines if line.startswith("|")] == [
        "| what | arch | verdict | measured |",
        "|---|---|---|---|",
        table.line(["a", "x86_64", "-"]),
        table.line(["b", "aarch64", "clean"]),
        table.line(["b", "x86_64", "hang"]),
    ]


def test_a_table_covers_what_there_is_and_nothing_else(tmp_path: Path) -> None:
    table = Measured("t", ("what", "verdict", "measured"), keys=1)
    document = tmp_path / "t.md"
    document.write_text("<!-- bench:t -->\n<!-- end of t -->\n", encoding="utf-8")
    for cells in (["gone", "clean"], ["b", "clean"]):
        table.tell(table.line(cells), document)
    table.cover([table.blank(["b", "?"]), table.blank(["a", "?"])], document)
    assert list(table.rows(document).values()) == ["| a | ? | - |", table.line(["b", "clean"])]


def test_what_is_linked_to_the_cow_selftest_compiles(tmp_path: Path) -> None:
    command = ["gcc", "-pthread", "-Wall", "-Werror", "-c", "-o", str(tmp_path / "switch.o")]
    subprocess.run([*command, str(cow.switch(tmp_path))], check=True)


def test_the_table_of_mutants_has_a_line_for_each() -> None:
    wanted = {(mutant.name, arch) for mutant in mutants.mutants() for arch in mutant.arches}
    assert set(mutants.TABLE.rows(ROOT / "docs/mutants.md")) == wanted


def test_mutants_md_has_a_place_for_its_table(tmp_path: Path) -> None:
    copy = tmp_path / "mutants.md"
    copy.write_text((ROOT / "docs/mutants.md").read_text(encoding="utf-8"), encoding="utf-8")
    mutants.TABLE.tell(mutants.TABLE.line(["new"] * (len(mutants.TABLE.columns) - 1)), copy)
    kept = (ROOT / "docs/mutants.md").read_text(encoding="utf-8").splitlines()
    assert set(kept) <= set(copy.read_text(encoding="utf-8").splitlines())


def test_performance_md_has_a_place_for_every_table() -> None:
    text = (ROOT / "docs/performance.md").read_text(encoding="utf-8")
    for name in command.NAMES:
        text = report.insert(text, name, f"the table of {name}")


def test_every_benchmark_says_what_it_measures() -> None:
    for name in command.NAMES:
        one = importlib.import_module(f"bench.{name}").BENCHMARK
        assert one.title
        assert one.columns


def test_the_module_lists_what_it_knows() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "nonsense"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "no benchmark 'nonsense'" in done.stderr
    assert all(name in done.stderr for name in command.NAMES)
