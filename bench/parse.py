"""How fast console logs are read: linear over 1, 10 and 100 MB, in bounded memory.

Three kinds of log, each a real text repeated up to the size: a boot without any report, the same with a report at its
end, and lines that a hostile guest might print, which begin like headers of reports and are none.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.report import Benchmark, Column, Options, Row, Spread

_SIZES_MB = (1, 10, 100)
_ROUNDS = 3
_SECONDS = 600.0
_LEAST_MB_PER_SECOND = 20.0
_MOST_RSS_MB = 300.0
# The largest size may be slower by byte than the smallest by no more than this: noise of a shared machine.
_LINEAR = 0.7
_LOG = Path(__file__).parent.parent / "tests" / "unit" / "data" / "wpseq-writer-6.1-x86_64.log"
_HOSTILE = (
    b"[    1.234567] BUG: KASAN: use-after-free in\n"
    b"[    1.234567] WARNING: CPU: 1 PID: 1 at \n"
    b"[    1.234567] Unable to handle kernel\n"
    b"[    1.234567] INFO: task a blocked for\n"
    b"[    1.234567] Oops Internal error: \n"
)
# One scan in a process of its own, for its peak of memory; what it prints last is JSON.
_CHILD = """
import json, resource, sys, time
from pathlib import Path
from harness.console.detect import scan_file
begin = time.perf_counter()
found = len(scan_file(Path(sys.argv[1])))
seconds = time.perf_counter() - begin
kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"seconds": seconds, "rss_mb": kib * 1024 / 1e6, "found": found}))
"""


def _measure(options: Options) -> Iterator[Row]:
    log = _LOG.read_bytes()
    boot = log[: log.index(b"------------[ cut here")]
    texts = {"a boot": boot, "a boot and a report": log, "hostile lines": _HOSTILE}
    with tempfile.TemporaryDirectory(prefix="cowpen-bench-") as folder:
        for name, text in texts.items():
            yield from _rows(name, text, Path(folder), options)


def _rows(name: str, text: bytes, folder: Path, options: Options) -> Iterator[Row]:
    files = {}
    for megabytes in _SIZES_MB:
        files[megabytes] = folder / f"{megabytes}.log"
        with files[megabytes].open("wb") as file:
            for _ in range(megabytes * 1_000_000 // len(text) + 1):
                file.write(text)
    # The sizes in turn: what changes on the machine meanwhile is shared among them.
    scans = [{size: _scan(path) for size, path in files.items()} for _ in range(options.rounds(_ROUNDS))]
    for size in _SIZES_MB:
        speeds = [size / scan[size]["seconds"] for scan in scans]
        smallest = [_SIZES_MB[0] / scan[_SIZES_MB[0]]["seconds"] for scan in scans]
        yield {
            "log": name,
            "megabytes": size,
            "speed": Spread.of(speeds),
            "linear": Spread.of(speed / small for speed, small in zip(speeds, smallest, strict=True)),
            "rss_mb": max(scan[size]["rss_mb"] for scan in scans),
            "found": scans[0][size]["found"],
        }


def _scan(path: Path) -> dict[str, float]:
    words = [sys.executable, "-c", _CHILD, str(path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=_SECONDS, check=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def _missed(row: Row) -> bool:
    # The goal is for logs; what a hostile guest may cost is shown, and must be linear as well.
    slow = row["log"] != "hostile lines" and row["speed"].median < _LEAST_MB_PER_SECOND
    return bool(slow or row["linear"].median < _LINEAR or row["rss_mb"] > _MOST_RSS_MB)


BENCHMARK = Benchmark(
    title="reading console logs",
    goal=f"at least {_LEAST_MB_PER_SECOND:.0f} MB/s, linear, less than {_MOST_RSS_MB:.0f} MB resident",
    columns=(
        Column.word("log", "log"),
        Column("size", lambda row: f"{row['megabytes']} MB"),
        Column.spread("MB/s", "speed", 0),
        Column.spread("against 1 MB", "linear"),
        Column("resident", lambda row: f"{row['rss_mb']:.0f} MB"),
        Column.word("findings", "found"),
    ),
    measure=_measure,
    missed=_missed,
)
