"""Measure what cowpen costs, and compare it with its goals.

    python -m bench [NAME…] [--arch ARCH]… [--pairs N] [--json FILE] [--write DOCUMENT]

Everything that is compared is measured in turn within one run, so the ratios hold on a host whose speed changes;
seconds are for orientation. Without NAME all benchmarks run, in some forty minutes on two cores once the small
kernels are built.
Exit code 1 if a goal is missed or a benchmark could not run.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import report
from bench.machine import Machine
from bench.report import Benchmark, Options
from harness.arch import ARCHES, get_arch
from harness.cache import Cache
from harness.errors import CowpenError
from harness.kernel.apt import write_atomically

NAMES = ("overhead", "attempts", "jobs", "virtme", "steps", "transfer", "memory", "parse", "fork", "build")


@dataclasses.dataclass
class _Figures:
    """What one benchmark has given so far."""

    benchmark: Benchmark
    rows: list[report.Row] = dataclasses.field(default_factory=list)
    trouble: str = ""
    seconds: float = 0.0

    @property
    def missed(self) -> list[str]:
        """The rows that miss the goal, as lines of the table."""
        benchmark = self.benchmark
        return [report.line(benchmark.columns, row) for row in self.rows if benchmark.missed(row)]

    def markdown(self, machine: Machine) -> str:
        columns = self.benchmark.columns
        lines = [*report.heading(columns), *(report.line(columns, row) for row in self.rows)]
        return "\n".join([machine.text(), "", *lines, "", self.verdict()])

    def verdict(self) -> str:
        if not self.benchmark.goal:
            return ""
        missed = len(self.missed)
        reached = "not known" if self.trouble or not self.rows else "reached"
        said = f"missed in {missed} of {len(self.rows)} rows" if missed else reached
        return f"Goal: {self.benchmark.goal}: {said}."

    def to_json(self) -> dict[str, Any]:
        return {
            "title": self.benchmark.title,
            "goal": self.benchmark.goal,
            "missed": self.missed,
            "trouble": self.trouble,
            "seconds": round(self.seconds, 1),
            "rows": self.rows,
        }


def _measure(name: str, options: Options) -> _Figures:
    """Run one benchmark and print its table as it grows."""
    figures = _Figures(importlib.import_module(f"bench.{name}").BENCHMARK)
    columns = figures.benchmark.columns
    begin = time.monotonic()
    print(f"\n{name}: {figures.benchmark.title}\n", *report.heading(columns), sep="\n", flush=True)
    try:
        for row in figures.benchmark.measure(options):
            figures.rows.append(row)
            print(report.line(columns, row), flush=True)
    except CowpenError as error:
        figures.trouble = str(error)
        print(f"{name} broke off: {error}\n{error.detail[-2000:]}", file=sys.stderr)
    figures.seconds = time.monotonic() - begin
    print(f"\n{figures.verdict()} ({figures.seconds:.0f} s)".strip(), flush=True)
    return figures


def _inserted(document: Path, tables: dict[str, str]) -> str:
    """The document with these tables in their places; raises what `bench.report.insert` does."""
    text = document.read_text(encoding="utf-8")
    for name, table in tables.items():
        text = report.insert(text, name, table)
    return text


def main() -> None:
    """Measure, print and write; exit code 1 if a goal is missed or a benchmark could not run."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="measure what cowpen costs")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; default: all")
    parser.add_argument("--arch", action="append", choices=list(ARCHES), help="default: all")
    parser.add_argument("--pairs", type=int, help="measurements of each thing; default: each benchmark's own")
    parser.add_argument("--json", type=Path, default=Path("build/bench.json"), help="default: %(default)s")
    parser.add_argument("--write", type=Path, help="the document whose tables are replaced")
    words = parser.parse_args()
    for name in words.names:
        if name not in NAMES:
            parser.error(f"no benchmark {name!r}; known: {', '.join(NAMES)}")
    names = words.names or NAMES
    if words.write:  # a document without a place for them is better known before half an hour of measuring
        try:
            _inserted(words.write, dict.fromkeys(names, ""))
        except (OSError, ValueError) as error:
            parser.error(f"{words.write}: {error}")
    options = Options(
        arches=tuple(get_arch(name) for name in words.arch or ARCHES),
        pairs=words.pairs,
        cache=Cache(),
        tell=lambda line: print(line, file=sys.stderr, flush=True),
    )
    with tempfile.TemporaryDirectory(prefix="cowpen-bench-") as state:
        os.environ["XDG_STATE_HOME"] = state
        figures = {name: _measure(name, options) for name in names}
    machine = Machine.here(options)
    result = {
        "machine": machine.to_json(),
        "benchmarks": {name: one.to_json() for name, one in figures.items()},
    }
    write_atomically(words.json, json.dumps(result, default=dataclasses.asdict, indent=1) + "\n")
    print(f"\n{machine.text()} Figures: {words.json}")
    if words.write:
        # What was not measured whole leaves the last figures in their place.
        whole = {name: one.markdown(machine) for name, one in figures.items() if not one.trouble}
        write_atomically(words.write, _inserted(words.write, whole))
    faults = {
        name: one.trouble or "; ".join(one.missed)
        for name, one in figures.items()
        if one.trouble or one.missed
    }
    for name, fault in faults.items():
        print(
            f"{name}: {'goal missed' if not figures[name].trouble else 'could not run'}: {fault}",
            file=sys.stderr,
        )
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
