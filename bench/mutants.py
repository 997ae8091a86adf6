"""The table in docs/mutants.md: which kernels with a known fault are caught, by what, and how often.

    python -m bench.mutants [NAME…] [--arch ARCH…] [--attempts N] [--write docs/mutants.md]

Each mutant is first held to a control, which does not provoke its fault and must stay clean. The first time they are
built, which takes a minute or two each; all of them take hours, so what is measured is written line by line, and lines
that are not measured anew are kept. Exit code 1 if one is not as the header of its patch says.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from bench.cells import Cell, mutants
from bench.rates import measure
from bench.report import Measured
from harness.arch import ARCHES, get_arch
from harness.cache import Cache
from harness.errors import CowpenError
from harness.folders import data_folder
from harness.kernel.definition import Definition
from harness.kernel.kernel import resolve
from harness.trial.statistics import percent

# What every kernel must do right: as a program without a bug record, for that brings the disk it needs.
CONTROL = str(data_folder("guest-programs") / "everyday" / "everyday.c.j2")
_CONTROL_ATTEMPTS = 3
_UNKNOWN = ("not measured yet", "-", "-")
TABLE = Measured(
    "mutants",
    (
        "mutant",
        "arch",
        "control",
        "caught by",
        "verdict",
        "reproduced",
        "rate (95 %)",
        "what it removes",
        "measured",
    ),
    keys=2,
)


def measured(mutant: Definition, arch: str, attempts: int) -> tuple[str, bool]:
    """A line of the table, and whether the mutant behaves as its header says; builds it."""
    resolve(mutant.name, get_arch(arch), Cache(), tell=lambda line: print(line, file=sys.stderr))
    control = measure(Cell(CONTROL, mutant.name, _CONTROL_ATTEMPTS), arch)
    record = measure(Cell(mutant.caught_by or "", mutant.name, attempts), arch)
    hits = record["counts"]["reproduced"]
    wanted = mutant.within if arch in mutant.caught_on else None
    good = control["verdict"] == "clean" and (wanted is None or hits > 0 or attempts < wanted)
    return TABLE.line(_cells(mutant, arch, control["verdict"], _shown(record))), good


def _cells(mutant: Definition, arch: str, control: str, shown: tuple[str, str, str]) -> list[str]:
    return [mutant.name, arch, control, mutant.caught_by or "", *shown, mutant.title.removeprefix("mutant: ")]


def _shown(record: dict[str, Any]) -> tuple[str, str, str]:
    low, high = record["interval"]
    rate = "-" if record["rate"] is None else f"{percent(record['rate'])} ({percent(low)} to {percent(high)})"
    verdict = (
        record["verdict"] if record["verdict"] == "reproduced" else f"**not caught**: {record['verdict']}"
    )
    return verdict, f"{record['counts']['reproduced']} of {record['attempts']}", rate


def main() -> None:
    """Measure, print the lines, and with ``--write`` put each into the document."""
    every = mutants()
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all")
    parser.add_argument("--arch", action="append", choices=ARCHES, help="default: all")
    parser.add_argument("--attempts", type=int, default=20)
    parser.add_argument("--write", type=Path, metavar="FILE")
    options = parser.parse_args()
    if unknown := set(options.names) - {mutant.name for mutant in every}:
        parser.error(f"no mutant {', '.join(sorted(unknown))}")
    if options.write:
        lines = [TABLE.blank(_cells(one, arch, "-", _UNKNOWN)) for one in every for arch in one.arches]
        TABLE.cover(lines, options.write)
    print("\n".join(TABLE.head), flush=True)
    failed = []
    for mutant in every:
        for arch in mutant.arches:
            if (options.names and mutant.name not in options.names) or arch not in (options.arch or ARCHES):
                continue
            try:
                line, good = measured(mutant, arch, options.attempts)
            except CowpenError as error:
                failed.append(f"{mutant.name} for {arch}: {error}")
                continue
            TABLE.tell(line, options.write)
            if not good:
                failed.append(f"{mutant.name} for {arch}: not as its header says")
    sys.exit("\n".join(failed) or 0)


if __name__ == "__main__":
    main()
