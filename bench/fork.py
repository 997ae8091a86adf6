"""How long a process with 1 GiB of memory waits for fork(), with asynchronous fork off and on."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator

from bench.guests import guests, push_program
from bench.report import Benchmark, Column, Options, Row, Spread, ratios
from harness.arch import Arch
from harness.errors import HostError
from harness.guest.channel import Ending, Stream
from harness.guest.machine import MachineShape
from harness.program.program import load_program
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
    """Standard output of the program in one guest; `HostError` if it did not end well."""
    settings = {"mib": str(_MIB), "rounds": str(options.rounds(_ROUNDS))}
    subject = Subject(program=load_program(_PROGRAM), settings=settings)
    target = GuestTarget(spec=_KERNEL, arch=arch, base=_SHAPE, cold=True)
    prepared = target.stage(subject, target.kernel(options.cache, options.tell), options.cache, options.tell)
    output: dict[Stream, bytes] = defaultdict(bytes)

    def hear(stream: Stream, data: bytes) -> None:
        output[stream] += data

    with guests(prepared, 1) as (guest,):
        guest.ready()
        path = push_program(prepared, guest)
        ended = guest.channel.run([path], seconds=prepared.program_seconds, on_output=hear)
    if (ended.ending, ended.code) != (Ending.EXITED, 0):
        said = output[Stream.STDERR].decode(errors="replace").strip()
        raise HostError(f"{_PROGRAM} on {_KERNEL} for {arch.name} {ended.describe()}: {said}")
    return output[Stream.STDOUT]


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
