"""How long a process with 1 GiB of memory waits for fork(), with asynchronous fork off and on."""

from __future__ import annotations

import re
from collections.abc import Iterator

from bench.guests import guests, push_program
from bench.report import Benchmark, Column, Options, Row, Spread, ratios
from harness.arch import Arch
from harness.errors import HostError
from harness.guest.machine import MachineShape
from harness.program.program import load_program
from harness.trial.fork_cost import printed
from harness.trial.subject import Subject
from harness.trial.target import GuestTarget

_KERNEL = "async-fork-fixed"
_PROGRAM = "fork_time"
_GOAL = 10
_MIB = 1024
# The memory once more for a child that looks at it and a parent that writes to it, and the kernel's own.
_SHAPE = MachineShape(memory_mib=3 * _MIB)
_ROUNDS = 3
_LINE = re.compile(rb"^fork: off ([\d.]+) on ([\d.]+)$", re.MULTILINE)


def _measure(options: Options) -> Iterator[Row]:
    for arch in options.arches:
        yield _row(arch, options)


def _row(arch: Arch, options: Options) -> Row:
    figures = _LINE.findall(_printed(arch, options))
    if not figures:
        raise HostError(f"{_PROGRAM} on {_KERNEL} for {arch.name} has timed nothing")
    off, on = ([float(figure) for figure in column] for column in zip(*figures, strict=True))
    return {
        "arch": arch.name,
        "kernel": _KERNEL,
        "off": Spread.of(off),
        "on": Spread.of(on),
        "ratio": ratios(off, on),
    }


def _printed(arch: Arch, options: Options) -> bytes:
    """Standard output of the program in one guest; `GuestError` if it did not end well."""
    settings = {"mib": str(_MIB), "rounds": str(options.rounds(_ROUNDS))}
    subject = Subject(program=load_program(_PROGRAM), settings=settings)
    target = GuestTarget(spec=_KERNEL, arch=arch, base=_SHAPE, cold=True)
    prepared = target.stage(subject, target.kernel(options.cache, options.tell), options.cache, options.tell)
    with guests(prepared, 1) as (guest,):
        guest.ready()
        path = push_program(prepared, guest)
        what = f"{_PROGRAM} on {_KERNEL} for {arch.name}"
        return printed(guest, path, seconds=prepared.program_seconds, what=what)


BENCHMARK = Benchmark(
    title="fork() of 1 GiB, asynchronous fork off and on",
    columns=(
        Column.word("arch", "arch"),
        Column.word("kernel", "kernel"),
        Column("off", lambda row: f"{row['off'].text(1)} ms"),
        Column("on", lambda row: f"{row['on'].text(1)} ms"),
        Column("off : on", lambda row: str(row["ratio"].text(0))),
    ),
    measure=_measure,
    goal=f"at least {_GOAL} times as short with asynchronous fork",
    missed=lambda row: row["ratio"].median < _GOAL,
)
