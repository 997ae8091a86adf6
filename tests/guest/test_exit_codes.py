"""The exit codes of ``cowpen run``, each shown by the real command; 0 and 1 with a real bug also in
test_bugs_verdicts.py."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from trouble import Command, Ended, cowpen, program

from harness.arch import get_arch
from harness.cache import Cache
from harness.kernel.kernel import resolve

pytestmark = pytest.mark.guest

# What is typed, and what the one line about it must say: the thing, the place and the mend.
USAGE = {
    "no bug": (["run"], ["nothing to run", "cowpen bugs", "--program"]),
    "unknown bug": (["run", "rhbz-47161"], ["'rhbz-47161'", "did you mean rhbz-471613?"]),
    "unknown program": (["run", "rhbz-471613/forkscrw"], ["'forkscrw'", "did you mean forkscrew"]),
    "out of range": (
        ["run", "rhbz-471613/forkscrew", "--set", "alignment=99999999"],
        ["forkscrew", "alignment", "0…65536", "99999999"],
    ),
    "not a multiple": (["run", "rhbz-471613", "--set", "alignment=7"], ["multiple of 512", "'7'"]),
    "unknown parameter": (["run", "rhbz-471613", "--set", "alinment=0"], ["'alinment'", "alignment"]),
    "no value": (["run", "rhbz-471613", "--set", "alignment"], ["'alignment'", "--set alignment=0"]),
    "unknown arch": (["run", "rhbz-471613", "--arch", "arm65"], ["'arm65'", "arm64", "aarch64"]),
    "unknown kernel": (["run", "rhbz-471613", "--kernel", "nonsense"], ["'nonsense'", "debian:6.12"]),
    "not a series": (["run", "rhbz-471613", "--kernel", "debian:six"], ["'six'", "debian:6.1"]),
    "no file": (["run", "--program", "/nonexistent.c"], ["/nonexistent.c", "no such file", "--program"]),
    "bug and file": (["run", "rhbz-471613", "--program", "x.c"], ["--program", "exclude"]),
    "no attempts": (["run", "rhbz-471613", "--attempts", "0"], ["--attempts", "range"]),
    "no seconds": (["run", "rhbz-471613", "--seconds", "0"], ["--seconds", "range"]),
    "unknown option": (["run", "--frob"], ["--frob"]),
    "unknown command": (["frob"], ["frob"]),
}


@pytest.mark.parametrize("case", USAGE)
def test_2_wrong_usage(case: str, tmp_path: Path) -> None:
    words, said = USAGE[case]
    ended = cowpen(*words, folder=tmp_path, seconds=30)
    assert ended.code == 2, ended.err
    assert ended.out == ""
    assert "Traceback" not in ended.err
    for part in said:
        assert part in ended.err
    assert not list(tmp_path.glob("state/cowpen/runs/*/*")), "wrong usage leaves no results"


def test_0_clean(tmp_path: Path) -> None:
    ended = cowpen("run", "--program", program("ok"), "--attempts", "1", folder=tmp_path)
    assert ended.code == 0, ended.err
    assert "CLEAN" in ended.out


def test_125_over_0_and_1_over_125(tmp_path: Path) -> None:
    """One kernel is clean or has the bug, another does not exist: over several trials 1 wins, then 125."""

    def run(kernel: str) -> Ended:
        return cowpen(
            *(
                "run",
                "rhbz-471613/forkscrew",
                "--arch",
                "x86_64",
                "--kernel",
                kernel,
                "--kernel",
                "debian:6.99",
            ),
            *("--attempts", "3", "--stop-on-first", "--json"),
            folder=tmp_path,
        )

    ended = run("debian:6.12")
    assert ended.code == 125, ended.err
    assert [verdict["verdict"] for verdict in ended.records("verdict")] == ["clean", "cannot-tell"]
    # A program that shows the bug 95 times of 100 misses it three times in a row once in 8000.
    ended = run("debian:6.1")
    assert ended.code == 1, ended.err
    assert [verdict["verdict"] for verdict in ended.records("verdict")] == ["reproduced", "cannot-tell"]


def test_125_unsupported(tmp_path: Path, user_cache: Cache) -> None:
    """A kernel whose config lacks what the bug needs is not booted at all."""
    kernel = resolve("debian:6.12", get_arch("x86_64"), user_cache)
    (tmp_path / "config").write_text("CONFIG_BLOCK=y\n# CONFIG_AIO is not set\n")
    spec = f"path:{kernel.image},config={tmp_path}/config,modules={kernel.modules}"
    words = ("run", "rhbz-471613/forkscrew", "--kernel", spec, "--arch", "x86_64", "--json")
    ended = cowpen(*words, folder=tmp_path)
    assert ended.code == 125, ended.err
    assert ended.outcomes == ["unsupported"], ended.verdict["reason"]
    assert ended.verdict["verdict"] == "unsupported"
    assert ended.verdict["reason"].endswith("is built without CONFIG_AIO")
    assert not list(tmp_path.rglob("console.log")), "it was not booted"


@pytest.mark.parametrize(("number", "jobs"), [(signal.SIGINT, "1"), (signal.SIGTERM, "2")])
def test_130_interrupted(number: signal.Signals, jobs: str, tmp_path: Path) -> None:
    """In mid-attempt: the guest is down, and nothing is left."""
    keep = tmp_path / "keep"
    words = ("run", "--program", program("hang"), "--keep", keep, "--jobs", jobs)
    with Command(*words, folder=tmp_path) as command:

        def under_way() -> bool:
            consoles = keep.glob("*/attempt-0001/console.log")
            return any(b"hang: under way" in console.read_bytes() for console in consoles)

        command.wait_for("attempt", under_way)
        assert command.pids("qemu-system"), command.living()
        assert command.pids("nbdkit"), command.living()
        command.process.send_signal(number)
        ended = command.end(seconds=5)
    assert ended.code == 130, ended.err
    assert ended.err.endswith("cowpen: interrupted\n")
    assert "Traceback" not in ended.err
