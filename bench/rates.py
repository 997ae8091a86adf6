"""The catalogue, measured: docs/bugs.tsv, a line per program, kernel and architecture, and docs/bugs.md, made of it.

    python -m bench.rates [BUG[/PROGRAM[:VARIANT]]…] [--kernel SPEC…] [--arch ARCH…] [--missing] [--write]

All of it takes a day on two cores, so each line is written as soon as it is measured, and lines that are not measured
anew are kept; ``--missing`` goes on where the last one stopped. `make rates` measures everything. Exit code 1 if one is
not as expected.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import rates_page
from bench.cells import Cell, cells
from bench.rates_page import Line
from harness.arch import ARCHES

_SECONDS_PER_ATTEMPT = 240.0
_BUILD_SECONDS = 7200.0
DATA = Path("docs/bugs.tsv")
PAGE = Path("docs/bugs.md")


def measure(cell: Cell, arch: str, scale: float = 1.0) -> dict[str, Any]:
    """The verdict record of one trial, with the seconds it took."""
    attempts = max(1, round(cell.attempts * scale))
    command = [sys.executable, "-m", "harness.cli.main", "run", *cell.command]
    command += ["--arch", arch, "--attempts", str(attempts), "--json"]
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
    # A table has no room for it, and why an attempt could not tell is nowhere else.
    print(f"{cell.program} on {cell.kernel}, {arch}: {record['reason']}", file=sys.stderr, flush=True)
    return record | {"seconds": time.monotonic() - begin}


def _wanted(cell: Cell, names: list[str], kernels: list[str] | None) -> bool:
    whole = cell.program.partition(":")[0]
    named = not names or bool({cell.program, whole, whole.partition("/")[0]} & set(names))
    return named and (not kernels or cell.kernel in kernels)


def _keep(line: Line) -> None:
    """Put the line into the documents; another one of us, for another architecture, may do so at the same time."""
    folder = os.open(DATA.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        lines = rates_page.read(DATA) | {line.key: line}
        rates_page.store(lines, DATA)
        rates_page.write(lines, PAGE)
    finally:
        os.close(folder)


def main() -> None:
    """Measure, print the lines, and with ``--write`` put each into the documents."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="BUG[/PROGRAM[:VARIANT]]", help="default: all")
    parser.add_argument("--kernel", action="append", metavar="SPEC", help="default: all")
    parser.add_argument("--arch", action="append", choices=ARCHES, help="default: all")
    parser.add_argument("--attempts-scale", type=float, default=1.0, help="fewer attempts, for a quick look")
    parser.add_argument("--missing", action="store_true", help="only what has no line yet")
    parser.add_argument("--minutes", type=float, help="begin no trial after so many minutes")
    parser.add_argument(
        "--write", action="store_true", help=f"keep the lines in {DATA} and make {PAGE} of it"
    )
    parser.add_argument("--page", action="store_true", help=f"measure nothing: make {PAGE} of {DATA}")
    options = parser.parse_args()
    if options.page:
        rates_page.write(rates_page.read(DATA), PAGE)
        return
    end = time.monotonic() + 60 * options.minutes if options.minutes else float("inf")
    unexpected = False
    for cell in cells():
        for arch in cell.arches:
            if not _wanted(cell, options.names, options.kernel) or arch not in (options.arch or ARCHES):
                continue
            if options.missing and Line.key_of(cell, arch) in rates_page.read(DATA):
                continue
            if time.monotonic() > end:
                sys.exit("out of time: --missing goes on from here")
            line = Line.of(cell, measure(cell, arch, options.attempts_scale))
            unexpected |= line.as_expected == "no"
            print(line.text(), flush=True)
            if options.write:
                _keep(line)
    sys.exit(1 if unexpected else 0)


if __name__ == "__main__":
    main()
