"""The table in docs/mutants.md: which kernels with a known fault are caught, by what, and how often.

    python -m bench.mutants [NAME…] [--arch ARCH…] [--attempts N] [--write docs/mutants.md]

Each mutant is first held to a control, which does not provoke its fault and must stay clean. One whose program is not
in the catalogue yet stands there as not caught. The first time they are built, which takes a minute or two each; all of
them take hours, so what is measured is written line by line, and lines that are not measured anew are kept.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from bench.rates import Cell, measure
from bench.report import Measured
from harness.arch import ARCHES, get_arch
from harness.bug import list_bugs
from harness.cache import Cache
from harness.folders import data_folder
from harness.kernel.definition import Definition, define
from harness.kernel.kernel import resolve
from harness.kernel.names import definition_files
from harness.trial.statistics import percent

# What every kernel must do right: as a program without a bug record, for that brings the disk it needs.
CONTROL = f"--program {data_folder('guest-programs') / 'everyday' / 'everyday.c.j2'}"
_CONTROL_ATTEMPTS = 3
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


def mutants() -> list[Definition]:
    """All of them, by name."""
    found = [define(name) for name, (_, series) in definition_files().items() if series is not None]
    return sorted(found, key=lambda mutant: mutant.name)


def row(mutant: Definition, arch: str, attempts: int) -> str:
    """A line of the table; builds the mutant."""
    resolve(mutant.name, get_arch(arch), Cache(), tell=lambda line: print(line, file=sys.stderr))
    control = measure(Cell(CONTROL, mutant.name, _CONTROL_ATTEMPTS), arch, 1)
    known = {f"{bug.id}/{one.name}" for bug in list_bugs() for one in bug.programs}
    caught = mutant.caught_by or ""
    if caught in known:
        shown = _shown(measure(Cell(caught, mutant.name, attempts), arch, 1))
    else:
        shown = ("**not caught**: no such program yet", "-", "-")
    cells = [mutant.name, arch, control["verdict"], caught, *shown, mutant.title.removeprefix("mutant: ")]
    return TABLE.line(cells)


def _shown(record: dict[str, Any]) -> tuple[str, str, str]:
    low, high = record["interval"]
    rate = "-" if record["rate"] is None else f"{percent(record['rate'])} ({percent(low)} to {percent(high)})"
    verdict = (
        record["verdict"] if record["verdict"] == "reproduced" else f"**not caught**: {record['verdict']}"
    )
    return verdict, f"{record['counts']['reproduced']} of {record['attempts']}", rate


def main() -> None:
    """Measure, print the lines, and with ``--write`` put each into the document."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all")
    parser.add_argument("--arch", action="append", choices=ARCHES, help="default: all")
    parser.add_argument("--attempts", type=int, default=20)
    parser.add_argument("--write", type=Path, metavar="FILE")
    options = parser.parse_args()
    print("\n".join(TABLE.head), flush=True)
    for mutant in mutants():
        for arch in mutant.arches:
            if (options.names and mutant.name not in options.names) or arch not in (options.arch or ARCHES):
                continue
            TABLE.tell(row(mutant, arch, options.attempts), options.write)


if __name__ == "__main__":
    main()
