"""What a benchmark is, as data, and what becomes of its figures: a table for people, JSON, a part of a document."""

from __future__ import annotations

import dataclasses
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.arch import Arch
from harness.cache import Cache
from harness.errors import Tell

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Spread:
    """What several measurements of one thing came to."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        ordered = sorted(values)
        return cls(statistics.median(ordered), ordered[0], ordered[-1])

    def text(self, digits: int = 2) -> str:
        """``1.03 (0.95 to 1.26)``."""
        return f"{self.median:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"


def ratios(left: Sequence[float], right: Sequence[float]) -> Spread:
    """How many times as much as ``right``, pair by pair: what changed between pairs falls out."""
    return Spread.of(a / b for a, b in zip(left, right, strict=True))


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of a table: its heading, and what stands in it, made of a row of figures."""

    heading: str
    text: Callable[[Row], str]

    @classmethod
    def word(cls, heading: str, key: str) -> Column:
        return cls(heading, lambda row: str(row[key]))

    @classmethod
    def seconds(cls, heading: str, key: str) -> Column:
        return cls(heading, lambda row: f"{row[key].median:.2f} s")

    @classmethod
    def spread(cls, heading: str, key: str, digits: int = 2) -> Column:
        return cls(heading, lambda row: str(row[key].text(digits)))


@dataclasses.dataclass(frozen=True)
class Options:
    """How to measure: on which architectures, and how often (None: as each benchmark thinks right)."""

    arches: tuple[Arch, ...]
    pairs: int | None
    cache: Cache
    tell: Tell

    def rounds(self, usual: int) -> int:
        return self.pairs or usual


@dataclasses.dataclass(frozen=True, kw_only=True)
class Benchmark:
    """One table. ``missed`` tells whether a row misses the goal, which ``goal`` says in words ("": there is none)."""

    title: str
    columns: tuple[Column, ...]
    measure: Callable[[Options], Iterator[Row]]
    goal: str = ""
    missed: Callable[[Row], bool] = lambda row: False


def heading(columns: Sequence[Column]) -> list[str]:
    """The first two lines of a Markdown table."""
    return _head([column.heading for column in columns])


def line(columns: Sequence[Column], row: Row) -> str:
    """A line of it."""
    return _line(column.text(row) for column in columns)


def _head(headings: Sequence[str]) -> list[str]:
    return [_line(headings), "|" + "---|" * len(headings)]


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


@dataclasses.dataclass(frozen=True)
class Measured:
    """A table in a document that is measured line by line: lines that are not measured anew are kept."""

    name: str
    """The table stands between the comments ``bench:NAME`` and ``end of NAME``."""
    columns: tuple[str, ...]
    keys: int
    """So many columns, the first, say what a line is about. The table is sorted by them."""

    @property
    def head(self) -> list[str]:
        """The first two lines."""
        return _head(self.columns)

    def line(self, cells: Sequence[str]) -> str:
        """A line of it; ``cells`` are of all columns but the last, which tells when and where it was measured."""
        where = f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores, {platform.machine()}"
        return _line([*cells, where])

    def blank(self, cells: Sequence[str]) -> str:
        """A line of what was not measured yet."""
        return _line([*cells, "-"])

    def tell(self, line: str, document: Path | None) -> None:
        """Print the line, and put it into the document if there is one, in place of an earlier one about the same.

        `ValueError` if the document has no place for the table.
        """
        print(line, flush=True)
        if document:
            self._put(self.rows(document) | {self._key(line): line}, document)

    def cover(self, lines: Sequence[str], document: Path) -> None:
        """Let the document's table have lines about just these: what it says of others goes, what it lacks comes."""
        rows = self.rows(document)
        self._put({key: rows.get(key, line) for line in lines for key in [self._key(line)]}, document)

    def rows(self, document: Path) -> dict[tuple[str, ...], str]:
        """The lines of the document's table by what they are about. `ValueError` if it has no place for the table."""
        text = _place(document.read_text(encoding="utf-8"), self.name)[2]
        rows = {self._key(line): line for line in text.splitlines() if line.startswith("| ")}
        rows.pop(self._key(self.head[0]), None)
        return rows

    def _put(self, rows: Mapping[tuple[str, ...], str], document: Path) -> None:
        table = "\n".join([*self.head, *(rows[key] for key in sorted(rows))])
        text = document.read_text(encoding="utf-8")
        document.write_text(insert(text, self.name, table), encoding="utf-8")

    def _key(self, line: str) -> tuple[str, ...]:
        return tuple(line.removeprefix("| ").split(" | ")[: self.keys])


def insert(document: str, name: str, text: str) -> str:
    """The document with ``text`` between the comments ``bench:NAME`` and ``end of NAME``.

    Raises `ValueError` if they are not there, each once and in this order.
    """
    found = _place(document, name)
    head, tail = document[: found.start(2)], document[found.end(2) :]
    return f"{head}\n{text.strip()}\n\n{tail}"


def _place(document: str, name: str) -> re.Match[str]:
    begin, end = f"<!-- bench:{name} -->", f"<!-- end of {name} -->"
    found = list(re.finditer(f"({re.escape(begin)}\n)(.*?)({re.escape(end)})", document, re.DOTALL))
    if len(found) != 1:
        raise ValueError(f"{len(found)} places between {begin} and {end}, where one was expected")
    return found[0]
