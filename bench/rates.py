"""The table in docs/bugs.md: which program shows which bug on which kernel, and how often. Every cell is measured.

    python -m bench.rates [BUG[/PROGRAM]…] [--arch ARCH…] [--attempts-scale F] [--write docs/bugs.md]

Takes an hour on two cores, and kernels are built the first time; so what is measured is written line by line, and lines
that are not measured anew are kept. `make rates` writes the whole table.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.report import Measured
from harness.arch import ARCHES
from harness.trial.statistics import missed_rate, percent, percent_up

_SECONDS_PER_ATTEMPT = 120.0
_BUILD_SECONDS = 7200.0
TABLE = Measured(
    "rates",
    (
        *("bug", "program", "kernel", "arch", "version", "verdict", "reproduced", "rate (95 % interval)"),
        *("as expected", "s/attempt", "measured"),
    ),
    keys=4,
)


@dataclasses.dataclass(frozen=True)
class Cell:
    """One row of the table per architecture: a program with settings on a kernel."""

    program: str
    """``BUG/PROGRAM``, or the path of a program of its own (``--program``)."""
    kernel: str
    attempts: int
    settings: tuple[str, ...] = ()
    arches: tuple[str, ...] = tuple(ARCHES)


CELLS = (
    Cell("rhbz-471613/forkscrew", "debian:6.1", 100),
    Cell("rhbz-471613/forkscrew", "debian:6.12", 200),
    Cell("rhbz-471613/forkscrew", "debian:6.12-16k", 50, arches=("aarch64",)),
    Cell("rhbz-471613/dma_thread", "debian:6.1", 20),
    Cell("rhbz-471613/dma_thread", "debian:6.12", 50),
    Cell("rhbz-471613/dma_thread", "debian:6.1", 20, ("alignment=0",)),
    Cell("anck-26936/cow_writers", "async-fork", 20),
    Cell("anck-26936/cow_writers", "async-fork-fixed", 200),
    Cell("anck-26936/cow_writers", "debian:6.12", 1),
    Cell("anck-26936/pin_async_fork", "async-fork-silent", 20),
    Cell("anck-26936/pin_async_fork", "async-fork-fixed", 20),
)


def measure(cell: Cell, arch: str, scale: float) -> dict[str, Any]:
    """The verdict record of one trial, with the seconds it took."""
    attempts = max(1, round(cell.attempts * scale))
    command = [sys.executable, "-m", "harness.cli.main", "run"]
    command += ["--program", cell.program] if Path(cell.program).is_absolute() else [cell.program]
    command += ["--kernel", cell.kernel, "--arch", arch, "--attempts", str(attempts), "--json"]
    for setting in cell.settings:
        command += ["--set", setting]
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="cowpen-rates-") as state:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            env=os.environ | {"XDG_STATE_HOME": state},
            timeout=_BUILD_SECONDS + _SECONDS_PER_ATTEMPT * attempts,
            check=False,
        )
    if done.returncode not in (0, 1, 125):
        sys.exit(f"{' '.join(command)} exited with {done.returncode}")
    record: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert record["type"] == "verdict"
    # The table has no room for it, and why an attempt could not tell is nowhere else.
    print(f"{cell.program} on {cell.kernel}, {arch}: {record['reason']}", file=sys.stderr, flush=True)
    return record | {"seconds": time.monotonic() - begin, "settings": " ".join(cell.settings)}


def row(record: dict[str, Any]) -> str:
    """A line of the Markdown table."""
    counts = record["counts"]
    low, high = record["interval"]
    if record["rate"] is None:
        rate = "-"
    elif record["verdict"] == "clean":
        rate = f"0 %; ≥ {percent_up(missed_rate(record['attempts']))} excluded (p < 0.05)"
    else:
        rate = f"{percent(record['rate'])} ({percent(low)} to {percent(high)})"
    version = (record["kernel"]["provenance"] or {}).get("version", record["kernel"]["release"])
    expected = {True: "yes", False: "**no**", None: "-"}[record["as_expected"]]
    cells = [
        record["bug"],
        record["program"] + (f" {record['settings']}" if record["settings"] else ""),
        record["kernel"]["spec"],
        record["arch"],
        version,
        record["verdict"],
        f"{counts['reproduced']} of {record['attempts']}",
        rate,
        expected,
        f"{record['seconds'] / record['attempts']:.2f}",
    ]
    return TABLE.line([str(cell) for cell in cells])


def main() -> None:
    """Measure, print the lines, and with ``--write`` put each into the document."""
    parser = argparse.ArgumentParser(description="measure the table of docs/bugs.md")
    parser.add_argument("names", nargs="*", metavar="BUG[/PROGRAM]", help="default: all")
    parser.add_argument("--arch", action="append", choices=ARCHES, help="default: all")
    parser.add_argument("--attempts-scale", type=float, default=1.0, help="fewer attempts, for a quick look")
    parser.add_argument("--write", type=Path, help="the document with the table")
    options = parser.parse_args()
    print("\n".join(TABLE.head), flush=True)
    unexpected = False
    for cell in CELLS:
        if options.names and not {cell.program, cell.program.partition("/")[0]} & set(options.names):
            continue
        for arch in cell.arches:
            if arch not in (options.arch or ARCHES):
                continue
            record = measure(cell, arch, options.attempts_scale)
            unexpected |= record["as_expected"] is False
            TABLE.tell(row(record), options.write)
    sys.exit(1 if unexpected else 0)


if __name__ == "__main__":
    main()
