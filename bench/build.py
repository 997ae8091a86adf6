"""How long a kernel takes to build: all of it, with nothing cached, and then with one file under mm/ changed."""

from __future__ import annotations

import os
import resource
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.report import Benchmark, Column, Options, Row, Spread
from harness.arch import Arch
from harness.cache import Cache
from harness.kernel.build import Built, build
from harness.kernel.definition import define

_KERNEL = "debug-vm-6.12"
# Each changes mm/memory.c, and one gives way to the next: a bisect's steps.
_CHANGED = ("fork-batch-hole-6.12", "fork-batch-exclusive-6.12")
_GOALS = {"x86_64": 360.0, "aarch64": 420.0}
_CHANGED_GOAL = 60.0


def _measure(options: Options) -> Iterator[Row]:
    for arch in options.arches:
        yield _row(arch, options)


def _row(arch: Arch, options: Options) -> Row:
    known = os.environ.get("CCACHE_DIR")
    with tempfile.TemporaryDirectory(prefix="cowpen-bench-build-") as folder:
        os.environ["CCACHE_DIR"] = str(Path(folder) / "ccache")
        try:
            cache = Cache(Path(folder) / "cache")
            before = _cpu_seconds()
            whole = _built(_KERNEL, arch, options, cache).provenance["seconds"]
            cpu = _cpu_seconds() - before
            changed = [_built(name, arch, options, cache).provenance["seconds"] for name in _CHANGED]
        finally:
            if known is None:
                del os.environ["CCACHE_DIR"]
            else:
                os.environ["CCACHE_DIR"] = known
    return {
        "arch": arch.name,
        "kernel": _KERNEL,
        "whole": whole,
        "cpu": cpu,
        "changed": Spread.of(changed),
        "goal": _GOALS[arch.name],
    }


def _built(name: str, arch: Arch, options: Options, cache: Cache) -> Built:
    """Built in ``cache``, from the source in the user's own."""
    return build(define(name).recipe(arch, options.cache, options.tell), arch, cache, options.tell)


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _missed(row: Row) -> bool:
    return bool(row["whole"] > row["goal"] or row["changed"].high > _CHANGED_GOAL)


BENCHMARK = Benchmark(
    title="a kernel from source",
    columns=(
        Column.word("arch", "arch"),
        Column.word("kernel", "kernel"),
        Column("all of it", lambda row: f"{row['whole']:.0f} s"),
        Column("goal", lambda row: f"{row['goal']:.0f} s"),
        Column("CPU time", lambda row: f"{row['cpu']:.0f} s"),
        Column("one file changed", lambda row: f"{row['changed'].text(0)} s"),
    ),
    measure=_measure,
    goal=f"all of it in its goal, and with one file changed in {_CHANGED_GOAL:.0f} s",
    missed=_missed,
)
