"""What an attempt costs: from a snapshot against a cold boot, and how many come out of a minute with more jobs.

    python -m bench.attempts [--arch ARCH]… [--kernel SPEC] [--json FILE]

The cold attempts and those from the snapshot are whole attempts as ``cowpen run`` counts them (start of QEMU, program
pushed and run, guest ended), taken in turn. Attempts per minute are those of one ``cowpen run``, its start included.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from harness.arch import ARCHES

GOAL = 5.0  # a cold attempt takes at least so many times as long as one from a snapshot
BUG = "rhbz-471613/forkscrew"
SECONDS = 900.0


def attempts(arch: str, kernel: str, *words: str) -> tuple[list[float], float]:
    """Seconds of each attempt of one run, and of the whole run."""
    command = [
        sys.executable,
        "-m",
        "harness.cli.main",
        "run",
        BUG,
        "--kernel",
        kernel,
        "--arch",
        arch,
        "--json",
    ]
    begin = time.monotonic()
    done = subprocess.run([*command, *words], capture_output=True, timeout=SECONDS, check=False)
    seconds = time.monotonic() - begin
    if done.returncode not in (0, 1):
        sys.exit(f"cowpen exited with {done.returncode}:\n{done.stderr.decode(errors='replace')[-3000:]}")
    records = [json.loads(line) for line in done.stdout.splitlines()]
    return [record["seconds"] for record in records if record["type"] == "attempt"], seconds


def measure(arch: str, kernel: str) -> dict[str, Any]:
    """The figures of one architecture."""
    attempts(arch, kernel, "--attempts", "1")  # makes the snapshot and compiles
    cold: list[float] = []
    warm: list[float] = []
    for _ in range(5):
        cold += attempts(arch, kernel, "--cold", "--attempts", "1")[0]
        warm += attempts(arch, kernel, "--attempts", "3")[0]
    per_minute = {}
    for jobs in (1, 2, 4):
        seconds, wall = attempts(arch, kernel, "--attempts", "40", "--jobs", str(jobs))
        per_minute[jobs] = 60 * len(seconds) / wall
    return {
        "arch": arch,
        "kernel": kernel,
        "cold_seconds": statistics.median(cold),
        "snapshot_seconds": statistics.median(warm),
        "ratio": statistics.median(cold) / statistics.median(warm),
        "attempts_per_minute": per_minute,
    }


def main() -> None:
    """Measure and print; exit code 1 if the goal is missed."""
    parser = argparse.ArgumentParser(description="attempts from snapshots and from cold boots")
    parser.add_argument("--arch", action="append", choices=list(ARCHES), help="default: all")
    parser.add_argument("--kernel", default="debian:6.1")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(prefix="cowpen-bench-") as state:
        os.environ["XDG_STATE_HOME"] = state
        print(
            "arch      kernel       cold attempt   from snapshot   ratio   attempts/minute with 1, 2, 4 jobs"
        )
        for arch in options.arch or ARCHES:
            row = measure(arch, options.kernel)
            rows.append(row)
            minute = ", ".join(f"{rate:.0f}" for rate in row["attempts_per_minute"].values())
            print(
                f"{arch:<9} {options.kernel:<12} {row['cold_seconds']:>10.2f} s {row['snapshot_seconds']:>13.2f} s"
                f" {row['ratio']:>7.1f}   {minute}",
                flush=True,
            )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    missed = [row["arch"] for row in rows if row["ratio"] < GOAL]
    print(f"goal: ratio at least {GOAL}: " + (f"missed on {', '.join(missed)}" if missed else "reached"))
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
