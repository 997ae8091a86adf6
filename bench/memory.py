"""What a guest costs the host in memory, after it has run a program: cold and from a snapshot, alone and side by side.

*Private* pages are mapped by no other process; a guest without neighbours counts pages of the snapshot's file among
them, which are page cache. *Proportional* (PSS) adds its part of what it shares: of a snapshot's pages, which every
guest of it maps, and of QEMU itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bench.guests import guests, push_program, stage
from bench.report import Benchmark, Column, Options, Row, Spread
from harness.arch import Arch

_SIDE_BY_SIDE = {True: (1,), False: (1, 2, 4)}  # by cold


def _measure(options: Options) -> Iterator[Row]:
    for arch in options.arches:
        for cold, counts in _SIDE_BY_SIDE.items():
            for count in counts:
                yield _row(arch, cold, count, options)


def _row(arch: Arch, cold: bool, count: int, options: Options) -> Row:
    prepared = stage(arch, options, cold=cold)
    with guests(prepared, count) as started:
        for guest in started:
            guest.ready()
            guest.channel.run([push_program(prepared, guest)], seconds=prepared.program_seconds)
        pages = [_pages(guest.process.pid) for guest in started]
    return {
        "arch": arch.name,
        "release": prepared.kernel.release,
        "memory_mib": prepared.shape.memory_mib,
        "how": "cold boot" if cold else "snapshot",
        "guests": count,
        "private": Spread.of(page["Private_Clean"] + page["Private_Dirty"] for page in pages),
        "proportional": Spread.of(page["Pss"] for page in pages),
    }


def _pages(pid: int) -> dict[str, float]:
    """MiB by kind of page, from ``/proc/PID/smaps_rollup`` (Documentation/filesystems/proc.rst)."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]
    return {name: int(value.split()[0]) / 1024 for name, value in (line.split(":") for line in lines)}


BENCHMARK = Benchmark(
    title="memory of a guest",
    columns=(
        Column.word("arch", "arch"),
        Column("from", lambda row: str(row["how"])),
        Column.word("side by side", "guests"),
        Column("private, MiB a guest", lambda row: f"{row['private'].median:.0f}"),
        Column("proportional, MiB a guest", lambda row: f"{row['proportional'].median:.0f}"),
    ),
    measure=_measure,
)
