"""What an attempt costs: from a snapshot against a cold boot.

Both are whole attempts as ``cowpen run`` counts them: start of QEMU, program pushed and run, guest ended.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from bench.report import Benchmark, Column, Options, Row, Spread, ratios
from bench.runs import KERNEL, SMALL, cowpen_run, in_turn, kernel_spec
from harness.arch import Arch

_GOAL = 5.0
_PAIRS = 5
_FROM_SNAPSHOT = 3  # attempts of a run; the median of them is one measurement


def _measure(options: Options) -> Iterator[Row]:
    for arch in options.arches:
        for kernel in (KERNEL, SMALL):
            yield _row(arch, kernel, options)


def _row(arch: Arch, kernel: str, options: Options) -> Row:
    spec = kernel_spec(kernel, arch, options)
    release = cowpen_run(spec, arch, 1).release  # makes the snapshot, and compiles
    seconds = in_turn(
        {
            "cold": lambda: cowpen_run(spec, arch, 1, "--cold").attempts[0],
            "snapshot": lambda: statistics.median(cowpen_run(spec, arch, _FROM_SNAPSHOT).attempts),
        },
        options.rounds(_PAIRS),
    )
    return {
        "arch": arch.name,
        "kernel": kernel,
        "release": release,
        "cold": Spread.of(seconds["cold"]),
        "snapshot": Spread.of(seconds["snapshot"]),
        "ratio": ratios(seconds["cold"], seconds["snapshot"]),
    }


BENCHMARK = Benchmark(
    title="an attempt from a snapshot against one from a cold boot",
    columns=(
        Column.word("arch", "arch"),
        Column.word("kernel", "kernel"),
        Column.seconds("cold attempt", "cold"),
        Column.seconds("from a snapshot", "snapshot"),
        Column.spread("ratio, median (range)", "ratio", 1),
    ),
    measure=_measure,
    goal=f"a cold attempt takes at least {_GOAL:.0f} times as long as one from a snapshot",
    missed=lambda row: row["ratio"].median < _GOAL,
)
