"""Attempts per minute of one ``cowpen run``, its start included, with several guests at once."""

from __future__ import annotations

import functools
from collections.abc import Iterator

from bench.report import Benchmark, Column, Options, Row, Spread
from bench.runs import BUG, KERNEL, cowpen_run, in_turn
from harness.arch import Arch
from harness.trial.jobs import cores

_JOBS = (1, 2, 4)
_ROUNDS = 3
_ATTEMPTS = 40
_GOAL = 50.0  # attempts a minute and core
_GOAL_ARCH = "x86_64"


def _measure(options: Options) -> Iterator[Row]:
    for arch in options.arches:
        release = cowpen_run(KERNEL, arch, 1).release  # makes the snapshot, and compiles
        rates = in_turn(
            {str(jobs): functools.partial(_per_minute, arch, jobs) for jobs in _JOBS},
            options.rounds(_ROUNDS),
        )
        yield {
            "arch": arch.name,
            "kernel": KERNEL,
            "release": release,
            "goal": _GOAL * cores() if arch.name == _GOAL_ARCH else None,
            "jobs": {jobs: Spread.of(values) for jobs, values in rates.items()},
        }


def _per_minute(arch: Arch, jobs: int) -> float:
    run = cowpen_run(KERNEL, arch, _ATTEMPTS, "--jobs", str(jobs))
    return 60 * len(run.attempts) / run.seconds


def _cell(jobs: int, row: Row) -> str:
    spread: Spread = row["jobs"][str(jobs)]
    return spread.text(0)


def _missed(row: Row) -> bool:
    return row["goal"] is not None and max(rate.median for rate in row["jobs"].values()) < row["goal"]


BENCHMARK = Benchmark(
    title=f"attempts a minute of {BUG}, in runs of {_ATTEMPTS}",
    columns=(
        Column.word("arch", "arch"),
        Column.word("kernel", "kernel"),
        *(Column(f"`--jobs {jobs}`", functools.partial(_cell, jobs)) for jobs in _JOBS),
    ),
    measure=_measure,
    goal=f"{_GOAL:.0f} a core on {_GOAL_ARCH}, with the best number of jobs",
    missed=_missed,
)
