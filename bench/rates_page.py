"""What was measured of the catalogue, as data (docs/bugs.tsv) and for people (docs/bugs.md)."""

from __future__ import annotations

import dataclasses
import os
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from bench.cells import ASSERTING, ASYNC_FORK, STOCK, Cell, Column, mutants
from bench.report import insert
from harness.bug import list_bugs
from harness.trial.statistics import missed_rate, percent, percent_up

Key = tuple[str, str, str]
_EXPECTED = {True: "yes", False: "no", None: "-"}
_MARKS = {"yes": " ✓", "no": " **✗**", "-": ""}
_MOST_REASON = 160


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line:
    """One trial. The fields are the columns of the data file."""

    program: str
    kernel: str
    arch: str
    version: str
    verdict: str
    reproduced: str
    attempts: str
    rate: str
    low: str
    high: str
    expected: str
    as_expected: str
    seconds: str
    """For each attempt, starts and all."""
    measured: str
    reason: str

    @classmethod
    def of(cls, cell: Cell, record: Mapping[str, Any]) -> Self:
        """From the verdict record of the trial."""
        kernel, rate = record["kernel"], record["rate"]
        where = f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores, {platform.machine()}"
        low, high = record["interval"]
        return cls(
            program=cell.program,
            kernel=cell.kernel,
            arch=record["arch"],
            version=str((kernel["provenance"] or {}).get("version", kernel["release"])),
            verdict=record["verdict"],
            reproduced=str(record["counts"]["reproduced"]),
            attempts=str(record["attempts"]),
            rate="-" if rate is None else f"{rate:.4f}",
            low=f"{low:.4f}",
            high=f"{high:.4f}",
            expected=record["expected"] or "-",
            as_expected=_EXPECTED[record["as_expected"]],
            seconds=f"{record['seconds'] / max(1, record['attempts']):.2f}",
            measured=where,
            # It may quote a guest.
            reason=" ".join(str(record["reason"]).split())[:_MOST_REASON],
        )

    @staticmethod
    def key_of(cell: Cell, arch: str) -> Key:
        """What a line is about."""
        return cell.program, cell.kernel, arch

    @property
    def key(self) -> Key:
        return self.program, self.kernel, self.arch

    def text(self) -> str:
        """The line of the data file."""
        return "\t".join(dataclasses.astuple(self))

    def shown(self) -> str:
        """For a cell of the table: ``19 of 20, 76–99 % ✓``."""
        mark = _MARKS[self.as_expected]
        tried = f"{self.reproduced} of {self.attempts}"
        if self.verdict == "reproduced":
            low, high = (percent(float(end)).removesuffix(" %") for end in (self.low, self.high))
            return f"**{tried}**, {low}–{high} %{mark}"
        if self.verdict == "clean":
            return f"{tried}, < {percent_up(missed_rate(int(self.attempts)))}{mark}"
        return self.verdict.replace("-", " ") + mark


def read(data: Path) -> dict[Key, Line]:
    """The lines of the data file; none if there is no file."""
    if not data.exists():
        return {}
    head, *rows = data.read_text(encoding="utf-8").splitlines()
    names = head.split("\t")
    lines = [Line(**dict(zip(names, row.split("\t"), strict=True))) for row in rows]
    return {line.key: line for line in lines}


def store(lines: Mapping[Key, Line], data: Path) -> None:
    """Write the data file, in an order of its own."""
    head = "\t".join(field.name for field in dataclasses.fields(Line))
    part = data.with_suffix(".part")
    part.write_text("\n".join([head, *(lines[key].text() for key in sorted(lines)), ""]), encoding="utf-8")
    part.replace(data)


def write(lines: Mapping[Key, Line], page: Path) -> None:
    """Put the tables made of ``lines`` into the page. `ValueError` if it has no place for one."""
    text = insert(page.read_text(encoding="utf-8"), "catalogue", "\n".join(_catalogue()))
    for name, columns in (("stock", STOCK), ("asserting", ASSERTING), ("async-fork", ASYNC_FORK)):
        text = insert(text, name, "\n".join(_matrix(lines, columns)))
    text = insert(text, "caught", "\n".join(_caught(lines)))
    page.write_text(text, encoding="utf-8")


def _catalogue() -> list[str]:
    table = ["| bug | what is wrong | programs, with their variants |", "|---|---|---|"]
    for bug in list_bugs():
        programs = [
            f"`{program.name}`" + "".join(f" `:{variant.name}`" for variant in program.variants)
            for program in bug.programs
        ]
        table.append(f"| {bug.id} | {bug.title} | {'<br>'.join(programs)} |")
    return table


def _matrix(lines: Mapping[Key, Line], columns: Sequence[Column]) -> list[str]:
    """A row for each program and variant, a column for each kernel."""
    names = dict.fromkeys(cell.program for column in columns for cell in column.cells())
    table = [["program", *(_titled(column, lines) for column in columns)], ["---"] * (len(columns) + 1)]
    for name in names:
        cells = ["<br>".join(_cells(name, column, lines)) for column in columns]
        if any(cells):
            table.append([f"`{name}`", *cells])
    return [f"| {' | '.join(row)} |" for row in table]


def _titled(column: Column, lines: Mapping[Key, Line]) -> str:
    versions = sorted({line.version for line in lines.values() if line.kernel == column.kernel})
    return f"{column.kernel}<br>{', '.join(versions)}" if versions else column.kernel


def _cells(name: str, column: Column, lines: Mapping[Key, Line]) -> list[str]:
    found = [(arch, lines.get((name, column.kernel, arch))) for arch in column.arches]
    planned = any(cell.program == name for cell in column.cells())
    shown = [(arch, line.shown() if line else "not measured yet") for arch, line in found]
    if not planned and not any(line for _, line in found):
        return []
    if len({text for _, text in shown}) == 1 and len(shown) > 1:
        return [f"both: {shown[0][1]}"]
    return [f"{arch}: {text}" for arch, text in shown]


def _caught(lines: Mapping[Key, Line]) -> list[str]:
    """A row for each mutant and architecture: all that catches it, and how much does not."""
    table = ["| mutant | arch | caught by | clean | other |", "|---|---|---|---|---|"]
    programs = [f"{bug.id}/{program.name}" for bug in list_bugs() for program in bug.programs]
    for mutant in mutants():
        for arch in mutant.arches:
            found = [lines[key] for name in programs if (key := (name, mutant.name, arch)) in lines]
            hits = [f"`{line.program}` {line.shown()}" for line in found if line.verdict == "reproduced"]
            clean = sum(line.verdict == "clean" for line in found)
            rest = [f"`{line.program}` {line.shown()}" for line in found if line.verdict == "cannot-tell"]
            lacking = sum(line.verdict == "unsupported" for line in found)
            rest += [f"{lacking} unsupported"] if lacking else []
            missing = len(programs) - len(found)
            rest += [f"{missing} not measured yet"] if missing else []
            nobody = "**not caught**" if found else "not measured yet"
            row = [mutant.name, arch, "<br>".join(hits) or nobody, str(clean), "<br>".join(rest) or "-"]
            table.append(f"| {' | '.join(row)} |")
    return table
