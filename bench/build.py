"""How long a kernel takes to build: all of it, with nothing cached, and then with one file changed."""

from __future__ import annotations

import os
import resource
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

from bench.report import Benchmark, Column, Options, Row
from harness.arch import Arch
from harness.cache import Cache
from harness.kernel.build import build
from harness.kernel.definition import define

_KERNEL = "debug-vm-6.12"
# Mutants, as the steps of a bisect: one gives way to the next. Each changes one file.
_SOURCE, _SOURCE_CHANGED = "mm/memory.c", "fork-batch-hole-6.12"
_HEADER, _HEADER_CHANGED = "include/linux/rmap.h", "fork-batch-exclusive-6.12"
_GOALS = {"x86_64": 360.0, "aarch64": 420.0}
_SOURCE_GOAL = 60.0


def _measure(options: Options) -> Iterator[Row]:
    for arch in options.arches:
        yield _row(arch, options)


def _row(arch: Arch, options: Options) -> Row:
    with (
        tempfile.TemporaryDirectory(prefix="cowpen-bench-build-") as folder,
        patch.dict(os.environ, CCACHE_DIR=f"{folder}/ccache"),
    ):
        cache = Cache(Path(folder) / "cache")
        before = _cpu_seconds()
        whole = _seconds(_KERNEL, arch, options, cache)
        cpu = _cpu_seconds() - before
        source = _seconds(_SOURCE_CHANGED, arch, options, cache)
        header = _seconds(_HEADER_CHANGED, arch, options, cache)
    return {
        "arch": arch.name,
        "kernel": _KERNEL,
        "whole": whole,
        "cpu": cpu,
        "source": source,
        "header": header,
        "goal": _GOALS[arch.name],
    }


def _seconds(name: str, arch: Arch, options: Options, cache: Cache) -> float:
    """To build it in ``cache``, from the source in the user's own."""
    recipe = define(name).recipe(arch, options.cache, options.tell)
    return float(build(recipe, arch, cache, options.tell).provenance["seconds"])


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _missed(row: Row) -> bool:
    return bool(row["whole"] > row["goal"] or row["source"] > _SOURCE_GOAL)


BENCHMARK = Benchmark(
    title="a kernel from source",
    columns=(
        Column.word("arch", "arch"),
        Column.word("kernel", "kernel"),
        Column("all of it", lambda row: f"{row['whole']:.0f} s"),
        Column("goal", lambda row: f"{row['goal']:.0f} s"),
        Column("CPU time", lambda row: f"{row['cpu']:.0f} s"),
        Column(f"{_SOURCE} changed", lambda row: f"{row['source']:.0f} s"),
        Column(f"{_HEADER} changed", lambda row: f"{row['header']:.0f} s"),
    ),
    measure=_measure,
    goal=f"all of it in its goal, and with a source file changed in {_SOURCE_GOAL:.0f} s",
    missed=_missed,
)
