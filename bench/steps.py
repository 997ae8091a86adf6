"""Where the time of an attempt from a snapshot goes; what moving the program into the guest takes of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import pairwise

from bench.guests import guests, push_program, stage
from bench.report import Benchmark, Column, Options, Row, Spread
from harness.arch import Arch
from harness.trial.stage import GuestStage

_GOAL = 0.10
_ATTEMPTS = 15
_STEPS = ("start", "greeting", "push", "run", "settle", "end")


def _measure(options: Options) -> Iterator[Row]:
    for arch in options.arches:
        yield _row(arch, options)


def _row(arch: Arch, options: Options) -> Row:
    prepared = stage(arch, options)
    _steps(prepared)  # reads the snapshot into the page cache
    attempts = [_steps(prepared) for _ in range(options.rounds(_ATTEMPTS))]
    totals = [sum(attempt.values()) for attempt in attempts]
    return {
        "arch": arch.name,
        "release": prepared.kernel.release,
        "program_bytes": prepared.compiled.binary.stat().st_size,
        **{step: Spread.of(attempt[step] for attempt in attempts) for step in _STEPS},
        "total": Spread.of(totals),
        "share": Spread.of(attempt["push"] / total for attempt, total in zip(attempts, totals, strict=True)),
    }


def _steps(prepared: GuestStage) -> dict[str, float]:
    """Seconds of each step of one attempt, as `harness.trial.attempt` takes them."""
    moments = [time.monotonic()]

    def done() -> None:
        moments.append(time.monotonic())

    with guests(prepared, 1) as (guest,):
        done()
        guest.ready()
        done()
        path = push_program(prepared, guest)
        done()
        guest.channel.run([path], seconds=prepared.program_seconds)
        done()
        guest.channel.hello(seconds=prepared.program_seconds)
        guest.check()
        done()
    done()
    return dict(zip(_STEPS, (end - begin for begin, end in pairwise(moments)), strict=True))


BENCHMARK = Benchmark(
    title="where the time of an attempt from a snapshot goes",
    columns=(
        Column.word("arch", "arch"),
        *(Column(step, lambda row, step=step: f"{1000 * row[step].median:.0f} ms") for step in _STEPS),  # type: ignore[misc]
        Column("all", lambda row: f"{1000 * row['total'].median:.0f} ms"),
        Column("share of the push", lambda row: f"{100 * row['share'].median:.1f} %"),
    ),
    measure=_measure,
    goal=f"pushing the program takes at most {100 * _GOAL:.0f} % of an attempt",
    missed=lambda row: row["share"].median > _GOAL,
)
