"""The table in docs/bugs.md: which program shows which bug on which kernel, and how often. Every cell is measured.

    python -m bench.rates [--attempts-scale F] [--write docs/bugs.md]

Takes about twenty minutes on two cores. `make rates` writes the table.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from harness.arch import ARCHES
from harness.trial.statistics import missed_rate, percent, percent_up

_SECONDS_PER_ATTEMPT = 120.0
_MARK = "<!-- made by `make rates`: do not edit below -->"


@dataclasses.dataclass(frozen=True)
class Cell:
    """One row of the table per architecture: a program with settings on a kernel."""

    program: str
    """As ``cowpen run`` takes it: ``BUG/PROGRAM``, or ``--program FILE``."""
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
)


def measure(cell: Cell, arch: str, scale: float) -> dict[str, Any]:
    """The verdict record of one trial, with the seconds it took."""
    attempts = max(1, round(cell.attempts * scale))
    command = [sys.executable, "-m", "harness.cli.main", "run", *cell.program.split()]
    command += ["--kernel", cell.kernel, "--arch", arch, "--attempts", str(attempts), "--json"]
    for setting in cell.settings:
        command += ["--set", setting]
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="cowpen-rates-") as state:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            env=os.environ | {"XDG_STATE_HOME": state},
            timeout=_SECONDS_PER_ATTEMPT * attempts,
            check=False,
        )
    if done.returncode not in (0, 1, 125):
        sys.exit(f"{' '.join(command)} exited with {done.returncode}")
    record: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert record["type"] == "verdict"
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
        f"{record['kernel']['spec']} ({version})",
        record["arch"],
        record["verdict"],
        f"{counts['reproduced']} of {record['attempts']}",
        rate,
        expected,
        f"{record['seconds'] / record['attempts']:.2f}",
    ]
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def main() -> None:
    """Measure every cell; print the table, and with ``--write`` put it into the document."""
    parser = argparse.ArgumentParser(description="measure the table of docs/bugs.md")
    parser.add_argument("--attempts-scale", type=float, default=1.0, help="fewer attempts, for a quick look")
    parser.add_argument("--write", type=Path, help="the document whose table is replaced")
    options = parser.parse_args()
    lines = [
        f"Measured on {time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores, {platform.machine()}, emulation (TCG).",
        "",
        "| bug | program | kernel | arch | verdict | reproduced | rate (95 % interval) | as expected | s/attempt |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    records = []
    for cell in CELLS:
        for arch in cell.arches:
            records.append(measure(cell, arch, options.attempts_scale))
            lines.append(row(records[-1]))
            print(lines[-1], flush=True)
    if options.write:
        head, mark, _ = options.write.read_text(encoding="utf-8").partition(_MARK)
        if not mark:
            sys.exit(f"{options.write} has no line {_MARK!r}")
        options.write.write_text(head + mark + "\n\n" + "\n".join(lines) + "\n", encoding="utf-8")
    sys.exit(1 if any(record["as_expected"] is False for record in records) else 0)


if __name__ == "__main__":
    main()
