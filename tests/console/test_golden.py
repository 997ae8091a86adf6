"""Console logs of real kernels, and what must be found in each.

A log and its expectation are NAME.log and NAME.json; ``python -m tests.console.expect`` shows what the parser says.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.arch import ARCHES
from harness.console.detect import Findings, scan, scan_file
from tests.console.expect import arch_of, expected, logs, seen

LOGS = logs()


def of(log: Path) -> str:
    return log.stem


@pytest.mark.parametrize("log", LOGS, ids=of)
def test_golden(log: Path) -> None:
    wanted = expected(log)
    assert wanted is not None, f"python -m tests.console.expect {log.stem}: review it, then --write"
    assert seen(log) == wanted


@pytest.mark.parametrize("log", LOGS, ids=of)
def test_what_a_report_tells_is_the_kernels(log: Path) -> None:
    """What can be told from a log's name, or holds for every report that is whole."""
    for finding in scan_file(log):
        assert finding.arch in (None, arch_of(log))
        assert finding.arch in (None, *ARCHES)
        if finding.kind == "oops" and not finding.corrupted:
            assert finding.registers
            assert finding.task
            assert finding.cpu is not None
            assert finding.taint
            # arm64 does not print the code of a stack overflow, nor what is no code of the kernel's.
            assert finding.code or "stack guard page" in finding.title or not finding.frame
        assert not any(frame.function.startswith("dump_stack") for frame in finding.frames if frame.counter)


def same(findings: Findings) -> list[tuple[object, ...]]:
    return [
        (finding.kind, finding.title, finding.frame, finding.frames, finding.task, finding.corrupted)
        for finding in findings
    ]


@pytest.mark.slow
@pytest.mark.parametrize("log", LOGS, ids=of)
def test_carriage_returns_and_colours_change_nothing(log: Path) -> None:
    data = log.read_bytes()
    plain = same(scan(data.replace(b"\r\n", b"\n")))
    assert same(scan(data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))) == plain
    coloured = b"".join(
        b"\x1b[1;31m" + line + b"\x1b[0m\n" for line in data.replace(b"\r\n", b"\n").splitlines()
    )
    assert same(scan(coloured)) == plain


@pytest.mark.slow
@pytest.mark.parametrize("log", LOGS, ids=of)
def test_a_log_in_two_halves_is_survived(log: Path) -> None:
    """Wherever a log is cut, its first finding keeps its kind, or there is none yet."""
    data = log.read_bytes()
    whole = scan(data)
    for part in range(1, 8):
        cut = scan(data[: len(data) * part // 8])
        assert not cut or (whole and cut[0].start == whole[0].start)


@pytest.mark.slow
@pytest.mark.parametrize(
    "log", [log for log in LOGS if "[    " in log.read_bytes().decode(errors="replace")[:400]], ids=of
)
def test_a_program_that_prints_a_whole_log_is_not_believed(log: Path) -> None:
    """Without stamps, among a kernel's stamped lines, every line is a program's own."""
    from harness.console.line import clean

    words = "\n".join(clean(line).text for line in log.read_bytes().splitlines())
    begin = b"[    0.000000] Linux version 6.1\n[    0.000001][    T0] more\n"
    assert scan(begin + words.encode() + b"\n[    9.000000] end\n") == []
