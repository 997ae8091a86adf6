"""The real command on a terminal: what it shows of real guests, and how it leaves the terminal."""

from __future__ import annotations

from pathlib import Path

import pexpect
import pytest
from terminal import Screen, spawn
from trouble import program

pytestmark = pytest.mark.guest


def run(folder: Path, *words: str | Path) -> pexpect.spawn[str]:
    """``cowpen run`` on a terminal of its own."""
    command = ["-m", "harness.cli.main", "run", *map(str, words)]
    return spawn(*command, size=(24, 200), seconds=120, XDG_STATE_HOME=str(folder / "state"))


def test_guests_under_way_are_seen(tmp_path: Path) -> None:
    child = run(tmp_path, "--program", program("spin"), "--attempts", "4", "--jobs", "2")
    child.expect(r"attempt 1 +starting")
    child.expect(r"attempt 1 +running +[\d.]+ s\r\n +attempt 2 +(starting|running)")
    child.expect(r"3/4  0:\d\d left  rate 0 %  3 clean")
    child.expect("spin on debian:6.12 .*: CLEAN")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


def test_interrupt(tmp_path: Path) -> None:
    child = run(tmp_path, "--program", program("hang"), "--jobs", "2")
    child.expect(r"attempt 2 +running")
    sent = f"{child.before}{child.after}"
    child.sendintr()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 130
    sent += str(child.before)
    assert "\x1b[?" not in sent, "the cursor, or the screen, was changed and perhaps not put back"
    lines = [line for line in Screen(200).feed(sent).lines if "making" not in line]
    assert lines[-1].removeprefix("^C") == "cowpen: interrupted"
    assert not any("running" in line or "/10" in line for line in lines), lines
