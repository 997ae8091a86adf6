"""How fast files go into a guest and out of it, over the agent."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from bench.guests import PUSH_SECONDS, guests, stage
from bench.report import Benchmark, Column, Options, Row, Spread
from harness.arch import Arch
from harness.errors import ChannelError

_SIZES_MB = (8, 64)
_ROUNDS = 5
_PATH = "/tmp/transfer"


def _measure(options: Options) -> Iterator[Row]:
    for arch in options.arches:
        for megabytes in _SIZES_MB:
            yield _row(arch, megabytes, options)


def _row(arch: Arch, megabytes: int, options: Options) -> Row:
    prepared = stage(arch, options)
    content = os.urandom(megabytes * 1_000_000)
    seconds = PUSH_SECONDS * prepared.speed.scale
    pushes, pulls = [], []
    with guests(prepared, 1) as (guest,):
        guest.ready()
        for _ in range(options.rounds(_ROUNDS)):
            begin = time.monotonic()
            guest.channel.push(content, _PATH, seconds=seconds)
            pushed = time.monotonic()
            back = guest.channel.pull(_PATH, seconds=seconds, limit=len(content))
            pulls.append(megabytes / (time.monotonic() - pushed))
            pushes.append(megabytes / (pushed - begin))
            if back != content:
                raise ChannelError(f"{megabytes} MB came back from the {arch.name} guest changed")
    return {
        "arch": arch.name,
        "release": prepared.kernel.release,
        "megabytes": megabytes,
        "push": Spread.of(pushes),
        "pull": Spread.of(pulls),
    }


BENCHMARK = Benchmark(
    title="files into a guest and out of it",
    columns=(
        Column.word("arch", "arch"),
        Column("size", lambda row: f"{row['megabytes']} MB"),
        Column.spread("push, MB/s", "push", 0),
        Column.spread("pull, MB/s", "pull", 0),
    ),
    measure=_measure,
)
